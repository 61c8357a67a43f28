//! Where are sinks and window on this backend? In host memory: pages of bytes, in huge pages of the
//! system's where they are large enough.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::backend::{AttendStep, BackendError, PageTarget, PlacedPage};

/// A page of the system's tables that attention walks fastest over.
const HUGE_PAGE: usize = 2 << 20;

/// A page of keys and values.
#[derive(Debug)]
pub struct HostBytes {
    map: MmapMut,
    len: usize,
}

/// Where it stands.
pub(super) type HostPage<'a> = PlacedPage<'a, HostBytes>;
/// Attention to such pages.
pub(super) type HostStep<'a> = AttendStep<'a, HostBytes>;
/// Where keys and values are written to.
pub(super) type HostTarget<'a> = PageTarget<'a, HostBytes>;

impl HostBytes {
    /// `len` zeros.
    ///
    /// # Errors
    /// When the system has no memory for them.
    pub fn zeroed(len: usize) -> Result<Self, BackendError> {
        let mapped = if len < HUGE_PAGE / 2 { len.max(1) } else { len.next_multiple_of(HUGE_PAGE) };
        let map = MmapMut::map_anon(mapped);
        let map = map.map_err(|_| BackendError::NoMemory { n_bytes: len })?;
        // A kernel without huge pages says no, and small ones do.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, len })
    }

    /// A copy.
    ///
    /// # Errors
    /// When the system has no memory for it.
    pub fn try_clone(&self) -> Result<Self, BackendError> {
        let mut copy = Self::zeroed(self.len)?;
        copy.copy_from_slice(self);
        Ok(copy)
    }
}

impl Deref for HostBytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.map[..self.len]
    }
}

impl DerefMut for HostBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.len]
    }
}
