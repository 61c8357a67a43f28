//! What can go wrong on a device?

/// A device did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// No memory for pages, weights or buffers.
    #[error(
        "there is no memory for {n_bytes} more bytes; close sessions or make the window smaller"
    )]
    NoMemory {
        /// Bytes wanted.
        n_bytes: usize,
    },
    /// A GPU has no room for what a pass needs; a smaller one may have.
    #[error(
        "the GPU has no room for {n_bytes} more bytes ({free_bytes} of {total_bytes} are free): lower \
         gpu-unit-bytes, gpu-index-bytes, window-bytes, step-sequences or chunk-tokens, raise \
         gpu-bytes, or end what else uses the GPU"
    )]
    NoRoom {
        /// Bytes wanted.
        n_bytes: usize,
        /// Bytes that are free.
        free_bytes: usize,
        /// All that there are, or that are to be used.
        total_bytes: usize,
    },
    /// What is to be kept in a GPU's memory does not fit together.
    #[error("the GPU's memory does not do: {what}")]
    DoesNotFit {
        /// The sum, and what to lower or raise.
        what: String,
    },
    /// Sizes or settings that the device has no kernels for.
    #[error("{device} cannot do this: {what}")]
    Unsupported {
        /// Which device.
        device: &'static str,
        /// What it cannot do, and what would help.
        what: String,
    },
    /// The device failed, or is not to be had.
    #[error("{what}")]
    Device {
        /// What happened, and what to do.
        what: String,
    },
}
