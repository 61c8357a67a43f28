//! What can be asked of records? One trait for all places where they may be.

use crate::error::StoreError;
use crate::record::{Record, RecordId};

/// Sealed records of one length, numbered in the order in which they were appended.
pub trait UnitStore: Send + Sync {
    /// Keeps a copy of `record` for as long as the store lives.
    ///
    /// # Errors
    /// When `record` is not exactly as long as the store's records, or there is no room for it;
    /// the store is then as it was.
    fn append(&mut self, record: &[u8]) -> Result<RecordId, StoreError>;

    /// The record that [`append`](Self::append) named `id`, for its section `section`: constant
    /// time, nothing copied. Only the bytes of that section are known to be what was appended;
    /// others may not be relied on.
    ///
    /// # Errors
    /// When no such record was appended here, or the section is not what was appended.
    fn read(&self, id: RecordId, section: usize) -> Result<Record<'_>, StoreError>;

    /// Says that these records are about to be read for their section `section`, so that those on a
    /// disk are fetched together. A hint: nothing is wrong with records that are not there.
    fn expect(&self, _ids: &mut dyn Iterator<Item = RecordId>, _section: usize) {}

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
