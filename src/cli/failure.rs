//! How does a command end when it does not end well? With a message on stderr, which says what
//! happened and what to do, and an exit code.

use crate::engine::{ContextError, EngineError};
use crate::hub::HubError;
use crate::memory::{MemoryError, StoreError};

/// Exit code after Ctrl-C, as shells have it.
pub(super) const EXIT_INTERRUPTED: u8 = 130;

/// Why a command ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was asked for cannot be: a size that does not fit, a file of settings with an error.
    Usage(anyhow::Error),
    /// It was tried and did not work.
    Failed(anyhow::Error),
    /// Ctrl-C, with how far things had come.
    Interrupted(String),
    /// Nobody reads our output any more (`mneme ... | head`).
    OutputClosed,
}

impl Failure {
    /// A failure with a message of its own.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(anyhow::Error::msg(message.into()))
    }

    /// A misuse with a message of its own.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(anyhow::Error::msg(message.into()))
    }

    /// What to say on stderr, and the exit code to end with.
    pub fn verdict(self) -> (Option<String>, u8) {
        match self {
            Self::Usage(error) => (Some(format!("{error:#}")), 2),
            Self::Failed(error) => (Some(format!("{error:#}")), 1),
            Self::Interrupted(message) => (Some(message), EXIT_INTERRUPTED),
            Self::OutputClosed => (None, 0),
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Stopped { .. } => Self::Interrupted(error.to_string()),
            EngineError::Config(_)
            | EngineError::QuestionTooLong { .. }
            | EngineError::Memory(MemoryError::Config(_) | MemoryError::Differs { .. }) => {
                Self::Usage(error.into())
            }
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<ContextError> for Failure {
    fn from(error: ContextError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::UnknownModel { .. } | HubError::MalformedName { .. } => {
                Self::Usage(error.into())
            }
            _ => Self::Failed(error.into()),
        }
    }
}
