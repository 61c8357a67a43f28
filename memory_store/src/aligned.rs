//! Where do bytes lie that vectors load from? At multiples of a cache line, and, when they are many,
//! in huge pages: units are read a few kilobytes here and there, and with small pages each such
//! read begins with a walk of the page table and ends the prefetcher's run.

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::{RECORD_ALIGN, StoreError};

/// The size of a huge page on the machines we know.
const HUGE_PAGE: usize = 2 << 20;

/// From half a huge page on, whole ones are taken.
const MIN_MAPPED: usize = HUGE_PAGE / 2;

/// A fixed number of bytes, zero at first, at an address divisible by [`RECORD_ALIGN`].
pub struct AlignedBytes {
    memory: Memory,
    len: usize,
}

enum Memory {
    Lines(Vec<Line>),
    Mapped(MmapMut),
}

/// A cache line: the unit of allocation, so that small buffers are aligned without `unsafe`.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; RECORD_ALIGN]);

impl AlignedBytes {
    /// `len` zeros.
    ///
    /// # Errors
    /// When the system has no memory for them.
    pub fn zeroed(len: usize) -> Result<Self, StoreError> {
        if len < MIN_MAPPED {
            let lines = vec![bytemuck::Zeroable::zeroed(); len.div_ceil(RECORD_ALIGN)];
            return Ok(Self { memory: Memory::Lines(lines), len });
        }
        let mapped = len
            .checked_next_multiple_of(HUGE_PAGE)
            .ok_or(StoreError::OutOfMemory { wanted_bytes: len })?;
        let map =
            MmapMut::map_anon(mapped).map_err(|_| StoreError::OutOfMemory { wanted_bytes: len })?;
        // A kernel without huge pages says no, and small ones do.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { memory: Memory::Mapped(map), len })
    }

    /// A copy.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn try_clone(&self) -> Result<Self, StoreError> {
        let mut copy = Self::zeroed(self.len)?;
        copy.copy_from_slice(self);
        Ok(copy)
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.memory {
            Memory::Lines(lines) => &bytemuck::cast_slice(lines)[..self.len],
            Memory::Mapped(map) => &map[..self.len],
        }
    }
}

impl DerefMut for AlignedBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Lines(lines) => &mut bytemuck::cast_slice_mut(lines)[..self.len],
            Memory::Mapped(map) => &mut map[..self.len],
        }
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBytes({})", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_zero_aligned_and_writable_whether_few_or_many() {
        for len in [0, 1, 64, 100, MIN_MAPPED - 1, MIN_MAPPED, HUGE_PAGE + 3] {
            let mut bytes = AlignedBytes::zeroed(len).unwrap();
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr() as usize % RECORD_ALIGN, 0);
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
            assert!(bytes.iter().all(|byte| *byte == 7));
        }
    }

    #[test]
    fn a_length_that_no_machine_has_is_an_error() {
        assert!(AlignedBytes::zeroed(usize::MAX).is_err());
        assert!(AlignedBytes::zeroed(usize::MAX / 2).is_err());
    }
}
