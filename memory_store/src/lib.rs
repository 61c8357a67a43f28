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
mod in_memory;
mod record;

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
pub use in_memory::InMemoryStore;
pub use mapped::Mapping;
pub use record::{RECORD_ALIGN, Record, RecordId};
pub use recovery::OpenReport;
pub use row::{ContextSummary, Fingerprint, Pinned, PrefixKey, StreamShape};
pub use shared::{Clock, StoreOptions};
pub use sim::{Fault, FaultMode, SimStorage, Survival};
pub use storage::{FileEntry, Storage, StorageFile};
pub use store::Store;
pub use verify::{Checked, DamagedRecord, VerifyReport};

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
    /// The system refused an operation on a file of the store.
    #[error("{file}: could not {operation}: {text}; free space or mend the disk, then try again")]
    Io {
        /// What was tried: a verb.
        operation: &'static str,
        /// The file, below the store's directory.
        file: String,
        /// What the system calls it.
        kind: std::io::ErrorKind,
        /// What the system says of it.
        text: String,
    },
    /// A file is not what was written: nothing of it is served.
    #[error("{file} is damaged: {what}; `verify` lists what it takes along")]
    Damaged {
        /// The file, below the store's directory.
        file: String,
        /// Which check failed.
        what: String,
    },
    /// A section of a record is not what was appended: it is not served.
    #[error(
        "{file} is damaged: section {section} of record {record} of stream {stream} is not what \
         was appended; repair, restore or delete the contexts that hold it"
    )]
    DamagedRecord {
        /// The file, below the store's directory.
        file: String,
        /// The stream of the record.
        stream: usize,
        /// The record's number in its stream.
        record: u64,
        /// The section that was to be read.
        section: usize,
    },
    /// A newer version of this program wrote the file.
    #[error("{file} has format {found}; this program knows formats up to {supported}: update it")]
    NewerFormat {
        /// The file, below the store's directory.
        file: String,
        /// Its version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },
    /// Another process has the store open.
    #[error("the store {dir} is in use by {owner}: stop that process, or choose another store")]
    Locked {
        /// The store's directory.
        dir: String,
        /// Who holds it, as far as it said.
        owner: String,
    },
    /// Somebody else changed the context after it was opened here.
    #[error(
        "context {name:?} was changed meanwhile: generation {expected} was expected, {found:?} \
         found; open it again"
    )]
    Conflict {
        /// The context.
        name: String,
        /// The generation that the change was built on; 0 when there was to be none.
        expected: u64,
        /// The generation there is, if there is one.
        found: Option<u64>,
    },
    /// The store may not take up more of the disk.
    #[error(
        "{wanted_bytes} more bytes do not fit: {used_bytes} of {max_bytes} are used by contexts \
         that are pinned or open; delete some, or allow more"
    )]
    DiskBudget {
        /// Bytes to write.
        wanted_bytes: u64,
        /// Bytes that cannot be freed.
        used_bytes: u64,
        /// Bytes allowed.
        max_bytes: u64,
    },
    /// There is no context of this name.
    #[error("there is no context {name:?}; `list` shows those there are")]
    UnknownContext {
        /// The name asked for.
        name: String,
    },
    /// There is a context of this name already.
    #[error("there is a context {name:?} already: delete it, or choose another name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A tenant or a name is longer than the format allows.
    #[error("a name of {bytes} bytes is too long: at most {max}")]
    NameTooLong {
        /// Its bytes.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A commit counts more records than were appended, or other streams than there are.
    #[error("stream {stream} has {actual} records; a commit of {wanted} is not possible")]
    TooFewRecords {
        /// The stream.
        stream: usize,
        /// Records that the commit counts.
        wanted: u64,
        /// Records there are.
        actual: u64,
    },
    /// A segment that the context refers to was removed, because the context was deleted.
    #[error("segment {segment} is gone: the context was deleted meanwhile; make it anew")]
    Gone {
        /// The segment.
        segment: u64,
    },
    /// The thread that writes has ended.
    #[error("the store's writer has stopped; open the store again")]
    Stopped,
}
