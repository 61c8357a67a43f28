//! Why can a store refuse? What happened, where, and what to do.

use crate::record::RecordId;

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
    /// What [`UnitStore::release`](crate::UnitStore::release) let go of.
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
