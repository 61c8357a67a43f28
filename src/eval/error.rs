//! What can go wrong with an evaluation?

use super::task::Task;
use crate::engine::EngineError;

/// An evaluation could not be made or run.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A text that is shorter than what was asked for.
    #[error(
        "the haystack {name} has {n_tokens} tokens and {wanted} are asked for: give a longer text or \
         a shorter length, or say --repeat to read it over and over"
    )]
    ShortHaystack {
        /// Its name.
        name: String,
        /// What it has.
        n_tokens: usize,
        /// What is needed.
        wanted: usize,
    },
    /// A task without what it is made from.
    #[error("the task {task} needs {needs}")]
    Missing {
        /// The task.
        task: Task,
        /// What to give, and how.
        needs: &'static str,
    },
    /// A length that leaves no room for a document.
    #[error("a length of {length} tokens leaves no room for the task {task}: at least {least}")]
    ShortLength {
        /// The task.
        task: Task,
        /// What was asked for.
        length: usize,
        /// What it takes.
        least: usize,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A record could not be kept.
    #[error("a result cannot be written: {0}")]
    Sink(#[from] std::io::Error),
}
