//! What does the running store know by heart? All rows, which segments there are and how many rows
//! refer to each, what was used when, and what is open. Nothing of it is stored: it is counted
//! anew when the store is opened, so it cannot be wrong for longer than a process lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ContextSummary;
use crate::catalogue::Update;
use crate::row::{Key, Row};
use crate::segment::SegmentCell;

/// A segment on disk.
struct Held {
    bytes: u64,
    /// Rows that refer to it.
    refs: u32,
    cell: Arc<SegmentCell>,
}

/// A row, and the bytes of its file.
struct Kept {
    row: Arc<Row>,
    file_bytes: u64,
}

/// The running store's knowledge.
#[derive(Default)]
pub(crate) struct Ledger {
    rows: BTreeMap<Key, Kept>,
    segments: BTreeMap<u64, Held>,
    /// Segments that no row refers to.
    unreferenced: BTreeSet<u64>,
    used: BTreeMap<Key, u64>,
    /// Whose use is not in the catalogue yet.
    used_lately: BTreeSet<Key>,
    /// Contexts that are open, and how often.
    open: BTreeMap<Key, u32>,
    /// Files of rows that are no longer true and could not be removed.
    stale_rows: BTreeSet<u64>,
    segment_bytes: u64,
    row_bytes: u64,
}

impl Ledger {
    pub(crate) fn row(&self, key: &Key) -> Option<&Arc<Row>> {
        self.rows.get(key).map(|kept| &kept.row)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values().map(|kept| &kept.row)
    }

    /// The rows of a tenant, by name.
    pub(crate) fn rows_of<'a>(&'a self, tenant: &'a str) -> impl Iterator<Item = &'a Arc<Row>> {
        let from = Key::new(tenant, "");
        let rows = self.rows.range(from..).take_while(move |(key, _)| key.tenant == tenant);
        rows.map(|(_, kept)| &kept.row)
    }

    /// Takes `row` in, and returns the row that it replaces.
    pub(crate) fn put(&mut self, row: Arc<Row>, file_bytes: u64) -> Option<Arc<Row>> {
        for segment in row.segments() {
            if let Some(held) = self.segments.get_mut(&segment) {
                held.refs += 1;
                self.unreferenced.remove(&segment);
            }
        }
        self.row_bytes += file_bytes;
        let old = self.rows.insert(row.key.clone(), Kept { row, file_bytes });
        old.map(|old| self.forget(old))
    }

    /// Removes a row and returns it.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Row>> {
        self.used.remove(key);
        self.used_lately.remove(key);
        let old = self.rows.remove(key)?;
        Some(self.forget(old))
    }

    fn forget(&mut self, kept: Kept) -> Arc<Row> {
        self.row_bytes -= kept.file_bytes;
        for segment in kept.row.segments() {
            if let Some(held) = self.segments.get_mut(&segment) {
                held.refs -= 1;
                if held.refs == 0 {
                    self.unreferenced.insert(segment);
                }
            }
        }
        kept.row
    }

    /// Takes in a segment that lies on disk.
    pub(crate) fn add_segment(&mut self, cell: Arc<SegmentCell>, bytes: u64) {
        self.segment_bytes += bytes;
        self.unreferenced.insert(cell.id());
        self.segments.insert(cell.id(), Held { bytes, refs: 0, cell });
    }

    pub(crate) fn cell(&self, segment: u64) -> Option<&Arc<SegmentCell>> {
        self.segments.get(&segment).map(|held| &held.cell)
    }

    /// The first segment of `row` that is not there.
    pub(crate) fn missing_segment(&self, row: &Row) -> Option<u64> {
        row.segments().into_iter().find(|segment| !self.segments.contains_key(segment))
    }

    /// Takes out the segments that no row and nobody in this process refers to.
    pub(crate) fn take_garbage(&mut self) -> Vec<u64> {
        let is_held = |id: &u64| Arc::strong_count(&self.segments[id].cell) > 1;
        let garbage: Vec<u64> =
            self.unreferenced.iter().copied().filter(|id| !is_held(id)).collect();
        for segment in &garbage {
            self.drop_segment(*segment);
        }
        garbage
    }

    /// Takes out those of `row`'s segments that no row refers to, whoever reads them.
    pub(crate) fn take_unreferenced(&mut self, row: &Row) -> Vec<Arc<SegmentCell>> {
        let dead: Vec<u64> = row.segments().intersection(&self.unreferenced).copied().collect();
        dead.into_iter().filter_map(|segment| self.drop_segment(segment)).collect()
    }

    fn drop_segment(&mut self, segment: u64) -> Option<Arc<SegmentCell>> {
        self.unreferenced.remove(&segment);
        let held = self.segments.remove(&segment)?;
        self.segment_bytes -= held.bytes;
        Some(held.cell)
    }

    /// Bytes of all segments and rows.
    pub(crate) fn bytes(&self) -> u64 {
        self.segment_bytes + self.row_bytes
    }

    /// Bytes of segments and rows that would go if all of `keys` went.
    pub(crate) fn bytes_freed_by<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> u64 {
        let (mut refs, mut freed) = (BTreeMap::<u64, u32>::new(), 0);
        for kept in keys.filter_map(|key| self.rows.get(key)) {
            freed += kept.file_bytes;
            for segment in kept.row.segments() {
                *refs.entry(segment).or_default() += 1;
            }
        }
        let is_freed = |(segment, n): (&u64, &u32)| {
            self.segments.get(segment).filter(|held| held.refs == *n).map(|held| held.bytes)
        };
        freed + refs.iter().filter_map(is_freed).sum::<u64>()
    }

    /// Segments that rows refer to and nobody in this process has open, and their bytes.
    pub(crate) fn idle_segments(&self) -> BTreeMap<u64, u64> {
        let held = self.segments.iter().filter(|(_, held)| held.refs > 0);
        let idle = held.filter(|(_, held)| Arc::strong_count(&held.cell) == 1);
        idle.map(|(id, held)| (*id, held.bytes)).collect()
    }

    /// When the context was last used.
    pub(crate) fn used(&self, row: &Row) -> u64 {
        self.used.get(&row.key).copied().unwrap_or(row.created)
    }

    pub(crate) fn set_used(&mut self, key: &Key, at: u64) {
        if self.used.insert(key.clone(), at) != Some(at) {
            self.used_lately.insert(key.clone());
        }
    }

    /// Takes in what the catalogue knows of uses.
    pub(crate) fn take_in_uses(&mut self, uses: &[(Vec<u8>, u64)]) {
        let uses: BTreeMap<&[u8], u64> = uses.iter().map(|(key, at)| (&key[..], *at)).collect();
        for key in self.rows.keys() {
            if let Some(at) = uses.get(&key.bytes()[..]) {
                self.used.insert(key.clone(), *at);
            }
        }
    }

    /// All that a catalogue is to hold.
    pub(crate) fn contents(&self) -> Update {
        let put = self.rows().map(|row| (row.key.bytes(), row.encode())).collect();
        let used = self.used.iter().filter(|(key, _)| self.rows.contains_key(key));
        let used = used.map(|(key, at)| (key.bytes(), *at)).collect();
        Update { put, used, ..Update::default() }
    }

    /// What the catalogue does not know of uses yet.
    pub(crate) fn take_used_lately(&mut self) -> Vec<(Vec<u8>, u64)> {
        let lately = std::mem::take(&mut self.used_lately);
        let is_kept = |key: &Key| self.rows.contains_key(key);
        lately.into_iter().filter(is_kept).map(|key| (key.bytes(), self.used[&key])).collect()
    }

    pub(crate) fn open(&mut self, key: &Key) {
        *self.open.entry(key.clone()).or_default() += 1;
    }

    pub(crate) fn close(&mut self, key: &Key) {
        if let Some(n) = self.open.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                self.open.remove(key);
            }
        }
    }

    pub(crate) fn is_open(&self, key: &Key) -> bool {
        self.open.contains_key(key)
    }

    pub(crate) fn stale_rows(&mut self) -> &mut BTreeSet<u64> {
        &mut self.stale_rows
    }

    /// Segments that rows refer to, and their bytes.
    pub(crate) fn referenced_segments(&self) -> Vec<(Arc<SegmentCell>, u64)> {
        let referenced = self.segments.values().filter(|held| held.refs > 0);
        referenced.map(|held| (Arc::clone(&held.cell), held.bytes)).collect()
    }

    pub(crate) fn summary(&self, row: &Row) -> ContextSummary {
        let held = |segment| self.segments.get(&segment);
        let segments = row.segments();
        let bytes = |own_only: bool| -> u64 {
            let counted = segments.iter().filter_map(|segment| held(*segment));
            counted.filter(|held| !own_only || held.refs <= 1).map(|held| held.bytes).sum()
        };
        ContextSummary {
            tenant: row.key.tenant.clone(),
            name: row.key.name.clone(),
            fingerprint: row.fingerprint,
            prefix_key: row.prefix_key,
            length: row.length,
            meta: row.meta.clone(),
            records: row.streams.iter().map(|stream| stream.records).collect(),
            shapes: row.streams.iter().map(|stream| stream.shape).collect(),
            disk_bytes: bytes(false),
            own_bytes: bytes(true),
            created: row.created,
            used: self.used(row),
            expires: row.expires,
            pinned: row.pinned,
            parent: row.parent.clone(),
            generation: row.generation,
        }
    }
}
