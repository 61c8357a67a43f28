//! Which disk does the store use? A directory of the file system, through ordinary calls.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::Mapping;
use crate::storage::{FileEntry, Storage, StorageFile};

/// The file that is locked, and says who has the lock.
const LOCK: &str = "LOCK";

/// A directory of the file system.
#[derive(Debug)]
pub struct DirStorage {
    root: PathBuf,
}

impl DirStorage {
    /// The directory `root`, made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self { root: root.to_owned() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Storage for DirStorage {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, io::Result<String>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(self.path(LOCK)).map_err(Err)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Who it is only makes the message better.
                let _ = file.take(100).read_to_string(&mut owner);
                let owner = owner.trim();
                let is_known = !owner.is_empty();
                return Err(Ok(if is_known { owner } else { "another process" }.to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(Err(error)),
        }
        let owner = format!("process {}\n", std::process::id());
        let said = file.set_len(0).and_then(|()| file.write_all(owner.as_bytes()));
        said.map_err(Err)?;
        Ok(Box::new(Lock(file)))
    }

    fn create_dir(&self, folder: &str) -> io::Result<()> {
        fs::create_dir_all(self.path(folder))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<FileEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.path(folder))? {
            let entry = entry?;
            let about = entry.metadata()?;
            if let (true, Ok(name)) = (about.is_file(), entry.file_name().into_string()) {
                entries.push(FileEntry { name, bytes: about.len() });
            }
        }
        Ok(entries)
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Box::new(DirFile::new(options.open(self.path(file))?)))
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StorageFile>> {
        let opened = OpenOptions::new().read(true).write(true).open(self.path(file))?;
        Ok(Box::new(DirFile::new(opened)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        fs::remove_file(self.path(file))
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        // Elsewhere names are as durable as the system makes them: a directory is no file there.
        if cfg!(unix) { File::open(self.path(folder))?.sync_all() } else { Ok(()) }
    }

    fn map(&self, file: &str) -> io::Result<Mapping> {
        Mapping::of_file(&File::open(self.path(file))?)
    }
}

/// The lock, until it is dropped.
struct Lock(File);

impl Drop for Lock {
    /// Closing the file is not enough: a process that another thread starts has it open as well
    /// until it runs its own program, and would hold the lock that long.
    fn drop(&mut self) {
        let _ = self.0.unlock(); // where that fails it ends with the last who has the file open
    }
}

/// A file with its one position: reads and writes of it take turns, which costs nothing beside
/// the system calls.
#[derive(Debug)]
struct DirFile {
    file: Mutex<File>,
}

impl DirFile {
    fn new(file: File) -> Self {
        Self { file: Mutex::new(file) }
    }

    fn at(&self, at: u64) -> io::Result<std::sync::MutexGuard<'_, File>> {
        let mut file = self.file.lock().map_err(|_| io::Error::other("a thread panicked"))?;
        file.seek(SeekFrom::Start(at))?;
        Ok(file)
    }
}

impl StorageFile for DirFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.at(0)?.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.at(at)?.read_exact(into)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.at(at)?.write_all(bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.at(0)?.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.at(0)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that was being started when a store was closed kept it locked, and opening it
    /// again failed with "used by process ..." of one's own number.
    #[test]
    fn who_still_has_the_file_of_a_lock_open_does_not_hold_it() {
        let root = std::env::temp_dir().join(format!("store-lock-{}", std::process::id()));
        let storage = DirStorage::new(&root).unwrap();
        let lock = storage.lock().unwrap();
        assert!(storage.lock().is_err(), "it is locked");
        let inherited = lock.downcast_ref::<Lock>().unwrap().0.try_clone().unwrap();
        drop(lock);
        assert!(storage.lock().is_ok());
        drop(inherited);
        fs::remove_dir_all(&root).unwrap();
    }
}
