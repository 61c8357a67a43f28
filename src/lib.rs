//! mneme gives a language model a memory far longer than its context window, without training.
//!
//! A text goes in piece by piece, for as long as it lasts. The first tokens and the most recent
//! ones are always attended; all that is older lies in units, and every layer looks up the few
//! that matter to the query at hand. So neither the time a token takes nor what it attends to
//! grows with the text, and a model can answer from a text longer than it was trained to read.
//!
//! ```no_run
//! use mneme::engine::{EngineOptions, GenerateOptions, no_progress};
//! use mneme::memory::MemoryConfig;
//! use mneme::{Engine, Session, hub};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A GGUF file, a Hugging Face folder, or a name: fetched when it is missing.
//! let model = hub::resolve(hub::DEFAULT_MODEL, &mut hub::no_progress)?;
//! let engine = Engine::load(&model, &EngineOptions::default())?;
//!
//! // One text that grows without end. Several sessions share an engine.
//! let mut session: Session = engine.session(&MemoryConfig::default())?;
//! for chapter in ["It was a dark night. ", "The pass key was 71946. "] {
//!     session.read(chapter, &mut no_progress)?;
//! }
//!
//! // An answer, token by token; dropping the iterator stops it.
//! session.prompt("So the pass key was")?;
//! for piece in session.generate(GenerateOptions { max_tokens: 20, ..Default::default() }) {
//!     print!("{}", piece?.text);
//! }
//!
//! // What the answer was read from, as bytes of the text read.
//! for passage in session.take_evidence(3)? {
//!     println!("{:?} {:.0} %", passage.span, passage.weight * 100.0);
//! }
//!
//! // And on it goes.
//! session.read("The next morning, ", &mut no_progress)?;
//! # Ok(())
//! # }
//! ```
//!
//! A question of a document, in the model's chat template, is [`Session::ask`]; a conversation is
//! an [`engine::Conversation`].
//!
//! The floors, lowest first (see ARCHITECTURE.md; imports go down only):
//! [`ids`] and [`bytes`], [`tensor`], [`backend`], [`attention`], then [`model`], [`memory`], [`tokenizer`] and
//! [`hub`] side by side, then [`engine`], then [`api`], [`agent`] and [`eval`], then [`cli`].

pub mod agent;
pub mod api;
pub mod attention;
pub mod backend;
pub mod bytes;
pub mod cli;
pub mod engine;
pub mod eval;
pub mod hub;
pub mod ids;
pub mod memory;
pub mod model;
pub mod tensor;
pub mod tokenizer;

pub use engine::{Engine, Session};
