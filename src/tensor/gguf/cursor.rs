//! How is the next field taken from the bytes of a header? Every length is checked against what
//! is left of the file before it is believed, and nothing is copied.

use std::fmt::Arguments;
use std::ops::Range;

use super::error::GgufFault;

/// A place in the file; `take` and friends move it forward.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next field begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes to the end of the file.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The place of the next `length` bytes. `field` names them should they be missing.
    pub(super) fn skip(
        &mut self,
        length: u64,
        field: Arguments<'_>,
    ) -> Result<Range<usize>, GgufFault> {
        let remaining = self.remaining();
        match usize::try_from(length) {
            Ok(length) if length <= remaining => {
                let start = self.at;
                self.at += length;
                Ok(start..self.at)
            }
            _ => Err(GgufFault::Truncated {
                field: field.to_string(),
                offset: self.at,
                needed: length,
                remaining,
            }),
        }
    }

    fn array<const N: usize>(&mut self, field: Arguments<'_>) -> Result<[u8; N], GgufFault> {
        let range = self.skip(N as u64, field)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    pub(super) fn magic(&mut self) -> Result<[u8; 4], GgufFault> {
        self.array(format_args!("magic number"))
    }

    pub(super) fn u32(&mut self, field: Arguments<'_>) -> Result<u32, GgufFault> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: Arguments<'_>) -> Result<u64, GgufFault> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count of things of at least `least_bytes` each: refused when they could not all follow.
    pub(super) fn count(
        &mut self,
        least_bytes: usize,
        field: Arguments<'_>,
    ) -> Result<usize, GgufFault> {
        let count = self.u64(field)?;
        let most = self.remaining() / least_bytes;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(GgufFault::Count { field: field.to_string(), count, most: most as u64 }),
        }
    }

    /// The place of a string's bytes, after its length.
    pub(super) fn string(&mut self, field: Arguments<'_>) -> Result<Range<usize>, GgufFault> {
        let length = self.u64(field)?;
        self.skip(length, field)
    }

    /// A name of at most `most` bytes.
    pub(super) fn name(&mut self, most: u64, field: Arguments<'_>) -> Result<&'a str, GgufFault> {
        let found = self.u64(field)?;
        if found > most {
            return Err(GgufFault::NameLength { field: field.to_string(), found, most });
        }
        let range = self.skip(found, field)?;
        std::str::from_utf8(&self.bytes[range.clone()])
            .map_err(|_| GgufFault::NotUtf8 { field: field.to_string(), offset: range.start })
    }
}
