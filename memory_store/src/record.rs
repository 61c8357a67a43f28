//! How is one record named, and what does a reader get?

use std::ops::Deref;

/// Every record's first byte lies at a multiple of this many bytes (a cache line, and the widest
/// vector register).
pub const RECORD_ALIGN: usize = 64;

/// The number of a record in its store, counted from 0 in the order of appending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub u32);

/// The bytes of a sealed record, borrowed from the store. They start at a multiple of
/// [`RECORD_ALIGN`] and are exactly as long as the store's records.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Wraps `bytes`; the stores of this crate see to the alignment.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        debug_assert_eq!(bytes.as_ptr().align_offset(RECORD_ALIGN), 0, "stores align records");
        Self { bytes }
    }

    /// The bytes, for as long as the store is borrowed (`Deref` gives them for as long as the
    /// record lives).
    #[inline]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }
}

impl Deref for Record<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}
