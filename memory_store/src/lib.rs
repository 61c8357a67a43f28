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

    /// The record that [`append`](Self::append) named `id`, for its section `section`: constant time,
    /// nothing copied. Only the bytes of that section are known to be what was appended; others may
    /// not be relied on.
    ///
    /// # Errors
    /// When no such record was appended here, or the section is not what was appended.
    fn read(&self, id: RecordId, section: usize) -> Result<Record<'_>, StoreError>;

    /// A store with the same records, which from now on goes its own way. Records are shared, not
    /// copied.
    ///
    /// # Errors
    /// When the store cannot be shared.
    fn fork(&self) -> Result<Box<dyn UnitStore>, StoreError>;

    /// Forgets all records but the first `n_records`; the next one appended gets that number.
    fn truncate(&mut self, n_records: usize);

    /// Lets go of the memory of the first `n_records`, which will not be read here again.
    fn release(&mut self, _n_records: usize) {}

    /// Lets go of the memory of records that are somewhere else meanwhile. Never waits.
    fn catch_up(&mut self) {}

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// What [`UnitStore::release`] let go of.
    #[error("record {} was released: it is read no more", .id.0)]
    Released {
        /// The number asked for.
        id: RecordId,
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
