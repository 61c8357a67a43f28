//! Where do sealed memory units live? In records: runs of bytes of one length, appended once and
//! never changed, behind one trait. This crate knows no token, no layer and no model; what the
//! bytes mean is for the caller to say.
//!
//! | store | where its records are | outlives the process |
//! |---|---|---|
//! | [`InMemoryStore`] | slabs of host memory | no |
//!
//! Invariant: a record's bytes never change and never move while the store lives, and its first
//! byte is aligned to [`RECORD_ALIGN`], so that kernels may load from it with full-width vectors.

mod aligned;
mod in_memory;
mod record;

pub use aligned::AlignedBytes;
pub use in_memory::InMemoryStore;
pub use record::{RECORD_ALIGN, Record, RecordId};

/// Sealed records of one length, numbered in the order in which they were appended.
pub trait UnitStore: Send + Sync {
    /// Keeps a copy of `record` for as long as the store lives.
    ///
    /// # Errors
    /// When `record` is not exactly as long as the store's records, or there is no room for it;
    /// the store is then as it was.
    fn append(&mut self, record: &[u8]) -> Result<RecordId, StoreError>;

    /// The record that [`append`](Self::append) named `id`: constant time, nothing copied.
    ///
    /// # Errors
    /// When no such record was appended here.
    fn read(&self, id: RecordId) -> Result<Record<'_>, StoreError>;

    /// A store with the same records, which from now on goes its own way. Records are shared, not
    /// copied, but for the few that are not in a full run of them yet.
    ///
    /// # Errors
    /// When there is no memory for what is copied.
    fn fork(&self) -> Result<Box<dyn UnitStore>, StoreError>;

    /// Records appended so far; the next one gets this number.
    fn len(&self) -> usize;

    /// Bytes of a record.
    fn record_bytes(&self) -> usize;

    /// Bytes of host memory that the records take up, unused room in the last slab included.
    fn resident_bytes(&self) -> usize;

    /// Whether nothing was appended yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a store refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A store of empty records was asked for.
    #[error("a store's records must have at least one byte")]
    EmptyRecords,
    /// The record to append is shorter or longer than the store's records.
    #[error("a record of {actual} bytes does not fit a store of records of {expected} bytes")]
    WrongLength {
        /// Bytes of every record of the store.
        expected: usize,
        /// Bytes of the record refused.
        actual: usize,
    },
    /// The store never gave out this number.
    #[error("record {} is unknown: the store has {n_records}", .id.0)]
    UnknownRecord {
        /// The number asked for.
        id: RecordId,
        /// Records of the store.
        n_records: usize,
    },
    /// All 2^32 numbers are given out.
    #[error("the store is full: it has {n_records} records")]
    Full {
        /// Records of the store.
        n_records: usize,
    },
    /// The system has no more memory to give.
    #[error("no memory for {wanted_bytes} more bytes of records")]
    OutOfMemory {
        /// Bytes asked for.
        wanted_bytes: usize,
    },
}
