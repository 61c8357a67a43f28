//! Does the engine keep its promises? One binary, one module a subject.

mod fixtures;
mod hub;
mod tokenizer;
