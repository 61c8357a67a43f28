//! How are records kept in host memory? In slabs: one aligned allocation for several records,
//! filled from the front and never moved.
//!
//! ```text
//! slab 0  | record 0 | pad | record 1 | pad | ...      record = whole lines of 64 bytes
//! slab 1  | record n | pad | ...
//! ```
//!
//! Forks share slabs. One that is not full yet is filled by whoever is alone with it; who shares it
//! opens another.

use std::sync::Arc;

use crate::{AlignedBytes, RECORD_ALIGN, Record, RecordId, StoreError, UnitStore};

/// What a slab aims to hold, in bytes: some huge pages.
const SLAB_BYTES: usize = 16 << 20;

/// Records in host memory, gone when the store is dropped.
pub struct InMemoryStore {
    record_bytes: usize,
    /// Bytes from record to record of a slab.
    stride: usize,
    /// Records that a slab has room for.
    slab_records: u32,
    slabs: Vec<Arc<AlignedBytes>>, // [slab], each [record][stride]; empty where released
    places: Vec<Place>,            // [record]
}

/// Where a record is.
#[derive(Clone, Copy, Debug)]
struct Place {
    slab: u32,
    /// Which record of the slab.
    idx: u32,
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
        let slab_records = (SLAB_BYTES / stride).max(1) as u32;
        Ok(Self { record_bytes, stride, slab_records, slabs: Vec::new(), places: Vec::new() })
    }

    /// Where the next record goes: after the last, if its slab has room and is not shared.
    fn next_place(&mut self) -> Result<Place, StoreError> {
        let n_records = self.places.len();
        u32::try_from(n_records).map_err(|_| StoreError::Full { n_records })?;
        let next = match self.places.last() {
            Some(last) => Place { slab: last.slab, idx: last.idx + 1 },
            None => Place { slab: 0, idx: 0 },
        };
        let slab = self.slabs.get_mut(next.slab as usize);
        if slab.is_some_and(|slab| Arc::get_mut(slab).is_some()) && next.idx < self.slab_records {
            return Ok(next);
        }
        let wanted_bytes = self.stride.saturating_mul(self.slab_records as usize);
        self.slabs.push(Arc::new(AlignedBytes::zeroed(wanted_bytes)?));
        Ok(Place { slab: self.slabs.len() as u32 - 1, idx: 0 })
    }
}

impl UnitStore for InMemoryStore {
    fn append(&mut self, record: &[u8]) -> Result<RecordId, StoreError> {
        if record.len() != self.record_bytes {
            let (expected, actual) = (self.record_bytes, record.len());
            return Err(StoreError::WrongLength { expected, actual });
        }
        let place = self.next_place()?;
        let slab = &mut self.slabs[place.slab as usize];
        let slab = Arc::get_mut(slab).expect("because the place is in a slab that nobody shares");
        let at = place.idx as usize * self.stride;
        slab[at..at + record.len()].copy_from_slice(record);
        self.places.push(place);
        Ok(RecordId(self.places.len() as u32 - 1))
    }

    #[inline]
    fn read(&self, id: RecordId, _section: usize) -> Result<Record<'_>, StoreError> {
        let unknown = StoreError::UnknownRecord { id, n_records: self.places.len() };
        let place = self.places.get(id.0 as usize).ok_or(unknown)?;
        let slab = &self.slabs[place.slab as usize];
        let at = place.idx as usize * self.stride;
        slab.get(at..at + self.record_bytes).map(Record::new).ok_or(StoreError::Released { id })
    }

    fn fork(&self) -> Result<Box<dyn UnitStore>, StoreError> {
        Ok(Box::new(Self { slabs: self.slabs.clone(), places: self.places.clone(), ..*self }))
    }

    fn truncate(&mut self, n_records: usize) {
        self.places.truncate(n_records);
        self.slabs.truncate(self.places.last().map_or(0, |last| last.slab as usize + 1));
    }

    fn release(&mut self, n_records: usize) {
        let whole = self.places.get(n_records).map_or(0, |first| first.slab as usize);
        for slab in &mut self.slabs[..whole] {
            let nothing = AlignedBytes::zeroed(0).expect("because nothing takes no memory");
            *slab = Arc::new(nothing);
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    fn resident_bytes(&self) -> usize {
        // Room in the last slab that was never written is not backed by memory.
        let is_there = |place: &&Place| !self.slabs[place.slab as usize].is_empty();
        self.places.iter().filter(is_there).count() * self.stride
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
                let read = store.read(RecordId(number as u32), 0).unwrap();
                assert_eq!(&*read, record(number, record_bytes), "record {number}");
                assert_eq!(read.as_ptr() as usize % RECORD_ALIGN, 0, "record {number}");
            }
        }
    }

    #[test]
    fn records_never_move_when_more_are_appended() {
        let mut store = InMemoryStore::new(100_000).unwrap();
        store.append(&record(0, 100_000)).unwrap();
        let place = store.read(RecordId(0), 0).unwrap().as_ptr() as usize;
        for number in 1..200 {
            store.append(&record(number, 100_000)).unwrap();
        }
        assert_eq!(store.read(RecordId(0), 0).unwrap().as_ptr() as usize, place);
    }

    #[test]
    fn a_fork_has_the_records_and_goes_its_own_way() {
        for n_records in [0, 1, 100, 128, 200, 256] {
            let mut store = InMemoryStore::new(100_000).unwrap(); // 167 of them a slab
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
                assert_eq!(&*store.read(id, 0).unwrap(), record(number, 100_000));
                assert_eq!(&*fork.read(id, 0).unwrap(), record(number, 100_000));
            }
            let last = RecordId(n_records as u32);
            assert_eq!(&*store.read(last, 0).unwrap(), record(7, 100_000));
            assert_eq!(&*fork.read(last, 0).unwrap(), record(11, 100_000));
        }
    }

    #[test]
    fn what_is_truncated_is_gone_and_its_numbers_are_given_out_again() {
        let mut store = InMemoryStore::new(100_000).unwrap();
        for number in 0..300 {
            store.append(&record(number, 100_000)).unwrap();
        }
        let fork = store.fork().unwrap();
        store.truncate(200);
        assert_eq!(store.len(), 200);
        assert!(store.read(RecordId(200), 0).is_err());
        assert_eq!(store.append(&record(7, 100_000)), Ok(RecordId(200)));
        assert_eq!(&*store.read(RecordId(200), 0).unwrap(), record(7, 100_000));
        assert_eq!(&*store.read(RecordId(199), 0).unwrap(), record(199, 100_000));
        assert_eq!(&*fork.read(RecordId(200), 0).unwrap(), record(200, 100_000), "not the fork's");
        store.truncate(0);
        assert_eq!(store.resident_bytes(), 0);
        assert_eq!(store.append(&record(9, 100_000)), Ok(RecordId(0)));
    }

    #[test]
    fn what_is_released_takes_no_memory_and_is_not_read_as_something_else() {
        let mut store = InMemoryStore::new(100_000).unwrap(); // 167 of them a slab
        for number in 0..400 {
            store.append(&record(number, 100_000)).unwrap();
        }
        let before = store.resident_bytes();
        store.release(340);
        assert_eq!(store.resident_bytes(), before - 334 * 100_032);
        let id = RecordId(5);
        assert_eq!(store.read(id, 0).unwrap_err(), StoreError::Released { id });
        assert_eq!(&*store.read(RecordId(350), 0).unwrap(), record(350, 100_000));
        assert_eq!(store.append(&record(1, 100_000)), Ok(RecordId(400)));
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
            let error = store.read(id, 0).unwrap_err();
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
