//! Who does the work? A fixed set of threads that wait for the next loop by spinning a little and
//! then sleeping. A decode step has some two hundred parallel loops of tens of microseconds each;
//! waking a sleeping thread costs as much as such a loop. Each thread begins with its own share of
//! a loop's tasks, so that it knows what it will read, and then helps the others with theirs.

use std::any::Any;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Spins before a waiting worker sleeps: some 50 µs.
const SPINS_BEFORE_SLEEP: u32 = 20_000;

/// Threads that share loops. The calling thread takes part.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    shares: Vec<Share>,
    /// One loop at a time: callers on several threads queue here.
    entry: Mutex<()>,
}

/// Which thread of a pool a task runs on: 0 is the caller. Names the scratch it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Worker(pub usize);

/// One parallel loop. Its address is published to the workers in `Shared::job`.
struct Job<'a> {
    body: &'a (dyn Fn(Worker, usize) + Sync),
    n_tasks: usize,
    /// One a thread.
    shares: &'a [Share],
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// How many tasks of a thread's share are taken: of thread `w` of `n` those are the tasks `w`,
/// `w + n`, `w + 2n` and so on. On a cache line of its own, since mostly one thread writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Share(AtomicUsize);

#[derive(Debug, Default)]
struct Shared {
    /// The current loop: see [`State`].
    state: AtomicU64,
    /// The current loop's `Job` as an address. Valid for those who are counted in `state`.
    job: AtomicUsize,
    sleeping: AtomicUsize,
    stop: AtomicBool,
}

/// `Shared::state` taken apart: the number of the loop, whether one may still join it, and how
/// many workers have. A worker that comes late, because the system gave its core to somebody
/// else, finds the loop closed and is not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State(u64);

impl State {
    const OPEN: u64 = 1 << 31;
    const WORKERS: u64 = Self::OPEN - 1;

    fn loop_number(self) -> u64 {
        self.0 >> 32
    }

    fn is_open(self) -> bool {
        self.0 & Self::OPEN != 0
    }

    fn n_workers(self) -> u64 {
        self.0 & Self::WORKERS
    }
}

impl ThreadPool {
    /// A pool in which `n_threads` threads work, the caller included (0 counts as 1).
    pub fn new(n_threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let workers = (1..n_threads.max(1))
            .map(|i| {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new()
                    .name(format!("mneme-cpu-{i}"))
                    .spawn(move || work_until_stopped(&shared, Worker(i)))
                    .expect("because a thread can be started at start-up")
            })
            .collect::<Vec<_>>();
        let shares = (0..=workers.len()).map(|_| Share::default()).collect();
        Self { shared, workers, shares, entry: Mutex::new(()) }
    }

    /// Threads that work, the caller included.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(worker, task)` once for each task in `0..n_tasks`, on any thread in any order,
    /// and returns when all are done. No two calls at a time have the same worker.
    ///
    /// # Panics
    /// With the first panic of `body`, after all threads have left the loop.
    pub fn run(&self, n_tasks: usize, body: &(dyn Fn(Worker, usize) + Sync)) {
        let _entry = lock(&self.entry);
        if n_tasks <= 1 || self.workers.is_empty() {
            (0..n_tasks).for_each(|task| body(Worker(0), task));
            return;
        }
        self.shares.iter().for_each(|share| share.0.store(0, Ordering::Relaxed));
        let job = Job { body, n_tasks, shares: &self.shares, panic: Mutex::new(None) };
        self.open(&job);
        job.work(Worker(0));
        self.close();
        let panic = lock(&job.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn open(&self, job: &Job<'_>) {
        let shared = &*self.shared;
        shared.job.store(std::ptr::from_ref(job) as usize, Ordering::Relaxed);
        let number = State(shared.state.load(Ordering::Relaxed)).loop_number() + 1;
        shared.state.store((number & 0xffff_ffff) << 32 | State::OPEN, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            self.workers.iter().for_each(|worker| worker.thread().unpark());
        }
    }

    /// Lets nobody join any more and waits for those who have.
    fn close(&self) {
        let state = &self.shared.state;
        state.fetch_and(!State::OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while State(state.load(Ordering::Acquire)).n_workers() > 0 {
            spins += 1;
            if spins < SPINS_BEFORE_SLEEP {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join(); // it only ever returns
        }
    }
}

/// Grids that one loop may write.
pub const MAX_GRIDS: usize = 4;

/// A row-major matrix to be written by many tasks, each its own block of rows and columns.
#[derive(Debug)]
pub struct Grid<'a> {
    /// `[row][cols]`
    pub cells: &'a mut [f32],
    /// Floats of a row.
    pub cols: usize,
    /// Rows of a block (the last may have fewer); at least 1.
    pub row_step: usize,
    /// Columns of a block (the last may have fewer); at least 1.
    pub col_step: usize,
}

/// One block of a [`Grid`], owned by one task.
#[derive(Debug)]
pub struct Block<'a> {
    /// The number of its task: blocks of all grids, counted on.
    pub task: usize,
    /// Which of the grids.
    pub grid: usize,
    /// Rows of the matrix.
    pub rows: Range<usize>,
    /// Columns of the matrix.
    pub cols: Range<usize>,
    first: *mut f32,
    stride: usize,
    owner: PhantomData<&'a mut [f32]>,
}

impl Block<'_> {
    /// The block's part of row `row`, a row number of the matrix.
    ///
    /// # Panics
    /// When the row is not of this block.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(self.rows.contains(&row), "row {row} is not in {:?}", self.rows);
        // SAFETY: `run_blocks` made this block inside its matrix and disjoint from all others, and
        // borrows the matrix mutably for as long as blocks exist.
        unsafe {
            let first = self.first.add(row * self.stride + self.cols.start);
            std::slice::from_raw_parts_mut(first, self.cols.len())
        }
    }
}

/// The address of a grid's first cell, for the tasks.
struct FirstCell(*mut f32);
// SAFETY: tasks write through it only inside their own blocks.
unsafe impl Sync for FirstCell {}

impl ThreadPool {
    /// Calls `body(worker, block)` once for each block of each grid, as [`run`](Self::run) does.
    pub fn run_blocks(&self, grids: &mut [Grid<'_>], body: &(dyn Fn(Worker, Block<'_>) + Sync)) {
        assert!(grids.len() <= MAX_GRIDS, "a loop has at most {MAX_GRIDS} outputs");
        let mut ends = [0; MAX_GRIDS];
        let mut n_tasks = 0;
        for (grid, end) in grids.iter().zip(&mut ends) {
            assert!(grid.cells.len().is_multiple_of(grid.cols), "whole rows");
            n_tasks += grid.n_rows().div_ceil(grid.row_step) * grid.cols.div_ceil(grid.col_step);
            *end = n_tasks;
        }
        let mut firsts = [const { FirstCell(std::ptr::null_mut()) }; MAX_GRIDS];
        for (grid, first) in grids.iter_mut().zip(&mut firsts) {
            first.0 = grid.cells.as_mut_ptr();
        }
        let (grids, firsts) = (&*grids, &firsts);
        self.run(n_tasks, &|worker, task| {
            let which = ends.iter().position(|end| task < *end).expect("because tasks end there");
            let in_grid = task - if which == 0 { 0 } else { ends[which - 1] };
            let grid = &grids[which];
            let across = grid.cols.div_ceil(grid.col_step);
            let (row, col) = (in_grid / across * grid.row_step, in_grid % across * grid.col_step);
            let block = Block {
                task,
                grid: which,
                rows: row..(row + grid.row_step).min(grid.n_rows()),
                cols: col..(col + grid.col_step).min(grid.cols),
                first: firsts[which].0,
                stride: grid.cols,
                owner: PhantomData,
            };
            body(worker, block);
        });
    }
}

impl Grid<'_> {
    /// No cells, no tasks.
    pub fn empty() -> Self {
        Self { cells: &mut [], cols: 1, row_step: 1, col_step: 1 }
    }

    fn n_rows(&self) -> usize {
        self.cells.len() / self.cols
    }
}

impl Job<'_> {
    /// Takes tasks until none is left: of the worker's own share, then of the others'.
    fn work(&self, worker: Worker) {
        let n_shares = self.shares.len();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for owner in (worker.0..n_shares).chain(0..worker.0) {
                loop {
                    let taken = self.shares[owner].0.fetch_add(1, Ordering::Relaxed);
                    let task = owner + taken * n_shares;
                    if task >= self.n_tasks {
                        break;
                    }
                    (self.body)(worker, task);
                }
            }
        }));
        if let Err(panic) = outcome {
            self.shares.iter().for_each(|share| share.0.store(self.n_tasks, Ordering::Relaxed));
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

fn work_until_stopped(shared: &Shared, worker: Worker) {
    let mut seen = 0;
    while let Some(state) = wait_for_change(shared, seen) {
        seen = state.loop_number();
        if join(shared, state) {
            let address = shared.job.load(Ordering::Relaxed);
            // SAFETY: `ThreadPool::run` published the address of a `Job` on its own stack before
            // it opened the loop that we have joined, and does not return before this thread has
            // left it below.
            let job = unsafe { &*(address as *const Job<'_>) };
            job.work(worker);
            shared.state.fetch_sub(1, Ordering::Release);
        }
    }
}

/// Whether we are now counted in the loop of `state`.
fn join(shared: &Shared, mut state: State) -> bool {
    let number = state.loop_number();
    while state.is_open() && state.loop_number() == number {
        let joined = state.0 + 1;
        let exchange = shared.state.compare_exchange_weak(
            state.0,
            joined,
            Ordering::Acquire,
            Ordering::Acquire,
        );
        match exchange {
            Ok(_) => return true,
            Err(now) => state = State(now),
        }
    }
    false
}

/// Waits for a loop that is not number `seen`; `None` when the pool is being dropped.
fn wait_for_change(shared: &Shared, seen: u64) -> Option<State> {
    let changed = || {
        let state = State(shared.state.load(Ordering::SeqCst));
        (state.loop_number() != seen).then_some(state)
    };
    for _ in 0..SPINS_BEFORE_SLEEP {
        if let Some(state) = changed() {
            return Some(state);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return None;
        }
        std::hint::spin_loop();
    }
    shared.sleeping.fetch_add(1, Ordering::SeqCst);
    let state = loop {
        if let Some(state) = changed() {
            break Some(state);
        }
        if shared.stop.load(Ordering::SeqCst) {
            break None;
        }
        std::thread::park();
    };
    shared.sleeping.fetch_sub(1, Ordering::SeqCst);
    state
}

/// Locks what is whole at every moment, a panic of a task included.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_exactly_once_whatever_the_number_of_threads() {
        for n_threads in [1, 2, 5] {
            let pool = ThreadPool::new(n_threads);
            for n_tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<_> = (0..n_tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(n_tasks, &|_, task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn every_cell_of_every_grid_belongs_to_exactly_one_block() {
        let pool = ThreadPool::new(3);
        let (mut a, mut b) = (vec![0.0; 7 * 10], vec![0.0; 4 * 3]);
        let mut grids = [
            Grid { cells: &mut a, cols: 10, row_step: 2, col_step: 4 },
            Grid { cells: &mut b, cols: 3, row_step: 9, col_step: 1 },
        ];
        pool.run_blocks(&mut grids, &|_, mut block| {
            let (grid, cols) = (block.grid, block.cols.clone());
            for row in block.rows.clone() {
                for (cell, col) in block.row_mut(row).iter_mut().zip(cols.clone()) {
                    *cell += (grid * 1000 + row * 10 + col) as f32 + 1.0;
                }
            }
        });
        assert!(a.iter().enumerate().all(|(i, cell)| *cell == i as f32 + 1.0));
        let expected = |i: usize| (1000 + i / 3 * 10 + i % 3) as f32 + 1.0;
        assert!(b.iter().enumerate().all(|(i, cell)| *cell == expected(i)));
    }

    #[test]
    fn a_pool_that_fell_asleep_wakes_up() {
        let pool = ThreadPool::new(3);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.run(100, &|_, task| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = ThreadPool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(10, &|_, task| assert!(task != 5, "task five"));
        }));
        assert!(outcome.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(10, &|_, task| {
            sum.fetch_add(task, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}
