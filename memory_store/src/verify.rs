//! Is every byte still what was written? Everything is read again, whatever was verified before:
//! headers, tables, each section of each record, the bytes between records, and the rows' files.

use std::sync::Arc;

use crate::context::tail_wanted;
use crate::publish::row_file;
use crate::row::Row;
use crate::segment::{SegmentCell, Wanted};
use crate::{Store, StoreError};

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes there are to read.
    pub total_bytes: u64,
}

/// A record of which at least one section is not what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedRecord {
    /// The stream.
    pub stream: usize,
    /// The record's number in it.
    pub record: u64,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong with files, a line each.
    pub damaged_files: Vec<String>,
    /// Contexts (tenant, name) that have a damaged record or tail, or miss one.
    pub damaged_contexts: Vec<(String, String)>,
}

impl VerifyReport {
    /// Whether every byte is what was written.
    pub fn is_clean(&self) -> bool {
        self.damaged_files.is_empty() && self.damaged_contexts.is_empty()
    }
}

impl Store {
    /// Reads every byte of the store. `progress` is told after each segment.
    ///
    /// # Errors
    /// None for damage, which is reported; only what the system says of its disk.
    pub fn verify(&self, progress: &mut dyn FnMut(Checked)) -> Result<VerifyReport, StoreError> {
        let (cells, rows) = self.everything();
        let total_bytes = cells.iter().map(|(_, bytes)| bytes).sum();
        let mut report = VerifyReport::default();
        for (cell, bytes) in &cells {
            report.segments += 1;
            report.bytes += bytes;
            match verify_segment(cell) {
                Err(StoreError::Io { file, text, .. }) => {
                    report.damaged_files.push(format!("{file}: {text}"));
                }
                Err(damage) => report.damaged_files.push(damage.to_string()),
                Ok(()) => {}
            }
            progress(Checked { bytes: report.bytes, total_bytes });
        }
        for row in &rows {
            if self.verify_row(row).is_err() {
                report.damaged_files.push(format!("{} is damaged", row_file(row.id)));
            }
            let is_damaged = !self.damaged_of(row, Stop::AtFirst)?.is_empty();
            if is_damaged || self.verify_tail(row).is_err() {
                let (tenant, name) = (row.key.tenant.clone(), row.key.name.clone());
                report.damaged_contexts.push((tenant, name));
            }
        }
        Ok(report)
    }

    /// All records of a context that are damaged, found by reading it all.
    ///
    /// # Errors
    /// When there is no such context, or the system refuses to read.
    pub fn damaged(&self, tenant: &str, name: &str) -> Result<Vec<DamagedRecord>, StoreError> {
        let row = self.row(tenant, name)?;
        self.damaged_of(&row, Stop::AtEnd)
    }

    /// Segments with their bytes, and rows, as of now. What is removed meanwhile stays readable
    /// as far as it is mapped.
    fn everything(&self) -> (Segments, Vec<Arc<Row>>) {
        let ledger = self.handle.shared.ledger();
        (ledger.referenced_segments(), ledger.rows().cloned().collect())
    }

    fn damaged_of(&self, row: &Row, stop: Stop) -> Result<Vec<DamagedRecord>, StoreError> {
        let mut damaged = Vec::new();
        for (i, stream) in row.streams.iter().enumerate() {
            let mut number = 0;
            for extent in &stream.extents {
                let cell = self.handle.shared.ledger().cell(extent.segment).cloned();
                for slot in 0..extent.n {
                    let wanted = Wanted {
                        slot: extent.first + slot,
                        stream: i as u32,
                        number,
                        bytes: stream.shape.record_bytes as u64,
                        section_bytes: stream.shape.section_bytes as u64,
                    };
                    if !is_readable(cell.as_deref(), &wanted)? {
                        damaged.push(DamagedRecord { stream: i, record: number });
                        if stop == Stop::AtFirst {
                            return Ok(damaged);
                        }
                    }
                    number += 1;
                }
            }
        }
        Ok(damaged)
    }

    fn verify_tail(&self, row: &Row) -> Result<(), StoreError> {
        let Some(place) = row.tail else { return Ok(()) };
        let cell = self.handle.shared.ledger().cell(place.segment).cloned();
        let is_readable = is_readable(cell.as_deref(), &tail_wanted(&place))?;
        if is_readable { Ok(()) } else { Err(StoreError::Gone { segment: place.segment }) }
    }

    /// Whether the row's file says what the row says.
    fn verify_row(&self, row: &Row) -> Result<(), StoreError> {
        let file = row_file(row.id);
        let bytes = self.handle.shared.disk.read(&file)?;
        // One that is not there was superseded while we were reading.
        let is_right = bytes.is_none_or(|bytes| bytes == row.encode());
        if is_right { Ok(()) } else { Err(StoreError::damaged(&file, "it is not the row")) }
    }
}

/// Segments, each with its bytes.
type Segments = Vec<(Arc<SegmentCell>, u64)>;

/// When to stop looking for damage.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    AtFirst,
    AtEnd,
}

/// Whether all of a record is what was written. A disk that fails is no damage.
fn is_readable(cell: Option<&SegmentCell>, wanted: &Wanted) -> Result<bool, StoreError> {
    let Some(cell) = cell else { return Ok(false) };
    match cell.segment().and_then(|segment| segment.read_all(wanted)) {
        Ok(_) => Ok(true),
        Err(error @ StoreError::Io { .. }) => Err(error),
        Err(_) => Ok(false),
    }
}

fn verify_segment(cell: &SegmentCell) -> Result<(), StoreError> {
    let segment = cell.segment()?;
    segment.verify()
}
