//! How is a record of a segment read? The header and the table are checked when the file is
//! mapped, each section of a record when it is first read; a bit each remembers it, so that the
//! second read is a lookup and a bit test.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{Fault, HEADER_BYTES, Layout, Slot, VERSION};
use crate::codec::checksum;
use crate::disk::Disk;
use crate::{Mapping, StoreError};

/// A mapped segment whose header and table are right.
pub(crate) struct Segment {
    disk: Arc<Disk>,
    file: String,
    map: Mapping,
    layout: Layout,
    /// A bit a section: whether it is known to be what was written.
    verified: Box<[AtomicU64]>,
}

/// The record that a reader takes a slot for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) slot: u32,
    pub(crate) stream: u32,
    pub(crate) number: u64,
    pub(crate) bytes: u64,
    pub(crate) section_bytes: u64,
}

impl Segment {
    /// Checks the header and the table of a file's mapping, which is to be segment `id`.
    pub(crate) fn new(
        disk: &Arc<Disk>,
        id: u64,
        (file, map): (String, Mapping),
    ) -> Result<Self, StoreError> {
        let layout = Layout::parse(&map).map_err(|fault| fault_of(&file, fault))?;
        if layout.id != id {
            return Err(fault_of(&file, Fault::Damaged("it is another segment")));
        }
        let n_words = (layout.n_sums as usize).div_ceil(64);
        let verified = (0..n_words).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { disk: Arc::clone(disk), file, map, layout, verified })
    }

    /// Slot `idx`, if there is one.
    #[inline]
    pub(crate) fn slot(&self, idx: u32) -> Option<Slot> {
        (idx < self.layout.n_slots).then(|| self.layout.slot(&self.map, idx))
    }

    /// The record, of which section `section` is verified.
    #[inline]
    pub(crate) fn read(&self, wanted: &Wanted, section: usize) -> Result<&[u8], StoreError> {
        let slot = self.wanted_slot(wanted)?;
        if section as u64 >= slot.n_sections() {
            return Err(self.damaged(wanted, section));
        }
        let (word, bit) = self.verified_bit(&slot, section);
        if word.load(Ordering::Relaxed) & bit == 0 {
            if !self.is_right(&slot, section) {
                return Err(self.damaged(wanted, section));
            }
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(self.record(&slot))
    }

    /// Has the system fetch a section that was not read yet.
    pub(crate) fn expect(&self, wanted: &Wanted, section: usize) {
        let slot = self.wanted_slot(wanted).ok();
        if let Some(slot) = slot.filter(|slot| (section as u64) < slot.n_sections()) {
            let (word, bit) = self.verified_bit(&slot, section);
            if word.load(Ordering::Relaxed) & bit == 0 {
                self.map.expect(self.section(&slot, section));
            }
        }
    }

    /// The record with all its sections verified now, whatever is remembered.
    pub(crate) fn read_all(&self, wanted: &Wanted) -> Result<&[u8], StoreError> {
        let slot = self.wanted_slot(wanted)?;
        match self.first_wrong_section(&slot) {
            Some(section) => Err(self.damaged(wanted, section)),
            None => Ok(self.record(&slot)),
        }
    }

    /// Checks every byte anew, whatever is remembered.
    pub(crate) fn verify(&self) -> Result<(), StoreError> {
        Layout::parse(&self.map).map_err(|fault| fault_of(&self.file, fault))?;
        let slots = (0..self.layout.n_slots).map(|idx| self.layout.slot(&self.map, idx));
        for slot in slots {
            if let Some(section) = self.first_wrong_section(&slot) {
                let (stream, record) = (slot.stream as usize, slot.number);
                let file = self.file.clone();
                return Err(StoreError::DamagedRecord { file, stream, record, section });
            }
        }
        if !self.is_padding_zero() {
            return Err(StoreError::damaged(&self.file, "bytes between its records are not zero"));
        }
        Ok(())
    }

    /// The first section that is not what was written.
    fn first_wrong_section(&self, slot: &Slot) -> Option<usize> {
        (0..slot.n_sections() as usize).find(|&section| !self.is_right(slot, section))
    }

    /// Whether the bytes between the records are the zeros that were written.
    fn is_padding_zero(&self) -> bool {
        let mut spans: Vec<(u64, u64)> = (0..self.layout.n_slots)
            .map(|idx| self.layout.slot(&self.map, idx))
            .map(|slot| (slot.offset, slot.offset + slot.bytes))
            .collect();
        spans.sort_unstable();
        let mut at = HEADER_BYTES as u64;
        let starts = spans.iter().copied().chain([(self.layout.table_offset, u64::MAX)]);
        for (start, end) in starts {
            let gap = at as usize..(start.max(at)) as usize;
            if self.map[gap].iter().any(|byte| *byte != 0) {
                return false;
            }
            at = end;
        }
        true
    }

    /// The slot, when it holds what the reader takes it for.
    #[inline]
    fn wanted_slot(&self, wanted: &Wanted) -> Result<Slot, StoreError> {
        let slot = self.slot(wanted.slot).filter(|slot| {
            let is = (slot.stream, slot.number, slot.bytes, slot.section_bytes);
            is == (wanted.stream, wanted.number, wanted.bytes, wanted.section_bytes)
        });
        slot.ok_or_else(|| self.damaged(wanted, 0))
    }

    fn is_right(&self, slot: &Slot, section: usize) -> bool {
        let bytes = self.section(slot, section);
        self.map.expect(bytes.clone());
        checksum(&self.map[bytes]) == self.layout.sum(&self.map, slot.first_sum + section as u32)
    }

    /// Where a section is in the file.
    fn section(&self, slot: &Slot, section: usize) -> Range<usize> {
        let from = section as u64 * slot.section_bytes;
        let until = (from + slot.section_bytes).min(slot.bytes);
        (slot.offset + from) as usize..(slot.offset + until) as usize
    }

    /// The word and the bit in it that say whether a section is known to be right.
    #[inline]
    fn verified_bit(&self, slot: &Slot, section: usize) -> (&AtomicU64, u64) {
        let sum = slot.first_sum + section as u32;
        (&self.verified[sum as usize / 64], 1 << (sum % 64))
    }

    #[inline]
    fn record(&self, slot: &Slot) -> &[u8] {
        &self.map[slot.offset as usize..(slot.offset + slot.bytes) as usize]
    }

    fn damaged(&self, wanted: &Wanted, section: usize) -> StoreError {
        self.disk.counters.count_mismatch();
        let (stream, record) = (wanted.stream as usize, wanted.number);
        StoreError::DamagedRecord { file: self.file.clone(), stream, record, section }
    }
}

fn fault_of(file: &str, fault: Fault) -> StoreError {
    let file = file.to_owned();
    match fault {
        Fault::Newer(found) => StoreError::NewerFormat { file, found, supported: VERSION },
        Fault::Damaged(what) => StoreError::Damaged { file, what: what.to_owned() },
    }
}
