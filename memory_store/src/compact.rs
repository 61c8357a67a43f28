//! How does a store stay small? Many commits leave many small segments, and rewinds and deletions
//! leave segments that are mostly dead. Compaction copies what is alive in those into new ones, in
//! the order of the contexts that hold it, and then lets all their rows point there at once.
//!
//! Segments that somebody has open are left alone, and so are damaged ones: a copy would give
//! their bytes new checksums.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::context::tail_wanted;
use crate::publish::Change;
use crate::row::{Extent, Row, StreamRow, TailPlace};
use crate::segment::{Part, Parts, SegmentCell, TAIL_STREAM, Wanted};
use crate::shared::Shared;
use crate::{AlignedBytes, RECORD_ALIGN, Store, StoreError};

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that were copied from, and are gone.
    pub segments_removed: u64,
    /// Segments that were written.
    pub segments_written: u64,
    /// Bytes of the store before.
    pub bytes_before: u64,
    /// Bytes of the store after.
    pub bytes_after: u64,
}

/// A slot of a segment.
type Place = (u64, u32);

impl Store {
    /// Merges small segments, and copies live records out of mostly dead ones.
    ///
    /// # Errors
    /// When the copies do not fit the disk budget, or cannot be written; everything is then as it
    /// was.
    pub fn compact(&self) -> Result<Compacted, StoreError> {
        let shared = &self.handle.shared;
        let mut catalogue = shared.catalogue();
        let bytes_before = shared.ledger().bytes();
        let rows: Vec<Arc<Row>> = shared.ledger().rows().cloned().collect();
        let victims = victims(shared, &rows);
        if victims.is_empty() {
            let bytes_after = bytes_before;
            return Ok(Compacted { bytes_before, bytes_after, ..Compacted::default() });
        }
        let mut copier = Copier::new(shared, victims);
        let mut changes = Vec::new();
        for row in &rows {
            if !row.segments().is_disjoint(&copier.victims) {
                changes.push(Change::Put(Box::new(copier.copy(row)?)));
            }
        }
        copier.write()?;
        shared.publish(&mut catalogue, changes)?;
        let written = copier.written.len() as u64;
        let segments_removed = copier.victims.len() as u64;
        drop(copier);
        shared.collect();
        let bytes_after = shared.ledger().bytes();
        Ok(Compacted { segments_removed, segments_written: written, bytes_before, bytes_after })
    }
}

/// The segments that are worth copying from, all of them sound.
fn victims(shared: &Shared, rows: &[Arc<Row>]) -> BTreeSet<u64> {
    let idle = shared.ledger().idle_segments();
    let live = live_bytes(rows);
    let half = shared.options.segment_bytes as u64 / 2;
    let mut small = BTreeSet::new();
    let mut dead = BTreeSet::new();
    for (id, bytes) in idle {
        let live = live.get(&id).copied().unwrap_or(0);
        if live * 2 < bytes {
            dead.insert(id);
        } else if bytes < half {
            small.insert(id);
        }
    }
    if small.len() + dead.len() > 1 {
        dead.append(&mut small);
    }
    dead.retain(|id| {
        let cell = shared.ledger().cell(*id).cloned();
        cell.is_some_and(|cell| cell.segment().is_ok_and(|segment| segment.verify().is_ok()))
    });
    dead
}

/// Bytes of each segment that rows refer to.
fn live_bytes(rows: &[Arc<Row>]) -> BTreeMap<u64, u64> {
    let mut slots: BTreeMap<Place, u64> = BTreeMap::new();
    for row in rows {
        for stream in &row.streams {
            for extent in &stream.extents {
                let bytes = stream.shape.record_bytes as u64;
                let of = (extent.first..extent.first + extent.n).map(|slot| (extent.segment, slot));
                slots.extend(of.map(|place| (place, bytes)));
            }
        }
        slots.extend(row.tail.map(|tail| ((tail.segment, tail.slot), tail.bytes)));
    }
    let mut live = BTreeMap::new();
    for ((segment, _), bytes) in slots {
        *live.entry(segment).or_default() += bytes.next_multiple_of(RECORD_ALIGN as u64);
    }
    live
}

/// Copies records out of segments, each once.
struct Copier<'a> {
    shared: &'a Shared,
    victims: BTreeSet<u64>,
    moved: BTreeMap<Place, Place>,
    /// The segment being gathered.
    cell: Arc<SegmentCell>,
    parts: Parts,
    /// Those that were written: held, so that nobody removes them before rows refer to them.
    written: Vec<Arc<SegmentCell>>,
}

impl<'a> Copier<'a> {
    fn new(shared: &'a Shared, victims: BTreeSet<u64>) -> Self {
        let cell = SegmentCell::announced(&shared.disk, shared.next_id());
        let (moved, written) = (BTreeMap::new(), Vec::new());
        Self { shared, victims, moved, cell, parts: Parts::default(), written }
    }

    /// The row as it is when its records were copied.
    fn copy(&mut self, row: &Row) -> Result<Row, StoreError> {
        let mut copy = row.clone();
        for (i, stream) in row.streams.iter().enumerate() {
            copy.streams[i] = self.copy_stream(i as u32, stream)?;
        }
        if let Some(tail) = row.tail.filter(|tail| self.victims.contains(&tail.segment)) {
            let (segment, slot) = self.copy_record(tail.segment, &tail_wanted(&tail))?;
            copy.tail = Some(TailPlace { segment, slot, ..tail });
        }
        Ok(copy)
    }

    fn copy_stream(&mut self, idx: u32, stream: &StreamRow) -> Result<StreamRow, StoreError> {
        let mut copy = StreamRow::new(stream.shape);
        let mut number = 0;
        for extent in &stream.extents {
            if !self.victims.contains(&extent.segment) {
                copy.push(*extent);
                number += u64::from(extent.n);
                continue;
            }
            for slot in extent.first..extent.first + extent.n {
                let wanted = Wanted {
                    slot,
                    stream: idx,
                    number,
                    bytes: stream.shape.record_bytes as u64,
                    section_bytes: stream.shape.section_bytes as u64,
                };
                let (segment, first) = self.copy_record(extent.segment, &wanted)?;
                copy.push(Extent { segment, first, n: 1 });
                number += 1;
            }
        }
        Ok(copy)
    }

    /// Where the record lies from now on.
    fn copy_record(&mut self, segment: u64, wanted: &Wanted) -> Result<Place, StoreError> {
        if let Some(place) = self.moved.get(&(segment, wanted.slot)) {
            return Ok(*place);
        }
        let from = self.shared.ledger().cell(segment).cloned();
        let from = from.ok_or(StoreError::Gone { segment })?;
        let record = from.segment()?.read_all(wanted)?;
        let stride = record.len().next_multiple_of(RECORD_ALIGN);
        let mut bytes = AlignedBytes::zeroed(stride)?;
        bytes[..record.len()].copy_from_slice(record);
        let slot = self.parts.push(Part {
            stream: wanted.stream,
            first: if wanted.stream == TAIL_STREAM { 0 } else { wanted.number },
            n: 1,
            record_bytes: record.len(),
            section_bytes: wanted.section_bytes as usize,
            stride,
            at: 0,
            bytes: Arc::new(bytes),
        });
        let place = (self.cell.id(), slot);
        self.moved.insert((segment, wanted.slot), place);
        if self.parts.file_bytes() >= self.shared.options.segment_bytes as u64 {
            self.write()?;
        }
        Ok(place)
    }

    /// Writes what was gathered.
    fn write(&mut self) -> Result<(), StoreError> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let next = SegmentCell::announced(&self.shared.disk, self.shared.next_id());
        let cell = std::mem::replace(&mut self.cell, next);
        let parts = std::mem::take(&mut self.parts);
        self.check_budget(parts.file_bytes())?;
        let bytes = parts.write(&self.shared.disk, cell.id())?;
        cell.set_durable();
        self.shared.ledger().add_segment(Arc::clone(&cell), bytes);
        self.written.push(cell);
        Ok(())
    }

    /// Nothing is evicted for a copy.
    fn check_budget(&self, wanted_bytes: u64) -> Result<(), StoreError> {
        let used_bytes = self.shared.ledger().bytes();
        match self.shared.options.max_disk_bytes {
            Some(max_bytes) if used_bytes + wanted_bytes > max_bytes => {
                Err(StoreError::DiskBudget { wanted_bytes, used_bytes, max_bytes })
            }
            _ => Ok(()),
        }
    }
}
