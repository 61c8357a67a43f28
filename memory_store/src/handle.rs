//! Who keeps a store alive? Whoever has a part of it: the store itself, its open contexts and their
//! streams. The last to go writes what is queued and closes it.

use std::any::Any;
use std::sync::Arc;

use crate::StoreError;
use crate::catalogue::Update;
use crate::disk::Disk;
use crate::recovery::{OpenReport, Recovered, recover};
use crate::shared::{Shared, StoreOptions};
use crate::storage::Storage;
use crate::writer::Writer;

/// An open store.
pub(crate) struct Handle {
    /// None only while it is dropped.
    writer: Option<Writer>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) report: OpenReport,
    /// Let go of last.
    _lock: Box<dyn Any + Send + Sync>,
}

impl Handle {
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let lock = storage.lock().map_err(|refused| match refused {
            Ok(owner) => StoreError::Locked { dir: storage.name(), owner },
            Err(error) => StoreError::io("lock", "LOCK", &error),
        })?;
        let disk = Disk::new(storage);
        let Recovered { ledger, catalogue, next_id, report } = recover(&disk)?;
        let shared = Arc::new(Shared::new(disk, options, (ledger, catalogue), next_id));
        let writer = Some(Writer::start(&shared)?);
        Ok(Self { writer, shared, report, _lock: lock })
    }

    pub(crate) fn writer(&self) -> &Writer {
        self.writer.as_ref().expect("because the handle is not being dropped")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.writer.take());
        let used = self.shared.ledger().take_used_lately();
        if !used.is_empty() {
            // When a context was last used may be forgotten.
            let update = Update { used, ..Update::default() };
            let _ = self.shared.catalogue().apply(&update);
        }
        self.shared.collect();
    }
}
