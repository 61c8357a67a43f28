//! How does what a stream appends get to a commit? Through the stream's backlog, which the stream
//! fills and the context empties: groups of records that no segment has yet, and where those that
//! have one lie.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::measures::Measures;
use crate::row::{Extent, StreamRow};
use crate::segment::{Part, Parts, SegmentCell};
use crate::{AlignedBytes, StoreError};

/// Records of a stream that lie in a segment, which may still be on its way to the disk.
#[derive(Clone, Debug)]
pub(crate) struct PlacedExtent {
    /// The number of the first.
    pub(crate) first: u64,
    pub(crate) n: u32,
    /// The slot of the first.
    pub(crate) slot: u32,
    pub(crate) cell: Arc<SegmentCell>,
}

impl PlacedExtent {
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.n)
    }

    /// Cuts a list of them, in order, down to the records before `len`.
    pub(crate) fn cut(list: &mut Vec<Self>, len: u64) {
        list.truncate(list.partition_point(|extent| extent.first < len));
        if let Some(last) = list.last_mut() {
            last.n = last.n.min((len - last.first) as u32);
        }
    }
}

/// Records that wait for a segment.
struct Waiting {
    first: u64,
    n: usize,
    /// Where the first lies in `bytes`.
    at: usize,
    bytes: Arc<AlignedBytes>,
}

/// Small records gathered one by one.
struct Partial {
    first: u64,
    n: usize,
    bytes: AlignedBytes,
}

#[derive(Default)]
struct State {
    /// Records `0..placed_len`.
    placed: Vec<PlacedExtent>,
    placed_len: u64,
    /// What follows them, in order; then the partial group.
    waiting: VecDeque<Waiting>,
    partial: Option<Partial>,
}

/// Takes a full segment's worth of parts to the writer.
pub(crate) trait Outlet: Send + Sync {
    /// Why nothing more can be written, if so.
    fn check(&self) -> Result<(), StoreError>;
    /// Bytes from which on a segment is worth a file.
    fn segment_bytes(&self) -> u64;
    /// A new segment.
    fn announce(&self) -> Arc<SegmentCell>;
    /// Waits for a place in the queue.
    fn write(&self, cell: Arc<SegmentCell>, parts: Parts) -> Result<(), StoreError>;
}

/// A stream's backlog.
pub(crate) struct Backlog {
    measures: Measures,
    outlet: Arc<dyn Outlet>,
    state: Mutex<State>,
}

impl Backlog {
    pub(crate) fn new(
        measures: Measures,
        placed: Vec<PlacedExtent>,
        outlet: Arc<dyn Outlet>,
    ) -> Self {
        let placed_len = placed.last().map_or(0, PlacedExtent::end);
        let state = State { placed, placed_len, ..State::default() };
        Self { measures, outlet, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn measures(&self) -> Measures {
        self.measures
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.outlet.check()
    }

    /// Takes in a copy of a small record.
    pub(crate) fn push_record(&self, number: u64, record: &[u8]) -> Result<(), StoreError> {
        let Measures { stride, group_records, .. } = self.measures;
        let mut state = self.state();
        if state.partial.is_none() {
            let bytes = AlignedBytes::zeroed(stride * group_records)?;
            state.partial = Some(Partial { first: number, n: 0, bytes });
        }
        let partial = state.partial.as_mut().expect("because it was just made sure of");
        debug_assert_eq!(partial.first + partial.n as u64, number, "records come in order");
        let at = partial.n * stride;
        partial.bytes[at..at + record.len()].copy_from_slice(record);
        partial.n += 1;
        if partial.n == group_records {
            state.seal_partial();
            return self.write_if_full(state);
        }
        Ok(())
    }

    /// Takes in records that lie in memory which nobody changes.
    pub(crate) fn push_group(
        &self,
        first: u64,
        n: usize,
        bytes: Arc<AlignedBytes>,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        state.waiting.push_back(Waiting { first, n, at: 0, bytes });
        self.write_if_full(state)
    }

    /// Hands a segment to the writer when there is enough for one. The lock is kept meanwhile, so
    /// that no commit which counts these records gets to the writer before them.
    fn write_if_full(&self, mut state: MutexGuard<'_, State>) -> Result<(), StoreError> {
        let n: usize = state.waiting.iter().map(|waiting| waiting.n).sum();
        if ((n * self.measures.stride) as u64) < self.outlet.segment_bytes() {
            return Ok(());
        }
        let (cell, mut parts) = (self.outlet.announce(), Parts::default());
        self.place(&mut state, u64::MAX, &cell, &mut parts);
        self.outlet.write(cell, parts)
    }

    /// Moves waiting records with numbers below `until` into `parts` of the segment `cell`.
    fn place(&self, state: &mut State, until: u64, cell: &Arc<SegmentCell>, parts: &mut Parts) {
        while let Some(mut waiting) = state.waiting.pop_front() {
            let n = waiting.n.min(until.saturating_sub(waiting.first) as usize);
            if n > 0 {
                let (stream, shape) = (self.measures.stream, self.measures.shape);
                let part = Part {
                    stream,
                    first: waiting.first,
                    n,
                    record_bytes: shape.record_bytes,
                    section_bytes: shape.section_bytes,
                    stride: self.measures.stride,
                    at: waiting.at,
                    bytes: Arc::clone(&waiting.bytes),
                };
                let slot = parts.push(part);
                let (first, cell) = (waiting.first, Arc::clone(cell));
                state.placed.push(PlacedExtent { first, n: n as u32, slot, cell });
                state.placed_len = first + n as u64;
            }
            if n < waiting.n {
                waiting.first += n as u64;
                waiting.at += n * self.measures.stride;
                waiting.n -= n;
                state.waiting.push_front(waiting);
                return;
            }
        }
    }

    /// Records there are.
    pub(crate) fn len(&self) -> u64 {
        self.state().len()
    }

    /// The row of the first `records`; those that no segment has yet go into `parts` of `cell`.
    pub(crate) fn commit(
        &self,
        records: u64,
        cell: &Arc<SegmentCell>,
        parts: &mut Parts,
    ) -> StreamRow {
        let mut state = self.state();
        if state.partial.as_ref().is_some_and(|partial| partial.first < records) {
            state.seal_partial();
        }
        self.place(&mut state, records, cell, parts);
        let mut row = StreamRow::new(self.measures.shape);
        for extent in state.placed.iter().take_while(|extent| extent.first < records) {
            let n = extent.n.min((records - extent.first) as u32);
            row.push(Extent { segment: extent.cell.id(), first: extent.slot, n });
        }
        row
    }

    /// Forgets records from `len` on.
    pub(crate) fn truncate(&self, len: u64) {
        let mut state = self.state();
        PlacedExtent::cut(&mut state.placed, len);
        state.placed_len = state.placed_len.min(len);
        state.waiting.retain_mut(|waiting| {
            waiting.n = waiting.n.min(len.saturating_sub(waiting.first) as usize);
            waiting.n > 0
        });
        let partial = state.partial.take().filter(|partial| partial.first < len);
        state.partial = partial
            .map(|partial| Partial { n: partial.n.min((len - partial.first) as usize), ..partial });
    }

    /// Appends to `into` the extents after the first `known`, unless somebody is just changing
    /// them.
    pub(crate) fn new_since(&self, known: usize, into: &mut VecDeque<PlacedExtent>) {
        if let Ok(state) = self.state.try_lock() {
            into.extend(state.placed.iter().skip(known).cloned());
        }
    }

    /// The segments that hold its records.
    pub(crate) fn cells(&self) -> Vec<Arc<SegmentCell>> {
        self.state().placed.iter().map(|extent| Arc::clone(&extent.cell)).collect()
    }

    /// The extents of the records that have a segment.
    pub(crate) fn placed(&self) -> Vec<PlacedExtent> {
        self.state().placed.clone()
    }
}

impl State {
    fn seal_partial(&mut self) {
        if let Some(Partial { first, n, bytes }) = self.partial.take() {
            self.waiting.push_back(Waiting { first, n, at: 0, bytes: Arc::new(bytes) });
        }
    }

    /// Records there are.
    fn len(&self) -> u64 {
        let waiting = self.waiting.back().map(|waiting| waiting.first + waiting.n as u64);
        let partial = self.partial.as_ref().map(|partial| partial.first + partial.n as u64);
        partial.or(waiting).unwrap_or(self.placed_len)
    }
}
