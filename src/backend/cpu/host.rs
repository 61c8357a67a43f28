//! Where are sinks and window on this backend? In host memory: pages of bytes, in huge pages of the
//! system's where they are large enough.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use crate::backend::{AttendStep, BackendError, PageTarget, PlacedPage};

/// What the system maps at once where it is asked for much: attention walks it fastest.
const HUGE_PAGE: usize = 2 << 20;

/// A page of keys and values.
#[derive(Debug)]
pub struct HostBytes {
    memory: HostMemory,
    len: usize,
}

#[derive(Debug)]
enum HostMemory {
    /// Small pages are many: more than a process may have mappings.
    Lines(Vec<Line>),
    Mapped(MmapMut),
}

/// A cache line, so that vectors are.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

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
        let no_memory = BackendError::NoMemory { n_bytes: len };
        if len < HUGE_PAGE / 2 {
            let n_lines = len.div_ceil(size_of::<Line>());
            let mut lines = Vec::new();
            lines.try_reserve_exact(n_lines).map_err(|_| no_memory)?;
            lines.resize(n_lines, bytemuck::Zeroable::zeroed());
            return Ok(Self { memory: HostMemory::Lines(lines), len });
        }
        let map = MmapMut::map_anon(len.next_multiple_of(HUGE_PAGE)).map_err(|_| no_memory)?;
        // A kernel without huge pages says no, and small ones do.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { memory: HostMemory::Mapped(map), len })
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
        match &self.memory {
            HostMemory::Lines(lines) => &bytemuck::cast_slice(lines)[..self.len],
            HostMemory::Mapped(map) => &map[..self.len],
        }
    }
}

impl DerefMut for HostBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.memory {
            HostMemory::Lines(lines) => &mut bytemuck::cast_slice_mut(lines)[..self.len],
            HostMemory::Mapped(map) => &mut map[..self.len],
        }
    }
}
