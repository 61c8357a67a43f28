//! Where is a segment now? Announced, then durable, then mapped when it is first touched. Everyone
//! who refers to a segment shares its one cell, so it is mapped and verified once a process.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Segment, file_name};
use crate::StoreError;
use crate::disk::Disk;

/// A segment that may not be on disk, or not be mapped, yet.
pub(crate) struct SegmentCell {
    id: u64,
    disk: Arc<Disk>,
    is_durable: AtomicBool,
    segment: OnceLock<Segment>,
}

impl SegmentCell {
    /// A segment that is going to be written.
    pub(crate) fn announced(disk: &Arc<Disk>, id: u64) -> Arc<Self> {
        let (disk, is_durable) = (Arc::clone(disk), AtomicBool::new(false));
        Arc::new(Self { id, disk, is_durable, segment: OnceLock::new() })
    }

    /// A segment that lies on disk.
    pub(crate) fn durable(disk: &Arc<Disk>, id: u64) -> Arc<Self> {
        let cell = Self::announced(disk, id);
        cell.set_durable();
        cell
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Says that the file is on disk under its name.
    pub(crate) fn set_durable(&self) {
        self.is_durable.store(true, Ordering::Release);
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.is_durable.load(Ordering::Acquire)
    }

    /// The segment, mapped and its table checked when this is the first touch.
    #[inline]
    pub(crate) fn segment(&self) -> Result<&Segment, StoreError> {
        match self.segment.get() {
            Some(segment) => Ok(segment),
            None => self.map(),
        }
    }

    #[cold]
    fn map(&self) -> Result<&Segment, StoreError> {
        let file = file_name(self.id);
        let map = match self.disk.storage.map(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.counters.count_mismatch();
                return Err(StoreError::damaged(&file, "it is missing"));
            }
            result => self.disk.check("map", &file, result)?,
        };
        let segment = Segment::new(&self.disk, self.id, (file, map));
        let segment = segment.inspect_err(|_| self.disk.counters.count_mismatch())?;
        // Another thread may have been faster; then its mapping is the one.
        Ok(self.segment.get_or_init(|| segment))
    }
}

impl fmt::Debug for SegmentCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentCell({:016x})", self.id)
    }
}
