//! How do records get into a segment? Gathered as parts that lie in host memory, shared with
//! whoever reads them meanwhile; written under a temporary name, synced, renamed, and the folder
//! synced. What fails on the way is thrown away: a file whose sync failed is never synced again.

use std::sync::Arc;

use super::format::{HEADER_BYTES, Layout, Slot, n_sections};
use super::{FOLDER, file_name};
use crate::codec::{Encoder, checksum};
use crate::disk::Disk;
use crate::{AlignedBytes, RECORD_ALIGN, StoreError};

/// Some records of one stream that follow each other in number and in memory.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) stream: u32,
    /// The number of the first.
    pub(crate) first: u64,
    pub(crate) n: usize,
    pub(crate) record_bytes: usize,
    pub(crate) section_bytes: usize,
    /// Bytes from record to record: whole lines of 64, zero behind each record.
    pub(crate) stride: usize,
    /// Where the first begins in `bytes`.
    pub(crate) at: usize,
    pub(crate) bytes: Arc<AlignedBytes>,
}

impl Part {
    /// The bytes as they go to the file.
    fn run(&self) -> &[u8] {
        &self.bytes[self.at..self.at + self.n * self.stride]
    }

    fn record(&self, idx: usize) -> &[u8] {
        let at = self.at + idx * self.stride;
        &self.bytes[at..at + self.record_bytes]
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        (self.n * self.stride) as u64
    }
}

/// What a segment is made of.
#[derive(Default)]
pub(crate) struct Parts {
    parts: Vec<Part>,
    n_slots: u32,
    n_sums: u32,
    end: u64,
}

impl Parts {
    /// Adds a part; its first record gets the slot returned.
    pub(crate) fn push(&mut self, part: Part) -> u32 {
        let first = self.n_slots;
        let sums = n_sections(part.record_bytes as u64, part.section_bytes as u64);
        self.n_slots += part.n as u32;
        self.n_sums += sums as u32 * part.n as u32;
        self.end += part.file_bytes();
        self.parts.push(part);
        first
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of the file that comes of it.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.layout(0).file_bytes
    }

    fn layout(&self, id: u64) -> Layout {
        Layout::new(id, HEADER_BYTES as u64 + self.end, self.n_slots, self.n_sums)
    }

    /// The table, then the checksums.
    fn table(&self) -> Vec<u8> {
        let (mut slots, mut sums) = (Encoder::default(), Encoder::default());
        let (mut offset, mut first_sum) = (HEADER_BYTES as u64, 0);
        for part in &self.parts {
            for idx in 0..part.n {
                let record = part.record(idx);
                let slot = Slot {
                    stream: part.stream,
                    first_sum,
                    number: part.first + idx as u64,
                    offset,
                    bytes: part.record_bytes as u64,
                    section_bytes: part.section_bytes as u64,
                };
                slot.encode(&mut slots);
                for section in record.chunks(part.section_bytes) {
                    sums.u64(checksum(section));
                    first_sum += 1;
                }
                offset += part.stride as u64;
            }
        }
        slots.raw(&sums.finish());
        slots.finish()
    }

    /// Writes the segment `id` and makes it durable. On an error nothing of it is left that
    /// anybody would read. Returns the file's length.
    pub(crate) fn write(&self, disk: &Disk, id: u64) -> Result<u64, StoreError> {
        let (layout, table) = (self.layout(id), self.table());
        disk.write_whole(&format!("{FOLDER}/{id:016x}.tmp"), &file_name(id), &|to| {
            to.write_at(0, &layout.header(&table))?;
            let mut at = HEADER_BYTES as u64;
            for part in &self.parts {
                to.write_at(at, part.run())?;
                at += part.file_bytes();
            }
            debug_assert_eq!(at % RECORD_ALIGN as u64, 0, "parts are whole lines");
            to.write_at(layout.table_offset, &table)
        })?;
        Ok(layout.file_bytes)
    }
}
