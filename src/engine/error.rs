//! What can go wrong above the model?

use std::path::PathBuf;

use super::context_error::ContextError;
use crate::attention::AttentionError;
use crate::backend::BackendError;
use crate::memory::{ConfigError, MemoryError, StoreError};
use crate::model::ModelError;
use crate::tokenizer::{ChatError, TokenizerError};

/// An engine or a session could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's files.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The tokenizer's files.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The memory's sizes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What a memory could not become.
    #[error(transparent)]
    Memory(MemoryError),
    /// The device cannot do it, or has failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Units that cannot be read back.
    #[error(transparent)]
    Attention(#[from] AttentionError),
    /// Units that cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A context that is not what was asked for.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A model whose shape the kernels do not cover.
    #[error("this model has {what}")]
    Unsupported {
        /// What it has, and what would be supported.
        what: String,
    },
    /// The model's files cannot be read to tell which model it is.
    #[error("{}: cannot be read to tell which model it is: {what}", .path.display())]
    Identity {
        /// File or folder.
        path: PathBuf,
        /// What the system says.
        what: String,
    },
    /// The system gives no thread.
    #[error("no thread for the engine: {what}; end other processes, or raise their limit")]
    NoThread {
        /// What the system says.
        what: String,
    },
    /// A question that pushes itself out of the window.
    #[error(
        "the question is {question_tokens} tokens long and the window holds {window_tokens}: \
         shorten the question, put what it quotes into the document, or raise window-tokens"
    )]
    QuestionTooLong {
        /// Its length.
        question_tokens: usize,
        /// What there is.
        window_tokens: usize,
    },
    /// An answer cannot have the form that was asked for.
    #[error("the answer cannot be held to that form: {what}")]
    Form {
        /// What is not understood.
        what: String,
    },
    /// Something that should not happen did.
    #[error(
        "a step of the model failed where nothing should; the program's log says where. Ask again, and \
         report it if it fails again"
    )]
    Fault,
    /// Messages that are no turns.
    #[error(
        "what was said before must be a system message, or none, and then turns of a user's message and \
         an assistant's; what the user says now is sent to the conversation afterwards"
    )]
    NotTurns,
    /// Nothing to continue from.
    #[error("there is nothing to continue: read a text or ask a question first")]
    NothingRead,
    /// A text too short to say anything about.
    #[error("the text has {n_tokens} tokens; scoring needs at least 2")]
    TooShort {
        /// Its length.
        n_tokens: usize,
    },
    /// The caller's progress function said to stop.
    #[error("stopped after {done_tokens} of {total_tokens} tokens")]
    Stopped {
        /// Tokens taken in.
        done_tokens: usize,
        /// Tokens there were.
        total_tokens: usize,
    },
}

impl From<MemoryError> for EngineError {
    /// What went wrong below the memory is said as such.
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::Store(error) => Self::Store(error),
            MemoryError::Backend(error) => Self::Backend(error),
            error => Self::Memory(error),
        }
    }
}
