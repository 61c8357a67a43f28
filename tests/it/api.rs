//! Does the service keep what docs/api.md says? A tiny model behind a real socket, and clients that
//! behave and that do not.

mod client;
mod completions;
mod contexts;
mod faults;
mod server;

pub use client::World;
