//! Who runs the steps? One thread, which owns all sequences and the buffers of the passes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::place::{Place, Places};
use super::schedule::{Demand, Schedule, ScheduleConfig, SequenceId};
use super::sequence::{Sequence, Standing, Task};
use crate::backend::Backend;
use crate::engine::batch::Chunk;
use crate::engine::buffers::Runner;
use crate::engine::error::EngineError;
use crate::engine::loaded::Engine;
use crate::memory::{MemoryConfig, Phase};

/// One model and the thread that serves it. Clones are the same server; the thread ends with the
/// last of them, once all tasks are over.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    commands: Mutex<Option<Sender<Admitted>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
    places: Places,
    sets_aside: bool,
}

/// What a server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Tasks at once.
    pub max_tasks: usize,
    /// Bytes of the device's memory for sinks and windows: beyond it those of sequences that wait
    /// are in the host's. 0: a quarter of what is free where the device has memory of its own, no
    /// limit where it has none.
    pub window_bytes: usize,
}

#[derive(Default)]
struct Counts {
    n_steps: AtomicU64,
    tokens_read: AtomicU64,
    tokens_said: AtomicU64,
    sequences_of_steps: AtomicU64,
    set_aside: AtomicU64,
    step_micros: AtomicU64,
    faults: AtomicU64,
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerMeasures {
    /// Tasks that are there now.
    pub n_tasks: usize,
    /// Forward passes.
    pub n_steps: u64,
    /// Tokens read as those of documents.
    pub tokens_read: u64,
    /// Tokens of questions and answers.
    pub tokens_said: u64,
    /// Sequences that took part, summed over steps.
    pub sequences_of_steps: u64,
    /// Windows that left the device's memory for the host's.
    pub set_aside: u64,
    /// Time of all steps.
    pub step_time: Duration,
    /// Steps that failed where nothing should.
    pub faults: u64,
}

struct Admitted {
    task: Task,
    place: Place,
}

impl Server {
    /// Starts a server of `engine`'s model for sequences of `memory`'s sizes, within `limits`.
    ///
    /// # Errors
    /// When the device has no room for a step's buffers, for units and windows, or the system gives no
    /// thread.
    pub fn start(
        engine: &Engine,
        memory: &MemoryConfig,
        (schedule, limits): (ScheduleConfig, ServerLimits),
    ) -> Result<Self, EngineError> {
        let said = memory.ask_chunk_tokens.max(1) * schedule.step_sequences;
        let step_tokens = said + memory.chunk_tokens;
        let runner = Runner::new(engine, step_tokens)?; // before what is left is shared out
        let stated = Some(limits.window_bytes).filter(|bytes| *bytes > 0);
        let needs = memory.needs(engine.page_layout(memory));
        let window_bytes = engine.transformer().backend().plan_windows(&needs, stated)?;
        let step_bytes = window_bytes.unwrap_or(usize::MAX);
        let schedule = ScheduleConfig { step_tokens, step_bytes, ..schedule };
        let (commands, received) = channel();
        let counts = Arc::new(Counts::default());
        let mut worker = Worker {
            runner,
            engine: engine.clone(),
            schedule: Schedule::new(schedule),
            window_bytes,
            running: Vec::new(),
            born: Vec::new(),
            next_id: 0,
            begun: Instant::now(),
            counts: Arc::clone(&counts),
        };
        let thread = std::thread::Builder::new()
            .name("mneme-engine".to_owned())
            .spawn(move || worker.run(&received))
            .map_err(|error| EngineError::NoThread { what: error.to_string() })?;
        let shared = Shared {
            commands: Mutex::new(Some(commands)),
            thread: Mutex::new(Some(thread)),
            counts,
            places: Places::new(limits.max_tasks),
            sets_aside: window_bytes.is_some(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A place for one more task, if there is any.
    pub fn reserve(&self) -> Option<Place> {
        self.shared.places.take()
    }

    /// Gives it a task; what comes of it is sent to the task's listener. Where the server has ended
    /// nothing comes, and the listener's channel closes.
    pub fn submit(&self, task: Task, place: Place) {
        let commands = self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(commands) = &*commands {
            // Where nobody receives, the task is dropped, and with it its listener's channel.
            let _ = commands.send(Admitted { task, place });
        }
    }

    /// Whether windows that are not needed leave the device's memory.
    pub fn sets_aside(&self) -> bool {
        self.shared.sets_aside
    }

    /// What it has done.
    pub fn measures(&self) -> ServerMeasures {
        let counts = &*self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ServerMeasures {
            n_tasks: self.shared.places.n_taken(),
            n_steps: read(&counts.n_steps),
            tokens_read: read(&counts.tokens_read),
            tokens_said: read(&counts.tokens_said),
            sequences_of_steps: read(&counts.sequences_of_steps),
            set_aside: read(&counts.set_aside),
            step_time: Duration::from_micros(read(&counts.step_micros)),
            faults: read(&counts.faults),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.commands.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join(); // what it panicked with was reported when it did
        }
    }
}

/// What the thread owns.
struct Worker {
    engine: Engine,
    runner: Runner,
    schedule: Schedule,
    window_bytes: Option<usize>,
    running: Vec<Running>,
    born: Vec<Sequence>,
    next_id: u64,
    begun: Instant,
    counts: Arc<Counts>,
}

struct Running {
    id: SequenceId,
    sequence: Sequence,
}

/// How long the thread sleeps while all listeners are slower than it.
const NAP: Duration = Duration::from_millis(2);

impl Worker {
    fn run(&mut self, received: &Receiver<Admitted>) {
        let mut is_open = true;
        while is_open || !self.running.is_empty() {
            is_open = self.admit(received, is_open);
            self.let_go();
            let planned = self.plan();
            if planned.is_empty() {
                if !self.running.is_empty() {
                    is_open = self.wait(received, is_open);
                }
                continue;
            }
            if catch_unwind(AssertUnwindSafe(|| self.step(&planned))).is_err() {
                self.counts.faults.fetch_add(1, Ordering::Relaxed);
                self.fail(&planned);
            }
        }
    }

    /// Takes in what was submitted, waiting for it where there is nothing else to do. Says whether
    /// more may come.
    fn admit(&mut self, received: &Receiver<Admitted>, is_open: bool) -> bool {
        if is_open && self.running.is_empty() {
            match received.recv() {
                Ok(admitted) => self.begin(admitted),
                Err(_) => return false,
            }
        }
        while let Ok(admitted) = received.try_recv() {
            self.begin(admitted);
        }
        is_open
    }

    /// Sleeps a little while nobody can be served.
    fn wait(&mut self, received: &Receiver<Admitted>, is_open: bool) -> bool {
        match received.recv_timeout(NAP) {
            Ok(admitted) => self.begin(admitted),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(NAP);
                return false;
            }
        }
        is_open
    }

    fn begin(&mut self, Admitted { task, place }: Admitted) {
        let mut sequence = Sequence::new(task, Some(Arc::new(place)));
        let settled = sequence.settle(&mut self.born);
        if let Err(error) = settled {
            sequence.fail(error);
        }
        self.add(sequence);
    }

    fn add(&mut self, sequence: Sequence) {
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.schedule.add(id, sequence.prompt_tokens(), self.begun.elapsed());
        self.running.push(Running { id, sequence });
    }

    /// Sends what waits, and lets go of who is over or not awaited any more.
    fn let_go(&mut self) {
        let schedule = &mut self.schedule;
        self.running.retain_mut(|running| {
            let is_awaited = running.sequence.is_awaited();
            if !is_awaited {
                running.sequence.give_up();
            }
            let stays = is_awaited && running.sequence.send() == Standing::GoesOn;
            if !stays {
                schedule.remove(running.id);
            }
            stays
        });
    }

    fn plan(&mut self) -> Vec<SequenceId> {
        let running = &self.running;
        let demand = |id: SequenceId| {
            let found = running.binary_search_by_key(&id, |running| running.id);
            found.map_or((Demand::Wait, 0), |at| {
                let sequence = &running[at].sequence;
                (sequence.demand(), sequence.near_bytes_of_step())
            })
        };
        let mut planned = self.schedule.plan(self.begun.elapsed(), demand);
        planned.sort_unstable();
        planned
    }

    /// Has windows of who waits leave the device's memory, of who will be served last first, until
    /// those of the step have room.
    fn make_room(&mut self, planned: &[SequenceId]) {
        let Some(limit) = self.window_bytes else { return };
        let is_planned = |id: &SequenceId| planned.binary_search(id).is_ok();
        let bytes = self.running.iter().map(|Running { id, sequence }| match is_planned(id) {
            true => sequence.near_bytes_of_step(),
            false => sequence.near_bytes(),
        });
        let mut bytes: usize = bytes.sum();
        for id in self.schedule.last_first() {
            if bytes <= limit {
                return;
            }
            let at = self.running.binary_search_by_key(&id, |running| running.id);
            let (Ok(at), false) = (at, is_planned(&id)) else { continue };
            let sequence = &mut self.running[at].sequence;
            let freed = sequence.near_bytes();
            if freed > 0 {
                sequence.set_aside();
                bytes -= freed;
                self.counts.set_aside.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// One pass of the model, and what follows from it.
    fn step(&mut self, planned: &[SequenceId]) {
        let begun = Instant::now();
        self.make_room(planned);
        let mut chunks = Vec::with_capacity(planned.len());
        let mut ids = Vec::with_capacity(planned.len());
        for Running { id, sequence, .. } in &mut self.running {
            if planned.binary_search(id).is_ok()
                && let Some(chunk) = sequence.chunk()
            {
                chunks.push(chunk);
                ids.push(*id);
            }
        }
        self.runner.run(&self.engine, &mut chunks);
        let (mut read, mut said) = (0, 0);
        let mut ran = Vec::with_capacity(chunks.len());
        for Chunk { ids: tokens, phase, failed, .. } in chunks {
            *(if phase == Phase::Reading { &mut read } else { &mut said }) += tokens.len() as u64;
            ran.push((tokens.len(), failed));
        }
        let has_logits = ids.iter().zip(&ran).filter(|(_, (_, failed))| failed.is_none());
        let has_logits: Vec<_> = has_logits.map(|(id, _)| *id).collect();
        self.draw(&has_logits);
        for (id, (n_tokens, failed)) in ids.iter().zip(ran) {
            self.after(*id, n_tokens, failed);
        }
        let counts = &self.counts;
        counts.n_steps.fetch_add(1, Ordering::Relaxed);
        counts.tokens_read.fetch_add(read, Ordering::Relaxed);
        counts.tokens_said.fetch_add(said, Ordering::Relaxed);
        counts.sequences_of_steps.fetch_add(planned.len() as u64, Ordering::Relaxed);
        counts.step_micros.fetch_add(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// Draws the next tokens of those of the step that answer, all at once.
    fn draw(&mut self, ids: &[SequenceId]) {
        let drawing = self.running.iter_mut().filter_map(|Running { id, sequence }| {
            let draws = ids.binary_search(id).is_ok() && sequence.draws();
            draws.then(|| Mutex::new(sequence))
        });
        let drawing: Vec<_> = drawing.collect();
        let backend = self.engine.transformer().backend();
        backend.share_out(drawing.len(), &|i| {
            drawing[i].lock().unwrap_or_else(PoisonError::into_inner).draw();
        });
    }

    fn after(&mut self, id: SequenceId, n_tokens: usize, failed: Option<EngineError>) {
        let Ok(at) = self.running.binary_search_by_key(&id, |running| running.id) else { return };
        let sequence = &mut self.running[at].sequence;
        let done = match failed {
            Some(error) => Err(error),
            None => sequence.ran(n_tokens, &mut self.born),
        };
        if let Err(error) = done {
            sequence.fail(error);
        }
        for mut born in std::mem::take(&mut self.born) {
            if let Err(error) = born.settle(&mut self.born) {
                born.fail(error);
            }
            self.add(born);
        }
    }

    fn fail(&mut self, planned: &[SequenceId]) {
        for running in &mut self.running {
            if planned.binary_search(&running.id).is_ok() {
                running.sequence.fail(EngineError::Fault);
            }
        }
    }
}
