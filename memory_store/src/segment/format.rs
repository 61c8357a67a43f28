//! Which bytes make a segment? See docs/store-format.md; this file is its twin.
//!
//! ```text
//! header   0  8 magic            8 version u32      12 slots u32
//!         16  segment id u64    24 file bytes u64   32 table offset u64
//!         40  checksums u32     44 zero u32         48 checksum of table and checksums u64
//!         56  checksum of bytes 0..56 u64
//! slot     0  stream u32         4 first checksum u32
//!          8  number u64        16 offset u64       24 bytes u64     32 section bytes u64
//! ```

use crate::RECORD_ALIGN;
use crate::codec::{Decoder, Encoder, checksum};

/// The newest version of segments known here.
pub(crate) const VERSION: u32 = 1;

/// Bytes of the header, and the offset of the first record.
pub(crate) const HEADER_BYTES: usize = 64;

/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = 40;

/// The stream of tails, which are no records of any.
pub(crate) const TAIL_STREAM: u32 = u32::MAX;

const MAGIC: &[u8; 8] = b"MNEMESEG";

/// Why bytes are no segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Written by a newer version.
    Newer(u32),
    /// This check failed.
    Damaged(&'static str),
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) stream: u32,
    /// The checksum of its first section; the others follow.
    pub(crate) first_sum: u32,
    /// The record's number in its stream.
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
    pub(crate) section_bytes: u64,
}

impl Slot {
    pub(crate) fn n_sections(&self) -> u64 {
        n_sections(self.bytes, self.section_bytes)
    }

    pub(crate) fn encode(&self, into: &mut Encoder) {
        into.u32(self.stream).u32(self.first_sum).u64(self.number);
        into.u64(self.offset).u64(self.bytes).u64(self.section_bytes);
    }

    /// Reads what [`encode`](Self::encode) wrote.
    #[inline]
    pub(crate) fn decode(bytes: &[u8; SLOT_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("in 40"));
        let u64_at = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("in 40"));
        Self {
            stream: u32_at(0),
            first_sum: u32_at(4),
            number: u64_at(8),
            offset: u64_at(16),
            bytes: u64_at(24),
            section_bytes: u64_at(32),
        }
    }
}

/// Sections of a record: the last may be shorter.
pub(crate) fn n_sections(bytes: u64, section_bytes: u64) -> u64 {
    bytes.div_ceil(section_bytes.max(1))
}

/// Where the parts of a segment lie. Made by [`Layout::parse`], it is proven to fit the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) id: u64,
    pub(crate) n_slots: u32,
    pub(crate) n_sums: u32,
    pub(crate) table_offset: u64,
    pub(crate) file_bytes: u64,
}

impl Layout {
    /// The layout of a segment whose records end at `end`.
    pub(crate) fn new(id: u64, end: u64, n_slots: u32, n_sums: u32) -> Self {
        let table_offset = end.next_multiple_of(RECORD_ALIGN as u64);
        let table_bytes = u64::from(n_slots) * SLOT_BYTES as u64 + u64::from(n_sums) * 8;
        Self { id, n_slots, n_sums, table_offset, file_bytes: table_offset + table_bytes }
    }

    /// The header of a segment whose table and checksums are `table`.
    pub(crate) fn header(&self, table: &[u8]) -> Vec<u8> {
        let mut header = Encoder::default();
        header.raw(MAGIC).u32(VERSION).u32(self.n_slots).u64(self.id);
        header.u64(self.file_bytes).u64(self.table_offset).u32(self.n_sums).u32(0);
        header.u64(checksum(table));
        header.sealed()
    }

    /// Checks everything but the records themselves.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let (layout, table_sum) = Self::parse_header(bytes)?;
        let table = usize::try_from(layout.table_offset).ok().and_then(|at| bytes.get(at..));
        let table = table.ok_or(Fault::Damaged("its table lies outside of the file"))?;
        if checksum(table) != table_sum {
            return Err(Fault::Damaged("the checksum of its table is wrong"));
        }
        for idx in 0..layout.n_slots {
            layout.check_slot(&layout.slot(bytes, idx))?;
        }
        Ok(layout)
    }

    fn parse_header(bytes: &[u8]) -> Result<(Self, u64), Fault> {
        let header: &[u8; HEADER_BYTES] =
            bytes.first_chunk().ok_or(Fault::Damaged("it is shorter than its header"))?;
        let mut decoder = Decoder::new(header);
        if decoder.raw(MAGIC.len()) != Some(MAGIC) {
            return Err(Fault::Damaged("it does not begin like a segment"));
        }
        if Decoder::unsealed(header).is_none() {
            return Err(Fault::Damaged("the checksum of its header is wrong"));
        }
        let mut next_u32 = || decoder.u32().expect("because the header is long enough");
        let version = next_u32();
        if version > VERSION {
            return Err(Fault::Newer(version));
        }
        let n_slots = next_u32();
        let mut next_u64 = || decoder.u64().expect("because the header is long enough");
        let (id, file_bytes, table_offset, counts) =
            (next_u64(), next_u64(), next_u64(), next_u64());
        let (n_sums, table_sum) = (counts as u32, next_u64());
        let whole = Self::checked(Self { id, n_slots, n_sums, table_offset, file_bytes });
        if whole.is_none() || file_bytes != bytes.len() as u64 || counts >> 32 != 0 {
            return Err(Fault::Damaged("its length is not what its header says"));
        }
        Ok((Self { id, n_slots, n_sums, table_offset, file_bytes }, table_sum))
    }

    /// Whether table and checksums end where the file does.
    fn checked(self) -> Option<()> {
        let table_bytes = u64::from(self.n_slots) * SLOT_BYTES as u64 + u64::from(self.n_sums) * 8;
        let is_whole = self.table_offset.checked_add(table_bytes)? == self.file_bytes;
        let is_placed =
            self.table_offset >= HEADER_BYTES as u64 && self.table_offset.is_multiple_of(64);
        (is_whole && is_placed).then_some(())
    }

    fn check_slot(&self, slot: &Slot) -> Result<(), Fault> {
        let is_aligned = slot.offset.is_multiple_of(RECORD_ALIGN as u64);
        let end = slot.offset.checked_add(slot.bytes);
        let is_inside = slot.offset >= HEADER_BYTES as u64
            && end.is_some_and(|end| end <= self.table_offset)
            && slot.bytes > 0
            && slot.section_bytes > 0;
        let sums_end = u64::from(slot.first_sum) + slot.n_sections();
        if is_aligned && is_inside && sums_end <= u64::from(self.n_sums) {
            return Ok(());
        }
        Err(Fault::Damaged("its table has a slot that lies outside of it"))
    }

    /// Slot `idx < n_slots` of the file `bytes`.
    #[inline]
    pub(crate) fn slot(&self, bytes: &[u8], idx: u32) -> Slot {
        let at = self.table_offset as usize + idx as usize * SLOT_BYTES;
        Slot::decode(bytes[at..].first_chunk().expect("because the layout fits the file"))
    }

    /// Checksum `idx < n_sums` of the file `bytes`.
    #[inline]
    pub(crate) fn sum(&self, bytes: &[u8], idx: u32) -> u64 {
        let sums = self.table_offset as usize + self.n_slots as usize * SLOT_BYTES;
        let at = sums + idx as usize * 8;
        u64::from_le_bytes(*bytes[at..].first_chunk().expect("because the layout fits the file"))
    }
}
