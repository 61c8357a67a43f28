//! mneme gives a language model a memory far longer than its context window, without training.
//!
//! The floors, lowest first (see ARCHITECTURE.md; imports go down only):
//! `ids`, `tensor`, `backend`, `attention`, then `model`, `memory`, `tokenizer` and `hub`
//! side by side, then `engine`, then `cli`.

pub mod attention;
pub mod backend;
pub mod cli;
pub mod engine;
pub mod hub;
pub mod ids;
pub mod memory;
pub mod model;
pub mod tensor;
pub mod tokenizer;

pub use engine::{Engine, Session};
