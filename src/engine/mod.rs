//! How do model, tokenizer and memory become something one can talk to? An [`Engine`] is a loaded
//! model; a [`Session`] is one text growing without end, with a memory of bounded cost.
//!
//! ```no_run
//! use mneme::engine::{Engine, EngineOptions, GenerateOptions, no_progress};
//! use mneme::memory::MemoryConfig;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::load("model.gguf".as_ref(), &EngineOptions::default())?;
//! let mut session = engine.session(&MemoryConfig::default())?;
//! for part in ["The first chapter. ", "The second chapter. "] {
//!     session.read(part, &mut no_progress)?; // piece by piece, for as long as you like
//! }
//! session.prompt("In short:")?;
//! for piece in session.generate(GenerateOptions { max_tokens: 40, ..Default::default() }) {
//!     print!("{}", piece?.text);
//! }
//! session.read("And so on.", &mut no_progress)?; // the session goes on
//! # Ok(())
//! # }
//! ```

mod answer;
mod ask;
mod audit;
mod batch;
mod borders;
mod buffers;
mod context;
mod context_error;
mod contexts;
mod conversation;
mod error;
mod feed;
mod first_pass;
mod form;
mod forms;
mod generate;
mod identity;
mod loaded;
mod log;
mod notes;
mod passages;
mod prompt;
mod random;
mod read_again;
mod sampler;
mod score;
pub mod serve;
mod session;
mod sources;
mod stops;
mod suspend;
mod words;

pub use crate::backend::any::EngineOptions;
pub use answer::{AtEnd, FinishReason, GenerateOptions, Piece, TokenLogprob};
pub use ask::{AskPrompt, Asked, DocumentPrompt, Passage};
pub use audit::Audited;
pub use context::{Context, SAVE_EVERY_TOKENS};
pub use context_error::ContextError;
pub use contexts::Contexts;
pub use conversation::{Conversation, check_turns};
pub use error::EngineError;
pub use form::AnswerForm;
pub use generate::Generation;
pub use loaded::Engine;
pub use notes::ContextNotes;
pub use prompt::{ChatPrompt, said};
pub use random::random_model;
pub use sampler::Sampling;
pub use score::{ForcedToken, Score};
pub use session::{Progress, ProgressFn, Session, no_progress};
pub use suspend::{N_STORES, SessionStores, SuspendedSession};
