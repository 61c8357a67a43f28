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
