//! How are records kept in host memory? In slabs: one aligned allocation for several records,
//! filled from the front and never moved.
//!
//! ```text
//! slab 0  | record 0 | pad | record 1 | pad | ...      record = whole lines of 64 bytes
//! slab 1  | record n | pad | ...                       n = a power of two, so id -> slab is a shift
//! ```

use crate::{RECORD_ALIGN, Record, RecordId, StoreError, UnitStore};

/// What a slab aims to hold, in bytes: large enough that appending seldom allocates, small enough
/// that a short context does not take much.
const SLAB_BYTES: usize = 4 << 20;

/// A cache line: the unit of allocation, so that records are aligned without `unsafe`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; RECORD_ALIGN]);

/// Records in host memory, gone when the store is dropped.
pub struct InMemoryStore {
    record_bytes: usize,
    record_lines: usize,
    /// A slab holds `1 << slab_shift` records.
    slab_shift: u32,
    /// `[slab][record][record_lines]`; every slab but the last is full.
    slabs: Vec<Vec<Line>>,
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
        let record_lines = record_bytes.div_ceil(RECORD_ALIGN);
        let slab_records = (SLAB_BYTES / RECORD_ALIGN / record_lines).max(1);
        let slab_shift = slab_records.ilog2();
        Ok(Self { record_bytes, record_lines, slab_shift, slabs: Vec::new(), n_records: 0 })
    }

    /// Opens a new last slab.
    fn add_slab(&mut self) -> Result<(), StoreError> {
        let out_of_memory = |wanted_bytes| StoreError::OutOfMemory { wanted_bytes };
        let lines =
            self.record_lines.checked_mul(1 << self.slab_shift).ok_or(out_of_memory(usize::MAX))?;
        let mut slab = Vec::new();
        slab.try_reserve_exact(lines)
            .map_err(|_| out_of_memory(lines.saturating_mul(RECORD_ALIGN)))?;
        self.slabs.push(slab);
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
        let slab = self.slabs.last_mut().expect("because a slab was just made sure of");
        // The slab's room was reserved when it was made: filling it never moves it.
        let (lines, rest) = record.as_chunks::<RECORD_ALIGN>();
        slab.extend(lines.iter().map(|line| Line(*line)));
        if !rest.is_empty() {
            let mut last = Line([0; RECORD_ALIGN]);
            last.0[..rest.len()].copy_from_slice(rest);
            slab.push(last);
        }
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
        let idx_in_slab = idx & ((1 << self.slab_shift) - 1);
        let lines = &slab[idx_in_slab * self.record_lines..][..self.record_lines];
        Ok(Record::new(&bytemuck::cast_slice(lines)[..self.record_bytes]))
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
        self.slabs.iter().map(|slab| slab.capacity() * RECORD_ALIGN).sum()
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
