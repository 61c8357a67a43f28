//! What does one do with a context? Read its records, append more, and commit: from then on the
//! context is what the commit says, or, if it fails, what it was before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backlog::{Backlog, Outlet, PlacedExtent};
use crate::handle::Handle;
use crate::measures::Measures;
use crate::row::{Key, MAX_NAME_BYTES, Pinned, Row, TailPlace};
use crate::segment::{Part, Parts, SegmentCell, TAIL_STREAM, Wanted};
use crate::stream::Stream;
use crate::writer::{CommitJob, Progress, SegmentJob};
use crate::{
    AlignedBytes, ContextSummary, Fingerprint, PrefixKey, RECORD_ALIGN, StoreError, StreamShape,
    UnitStore,
};

/// What a context is from a commit on.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub name: String,
    /// What its bytes mean.
    pub fingerprint: Fingerprint,
    /// What it was made from.
    pub prefix_key: PrefixKey,
    /// Its length, in the caller's units.
    pub length: u64,
    /// The caller's own bytes.
    pub meta: Vec<u8>,
    /// Of each stream, how many records belong to it: the first ones.
    pub records: Vec<u64>,
    /// Bytes that every commit replaces.
    pub tail: Vec<u8>,
}

/// A context being read, and perhaps extended.
pub struct OpenContext {
    handle: Arc<Handle>,
    streams: Vec<OpenStream>,
    progress: Arc<Progress>,
    /// The context and its generation, our own commits counted.
    base: Option<(Key, u64)>,
    summary: Option<ContextSummary>,
    tail: Tail,
}

struct OpenStream {
    backlog: Arc<Backlog>,
    /// Whether somebody appends to it.
    is_taken: AtomicBool,
}

enum Tail {
    Empty,
    /// On its way to the disk.
    Memory(Arc<AlignedBytes>),
    Placed(Arc<SegmentCell>, TailPlace),
}

/// Where the backlogs of a context empty into.
struct ContextOutlet {
    handle: Arc<Handle>,
    progress: Arc<Progress>,
}

impl Outlet for ContextOutlet {
    fn check(&self) -> Result<(), StoreError> {
        self.progress.check()
    }

    fn segment_bytes(&self) -> u64 {
        self.handle.shared.options.segment_bytes as u64
    }

    fn announce(&self) -> Arc<SegmentCell> {
        let shared = &self.handle.shared;
        SegmentCell::announced(&shared.disk, shared.next_id())
    }

    fn write(&self, cell: Arc<SegmentCell>, parts: Parts) -> Result<(), StoreError> {
        self.handle.writer().write(SegmentJob { cell, parts }, &self.progress)
    }
}

impl OpenContext {
    /// A context of these streams that nothing is known of yet.
    pub(crate) fn create(handle: &Arc<Handle>, shapes: &[StreamShape]) -> Self {
        Self::new(handle, shapes.iter().map(|shape| (*shape, Vec::new())))
    }

    /// The context of `row`, whose segments are all in the ledger.
    pub(crate) fn open(handle: &Arc<Handle>, row: &Row, cells: &[Arc<SegmentCell>]) -> Self {
        let cell = |id: u64| {
            let idx = cells.binary_search_by_key(&id, |cell| cell.id());
            Arc::clone(&cells[idx.expect("because the cells are the row's")])
        };
        let streams = row.streams.iter().map(|stream| {
            let mut first = 0;
            let place = |extent: &crate::row::Extent| {
                let (cell, n) = (cell(extent.segment), extent.n);
                let placed = PlacedExtent { first, n, slot: extent.first, cell };
                first = placed.end();
                placed
            };
            (stream.shape, stream.extents.iter().map(place).collect())
        });
        let mut context = Self::new(handle, streams);
        context.base = Some((row.key.clone(), row.generation));
        if let Some(place) = row.tail {
            context.tail = Tail::Placed(cell(place.segment), place);
        }
        context
    }

    fn new(
        handle: &Arc<Handle>,
        streams: impl Iterator<Item = (StreamShape, Vec<PlacedExtent>)>,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        let outlet: Arc<dyn Outlet> =
            Arc::new(ContextOutlet { handle: Arc::clone(handle), progress: Arc::clone(&progress) });
        let segment_bytes = handle.shared.options.segment_bytes;
        let streams = streams.enumerate().map(|(i, (shape, placed))| {
            let measures = Measures::new(i as u32, shape, segment_bytes);
            let backlog = Arc::new(Backlog::new(measures, placed, Arc::clone(&outlet)));
            OpenStream { backlog, is_taken: AtomicBool::new(false) }
        });
        let streams = streams.collect();
        let (handle, tail) = (Arc::clone(handle), Tail::Empty);
        Self { handle, streams, progress, base: None, summary: None, tail }
    }

    /// The context as of the last commit made or found here; none before the first.
    pub fn summary(&self) -> Option<&ContextSummary> {
        self.summary.as_ref()
    }

    pub(crate) fn set_summary(&mut self, summary: ContextSummary) {
        self.summary = Some(summary);
    }

    /// The records of stream `i`, committed ones first. What is appended to the stream that was
    /// handed out first belongs to the context from the next commit that counts it; streams handed
    /// out later, and forks, begin with what is durable by then and keep what is appended to them
    /// in host memory only.
    ///
    /// # Panics
    /// When there is no stream `i`.
    pub fn stream(&self, i: usize) -> Box<dyn UnitStore> {
        let OpenStream { backlog, is_taken } = &self.streams[i];
        let is_first = !is_taken.swap(true, Ordering::AcqRel);
        let backlog_of_first = is_first.then(|| Arc::clone(backlog));
        Box::new(Stream::new(backlog.measures(), backlog.placed(), backlog_of_first))
    }

    /// The tail, all of it verified.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was committed.
    pub fn tail(&self) -> Result<Vec<u8>, StoreError> {
        match &self.tail {
            Tail::Empty => Ok(Vec::new()),
            Tail::Memory(bytes) => Ok(bytes.to_vec()),
            Tail::Placed(cell, place) => Ok(cell.segment()?.read(&tail_wanted(place), 0)?.to_vec()),
        }
    }

    /// Hands the row, and what was appended and is counted by it, to the writer: waits for room in
    /// the queue, not for the disk.
    ///
    /// # Errors
    /// When the commit counts what there is not, or any earlier write failed; the context is
    /// then what it was. [`StoreError::Conflict`] when it was changed meanwhile, as far as is
    /// known yet: [`sync`](Self::sync) knows for sure.
    pub fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        self.progress.check()?;
        self.check(&commit)?;
        let key = Key::new(&commit.tenant, &commit.name);
        let generation =
            self.base.as_ref().filter(|(base, _)| *base == key).map_or(0, |base| base.1);
        self.check_generation(&key, generation)?;
        let shared = &self.handle.shared;
        let cell = SegmentCell::announced(&shared.disk, shared.next_id());
        let mut parts = Parts::default();
        let rows = self.streams.iter().zip(&commit.records);
        let streams =
            rows.map(|(stream, &n)| stream.backlog.commit(n, &cell, &mut parts)).collect();
        let (bytes, tail) = place_tail(&commit.tail, &cell, &mut parts)?;
        let held = self.streams.iter().flat_map(|stream| stream.backlog.cells()).collect();
        let row = Row {
            id: 0,
            key: key.clone(),
            fingerprint: commit.fingerprint,
            prefix_key: commit.prefix_key,
            length: commit.length,
            generation: generation + 1,
            created: shared.now(),
            expires: None,
            pinned: Pinned::No,
            parent: None,
            meta: commit.meta,
            streams,
            tail,
        };
        self.summary = Some(shared.ledger().summary(&row));
        let segment = (!parts.is_empty()).then_some(SegmentJob { cell, parts });
        self.rebase(key, generation + 1);
        self.tail = bytes.map_or(Tail::Empty, Tail::Memory);
        let job = CommitJob { segment, row: Box::new(row), _held: held };
        self.handle.writer().commit(job, &self.progress)
    }

    /// Waits until all commits are durable.
    ///
    /// # Errors
    /// When any write failed: the context is then what the last commit that succeeded says, and
    /// nothing more can be committed from here.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        self.progress.wait()?;
        let Some((key, generation)) = &self.base else { return Ok(()) };
        let ledger = self.handle.shared.ledger();
        let Some(row) = ledger.row(key).filter(|row| row.generation == *generation) else {
            return Ok(()); // Somebody else was here meanwhile; the next commit says so.
        };
        self.summary = Some(ledger.summary(row));
        if let (Tail::Memory(_), Some(place)) = (&self.tail, row.tail)
            && let Some(cell) = ledger.cell(place.segment)
        {
            self.tail = Tail::Placed(Arc::clone(cell), place);
        }
        Ok(())
    }

    /// Whether the commit can be made of what there is.
    fn check(&self, commit: &Commit) -> Result<(), StoreError> {
        check_name(&commit.tenant)?;
        check_name(&commit.name)?;
        let n_streams = self.streams.len().max(commit.records.len());
        for stream in 0..n_streams {
            let actual = self.streams.get(stream).map(|stream| stream.backlog.len());
            let wanted = commit.records.get(stream).copied();
            // Neither may count a stream that the other does not know of.
            if wanted.is_none() || wanted > actual {
                let (wanted, actual) = (wanted.unwrap_or(0), actual.unwrap_or(0));
                return Err(StoreError::TooFewRecords { stream, wanted, actual });
            }
        }
        Ok(())
    }

    /// Whether somebody else is known to have changed the context.
    fn check_generation(&self, key: &Key, expected: u64) -> Result<(), StoreError> {
        let found = self.handle.shared.ledger().row(key).map(|row| row.generation);
        if found.is_some_and(|found| found > expected) {
            return Err(StoreError::Conflict { name: key.name.clone(), expected, found });
        }
        Ok(())
    }

    /// Says which context is open here from now on.
    fn rebase(&mut self, key: Key, generation: u64) {
        let mut ledger = self.handle.shared.ledger();
        if self.base.as_ref().is_none_or(|(base, _)| *base != key) {
            ledger.open(&key);
            if let Some((old, _)) = &self.base {
                ledger.close(old);
            }
        }
        drop(ledger);
        self.base = Some((key, generation));
    }
}

impl Drop for OpenContext {
    fn drop(&mut self) {
        if let Some((key, _)) = &self.base {
            self.handle.shared.ledger().close(key);
        }
    }
}

/// A tenant's or a context's name must fit its row.
pub(crate) fn check_name(name: &str) -> Result<(), StoreError> {
    let (bytes, max) = (name.len(), MAX_NAME_BYTES);
    if bytes > max { Err(StoreError::NameTooLong { bytes, max }) } else { Ok(()) }
}

/// The tail as the segment's reader knows it.
pub(crate) fn tail_wanted(place: &TailPlace) -> Wanted {
    Wanted {
        slot: place.slot,
        stream: TAIL_STREAM,
        number: 0,
        bytes: place.bytes,
        section_bytes: place.bytes,
    }
}

/// Adds the tail to `parts` of the segment `cell`.
pub(crate) fn place_tail(
    tail: &[u8],
    cell: &SegmentCell,
    parts: &mut Parts,
) -> Result<(Option<Arc<AlignedBytes>>, Option<TailPlace>), StoreError> {
    if tail.is_empty() {
        return Ok((None, None));
    }
    let stride = tail.len().next_multiple_of(RECORD_ALIGN);
    let mut bytes = AlignedBytes::zeroed(stride)?;
    bytes[..tail.len()].copy_from_slice(tail);
    let bytes = Arc::new(bytes);
    let slot = parts.push(Part {
        stream: TAIL_STREAM,
        first: 0,
        n: 1,
        record_bytes: tail.len(),
        section_bytes: tail.len(),
        stride,
        at: 0,
        bytes: Arc::clone(&bytes),
    });
    let place = TailPlace { segment: cell.id(), slot, bytes: tail.len() as u64 };
    Ok((Some(bytes), Some(place)))
}
