//! What can go wrong with a memory?

use memory_store::StoreError;

use super::validate::ConfigError;
use crate::backend::BackendError;
use crate::bytes::Malformed;

/// A memory could not be made, forked, suspended or taken up again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Its sizes cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no memory for what is copied, or a unit cannot be kept or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The device cannot do it, or has failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A setting that has shaped what is remembered.
    #[error(
        "a fork cannot have another {name} than what it is forked from: the text was read with it; \
         read the text again with the new setting"
    )]
    Differs {
        /// The setting, as it is written in flags and files.
        name: &'static str,
    },
    /// What was kept of a suspended memory is not what was written.
    #[error("what was kept of the memory cannot be read: {0}; read the text again")]
    State(#[from] Malformed),
    /// A memory that cannot go back.
    #[error("the memory cannot go back to token {n_tokens}: {why}")]
    Rewind {
        /// Where to.
        n_tokens: usize,
        /// Why not, and what would help.
        why: &'static str,
    },
}
