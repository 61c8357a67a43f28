//! Do the parts hold together? One binary of integration tests, one module a subject.

mod allocation;
mod bad_folders;
mod bad_gguf;
mod fixtures;
mod fuzz_files;
mod open_models;
