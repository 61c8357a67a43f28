//! Where do sealed memory units live? In records: runs of bytes of one length, appended once and
//! never changed, behind one trait. This crate knows no token, no layer and no model; what the
//! bytes mean is for the caller to say.
//!
//! | store | where its records are | outlives the process |
//! |---|---|---|
//! | [`InMemoryStore`] | slabs of host memory | no |
//! | [`Store`] | mapped segment files | yes, power cuts included (docs/store-format.md) |
//!
//! Invariant: a record's bytes never change and never move while the store lives, and its first
//! byte is aligned to [`RECORD_ALIGN`], so that kernels may load from it with full-width vectors.

mod aligned;
mod error;
mod in_memory;
mod record;
mod unit_store;

// The durable store, from the floor up.
mod backend;
mod backlog;
mod budget;
mod catalogue;
mod codec;
mod compact;
mod context;
mod directory;
mod disk;
mod export;
#[doc(hidden)]
pub mod fuzz;
mod handle;
mod import;
mod ledger;
mod mapped;
mod measures;
mod publish;
mod recovery;
mod row;
mod segment;
mod shared;
mod sim;
mod storage;
mod store;
mod stream;
mod verify;
mod writer;

pub use aligned::AlignedBytes;
pub use compact::Compacted;
pub use context::{Commit, OpenContext};
pub use directory::DirStorage;
pub use disk::Events;
pub use error::StoreError;
pub use in_memory::InMemoryStore;
pub use mapped::Mapping;
pub use record::{RECORD_ALIGN, Record, RecordId};
pub use recovery::OpenReport;
pub use row::{ContextSummary, Fingerprint, Pinned, PrefixKey, StreamShape};
pub use shared::{Clock, StoreOptions};
pub use sim::{Fault, FaultMode, SimStorage, Survival};
pub use storage::{FileEntry, Storage, StorageFile};
pub use store::Store;
pub use unit_store::UnitStore;
pub use verify::{Checked, DamagedRecord, VerifyReport};
