//! Who does the work? A fixed set of threads that wait for the next loop by spinning a little and
//! then sleeping. A decode step has some two hundred parallel loops of tens of microseconds each;
//! waking a sleeping thread costs as much as such a loop.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Spins before a waiting worker sleeps: some 50 µs.
const SPINS_BEFORE_SLEEP: u32 = 20_000;

/// Threads that share loops. The calling thread takes part.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One loop at a time: callers on several threads queue here.
    entry: Mutex<()>,
}

/// One parallel loop. Its address is published to the workers in `Shared::job`.
struct Job<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    n_tasks: usize,
    /// The next task nobody has taken.
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Counts loops; workers wait for it to change.
    epoch: AtomicUsize,
    /// The current loop's `Job` as an address. Valid while `running > 0`.
    job: AtomicUsize,
    /// Workers that have not finished the current loop.
    running: AtomicUsize,
    sleeping: AtomicUsize,
    stop: AtomicBool,
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
                    .spawn(move || worker(&shared))
                    .expect("because a thread can be started at start-up")
            })
            .collect();
        Self { shared, workers, entry: Mutex::new(()) }
    }

    /// Threads that work, the caller included.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(task)` once for each task in `0..n_tasks`, on any thread in any order, and
    /// returns when all are done.
    ///
    /// # Panics
    /// With the first panic of `body`, after all threads have left the loop.
    pub fn run(&self, n_tasks: usize, body: &(dyn Fn(usize) + Sync)) {
        if n_tasks <= 1 || self.workers.is_empty() {
            (0..n_tasks).for_each(body);
            return;
        }
        let _entry = lock(&self.entry);
        let job = Job { body, n_tasks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        self.publish(&job);
        job.work();
        let mut spins = 0u32;
        while self.shared.running.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS_BEFORE_SLEEP { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let panic = lock(&job.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn publish(&self, job: &Job<'_>) {
        let shared = &*self.shared;
        shared.job.store(std::ptr::from_ref(job) as usize, Ordering::Relaxed);
        shared.running.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            self.workers.iter().for_each(|worker| worker.thread().unpark());
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join(); // it only ever returns
        }
    }
}

impl Job<'_> {
    /// Takes tasks until none is left.
    fn work(&self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.fetch_add(1, Ordering::Relaxed);
                if task >= self.n_tasks {
                    return;
                }
                (self.body)(task);
            }
        }));
        if let Err(panic) = outcome {
            self.next.store(self.n_tasks, Ordering::Relaxed);
            lock(&self.panic).get_or_insert(panic);
        }
    }
}

fn worker(shared: &Shared) {
    let mut seen = 0;
    loop {
        seen = wait_for_change(shared, seen);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let address = shared.job.load(Ordering::Relaxed);
        // SAFETY: `ThreadPool::run` published the address of a `Job` on its own stack before it
        // raised the epoch, and does not return before this thread lowers `running` below.
        let job = unsafe { &*(address as *const Job<'_>) };
        job.work();
        shared.running.fetch_sub(1, Ordering::Release);
    }
}

/// Waits until the epoch differs from `seen` and returns it.
fn wait_for_change(shared: &Shared, seen: usize) -> usize {
    for _ in 0..SPINS_BEFORE_SLEEP {
        let epoch = shared.epoch.load(Ordering::Acquire);
        if epoch != seen {
            return epoch;
        }
        std::hint::spin_loop();
    }
    shared.sleeping.fetch_add(1, Ordering::SeqCst);
    let epoch = loop {
        let epoch = shared.epoch.load(Ordering::SeqCst);
        if epoch != seen {
            break epoch;
        }
        std::thread::park();
    };
    shared.sleeping.fetch_sub(1, Ordering::SeqCst);
    epoch
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole at every moment, a panic of a task included.
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
                pool.run(n_tasks, &|task| {
                    counts[task].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_pool_that_fell_asleep_wakes_up() {
        let pool = ThreadPool::new(3);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let sum = AtomicUsize::new(0);
            pool.run(100, &|task| {
                sum.fetch_add(task, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = ThreadPool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run(10, &|task| assert!(task != 5, "task five"));
        }));
        assert!(outcome.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(10, &|task| {
            sum.fetch_add(task, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 45);
    }
}
