//! What does the store ask of a disk? These few operations and no others, so that a simulated disk
//! can stand in for the real one and lose power, or break, at each of them.
//!
//! Names are relative, `/` between folder and file. What a power cut leaves:
//!
//! | operation | durable once this returned |
//! |---|---|
//! | [`StorageFile::write_at`], [`StorageFile::set_len`] | [`StorageFile::sync`] of the file |
//! | [`Storage::create`], `rename`, `remove` | [`Storage::sync_dir`] of the folder |
//!
//! Before that any part of them may be there, torn at sectors and in any order.

use std::any::Any;
use std::fmt::Debug;
use std::io;

use crate::Mapping;

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name, without the folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A directory in which the store keeps its files.
pub trait Storage: Send + Sync + Debug {
    /// How to call it in messages.
    fn name(&self) -> String;

    /// Takes the storage for this process until what is returned is dropped. `Err(Ok(owner))` when
    /// another has it.
    ///
    /// # Errors
    /// Who holds it, or why it could not be tried.
    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, io::Result<String>>;

    /// Makes a folder, if there is none.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir(&self, folder: &str) -> io::Result<()>;

    /// The files of a folder, in no order.
    ///
    /// # Errors
    /// As the system says.
    fn list(&self, folder: &str) -> io::Result<Vec<FileEntry>>;

    /// An empty file, in place of any that was there.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, file: &str) -> io::Result<Box<dyn StorageFile>>;

    /// A file that is there, for reading and writing.
    ///
    /// # Errors
    /// As the system says; `NotFound` when it is not there.
    fn open(&self, file: &str) -> io::Result<Box<dyn StorageFile>>;

    /// Gives a file another name, in place of any file that had it.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a file's name away. Its mappings stay as they are.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, file: &str) -> io::Result<()>;

    /// Makes the names in a folder durable; the store's own directory is `""`.
    ///
    /// # Errors
    /// As the system says.
    fn sync_dir(&self, folder: &str) -> io::Result<()>;

    /// The whole file as memory. Only for files that nobody ever changes or shortens.
    ///
    /// # Errors
    /// As the system says.
    fn map(&self, file: &str) -> io::Result<Mapping>;
}

/// An open file.
#[allow(clippy::len_without_is_empty)]
pub trait StorageFile: Send + Sync + Debug {
    /// Its length.
    ///
    /// # Errors
    /// As the system says.
    fn len(&self) -> io::Result<u64>;

    /// Fills `into` from `at` on.
    ///
    /// # Errors
    /// As the system says; `UnexpectedEof` when the file ends before.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` from `at` on; the file grows as needed.
    ///
    /// # Errors
    /// As the system says.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or makes it longer by zeros.
    ///
    /// # Errors
    /// As the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Waits until what was written is durable.
    ///
    /// # Errors
    /// As the system says. What is on the disk then is unknown, and syncing again would not tell.
    fn sync(&self) -> io::Result<()>;
}
