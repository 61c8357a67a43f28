//! Do the parts hold together? One binary of integration tests, one module a subject.

mod agent;
mod allocation;
mod api;
mod bad_folders;
mod bad_gguf;
mod cli;
mod contexts;
mod cuda;
mod eval;
mod excerpts;
mod fixtures;
mod floor_plan;
mod forward;
mod fuzz_files;
mod golden;
mod hub;
mod memory;
mod open_models;
mod plot;
mod session;
mod tokenizer;
mod voyage;
