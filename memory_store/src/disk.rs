//! How does the rest of the store use its storage? Through this: errors that name the file, files
//! that appear whole or not at all, and the counters of what went wrong.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;
use crate::storage::{FileEntry, Storage, StorageFile};

/// Where damaged files are put, for a person to look at; nothing in there is ever read.
const DAMAGED: &str = "damaged";

/// A storage, and what happened on it.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) counters: Counters,
}

/// How often something happened that an operator wants to know of, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Bytes that were not what had been written, and were not served.
    pub checksum_mismatches: u64,
    /// Contexts that were not used because their fingerprint is another.
    pub fingerprint_misses: u64,
    /// Contexts removed to stay within the disk budget.
    pub evictions: u64,
    /// Contexts removed because their time had come.
    pub expirations: u64,
    /// Operations that the system refused.
    pub io_errors: u64,
}

/// [`Events`] being counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    mismatches: AtomicU64,
    pub(crate) fingerprints: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) expirations: AtomicU64,
    io_errors: AtomicU64,
}

impl Counters {
    pub(crate) fn count_mismatch(&self) {
        self.mismatches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn events(&self) -> Events {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Events {
            checksum_mismatches: read(&self.mismatches),
            fingerprint_misses: read(&self.fingerprints),
            evictions: read(&self.evictions),
            expirations: read(&self.expirations),
            io_errors: read(&self.io_errors),
        }
    }
}

impl StoreError {
    /// What the system said of a file.
    pub(crate) fn io(operation: &'static str, file: &str, error: &io::Error) -> Self {
        let (file, kind, text) = (file.to_owned(), error.kind(), error.to_string());
        Self::Io { operation, file, kind, text }
    }

    /// A file that failed a check.
    pub(crate) fn damaged(file: &str, what: &str) -> Self {
        Self::Damaged { file: file.to_owned(), what: what.to_owned() }
    }
}

impl Disk {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        Arc::new(Self { storage, counters: Counters::default() })
    }

    /// Counts and names an error.
    pub(crate) fn check<T>(
        &self,
        operation: &'static str,
        file: &str,
        result: io::Result<T>,
    ) -> Result<T, StoreError> {
        result.map_err(|error| {
            self.counters.io_errors.fetch_add(1, Ordering::Relaxed);
            StoreError::io(operation, file, &error)
        })
    }

    pub(crate) fn list(&self, folder: &str) -> Result<Vec<FileEntry>, StoreError> {
        self.check("list", folder, self.storage.list(folder))
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.check("rename", from, self.storage.rename(from, to))
    }

    /// Renames a file; one that is not there is fine.
    pub(crate) fn rename_if_there(&self, from: &str, to: &str) -> Result<(), StoreError> {
        match self.storage.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => self.check("rename", from, result),
        }
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, file: &str) -> Result<(), StoreError> {
        match self.storage.remove(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => self.check("remove", file, result),
        }
    }

    pub(crate) fn sync_dir(&self, folder: &str) -> Result<(), StoreError> {
        self.check("sync the names of", folder, self.storage.sync_dir(folder))
    }

    /// All of a small file, if it is there.
    pub(crate) fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let opened = match self.storage.open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => self.check("open", file, result)?,
        };
        let len = self.check("measure", file, opened.len())?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.check("read", file, opened.read_at(0, &mut bytes))?;
        Ok(Some(bytes))
    }

    /// Makes `file` appear with what `write` writes, durable up to its name: written as
    /// `temporary`, synced, renamed. On an error nothing is left, unless removing fails as well.
    pub(crate) fn write_named(
        &self,
        temporary: &str,
        file: &str,
        write: &dyn Fn(&dyn StorageFile) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let written = self.check("create", file, self.storage.create(temporary)).and_then(|to| {
            self.check("write", file, write(&*to))?;
            // A sync that failed may have dropped the bytes: the file is thrown away.
            self.check("sync", file, to.sync())?;
            self.rename(temporary, file)
        });
        written.inspect_err(|_| {
            let _ = self.storage.remove(temporary);
            let _ = self.storage.remove(file);
        })
    }

    /// [`write_named`](Self::write_named), with its name durable as well.
    pub(crate) fn write_whole(
        &self,
        temporary: &str,
        file: &str,
        write: &dyn Fn(&dyn StorageFile) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        self.write_named(temporary, file, write)?;
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.sync_dir(folder).inspect_err(|_| {
            let _ = self.storage.remove(file);
        })
    }

    /// Moves a file to where nothing reads it, and says where.
    pub(crate) fn set_aside(&self, file: &str) -> Result<String, StoreError> {
        self.check("make", DAMAGED, self.storage.create_dir(DAMAGED))?;
        let taken = self.list(DAMAGED)?;
        let base = file.rsplit_once('/').map_or(file, |(_, name)| name);
        let is_free = |name: &String| taken.iter().all(|entry| entry.name != *name);
        let names = (0u32..).map(|n| if n == 0 { base.to_owned() } else { format!("{base}.{n}") });
        let name = names.into_iter().find(is_free).expect("because few names are taken");
        let to = format!("{DAMAGED}/{name}");
        self.rename(file, &to)?;
        self.sync_dir(DAMAGED)?;
        Ok(to)
    }
}
