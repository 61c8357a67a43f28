//! How does a context leave the store? As one file that carries all of it, for another machine.
//!
//! ```text
//! | magic 8 | version u32 | row bytes u64 | row | records of stream 0 | ... | tail | blake3 32 |
//! ```
//! The row is that of the store (docs/store-format.md), with one extent a stream, of no segment.
//! The digest is of everything before it.

use std::io::{self, Write};

use crate::context::tail_wanted;
use crate::row::{Extent, Row, TailPlace};
use crate::segment::Wanted;
use crate::{ContextSummary, Store, StoreError};

pub(crate) const MAGIC: &[u8; 8] = b"MNEMEEXP";

/// The newest version of exports known here.
pub(crate) const VERSION: u32 = 1;

impl Store {
    /// Writes all of a context to `out`, every byte verified on the way.
    ///
    /// # Errors
    /// When there is none, a record of it is damaged, or `out` refuses.
    pub fn export(
        &self,
        tenant: &str,
        name: &str,
        out: &mut dyn Write,
    ) -> Result<ContextSummary, StoreError> {
        // Open, so that its segments are not removed meanwhile.
        let unknown = || StoreError::UnknownContext { name: name.to_owned() };
        let context = self.open_context(tenant, name)?.ok_or_else(unknown)?;
        let row = self.row(tenant, name)?;
        let header = portable(&row).encode();
        let mut out = Digesting { out, hasher: blake3::Hasher::new() };
        out.write(MAGIC)?;
        out.write(&VERSION.to_le_bytes())?;
        out.write(&(header.len() as u64).to_le_bytes())?;
        out.write(&header)?;
        for (i, stream) in row.streams.iter().enumerate() {
            let mut number = 0;
            for extent in &stream.extents {
                for slot in extent.first..extent.first + extent.n {
                    let wanted = Wanted {
                        slot,
                        stream: i as u32,
                        number,
                        bytes: stream.shape.record_bytes as u64,
                        section_bytes: stream.shape.section_bytes as u64,
                    };
                    self.export_record(extent.segment, &wanted, &mut out)?;
                    number += 1;
                }
            }
        }
        if let Some(tail) = &row.tail {
            self.export_record(tail.segment, &tail_wanted(tail), &mut out)?;
        }
        let digest = out.hasher.finalize();
        out.write(digest.as_bytes())?;
        out.out.flush().map_err(|error| refused(&error))?;
        drop(context);
        Ok(self.handle.shared.ledger().summary(&row))
    }

    fn export_record(
        &self,
        segment: u64,
        wanted: &Wanted,
        out: &mut Digesting<'_>,
    ) -> Result<(), StoreError> {
        let cell = self.handle.shared.ledger().cell(segment).cloned();
        let cell = cell.ok_or(StoreError::Gone { segment })?;
        out.write(cell.segment()?.read_all(wanted)?)
    }
}

/// The row without what only this store knows.
fn portable(row: &Row) -> Row {
    let mut portable = Row { id: 0, generation: 1, parent: None, ..row.clone() };
    for stream in &mut portable.streams {
        stream.extents = vec![Extent { segment: 0, first: 0, n: stream.records as u32 }];
    }
    portable.tail = row.tail.map(|tail| TailPlace { segment: 0, slot: 0, bytes: tail.bytes });
    portable
}

struct Digesting<'a> {
    out: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Digesting<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.hasher.update(bytes);
        self.out.write_all(bytes).map_err(|error| refused(&error))
    }
}

fn refused(error: &io::Error) -> StoreError {
    StoreError::io("write", "the export", error)
}
