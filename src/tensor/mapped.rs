//! How do weights get into memory? They do not: a model file is mapped read-only and pages in as
//! it is used. The only file of this crate with `mmap` in it.

use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps `path`.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped, as the system says.
    pub fn open(path: &Path) -> std::io::Result<Arc<Self>> {
        let file = std::fs::File::open(path)?;
        // SAFETY: the mapping is read-only and private to us. Whoever shortens a model file while
        // it is in use ends this process with SIGBUS, as with every mapping reader; model files
        // are written under another name and renamed into place (`hub`), never changed.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Arc::new(Self { path: path.to_owned(), map }))
    }

    /// Where the file lies, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }
}

/// A range of a mapped file that keeps the mapping alive.
#[derive(Clone, Debug)]
pub struct MappedBytes {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl MappedBytes {
    /// `range` of `file`, or `None` when it does not lie inside the file.
    pub fn new(file: &Arc<MappedFile>, range: Range<usize>) -> Option<Self> {
        file.bytes().get(range.clone())?;
        Some(Self { file: Arc::clone(file), range })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

impl Deref for MappedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }
}

#[cfg(test)]
impl MappedFile {
    /// Maps `path`, whose length must be a multiple of 64 KiB, and as much again after its end,
    /// where a read ends the process (SIGBUS): for proving that nothing reads past a tensor.
    pub fn open_guarded(path: &Path) -> std::io::Result<Arc<Self>> {
        const PAGES: usize = 64 * 1024; // a multiple of every page size
        let file = std::fs::File::open(path)?;
        let len = file.metadata()?.len() as usize;
        assert!(len.is_multiple_of(PAGES), "whole pages");
        // SAFETY: nobody else knows the file; what lies past its end is never read on purpose.
        let map = unsafe { memmap2::MmapOptions::new().len(len + PAGES).map(&file)? };
        Ok(Arc::new(Self { path: path.to_owned(), map }))
    }
}
