//! What becomes of a token's keys and values? Sinks and window stay and are always attended; what
//! leaves the window is sealed into units, indexed by its segments' mean keys and kept in a store,
//! and each layer retrieves the units that matter to its queries (InfLLM's idea, arXiv 2402.04617,
//! with the lookup of DESIGN.md section 2).
//!
//! ```text
//! text     0        S                                    window_start              n
//!          | sinks  | unit 0 | unit 1 | ... | unit u-1 | window (pages of U keys)  | chunk
//! position 0        S        (K retrieved units, in order)  then the window ...
//! ```
//!
//! Invariant: every past token is in exactly one of sinks, units and window, and is attended at
//! most once. While nothing was sealed the result equals full attention.
//!
//! Not here: what a model is, and what tokens mean.

mod angles;
mod audit;
mod best;
mod blocks;
mod choice;
mod coarse;
mod config;
mod cuts;
mod error;
mod evidence;
mod exact;
mod excerpt;
mod excerpted;
mod fork;
mod graph;
mod layers;
mod lists;
mod lookup;
mod mass;
mod pages;
mod pins;
mod place;
mod recut;
mod room;
mod seal;
mod size;
mod span;
mod stores;
mod suspend;
mod trace;
mod unit_index;
mod validate;
mod written;

pub use memory_store::{InMemoryStore, RecordId, StoreError, StreamShape, UnitStore};

/// The durable store, in which contexts outlive the process.
pub use memory_store as store;

pub use audit::{Audit, Recall, Trial};
pub use config::{
    AttentionMode, LookupPolicy, MemoryConfig, Phase, PinSides, Positions, Sets, UnitCuts,
};
pub use error::MemoryError;
pub use evidence::UnitMass;
pub use layers::Memory;
pub use pins::{beyond_neutral, pins, wanted};
pub use stores::Stores;
pub use suspend::Suspended;
pub use validate::ConfigError;
