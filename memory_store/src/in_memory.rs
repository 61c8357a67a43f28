//! How are records kept in host memory? In slabs: one aligned allocation for several records,
//! filled from the front and never moved.
//!
//! ```text
//! slab 0  | record 0 | pad | record 1 | pad | ...      record = whole lines of 64 bytes
//! slab 1  | record n | pad | ...                       n = a power of two, so id -> slab is a shift
//! ```

use std::sync::Arc;

use crate::{AlignedBytes, RECORD_ALIGN, Record, RecordId, StoreError, UnitStore};

/// What a slab aims to hold, in bytes: some huge pages.
const SLAB_BYTES: usize = 16 << 20;

/// Records in host memory, gone when the store is dropped.
pub struct InMemoryStore {
    record_bytes: usize,
    /// Bytes from record to record of a slab.
    stride: usize,
    /// A slab holds `1 << slab_shift` records.
    slab_shift: u32,
    /// `[slab][record][stride]`; every slab but the last is full, and so the only one that is not
    /// shared with forks.
    slabs: Vec<Arc<AlignedBytes>>,
    n_records: usize,
}

impl InMemoryStore {
    /// An empty store of records of `record_bytes` bytes. Nothing is allocated before the first
    /// record comes.
    ///
    /// # Errors
    /// When `record_bytes` is zero.
    pub fn new(record_bytes: usize) -> Result<Self, StoreError> {
        if record_bytes == 0 {
            return Err(StoreError::EmptyRecords);
        }
        // A length that no machine has is refused when the first record comes.
        let stride = record_bytes.checked_next_multiple_of(RECORD_ALIGN).unwrap_or(usize::MAX);
        let slab_shift = (SLAB_BYTES / stride).max(1).ilog2();
        Ok(Self { record_bytes, stride, slab_shift, slabs: Vec::new(), n_records: 0 })
    }

    /// Opens a new last slab.
    fn add_slab(&mut self) -> Result<(), StoreError> {
        let wanted_bytes = self.stride.saturating_mul(1 << self.slab_shift);
        self.slabs.push(Arc::new(AlignedBytes::zeroed(wanted_bytes)?));
        Ok(())
    }
}

impl UnitStore for InMemoryStore {
    fn append(&mut self, record: &[u8]) -> Result<RecordId, StoreError> {
        if record.len() != self.record_bytes {
            let (expected, actual) = (self.record_bytes, record.len());
            return Err(StoreError::WrongLength { expected, actual });
        }
        let full = StoreError::Full { n_records: self.n_records };
        let id = RecordId(u32::try_from(self.n_records).map_err(|_| full)?);
        if self.n_records >> self.slab_shift == self.slabs.len() {
            self.add_slab()?;
        }
        let at = (self.n_records & ((1 << self.slab_shift) - 1)) * self.stride;
        let slab = self.slabs.last_mut().expect("because a slab was just made sure of");
        let slab = Arc::get_mut(slab).expect("because only full slabs are shared");
        slab[at..at + record.len()].copy_from_slice(record);
        self.n_records += 1;
        Ok(id)
    }

    #[inline]
    fn read(&self, id: RecordId) -> Result<Record<'_>, StoreError> {
        let idx = id.0 as usize;
        if idx >= self.n_records {
            return Err(StoreError::UnknownRecord { id, n_records: self.n_records });
        }
        let slab = &self.slabs[idx >> self.slab_shift];
        let at = (idx & ((1 << self.slab_shift) - 1)) * self.stride;
        Ok(Record::new(&slab[at..at + self.record_bytes]))
    }

    fn fork(&self) -> Result<Box<dyn UnitStore>, StoreError> {
        let n_full = self.n_records >> self.slab_shift;
        let mut slabs = self.slabs[..n_full].to_vec();
        let n_rest = self.n_records - (n_full << self.slab_shift);
        if n_rest > 0 {
            let mut slab = AlignedBytes::zeroed(self.stride << self.slab_shift)?;
            let used = n_rest * self.stride;
            slab[..used].copy_from_slice(&self.slabs[n_full][..used]);
            slabs.push(Arc::new(slab));
        }
        Ok(Box::new(Self { slabs, ..*self }))
    }

    #[inline]
    fn len(&self) -> usize {
        self.n_records
    }

    #[inline]
    fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    fn resident_bytes(&self) -> usize {
        // Room in the last slab that was never written is not backed by memory.
        self.n_records * self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record whose bytes tell its number.
    fn record(number: usize, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (number * 31 + i * 7) as u8).collect()
    }

    #[test]
    fn every_record_reads_back_as_it_was_appended_and_aligned() {
        for record_bytes in [1, 63, 64, 65, 100, 4096, 100_000, 5 << 20] {
            let mut store = InMemoryStore::new(record_bytes).unwrap();
            let n_records = if record_bytes < 1000 { 300 } else { 45 };
            for number in 0..n_records {
                let id = store.append(&record(number, record_bytes)).unwrap();
                assert_eq!(id, RecordId(number as u32));
            }
            assert_eq!(store.len(), n_records);
            for number in (0..n_records).rev() {
                let read = store.read(RecordId(number as u32)).unwrap();
                assert_eq!(&*read, record(number, record_bytes), "record {number}");
                assert_eq!(read.as_ptr() as usize % RECORD_ALIGN, 0, "record {number}");
            }
        }
    }

    #[test]
    fn records_never_move_when_more_are_appended() {
        let mut store = InMemoryStore::new(100_000).unwrap();
        store.append(&record(0, 100_000)).unwrap();
        let place = store.read(RecordId(0)).unwrap().as_ptr() as usize;
        for number in 1..200 {
            store.append(&record(number, 100_000)).unwrap();
        }
        assert_eq!(store.read(RecordId(0)).unwrap().as_ptr() as usize, place);
    }

    #[test]
    fn a_fork_has_the_records_and_goes_its_own_way() {
        for n_records in [0, 1, 100, 128, 200, 256] {
            let mut store = InMemoryStore::new(100_000).unwrap(); // 128 of them a slab
            for number in 0..n_records {
                store.append(&record(number, 100_000)).unwrap();
            }
            let mut fork = store.fork().unwrap();
            store.append(&record(7, 100_000)).unwrap();
            fork.append(&record(11, 100_000)).unwrap();
            fork.append(&record(13, 100_000)).unwrap();
            assert_eq!((store.len(), fork.len()), (n_records + 1, n_records + 2));
            for number in 0..n_records {
                let id = RecordId(number as u32);
                assert_eq!(&*store.read(id).unwrap(), record(number, 100_000));
                assert_eq!(&*fork.read(id).unwrap(), record(number, 100_000));
            }
            let last = RecordId(n_records as u32);
            assert_eq!(&*store.read(last).unwrap(), record(7, 100_000));
            assert_eq!(&*fork.read(last).unwrap(), record(11, 100_000));
        }
    }

    #[test]
    fn memory_taken_is_the_records_and_at_most_one_slab_more() {
        let mut store = InMemoryStore::new(100_000).unwrap();
        assert_eq!(store.resident_bytes(), 0);
        for number in 0..200 {
            store.append(&record(number, 100_000)).unwrap();
        }
        let padded = 200 * 100_032;
        assert!((padded..=padded + SLAB_BYTES).contains(&store.resident_bytes()));
    }

    #[test]
    fn a_record_of_the_wrong_length_is_refused_and_changes_nothing() {
        let mut store = InMemoryStore::new(8).unwrap();
        for actual in [0, 7, 9] {
            let refused = store.append(&record(0, actual));
            assert_eq!(refused, Err(StoreError::WrongLength { expected: 8, actual }));
        }
        assert!(store.is_empty());
        assert_eq!(store.append(&[1; 8]), Ok(RecordId(0)));
        assert!(!store.is_empty());
    }

    #[test]
    fn a_number_never_given_out_is_unknown() {
        let mut store = InMemoryStore::new(8).unwrap();
        store.append(&[1; 8]).unwrap();
        for id in [RecordId(1), RecordId(u32::MAX)] {
            let error = store.read(id).unwrap_err();
            assert_eq!(error, StoreError::UnknownRecord { id, n_records: 1 });
        }
    }

    #[test]
    fn a_store_of_empty_records_is_refused() {
        assert_eq!(InMemoryStore::new(0).err(), Some(StoreError::EmptyRecords));
    }

    #[test]
    fn a_record_too_large_for_the_machine_is_an_error_only_when_it_comes() {
        let store = InMemoryStore::new(usize::MAX).unwrap();
        assert_eq!(store.record_bytes(), usize::MAX);
    }
}
