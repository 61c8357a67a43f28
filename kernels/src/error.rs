//! What can go wrong between a launch and its device?

use std::io;

/// Why a device did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A buffer is shorter than what a kernel would touch of it.
    #[error("{what}: a kernel would touch {needed} elements, the buffer has {len}")]
    TooShort {
        /// Which buffer.
        what: &'static str,
        /// Elements that would be touched.
        needed: usize,
        /// Elements that there are.
        len: usize,
    },
    /// A copy would leave its buffer.
    #[error("a copy of {n_bytes} bytes at {at} does not fit into a device buffer of {len} bytes")]
    OutOfBounds {
        /// Where it begins.
        at: usize,
        /// How long it is.
        n_bytes: usize,
        /// How long the buffer is.
        len: usize,
    },
    /// More blocks than a device counts.
    #[error("a launch of {n_blocks} blocks is more than a device takes; take in less at once")]
    TooManyBlocks {
        /// Blocks.
        n_blocks: usize,
    },
    /// A size that no kernel is made for.
    #[error("{what} of {size} has no kernel: {supported}")]
    Unsupported {
        /// What has the size.
        what: &'static str,
        /// The size.
        size: usize,
        /// Which sizes there are.
        supported: &'static str,
    },
    /// A kernel does not compile.
    #[error("{program} does not compile for {target}:\n{log}")]
    Compile {
        /// Which program.
        program: String,
        /// For what.
        target: String,
        /// What the compiler said.
        log: String,
    },
    /// There is no GPU to use: why, and what to do.
    #[error("{0}")]
    NoDevice(String),
    /// The GPU has not so much memory, or not so much of it is to be used.
    #[error(
        "the GPU has no room for {n_bytes} bytes: {free_bytes} of {total_bytes} are free; take less \
         at once, or end what else uses the GPU"
    )]
    OutOfMemory {
        /// Bytes asked for.
        n_bytes: usize,
        /// Bytes that are free.
        free_bytes: usize,
        /// All that there are, or that are to be used.
        total_bytes: usize,
    },
    /// The driver reports a failure.
    #[error("the GPU's driver could not {what}: {error}")]
    Driver {
        /// What was to be done.
        what: String,
        /// What the driver says.
        error: String,
    },
    /// The compiler's library is not there, or not usable.
    #[error("{0}")]
    NoCompiler(String),
    /// The emulation ended; a kernel did what it must not.
    #[error("the host emulation of kernels stopped:\n{log}")]
    Emulation {
        /// What it said.
        log: String,
    },
    /// A file or process that the emulation needs.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl DeviceError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
