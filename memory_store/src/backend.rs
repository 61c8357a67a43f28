//! How does `redb` reach our storage? Through a file of it, and with precautions, because redb
//! believes its own pages unless it knows that it was interrupted:
//!
//! - while it opens, the header it reads says "not closed cleanly": then redb checks every page
//!   before it follows it, as after a power cut, and damage is found instead of believed;
//! - a header that does not fit the file is refused before redb sees it;
//! - an error of the storage is remembered, so that a broken disk is not taken for a broken file.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use redb::StorageBackend;

use crate::codec::Decoder;
use crate::storage::StorageFile;

/// Where redb's header keeps its flags, and those that matter here.
const FLAGS_AT: u64 = 9;
const RECOVERY_REQUIRED: u8 = 2;
const TWO_PHASE_COMMIT: u8 = 4;

/// Redb's page, its header, and where that says how large the file is.
const PAGE_BYTES: u64 = 4096;
const HEADER_BYTES: usize = 320;
const SIZES_AT: usize = 12;

/// Whether the header of a file that is not empty describes a file of this length.
pub(crate) fn is_plausible(file: &dyn StorageFile) -> io::Result<bool> {
    let len = file.len()?;
    if len < PAGE_BYTES || !len.is_multiple_of(PAGE_BYTES) {
        return Ok(false);
    }
    let mut header = [0; HEADER_BYTES];
    file.read_at(0, &mut header)?;
    let mut sizes = Decoder::new(&header[SIZES_AT..]);
    let mut next = || u64::from(sizes.u32().expect("because the header is long enough"));
    let (page, region_header, region, full, trailing) = (next(), next(), next(), next(), next());
    let regions = full.saturating_mul(region_header + region);
    let last = if trailing > 0 { region_header + trailing } else { 0 };
    let pages = regions.saturating_add(last).saturating_add(1);
    let is_inside = pages.saturating_mul(PAGE_BYTES) <= len;
    Ok(page == PAGE_BYTES && region > 0 && full + trailing > 0 && is_inside)
}

/// What the store and redb both look at.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Whether redb is opening the file.
    pub(crate) is_opening: AtomicBool,
    /// How the storage failed first, if it did.
    pub(crate) failure: OnceLock<(io::ErrorKind, String)>,
}

/// A file of our storage as redb wants it.
#[derive(Debug)]
pub(crate) struct CatalogueFile {
    pub(crate) file: Box<dyn StorageFile>,
    pub(crate) watch: Arc<Watch>,
}

impl CatalogueFile {
    fn watched<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            let _ = self.watch.failure.set((error.kind(), error.to_string()));
        })
    }
}

impl StorageBackend for CatalogueFile {
    fn len(&self) -> io::Result<u64> {
        self.watched(self.file.len())
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let end = at.checked_add(into.len() as u64);
        if end.is_none_or(|end| self.file.len().is_ok_and(|len| end > len)) {
            // A page number that leads out of the file: damage, not a failure of the disk.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.watched(self.file.read_at(at, into))?;
        if self.watch.is_opening.load(Ordering::Acquire)
            && let Some(flags) = FLAGS_AT.checked_sub(at).and_then(|at| into.get_mut(at as usize))
        {
            *flags = (*flags | RECOVERY_REQUIRED) & !TWO_PHASE_COMMIT;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watched(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.watched(self.file.sync())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.watched(self.file.write_at(at, bytes))
    }
}
