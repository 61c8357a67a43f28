//! What can be done with a store? Contexts are made, found, listed, forked, kept and removed here;
//! nothing is ever found without saying whose it is.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::context::{OpenContext, check_name};
use crate::directory::DirStorage;
use crate::disk::Events;
use crate::handle::Handle;
use crate::publish::Change;
use crate::recovery::OpenReport;
use crate::row::{Key, Pinned, Row};
use crate::segment::SegmentCell;
use crate::shared::StoreOptions;
use crate::storage::Storage;
use crate::{ContextSummary, StoreError, StreamShape};

/// Contexts that outlive the process. Clones are the same store.
#[derive(Clone)]
pub struct Store {
    pub(crate) handle: Arc<Handle>,
}

impl Store {
    /// The store in the directory `dir`, made if there is none, for this process alone.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::NewerFormat`] when a newer
    /// program wrote it, and whatever the system says. Damage is no error: see
    /// [`report`](Self::report).
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let storage = DirStorage::new(dir);
        let name = dir.display().to_string();
        let storage = storage.map_err(|error| StoreError::io("make", &name, &error))?;
        Self::open_on(Arc::new(storage), options)
    }

    /// The store on `storage`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(storage: Arc<dyn Storage>, options: StoreOptions) -> Result<Self, StoreError> {
        let store = Self { handle: Arc::new(Handle::open(storage, options)?) };
        store.sweep()?;
        Ok(store)
    }

    /// What was found when the store was opened.
    pub fn report(&self) -> OpenReport {
        self.handle.report.clone()
    }

    /// What happened since.
    pub fn events(&self) -> Events {
        self.handle.shared.disk.counters.events()
    }

    /// Counts a context that was not used because its fingerprint is another than wanted.
    pub fn count_fingerprint_miss(&self) {
        self.handle.shared.disk.counters.fingerprints.fetch_add(1, Ordering::Relaxed);
    }

    /// A new context of these streams. Nothing of it is durable before its first commit.
    ///
    /// # Panics
    /// When a record or a section has no bytes.
    pub fn create(&self, shapes: &[StreamShape]) -> OpenContext {
        let is_sound = |shape: &StreamShape| shape.record_bytes > 0 && shape.section_bytes > 0;
        assert!(shapes.iter().all(is_sound), "records and sections have at least one byte");
        OpenContext::create(&self.handle, shapes)
    }

    /// The context of this name, or none when the tenant has none, whoever else has.
    ///
    /// # Errors
    /// None today: damage is found when it is read.
    pub fn open_context(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Option<OpenContext>, StoreError> {
        let (shared, key) = (&self.handle.shared, Key::new(tenant, name));
        let now = shared.now();
        let mut ledger = shared.ledger();
        let Some(row) = ledger.row(&key).filter(|row| !row.is_expired(now)).cloned() else {
            return Ok(None);
        };
        ledger.set_used(&key, now);
        ledger.open(&key);
        let segments = row.segments();
        let cells: Vec<Arc<SegmentCell>> =
            segments.iter().filter_map(|id| ledger.cell(*id).cloned()).collect();
        let summary = ledger.summary(&row);
        drop(ledger);
        let mut context = OpenContext::open(&self.handle, &row, &cells);
        context.set_summary(summary);
        Ok(Some(context))
    }

    /// The tenant's contexts, by name.
    ///
    /// # Errors
    /// When those that have expired cannot be removed.
    pub fn list(&self, tenant: &str) -> Result<Vec<ContextSummary>, StoreError> {
        self.sweep()?;
        let ledger = self.handle.shared.ledger();
        Ok(ledger.rows_of(tenant).map(|row| ledger.summary(row)).collect())
    }

    /// What is known of a context, if there is one.
    ///
    /// # Errors
    /// None today.
    pub fn show(&self, tenant: &str, name: &str) -> Result<Option<ContextSummary>, StoreError> {
        let row = self.row(tenant, name).ok();
        let ledger = self.handle.shared.ledger();
        Ok(row.map(|row| ledger.summary(&row)))
    }

    /// Gives the context `from` as it is now a second name, under which it goes its own way. No
    /// record is copied.
    ///
    /// # Errors
    /// When there is no `from`, or a `to` already, or the row cannot be written.
    pub fn fork(&self, tenant: &str, from: &str, to: &str) -> Result<ContextSummary, StoreError> {
        check_name(to)?;
        self.sweep()?;
        let shared = &self.handle.shared;
        let mut catalogue = shared.catalogue();
        let row = self.row(tenant, from)?;
        if self.row(tenant, to).is_ok() {
            return Err(StoreError::NameTaken { name: to.to_owned() });
        }
        let now = shared.now();
        let key = Key::new(tenant, to);
        let fork = Row {
            key: key.clone(),
            generation: 1,
            created: now,
            expires: None,
            pinned: Pinned::No,
            parent: Some(from.to_owned()),
            ..Row::clone(&row)
        };
        shared.make_room(&mut catalogue, fork.encode().len() as u64)?;
        shared.ledger().set_used(&key, now);
        shared.publish(&mut catalogue, vec![Change::Put(Box::new(fork))])?;
        let ledger = shared.ledger();
        ledger.row(&key).map(|row| ledger.summary(row)).ok_or_else(|| unknown(to))
    }

    /// Says whether the context may be removed to make room.
    ///
    /// # Errors
    /// When there is none, or its row cannot be written.
    pub fn set_pinned(&self, tenant: &str, name: &str, pinned: Pinned) -> Result<(), StoreError> {
        self.change_row(tenant, name, &|row| row.pinned = pinned)
    }

    /// Puts other bytes of the caller's in the place of those of the last commit.
    ///
    /// # Errors
    /// When there is none, or its row cannot be written.
    pub fn set_meta(&self, tenant: &str, name: &str, meta: &[u8]) -> Result<(), StoreError> {
        self.change_row(tenant, name, &|row| row.meta = meta.to_vec())
    }

    /// Says when the context is to be removed, in seconds since 1970.
    ///
    /// # Errors
    /// When there is none, or its row cannot be written.
    pub fn set_expiry(&self, tenant: &str, name: &str, at: Option<u64>) -> Result<(), StoreError> {
        self.change_row(tenant, name, &|row| row.expires = at)
    }

    /// Removes a context, and the records that no other has. Who has it open may read on.
    ///
    /// # Errors
    /// When there is none, or it cannot be removed: it is then there, or gone.
    pub fn delete(&self, tenant: &str, name: &str) -> Result<(), StoreError> {
        let shared = &self.handle.shared;
        let mut catalogue = shared.catalogue();
        let row = self.row(tenant, name)?;
        shared.publish(&mut catalogue, vec![Change::Remove(row.key.clone())])
    }

    /// Removes what has expired, and says what it was.
    ///
    /// # Errors
    /// When it cannot be removed; it is not served all the same.
    pub fn sweep(&self) -> Result<Vec<ContextSummary>, StoreError> {
        let shared = &self.handle.shared;
        let now = shared.now();
        let is_any = shared.ledger().rows().any(|row| row.is_expired(now));
        if !is_any {
            return Ok(Vec::new());
        }
        let mut catalogue = shared.catalogue();
        let ledger = shared.ledger();
        let expired: Vec<_> = ledger.rows().filter(|row| row.is_expired(now)).cloned().collect();
        let summaries = expired.iter().map(|row| ledger.summary(row)).collect();
        drop(ledger);
        let changes = expired.iter().map(|row| Change::Remove(row.key.clone())).collect();
        shared.publish(&mut catalogue, changes)?;
        shared.disk.counters.expirations.fetch_add(expired.len() as u64, Ordering::Relaxed);
        Ok(summaries)
    }

    /// The row of a context that has not expired.
    pub(crate) fn row(&self, tenant: &str, name: &str) -> Result<Arc<Row>, StoreError> {
        let (shared, key) = (&self.handle.shared, Key::new(tenant, name));
        let now = shared.now();
        let row = shared.ledger().row(&key).filter(|row| !row.is_expired(now)).cloned();
        row.ok_or_else(|| unknown(name))
    }

    fn change_row(
        &self,
        tenant: &str,
        name: &str,
        change: &dyn Fn(&mut Row),
    ) -> Result<(), StoreError> {
        let shared = &self.handle.shared;
        let mut catalogue = shared.catalogue();
        let mut row = Row::clone(&*self.row(tenant, name)?);
        change(&mut row);
        shared.publish(&mut catalogue, vec![Change::Put(Box::new(row))])
    }
}

fn unknown(name: &str) -> StoreError {
    StoreError::UnknownContext { name: name.to_owned() }
}
