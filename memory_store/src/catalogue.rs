//! Where are all rows together? In the catalogue, a `redb` database: so that opening a store does
//! not read a file a context, and rows that change together do so at once.
//!
//! It is never believed blindly: every row carries its own checksum and its own key, redb checks
//! its pages when it opens, and whatever goes wrong inside of it, panics included, ends here as an
//! error. A catalogue that cannot be read is set aside and made anew from the rows' files.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::StoreError;
use crate::backend::{CatalogueFile, Watch, is_plausible};
use crate::disk::Disk;

/// The catalogue's file.
pub(crate) const FILE: &str = "catalogue.redb";

/// Its name until it is whole.
const TEMPORARY: &str = "catalogue.tmp";

/// Rows are small and read once: redb need not keep much of them.
const CACHE_BYTES: usize = 4 << 20;

const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("rows");
const USED: TableDefinition<'static, &[u8], u64> = TableDefinition::new("used");

/// What is to be changed at once; keys and rows as their bytes.
#[derive(Default)]
pub(crate) struct Update {
    pub(crate) put: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) remove: Vec<Vec<u8>>,
    pub(crate) used: Vec<(Vec<u8>, u64)>,
}

/// What was in it.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) rows: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) used: Vec<(Vec<u8>, u64)>,
}

/// What a catalogue was when it was opened.
pub(crate) enum Found {
    /// There was none.
    Nothing,
    Sound(Contents),
    /// It could not be read, and lies at this place now.
    SetAside(String),
}

/// The open catalogue.
pub(crate) struct Catalogue {
    disk: Arc<Disk>,
    /// None after a failure: what the file holds, and what of it is on the disk, is unknown then.
    engine: Option<Engine>,
}

impl Catalogue {
    /// Opens the catalogue, and makes one if there is none that can be read.
    pub(crate) fn open(disk: &Arc<Disk>) -> Result<(Self, Found), StoreError> {
        let mut catalogue = Self { disk: Arc::clone(disk), engine: None };
        let is_there = disk.list("")?.iter().any(|entry| entry.name == FILE);
        let found = if is_there { catalogue.read_or_set_aside()? } else { Found::Nothing };
        if catalogue.engine.is_none() {
            catalogue.renew(&Update::default())?;
        }
        Ok((catalogue, found))
    }

    /// Whether an earlier change failed, so that it has to be made anew before the next.
    pub(crate) fn is_broken(&self) -> bool {
        self.engine.is_none()
    }

    /// Makes `update` durable, all of it or nothing. When that fails, nobody uses the file again:
    /// after a failed sync it may read well and yet not be on the disk.
    pub(crate) fn apply(&mut self, update: &Update) -> Result<(), StoreError> {
        let broken = || StoreError::damaged(FILE, "an earlier change of it failed");
        let engine = self.engine.take().ok_or_else(broken)?;
        engine.run(&self.disk, |database| write(database, update))?;
        self.engine = Some(engine);
        Ok(())
    }

    /// Bytes of its file.
    pub(crate) fn bytes(&self) -> u64 {
        self.disk.storage.open(FILE).and_then(|file| file.len()).unwrap_or(0)
    }

    fn read_or_set_aside(&mut self) -> Result<Found, StoreError> {
        let read = Engine::open(&self.disk, FILE).and_then(|engine| {
            let contents = engine.run(&self.disk, read)?;
            Ok((engine, contents))
        });
        match read {
            Ok((engine, contents)) => {
                self.engine = Some(engine);
                Ok(Found::Sound(contents))
            }
            Err(StoreError::Damaged { .. }) => {
                self.disk.counters.count_mismatch();
                Ok(Found::SetAside(self.disk.set_aside(FILE)?))
            }
            Err(error) => Err(error),
        }
    }

    /// Puts a new catalogue in its place that holds `contents`. It is made under another name, so
    /// that there is never half a one.
    pub(crate) fn renew(&mut self, contents: &Update) -> Result<(), StoreError> {
        let file = self.disk.storage.create(TEMPORARY);
        drop(self.disk.check("create", TEMPORARY, file)?);
        let engine = Engine::open(&self.disk, TEMPORARY)?;
        engine.run(&self.disk, |database| write(database, contents))?;
        self.disk.rename(TEMPORARY, FILE)?;
        self.disk.sync_dir("")?;
        self.engine = Some(engine);
        Ok(())
    }
}

/// The database engine, behind a wall.
struct Engine {
    /// None only while it is dropped.
    database: Option<Database>,
    watch: Arc<Watch>,
}

impl Engine {
    /// Opens a database, checking all its pages. [`StoreError::Io`] when the disk failed,
    /// [`StoreError::Damaged`] when the file is not sound.
    fn open(disk: &Disk, name: &str) -> Result<Self, StoreError> {
        let file = disk.check("open", name, disk.storage.open(name))?;
        let watch = Arc::new(Watch::default());
        let is_empty = disk.check("measure", name, file.len())? == 0;
        if !is_empty && !disk.check("read", name, is_plausible(&*file))? {
            return Err(StoreError::damaged(name, "its header is not that of its length"));
        }
        watch.is_opening.store(!is_empty, Ordering::Release);
        let backend = CatalogueFile { file, watch: Arc::clone(&watch) };
        let mut builder = Builder::new();
        builder.set_cache_size(CACHE_BYTES);
        let opened = guarded(move || builder.create_with_backend(backend));
        watch.is_opening.store(false, Ordering::Release);
        let database = opened.map_err(|what| failure(disk, &watch, &what))?;
        Ok(Self { database: Some(database), watch })
    }

    /// Runs `f` on the database; whatever goes wrong inside is an error.
    fn run<T>(
        &self,
        disk: &Disk,
        f: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database.as_ref().expect("because it is not being dropped");
        guarded(|| f(database)).map_err(|what| failure(disk, &self.watch, &what))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // redb may panic again when what it panicked over is dropped.
        let database = self.database.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

/// Whether the disk failed, or the file is not sound.
fn failure(disk: &Disk, watch: &Watch, what: &str) -> StoreError {
    let Some((kind, text)) = watch.failure.get() else { return StoreError::damaged(FILE, what) };
    let failed = Err(std::io::Error::new(*kind, text.clone()));
    disk.check::<()>("read or change", FILE, failed).expect_err("because it is an error")
}

/// Runs `f`; a panic inside of it is an error like any other.
fn guarded<T, E: std::fmt::Display>(f: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the database engine gave up on it".to_owned()),
    }
}

fn write(database: &Database, update: &Update) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut rows = transaction.open_table(ROWS)?;
        let mut used = transaction.open_table(USED)?;
        for key in &update.remove {
            rows.remove(key.as_slice())?;
            used.remove(key.as_slice())?;
        }
        for (key, row) in &update.put {
            rows.insert(key.as_slice(), row.as_slice())?;
        }
        for (key, at) in &update.used {
            used.insert(key.as_slice(), at)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<Contents, redb::Error> {
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for entry in transaction.open_table(ROWS)?.iter()? {
        let (key, row) = entry?;
        contents.rows.push((key.value().to_vec(), row.value().to_vec()));
    }
    for entry in transaction.open_table(USED)?.iter()? {
        let (key, at) = entry?;
        contents.used.push((key.value().to_vec(), at.value()));
    }
    Ok(contents)
}
