//! How is a file read as memory? Mapped, read-only and whole. The only file of this crate with
//! `unsafe` in it.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

use memmap2::{Advice, Mmap};

use crate::AlignedBytes;

/// The bytes of a file that does not change: mapped, or a copy where there is nothing to map.
pub struct Mapping {
    source: Source,
}

enum Source {
    File(Mmap),
    Copy(AlignedBytes),
}

impl Mapping {
    /// Maps all of `file`.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self::of_copy(AlignedBytes::zeroed(0).map_err(io::Error::other)?));
        }
        // SAFETY: the mapping is read-only. Bytes below it change or vanish only if the file is
        // written or shortened: this crate writes a segment under another name, renames it once
        // it is synced, and never opens it for writing again; it gives space back by unlinking,
        // which leaves mappings alone. The directory's lock keeps other processes of ours away.
        let map = unsafe { Mmap::map(file)? };
        // A question reads a little of many records: what a system reads ahead by itself is all of
        // the file. A hint, as below.
        #[cfg(unix)]
        let _ = map.advise(Advice::Random);
        Ok(Self { source: Source::File(map) })
    }

    /// Says that all of `bytes` is about to be read, so that the system fetches it at once and not
    /// page by page.
    pub(crate) fn expect(&self, bytes: Range<usize>) {
        #[cfg(unix)]
        if let Source::File(map) = &self.source {
            // A hint: where the system does not take it, reading is slower and the same.
            let _ = map.advise_range(Advice::WillNeed, bytes.start, bytes.len());
        }
    }

    /// Bytes of a storage that is not made of files.
    pub fn of_copy(bytes: AlignedBytes) -> Self {
        Self { source: Source::Copy(bytes) }
    }
}

impl Deref for Mapping {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.source {
            Source::File(map) => map,
            Source::Copy(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping({})", self.len())
    }
}
