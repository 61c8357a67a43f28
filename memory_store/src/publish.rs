//! How does a change of rows become true? In this order, so that at every moment either the old
//! rows or the new ones are found after a power cut:
//!
//! 1. the segments that new rows refer to are durable (the writer saw to it);
//! 2. each new row's file is written, synced and named; files of removed rows are renamed, so that
//!    they say so; the folder is synced. **From here on the change is found**;
//! 3. the catalogue is changed in one transaction;
//! 4. files that are superseded and segments that no row refers to are removed.
//!
//! A row's file without its segments is not believed (docs/store-format.md has all cases).

use std::sync::Arc;

use crate::StoreError;
use crate::catalogue::{Catalogue, Update};
use crate::row::{Key, Row};
use crate::segment::{FOLDER, file_name};
use crate::shared::Shared;

/// The file of the row `id`.
pub(crate) fn row_file(id: u64) -> String {
    format!("{FOLDER}/{id:016x}.row")
}

/// The file of the row `id` once its context was deleted.
pub(crate) fn gone_file(id: u64) -> String {
    format!("{FOLDER}/{id:016x}.gone")
}

/// A change of one row.
pub(crate) enum Change {
    /// The context is this from now on; the row's `id` is given here.
    Put(Box<Row>),
    /// There is no such context from now on.
    Remove(Key),
}

impl Shared {
    /// Makes all of `changes` true, or says why not. Whoever calls this holds the catalogue.
    pub(crate) fn publish(
        &self,
        catalogue: &mut Catalogue,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        let (mut rows, mut removed) = (Vec::new(), Vec::new());
        for change in changes {
            match change {
                Change::Put(row) => rows.push(Row { id: self.next_id(), ..*row }),
                Change::Remove(key) => removed.extend(self.ledger().row(&key).cloned()),
            }
        }
        self.remove_stale_rows(!removed.is_empty())?;
        if catalogue.is_broken() {
            let contents = self.ledger().contents();
            catalogue.renew(&contents)?;
        }
        let encoded: Vec<Vec<u8>> = rows.iter().map(Row::encode).collect();
        let named = self.name_rows(&rows, &encoded, &removed).and_then(|()| {
            let update = Update {
                put: rows.iter().map(|row| row.key.bytes()).zip(encoded.iter().cloned()).collect(),
                remove: removed.iter().map(|row| row.key.bytes()).collect(),
                used: self.ledger().take_used_lately(),
            };
            catalogue.apply(&update)
        });
        if let Err(error) = named {
            self.withdraw(&rows);
            return Err(error);
        }
        self.enter(rows, &encoded, &removed);
        Ok(())
    }

    /// Steps 2: files of rows.
    fn name_rows(
        &self,
        rows: &[Row],
        encoded: &[Vec<u8>],
        removed: &[Arc<Row>],
    ) -> Result<(), StoreError> {
        for (row, bytes) in rows.iter().zip(encoded) {
            let temporary = format!("{FOLDER}/{:016x}.rtmp", row.id);
            self.disk.write_named(&temporary, &row_file(row.id), &|to| to.write_at(0, bytes))?;
        }
        for row in removed {
            // An earlier attempt may have got so far already.
            self.disk.rename_if_there(&row_file(row.id), &gone_file(row.id))?;
        }
        self.disk.sync_dir(FOLDER)
    }

    /// After a failure: takes the new rows' files back.
    fn withdraw(&self, rows: &[Row]) {
        let mut ledger = self.ledger();
        ledger.stale_rows().extend(rows.iter().map(|row| row.id));
        drop(ledger);
        let _ = self.remove_stale_rows(false);
    }

    /// Step 4, and what the running store knows.
    fn enter(&self, rows: Vec<Row>, encoded: &[Vec<u8>], removed: &[Arc<Row>]) {
        let mut ledger = self.ledger();
        let mut dead = Vec::new();
        for row in removed {
            ledger.remove(&row.key);
            dead.extend(ledger.take_unreferenced(row));
        }
        for (row, bytes) in rows.into_iter().zip(encoded) {
            let old = ledger.put(Arc::new(row), bytes.len() as u64);
            ledger.stale_rows().extend(old.map(|old| old.id));
        }
        drop(ledger);
        for row in removed {
            let _ = self.disk.remove(&gone_file(row.id));
        }
        for cell in dead {
            if Arc::strong_count(&cell) > 1 {
                // Somebody has it open: a mapping made now outlives the file's name.
                let _ = cell.segment();
            }
            let _ = self.disk.remove(&file_name(cell.id()));
        }
        let _ = self.remove_stale_rows(false);
        self.collect();
    }

    /// Removes segments that nothing refers to. What cannot be removed is left to the next open.
    pub(crate) fn collect(&self) {
        let garbage = self.ledger().take_garbage();
        for segment in garbage {
            let _ = self.disk.remove(&file_name(segment));
        }
    }

    /// Removes files of rows that are no longer true. When `must`, not one may be left: it would
    /// be taken for the newest once those that supersede it are gone.
    fn remove_stale_rows(&self, must: bool) -> Result<(), StoreError> {
        let stale = std::mem::take(self.ledger().stale_rows());
        let mut failed = None;
        for id in stale {
            if let Err(error) = self.disk.remove(&row_file(id)) {
                self.ledger().stale_rows().insert(id);
                failed = Some(error);
            }
        }
        failed.filter(|_| must).map_or(Ok(()), Err)
    }
}
