//! Who writes? One thread a store, fed by a queue of a few places: whoever appends faster than the
//! disk takes it waits for a place, and memory does not grow.
//!
//! What fails is said to the context that it was for, which is then done with: its later jobs are
//! skipped, so that no commit is built on a segment that is not there.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::StoreError;
use crate::catalogue::Catalogue;
use crate::publish::Change;
use crate::row::Row;
use crate::segment::{Parts, SegmentCell};
use crate::shared::Shared;

/// A segment to be written.
pub(crate) struct SegmentJob {
    pub(crate) cell: Arc<SegmentCell>,
    pub(crate) parts: Parts,
}

/// A context's next row, and the segment that holds its last records and its tail.
pub(crate) struct CommitJob {
    pub(crate) segment: Option<SegmentJob>,
    pub(crate) row: Box<Row>,
    /// The segments that the row refers to: until it does, only this keeps them, should whoever
    /// committed be gone.
    pub(crate) _held: Vec<Arc<SegmentCell>>,
}

enum Work {
    Segment(SegmentJob),
    Commit(CommitJob),
}

struct Job {
    work: Work,
    progress: Arc<Progress>,
}

/// How far the jobs of one open context are.
#[derive(Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    n_queued: u64,
    n_done: u64,
    failed: Option<StoreError>,
}

impl Progress {
    /// The failure of any job so far.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.state().failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until all that was queued is done.
    pub(crate) fn wait(&self) -> Result<(), StoreError> {
        let mut state = self.state();
        while state.n_done < state.n_queued && state.failed.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failed.clone().map_or(Ok(()), Err)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, result: Result<(), StoreError>) {
        let mut state = self.state();
        state.n_done += 1;
        if let Err(error) = result {
            state.failed.get_or_insert(error);
        }
        self.changed.notify_all();
    }
}

/// The writer of a store. Dropped, it writes what is queued and ends.
pub(crate) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(shared.options.in_flight_segments.max(1));
        let shared = Arc::clone(shared);
        let builder = std::thread::Builder::new().name("store writer".to_owned());
        let thread = builder.spawn(move || run(&shared, &jobs));
        let thread = thread.map_err(|error| StoreError::io("start a thread", "writer", &error))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a segment; waits for a place in the queue, not for the disk.
    pub(crate) fn write(
        &self,
        job: SegmentJob,
        progress: &Arc<Progress>,
    ) -> Result<(), StoreError> {
        self.send(Work::Segment(job), progress)
    }

    /// Queues a commit; waits for a place in the queue, not for the disk.
    pub(crate) fn commit(
        &self,
        job: CommitJob,
        progress: &Arc<Progress>,
    ) -> Result<(), StoreError> {
        self.send(Work::Commit(job), progress)
    }

    fn send(&self, work: Work, progress: &Arc<Progress>) -> Result<(), StoreError> {
        progress.check()?;
        progress.state().n_queued += 1;
        let job = Job { work, progress: Arc::clone(progress) };
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send(job).is_ok());
        if !sent {
            progress.finish(Err(StoreError::Stopped));
        }
        progress.check()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, jobs: &Receiver<Job>) {
    for Job { work, progress } in jobs {
        let result = progress.check().and_then(|()| match work {
            Work::Segment(job) => shared.write_segment(&mut shared.catalogue(), &job),
            Work::Commit(job) => shared.commit(job),
        });
        progress.finish(result);
        shared.collect();
    }
}

impl Shared {
    /// Writes a segment, and takes note of it once it is durable.
    pub(crate) fn write_segment(
        &self,
        catalogue: &mut Catalogue,
        job: &SegmentJob,
    ) -> Result<(), StoreError> {
        self.make_room(catalogue, job.parts.file_bytes())?;
        let bytes = job.parts.write(&self.disk, job.cell.id())?;
        job.cell.set_durable();
        self.ledger().add_segment(Arc::clone(&job.cell), bytes);
        Ok(())
    }

    /// Makes a context's next row true, if it still follows the one there is.
    fn commit(&self, mut job: CommitJob) -> Result<(), StoreError> {
        let mut catalogue = self.catalogue();
        // Before anything is written: a row that does not follow must not be found by anyone.
        self.check_follows(&job.row)?;
        if let Some(segment) = &job.segment {
            self.write_segment(&mut catalogue, segment)?;
        }
        let missing = self.ledger().missing_segment(&job.row);
        if let Some(segment) = missing {
            return Err(StoreError::Gone { segment });
        }
        let key = job.row.key.clone();
        let current = self.ledger().row(&key).cloned();
        if let Some(current) = current {
            // These change without a commit.
            job.row.created = current.created;
            job.row.pinned = current.pinned;
            job.row.expires = current.expires;
            job.row.parent.clone_from(&current.parent);
        }
        self.ledger().set_used(&key, self.now());
        // If this fails, the segment goes as soon as nobody holds it.
        self.publish(&mut catalogue, vec![Change::Put(job.row)])
    }

    /// Whether `row` is the next generation of what is there.
    pub(crate) fn check_follows(&self, row: &Row) -> Result<(), StoreError> {
        let found = self.ledger().row(&row.key).map(|row| row.generation);
        let expected = row.generation - 1;
        if found.unwrap_or(0) == expected {
            return Ok(());
        }
        Err(StoreError::Conflict { name: row.key.name.clone(), expected, found })
    }
}
