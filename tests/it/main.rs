//! Does the engine keep its promises? One binary, one module a subject.

mod fixtures;
mod floor_plan;
mod hub;
mod tokenizer;
