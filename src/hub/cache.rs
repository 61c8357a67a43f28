//! Where do fetched models live, and how does one get there whole?
//!
//! ```text
//! <cache>/models/NAME.gguf    complete, checked, synced; never changed again
//! <cache>/pulling/…           what a pull is working on; nobody looks for models here
//! <cache>/pulling.lock        held by the one process that pulls
//! ```
//! A model appears in `models` by a rename, after its bytes are on disk. Whatever happens before
//! leaves it absent: a crash leaves a folder in `pulling`, which the next pull removes.
//!
//! Invariant: only the holder of the lock touches `pulling`, so whatever it finds there is stale.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::error::HubError;

/// The folder of fetched models.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache in `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The platform's cache folder, or the one that `MNEME_CACHE` names.
    pub fn from_env() -> Result<Self, HubError> {
        if let Some(root) = std::env::var_os("MNEME_CACHE").filter(|root| !root.is_empty()) {
            return Ok(Self::new(root.into()));
        }
        use etcetera::BaseStrategy;
        let strategy = etcetera::base_strategy::choose_native_strategy();
        let root = strategy.map_err(|_| HubError::NoCacheFolder)?.cache_dir().join("mneme");
        Ok(Self::new(root))
    }

    /// The cache's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the model of this file name is, or would be.
    pub fn model(&self, file_name: &str) -> PathBuf {
        self.root.join("models").join(file_name)
    }

    /// Waits for other pulls to end, removes what crashed ones left, and makes a working folder.
    pub fn begin_pull(&self) -> Result<Pull, HubError> {
        let pulling = self.root.join("pulling");
        make_folder(&self.root)?;
        let lock_path = self.root.join("pulling.lock");
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(|error| io_error(&lock_path, "open", error))?;
        lock.lock().map_err(|error| io_error(&lock_path, "lock", error))?;
        remove_folder(&pulling)?;
        let folder = pulling.join(std::process::id().to_string());
        make_folder(&folder)?;
        Ok(Pull { folder, _lock: lock })
    }

    /// Makes a finished file the model of this name, all at once.
    pub fn publish(&self, finished: &Path, file_name: &str) -> Result<PathBuf, HubError> {
        let path = self.model(file_name);
        let folder = self.root.join("models");
        make_folder(&folder)?;
        let synced = File::open(finished).and_then(|file| file.sync_all());
        synced.map_err(|error| io_error(finished, "sync", error))?;
        std::fs::rename(finished, &path)
            .map_err(|error| io_error(&path, "move into place", error))?;
        // Where folders cannot be synced, the rename still is all or nothing.
        let _ = File::open(&folder).and_then(|folder| folder.sync_all());
        Ok(path)
    }

    /// Refuses early when a pull cannot fit. Where the system does not say, it is tried.
    pub fn check_room(&self, needed_bytes: u64) -> Result<(), HubError> {
        let free_bytes = self.free_bytes();
        match free_bytes {
            Some(free) if free < needed_bytes => Err(self.disk_full(needed_bytes)),
            _ => Ok(()),
        }
    }

    /// The error of a full disk, with what is free now.
    pub fn disk_full(&self, needed_bytes: u64) -> HubError {
        let (folder, free_bytes) = (self.root.clone(), self.free_bytes());
        HubError::DiskFull { folder, needed_bytes, free_bytes }
    }

    #[cfg(unix)]
    fn free_bytes(&self) -> Option<u64> {
        let room = rustix::fs::statvfs(&self.root).ok()?;
        Some(room.f_bavail.saturating_mul(room.f_frsize))
    }

    #[cfg(not(unix))]
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

/// A pull in progress: its working folder goes, and the lock is given back, when it is dropped.
#[derive(Debug)]
pub(super) struct Pull {
    folder: PathBuf,
    _lock: File,
}

impl Pull {
    /// A folder to work in, on the disk that models live on.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Pull {
    fn drop(&mut self) {
        // What cannot be removed now, the next pull removes.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// An error of the system about `path`.
pub(super) fn io_error(path: &Path, action: &'static str, source: std::io::Error) -> HubError {
    HubError::Io { path: path.to_owned(), action, source }
}

/// Whether an error means that the disk, or this user's share of it, is full.
pub(super) fn is_disk_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

/// Makes a folder and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), HubError> {
    std::fs::create_dir_all(path).map_err(|error| io_error(path, "make the folder", error))
}

fn remove_folder(path: &Path) -> Result<(), HubError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(io_error(path, "remove what an earlier pull left", error))
        }
        _ => Ok(()),
    }
}
