//! What do all handles and the writer thread of one store share?

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::catalogue::Catalogue;
use crate::disk::Disk;
use crate::ledger::Ledger;

/// Seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a store is to behave.
#[derive(Clone)]
pub struct StoreOptions {
    /// Bytes of disk that it may take up: beyond them contexts are removed, those used longest ago
    /// first.
    pub max_disk_bytes: Option<u64>,
    /// Bytes that a segment file aims at.
    pub segment_bytes: usize,
    /// Segments that may wait for the writer before whoever appends has to wait.
    pub in_flight_segments: usize,
    /// What time it is; for tests.
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let now = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        Self {
            max_disk_bytes: None,
            segment_bytes: 64 << 20,
            in_flight_segments: 2,
            clock: Arc::new(now),
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("max_disk_bytes", &self.max_disk_bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("in_flight_segments", &self.in_flight_segments)
            .finish_non_exhaustive()
    }
}

/// The store as its parts see it.
pub(crate) struct Shared {
    pub(crate) disk: Arc<Disk>,
    pub(crate) options: StoreOptions,
    ledger: Mutex<Ledger>,
    /// Whoever holds it, and nobody else, changes rows. Taken before the ledger.
    catalogue: Mutex<Catalogue>,
    next_id: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<Disk>,
        options: StoreOptions,
        (ledger, catalogue): (Ledger, Catalogue),
        next_id: u64,
    ) -> Self {
        let (ledger, catalogue) = (Mutex::new(ledger), Mutex::new(catalogue));
        Self { disk, options, ledger, catalogue, next_id: AtomicU64::new(next_id) }
    }

    /// A number that no segment and no row has had.
    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn now(&self) -> u64 {
        (self.options.clock)()
    }

    /// Held for short: nothing waits for a disk under it.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to change rows.
    pub(crate) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
