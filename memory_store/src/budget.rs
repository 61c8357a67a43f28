//! What happens when the disk may not hold more? Contexts that were not used for longest go, of
//! whatever tenant, but none that is pinned and none that is open. If even that is not enough,
//! nothing goes and the write is refused.

use std::sync::atomic::Ordering;

use crate::StoreError;
use crate::catalogue::Catalogue;
use crate::publish::Change;
use crate::row::{Key, Pinned};
use crate::shared::Shared;

impl Shared {
    /// Sees to it that `wanted_bytes` more fit.
    pub(crate) fn make_room(
        &self,
        catalogue: &mut Catalogue,
        wanted_bytes: u64,
    ) -> Result<(), StoreError> {
        let Some(max_bytes) = self.options.max_disk_bytes else { return Ok(()) };
        let used_bytes = || self.ledger().bytes() + catalogue.bytes();
        let over = (used_bytes() + wanted_bytes).saturating_sub(max_bytes);
        if over == 0 {
            return Ok(());
        }
        let evictable = self.evictable();
        let freeable = self.ledger().bytes_freed_by(evictable.iter());
        if freeable < over {
            let used_bytes = used_bytes() - freeable;
            return Err(StoreError::DiskBudget { wanted_bytes, used_bytes, max_bytes });
        }
        // The fewest of them, oldest first, that free enough.
        let frees_enough = |n: &usize| self.ledger().bytes_freed_by(evictable[..*n].iter()) >= over;
        let n = (1..evictable.len()).find(frees_enough).unwrap_or(evictable.len());
        let evicted = evictable.into_iter().take(n).map(Change::Remove).collect();
        self.publish(catalogue, evicted)?;
        self.disk.counters.evictions.fetch_add(n as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Contexts that may go, those used longest ago first.
    fn evictable(&self) -> Vec<Key> {
        let ledger = self.ledger();
        let may_go = ledger.rows().filter(|row| row.pinned == Pinned::No);
        let may_go = may_go.filter(|row| !ledger.is_open(&row.key));
        let mut by_use: Vec<_> = may_go.map(|row| (ledger.used(row), row.key.clone())).collect();
        by_use.sort();
        by_use.into_iter().map(|(_, key)| key).collect()
    }
}
