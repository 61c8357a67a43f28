//! What if the power goes now? A storage in memory that remembers every operation, and can say what
//! a disk might hold after a power cut at any of them; and that fails on demand.
//!
//! It promises no more than [`Storage`] does: what was not synced is lost, there, or there in parts
//! of 512 bytes; names that were not synced likewise; and when a sync fails, the bytes it was for
//! never get to the disk, whatever is synced later.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{FileEntry, Storage, StorageFile};
use crate::{AlignedBytes, Mapping};

/// What a disk writes at once, in bytes.
const SECTOR: u64 = 512;

/// What is left of operations that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Some sectors and some names, chosen by this seed.
    Some(u64),
}

/// How long a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMode {
    /// One operation fails.
    Once,
    /// Every operation fails from then on.
    FromThenOn,
}

/// An error to come.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The operation that fails, counted from 0 and from when the storage was made.
    pub at: u64,
    /// What it fails with.
    pub kind: io::ErrorKind,
    /// Whether others fail after it.
    pub mode: FaultMode,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimStorage {
    sim: Arc<Mutex<Sim>>,
}

/// A change, in the order in which they were made.
enum Op {
    Create { name: String, inode: usize },
    Rename { from: String, to: String, inode: usize },
    Remove { name: String },
    SyncDir { folder: String },
    Write { inode: usize, at: u64, bytes: Vec<u8> },
    SetLen { inode: usize, len: u64 },
    Sync { inode: usize },
    SyncFailed { inode: usize },
}

type Names = BTreeMap<String, usize>;

#[derive(Default)]
struct Sim {
    /// What the disk held when it was switched on.
    base: (Names, Vec<Vec<u8>>),
    /// What programs see.
    names: Names,
    inodes: Vec<Vec<u8>>,
    log: Vec<Op>,
    n_ops: u64,
    fault: Option<Fault>,
    is_locked: bool,
    /// Files that were mapped, and those that hold what is not synced.
    mapped: BTreeSet<usize>,
    unsynced: BTreeSet<usize>,
    n_unsafe_maps: u64,
}

impl Default for SimStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl SimStorage {
    /// An empty disk.
    pub fn new() -> Self {
        Self { sim: Arc::default() }
    }

    fn of(names: Names, inodes: Vec<Vec<u8>>) -> Self {
        let base = (names.clone(), inodes.clone());
        let sim = Sim { base, names, inodes, ..Sim::default() };
        Self { sim: Arc::new(Mutex::new(sim)) }
    }

    fn sim(&self) -> MutexGuard<'_, Sim> {
        self.sim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes so far: a power cut may come after any number of them.
    pub fn n_changes(&self) -> usize {
        self.sim().log.len()
    }

    /// Operations so far, those included that change nothing and those that failed.
    pub fn n_operations(&self) -> u64 {
        self.sim().n_ops
    }

    /// How often a file was mapped before it was synced, or changed after it was mapped: on a real
    /// disk the end of a process, or bytes that are not what they were.
    pub fn n_unsafe_maps(&self) -> u64 {
        self.sim().n_unsafe_maps
    }

    /// Says which operation is to fail.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.sim().fault = fault;
    }

    /// The disk as it is found when the power was cut after `n_changes` changes.
    pub fn after_power_cut(&self, n_changes: usize, survival: Survival) -> Self {
        let sim = self.sim();
        let mut disk = Replay::new(&sim.base);
        for op in &sim.log[..n_changes] {
            disk.apply(op);
        }
        disk.cut(survival)
    }

    /// The disk when the machine was shut down properly.
    pub fn copy(&self) -> Self {
        let sim = self.sim();
        Self::of(sim.names.clone(), sim.inodes.clone())
    }

    /// The names of all files, with their bytes.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let sim = self.sim();
        let bytes = |inode: usize| sim.inodes[inode].clone();
        sim.names.iter().map(|(name, inode)| (name.clone(), bytes(*inode))).collect()
    }

    /// Puts a file there behind everybody's back, or takes it away.
    pub fn set_file(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut sim = self.sim();
        sim.names.remove(name);
        if let Some(bytes) = bytes {
            let inode = sim.inodes.len();
            sim.inodes.push(bytes);
            sim.names.insert(name.to_owned(), inode);
        }
        sim.base = (sim.names.clone(), sim.inodes.clone());
        sim.log.clear();
    }
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStorage({} changes)", self.n_changes())
    }
}

impl Sim {
    /// Counts an operation, and fails it if it is the one.
    fn step(&mut self) -> io::Result<()> {
        let at = self.n_ops;
        self.n_ops += 1;
        match self.fault {
            Some(fault) if at == fault.at => Err(fault.kind.into()),
            Some(Fault { at: from, kind, mode: FaultMode::FromThenOn }) if at > from => {
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }

    /// Notes that a file is not on the disk as it is seen.
    fn touch(&mut self, inode: usize) {
        self.unsynced.insert(inode);
        self.n_unsafe_maps += u64::from(self.mapped.contains(&inode));
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn write_into(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (at, end) = (at as usize, at as usize + bytes.len());
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// A disk on which operations are done again.
struct Replay<'a> {
    names: Names,
    inodes: Vec<Vec<u8>>,
    unsynced: Vec<Vec<&'a Op>>,
    unsynced_names: Vec<&'a Op>,
}

impl<'a> Replay<'a> {
    fn new((names, inodes): &(Names, Vec<Vec<u8>>)) -> Self {
        let unsynced = inodes.iter().map(|_| Vec::new()).collect();
        let (names, inodes) = (names.clone(), inodes.clone());
        Self { names, inodes, unsynced, unsynced_names: Vec::new() }
    }

    fn apply(&mut self, op: &'a Op) {
        match op {
            Op::Create { inode, .. } => {
                self.inodes.resize(inode + 1, Vec::new());
                self.unsynced.resize(inode + 1, Vec::new());
                self.unsynced_names.push(op);
            }
            Op::Rename { .. } | Op::Remove { .. } => self.unsynced_names.push(op),
            Op::SyncDir { folder } => self.sync_dir(folder),
            Op::Write { inode, .. } | Op::SetLen { inode, .. } => self.unsynced[*inode].push(op),
            Op::Sync { inode } => {
                for op in std::mem::take(&mut self.unsynced[*inode]) {
                    change_file(&mut self.inodes[*inode], op);
                }
            }
            // The system forgets that these bytes were ever to be written.
            Op::SyncFailed { inode } => self.unsynced[*inode].clear(),
        }
    }

    fn sync_dir(&mut self, folder: &str) {
        let of_folder = |op: &&Op| match op {
            Op::Create { name, .. } | Op::Remove { name } => folder_of(name) == folder,
            Op::Rename { from, to, .. } => folder_of(from) == folder || folder_of(to) == folder,
            _ => false,
        };
        let (now, later) =
            std::mem::take(&mut self.unsynced_names).into_iter().partition(of_folder);
        self.unsynced_names = later;
        let now: Vec<&Op> = now;
        for op in now {
            change_names(&mut self.names, op);
        }
    }

    fn cut(mut self, survival: Survival) -> SimStorage {
        let mut dice = Dice(match survival {
            Survival::Nothing => return SimStorage::of(self.names, self.inodes),
            Survival::Everything => None,
            Survival::Some(seed) => Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        });
        for (inode, ops) in self.unsynced.iter().enumerate() {
            for op in ops {
                dice.change_file(&mut self.inodes[inode], op);
            }
        }
        for op in self.unsynced_names {
            if dice.is_kept() {
                change_names(&mut self.names, op);
            }
        }
        SimStorage::of(self.names, self.inodes)
    }
}

fn change_file(file: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { at, bytes, .. } => write_into(file, *at, bytes),
        Op::SetLen { len, .. } => file.resize(*len as usize, 0),
        _ => {}
    }
}

fn change_names(names: &mut Names, op: &Op) {
    match op {
        Op::Create { name, inode } => drop(names.insert(name.clone(), *inode)),
        Op::Remove { name } => drop(names.remove(name)),
        Op::Rename { from, to, inode } => {
            // If the name went to another file meanwhile, it is that file's.
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
        _ => {}
    }
}

/// Decides what survives; without a seed everything does.
struct Dice(Option<u64>);

impl Dice {
    fn is_kept(&mut self) -> bool {
        let Some(state) = &mut self.0 else { return true };
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state >> 32 & 1 == 0
    }

    /// Does what survives of a change, sector by sector.
    fn change_file(&mut self, file: &mut Vec<u8>, op: &Op) {
        match op {
            Op::Write { at, bytes, .. } => {
                let mut from = 0;
                while from < bytes.len() {
                    let room = SECTOR - (at + from as u64) % SECTOR;
                    let until = bytes.len().min(from + room as usize);
                    if self.is_kept() {
                        write_into(file, at + from as u64, &bytes[from..until]);
                    }
                    from = until;
                }
            }
            op if self.is_kept() => change_file(file, op),
            _ => {}
        }
    }
}

/// Held by whoever has the disk.
struct SimLock(SimStorage);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.sim().is_locked = false;
    }
}

impl Storage for SimStorage {
    fn name(&self) -> String {
        "a simulated disk".to_owned()
    }

    fn lock(&self) -> Result<Box<dyn Any + Send + Sync>, io::Result<String>> {
        if std::mem::replace(&mut self.sim().is_locked, true) {
            return Err(Ok("another store".to_owned()));
        }
        Ok(Box::new(SimLock(self.clone())))
    }

    fn create_dir(&self, _folder: &str) -> io::Result<()> {
        self.sim().step()
    }

    fn list(&self, folder: &str) -> io::Result<Vec<FileEntry>> {
        let mut sim = self.sim();
        sim.step()?;
        let of_folder = sim.names.iter().filter(|(name, _)| folder_of(name) == folder);
        let entries = of_folder.map(|(name, inode)| FileEntry {
            name: name.rsplit_once('/').map_or(name.as_str(), |(_, name)| name).to_owned(),
            bytes: sim.inodes[*inode].len() as u64,
        });
        Ok(entries.collect())
    }

    fn create(&self, file: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut sim = self.sim();
        sim.step()?;
        // A file of this name would be emptied under its mappings.
        let emptied = sim.names.get(file).copied();
        emptied.into_iter().for_each(|inode| sim.touch(inode));
        let inode = sim.inodes.len();
        sim.inodes.push(Vec::new());
        sim.names.insert(file.to_owned(), inode);
        sim.log.push(Op::Create { name: file.to_owned(), inode });
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, file: &str) -> io::Result<Box<dyn StorageFile>> {
        let mut sim = self.sim();
        sim.step()?;
        Ok(Box::new(SimFile { disk: self.clone(), inode: sim.inode(file)? }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut sim = self.sim();
        sim.step()?;
        let inode = sim.inode(from)?;
        sim.names.remove(from);
        sim.names.insert(to.to_owned(), inode);
        sim.log.push(Op::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn remove(&self, file: &str) -> io::Result<()> {
        let mut sim = self.sim();
        sim.step()?;
        sim.inode(file)?;
        sim.names.remove(file);
        sim.log.push(Op::Remove { name: file.to_owned() });
        Ok(())
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        let mut sim = self.sim();
        sim.step()?;
        sim.log.push(Op::SyncDir { folder: folder.to_owned() });
        Ok(())
    }

    fn map(&self, file: &str) -> io::Result<Mapping> {
        let mut sim = self.sim();
        sim.step()?;
        let inode = sim.inode(file)?;
        sim.mapped.insert(inode);
        sim.n_unsafe_maps += u64::from(sim.unsynced.contains(&inode));
        let bytes = &sim.inodes[inode];
        let mut copy = AlignedBytes::zeroed(bytes.len()).map_err(io::Error::other)?;
        copy.copy_from_slice(bytes);
        Ok(Mapping::of_copy(copy))
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimStorage,
    inode: usize,
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut sim = self.disk.sim();
        sim.step()?;
        Ok(sim.inodes[self.inode].len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.step()?;
        let end = (at as usize).checked_add(into.len());
        let bytes = end.and_then(|end| sim.inodes[self.inode].get(at as usize..end));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut sim = self.disk.sim();
        let result = sim.step();
        sim.touch(self.inode);
        // A write that fails has written a part.
        let n = if result.is_ok() { bytes.len() } else { bytes.len() / 2 };
        write_into(&mut sim.inodes[self.inode], at, &bytes[..n]);
        sim.log.push(Op::Write { inode: self.inode, at, bytes: bytes[..n].to_vec() });
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sim = self.disk.sim();
        sim.step()?;
        sim.touch(self.inode);
        sim.inodes[self.inode].resize(len as usize, 0);
        sim.log.push(Op::SetLen { inode: self.inode, len });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut sim = self.disk.sim();
        let result = sim.step();
        let inode = self.inode;
        if result.is_ok() {
            sim.unsynced.remove(&inode);
        }
        sim.log.push(if result.is_ok() { Op::Sync { inode } } else { Op::SyncFailed { inode } });
        result
    }
}
