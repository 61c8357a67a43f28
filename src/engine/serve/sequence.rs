//! What does one text do, step by step? It reads, takes in a question (after a first pass where one is
//! configured, see `engine/first_pass.rs`) and answers, a chunk of tokens at a time.

mod answering;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;
use tracing::Span;

use super::place::Place;
use super::schedule::Demand;
use super::trace::Trace;
use crate::engine::answer::{Answer, FinishReason, GenerateOptions, Piece};
use crate::engine::ask::DocumentPrompt;
use crate::engine::batch::{Chunk, Logits};
use crate::engine::context::{Context, SAVE_EVERY, SAVE_EVERY_TOKENS};
use crate::engine::error::EngineError;
use crate::engine::first_pass::FirstPass;
use crate::engine::session::Session;
use crate::ids::TokenId;
use crate::memory::Phase;

/// What a sequence works on.
pub enum Work {
    /// A session that nobody keeps unless the caller does.
    Session(Box<Session>),
    /// A context: what is read of a document is saved as it comes.
    Context(Box<Context>),
}

impl Work {
    /// The session.
    pub fn session(&self) -> &Session {
        match self {
            Self::Session(session) => session,
            Self::Context(context) => context.session(),
        }
    }

    /// The same, to go on.
    pub fn session_mut(&mut self) -> &mut Session {
        match self {
            Self::Session(session) => session,
            Self::Context(context) => context.session_mut(),
        }
    }
}

/// What is to be done.
pub struct Task {
    /// On what.
    pub work: Work,
    /// What it takes in, one after another.
    pub stages: Vec<Stage>,
    /// What it then says; nothing where there is no question.
    pub answers: Option<Answers>,
    /// Who waits for it; when nobody does any more it ends.
    pub events: Sender<Event>,
    /// Dropped when the server has let go of all that it works on, however it ended.
    pub held: Option<oneshot::Sender<()>>,
    /// The request whose work it is, for whoever traces.
    pub span: Span,
}

/// Something to take in.
pub enum Stage {
    /// Tokens of a document; those before them must have been read.
    Document {
        /// The document.
        document: Arc<DocumentPrompt>,
        /// Which of its tokens.
        tokens: Range<usize>,
        /// Whether a context is saved on the way.
        saving: Saving,
    },
    /// Tokens, read as those of a document.
    Tokens(Vec<TokenId>),
    /// A question.
    Question {
        /// Its tokens.
        ids: Vec<TokenId>,
        /// What it is about.
        about: About,
    },
}

/// What a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// What was said before.
    Conversation,
    /// A document that was read last, as a session knows it that has its text.
    Document,
    /// A document that all but the first so many tokens are.
    DocumentAt(usize),
}

/// Whether what is read is saved before all of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// Every few seconds, and when nobody waits any more: reading goes on from there.
    AsItComes,
    /// All of it or nothing, by the caller.
    Whole,
}

/// Answers to one question.
#[derive(Clone, Debug)]
pub struct Answers {
    /// How they are drawn; the seed is that of the first, and one more for each later.
    pub options: GenerateOptions,
    /// How many.
    pub n: usize,
}

/// What comes of a task. The first answer has the number 0.
pub enum Event {
    /// So many of the tokens to take in were taken in.
    Progress {
        /// Done.
        done_tokens: usize,
        /// All of them.
        total_tokens: usize,
    },
    /// A piece of an answer.
    Piece(usize, Piece),
    /// An answer, or a task without any, is over.
    Ended(usize, Box<Ended>),
    /// It cannot go on; nothing more comes.
    Failed(EngineError),
}

/// What is left in the end.
pub struct Ended {
    /// What was worked on.
    pub work: Work,
    /// Why the answer ended; none without an answer.
    pub finish: Option<FinishReason>,
    /// Text that waited for what did not come.
    pub rest: String,
    /// Tokens of the answer.
    pub n_tokens: usize,
}

/// A task on its way.
pub(super) struct Sequence {
    work: Option<Work>, // until the end
    /// Until the end is told; answers to one question share it.
    place: Option<Arc<Place>>,
    stages: VecDeque<Stage>,
    /// Tokens of the first stage that were taken in.
    at: usize,
    pass: Option<FirstPass>,
    /// Whether the question at hand has had its first pass.
    has_pins: bool,
    answers: Option<Answers>,
    answer: Option<Answer>,
    drawn: Option<Drawn>,
    number: usize,
    events: Sender<Event>,
    outbox: VecDeque<Event>,
    progress: (usize, usize), // tokens done, all of them
    pending: [TokenId; 1],    // the token given out last
    saved: (usize, Instant),  // tokens of the stage, and when
    blocked_since: Option<Instant>,
    trace: Trace,
    _held: Option<oneshot::Sender<()>>,
}

/// What was drawn: the next piece, or none where the answer is over before it.
type Drawn = Result<Option<Piece>, EngineError>;

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is more to do.
    GoesOn,
    /// It is over, all that came of it was sent.
    Over,
}

/// A listener that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

impl Sequence {
    pub fn new(task: Task, place: Option<Arc<Place>>) -> Self {
        let total = task.stages.iter().map(Stage::len).sum();
        let mut sequence = Self {
            work: Some(task.work),
            place,
            stages: task.stages.into(),
            at: 0,
            pass: None,
            has_pins: false,
            answers: task.answers,
            answer: None,
            drawn: None,
            number: 0,
            events: task.events,
            outbox: VecDeque::new(),
            progress: (0, total),
            pending: [TokenId(0)],
            saved: (0, Instant::now()),
            blocked_since: None,
            trace: Trace::begin(task.span),
            _held: task.held,
        };
        sequence.session_mut().memory.take_evidence();
        sequence
    }

    /// Tokens that it has to take in before it answers.
    pub fn prompt_tokens(&self) -> usize {
        self.progress.1
    }

    /// Whether somebody waits for what comes of it.
    pub fn is_awaited(&self) -> bool {
        let too_slow = self.blocked_since.is_some_and(|since| since.elapsed() > PATIENCE);
        !self.events.is_closed() && !too_slow
    }

    /// Bytes of the backend's memory that its windows take.
    pub fn near_bytes(&self) -> usize {
        self.sessions().map(|session| session.memory.near_bytes()).sum()
    }

    /// The same in a step that does what it [demands](Self::demand).
    pub fn near_bytes_of_step(&self) -> usize {
        let n_tokens = self.demand().n_tokens();
        let Some(next) = self.sessions().next() else { return 0 };
        let more = next.memory.near_bytes_of_step(n_tokens) - next.memory.near_bytes();
        self.near_bytes() + more
    }

    /// Moves its windows to the host's memory: the step that needs one brings it back.
    pub fn set_aside(&mut self) {
        let own = self.work.as_mut().map(Work::session_mut);
        let trials = self.pass.iter_mut().flat_map(FirstPass::sessions_mut);
        own.into_iter().chain(trials).for_each(|session| session.memory.set_aside());
    }

    /// Its sessions, that of the next chunk first.
    fn sessions(&self) -> impl Iterator<Item = &Session> {
        let trials = self.pass.iter().flat_map(FirstPass::sessions);
        trials.chain(self.work.as_ref().map(Work::session))
    }

    /// What it would do next.
    pub fn demand(&self) -> Demand {
        if !self.outbox.is_empty() {
            return Demand::Wait;
        }
        if let Some(pass) = &self.pass {
            return match pass.is_reading() {
                true => Demand::Read(pass.next_tokens()),
                false => Demand::Say(pass.next_tokens()),
            };
        }
        let session = self.session();
        if session.pending.is_some() {
            return Demand::Say(1);
        }
        let (config, at) = (session.memory.config(), self.at);
        match self.stages.front() {
            Some(stage @ Stage::Question { .. }) => {
                Demand::Say((stage.len() - at).min(session.memory.ask_chunk_tokens()))
            }
            Some(stage) => Demand::Read((stage.len() - at).min(config.chunk_tokens)),
            None => Demand::Wait,
        }
    }

    /// The chunk that it wants to have run.
    pub fn chunk(&mut self) -> Option<Chunk<'_>> {
        if let Some(span) = self.trace.prefill(self.progress.1) {
            self.session_mut().memory.trace_into(span);
        }
        if let Some(pass) = &mut self.pass {
            return Some(pass.chunk());
        }
        let session = self.work.as_mut()?.session_mut();
        if let Some(token) = session.pending {
            self.pending = [token];
            let (ids, phase) = (&self.pending[..], Phase::Answering);
            let draw = self.answer.as_mut().and_then(|answer| answer.draw(&session.engine));
            let logits = draw.map_or(Logits::Wanted, Logits::Drawn);
            return Some(Chunk { session, ids, phase, logits, failed: None });
        }
        let config = session.memory.config();
        let (ids, phase, most) = match self.stages.front()? {
            Stage::Document { document, tokens, .. } => {
                (&document.ids()[tokens.clone()], Phase::Reading, config.chunk_tokens)
            }
            Stage::Tokens(ids) => (&ids[..], Phase::Reading, config.chunk_tokens),
            Stage::Question { ids, .. } => {
                (&ids[..], Phase::Asking, session.memory.ask_chunk_tokens())
            }
        };
        let n = (ids.len() - self.at).min(most);
        let logits = match phase == Phase::Asking && self.at + n == ids.len() {
            true => Logits::Wanted,
            false => Logits::NotWanted,
        };
        let ids = &ids[self.at..self.at + n];
        Some(Chunk { session, ids, phase, logits, failed: None })
    }

    /// Takes note that a chunk of `n_tokens` tokens was run; may give birth to `siblings`.
    pub fn ran(&mut self, n_tokens: usize, siblings: &mut Vec<Self>) -> Result<(), EngineError> {
        if let Some(pass) = &mut self.pass {
            if let Some(choice) = pass.ran(n_tokens)? {
                let time = pass.retrieval_time();
                self.pass = None;
                self.session_mut().attend_to(choice);
                self.session_mut().memory.add_retrieval_time(time);
            }
            return Ok(());
        }
        let pending = self.session_mut().pending.take();
        match pending {
            Some(token) => self.session_mut().note_tokens(&[token])?,
            None => self.took(n_tokens)?,
        }
        self.settle(siblings)
    }

    /// Notes what a chunk of the first stage stood for.
    fn took(&mut self, n_tokens: usize) -> Result<(), EngineError> {
        let Some(stage) = self.stages.front() else { return Ok(()) };
        let work = self.work.as_mut().expect("because it is not over");
        let session = work.session_mut();
        let range = self.at..self.at + n_tokens;
        match stage {
            Stage::Document { document, tokens, .. } => {
                session.note_document(
                    document,
                    tokens.start + range.start..tokens.start + range.end,
                )?;
            }
            Stage::Tokens(ids) | Stage::Question { ids, .. } => session.note_tokens(&ids[range])?,
        }
        self.at += n_tokens;
        self.progress.0 += n_tokens;
        let is_whole = self.at == stage.len();
        let is_read = !matches!(stage, Stage::Question { .. });
        if let (Work::Context(context), Stage::Document { saving: Saving::AsItComes, .. }) =
            (work, stage)
        {
            let (saved, when) = self.saved;
            let is_due = self.at - saved >= SAVE_EVERY_TOKENS || when.elapsed() >= SAVE_EVERY;
            // All of it is for the caller to save, who waits for the disk.
            if is_due && !is_whole {
                context.save_read(false)?;
                self.saved = (self.at, Instant::now());
            }
        }
        if is_whole {
            self.stages.pop_front();
            (self.at, self.has_pins) = (0, false);
        }
        if is_read {
            let (done_tokens, total_tokens) = self.progress;
            // Whoever does not listen misses no more than this.
            let _ = self.events.try_send(Event::Progress { done_tokens, total_tokens });
        }
        Ok(())
    }

    /// Does what needs no pass of the model, until one is needed or all is done.
    pub fn settle(&mut self, siblings: &mut Vec<Self>) -> Result<(), EngineError> {
        while self.stages.front().is_some_and(|stage| stage.len() == 0) {
            self.stages.pop_front();
        }
        if self.work.is_none() || self.session().pending.is_some() {
            return Ok(());
        }
        match self.stages.front() {
            Some(Stage::Question { ids, about }) if !self.has_pins => {
                self.has_pins = true;
                let work = self.work.as_mut().expect("because it was looked at");
                work.session_mut().memory.take_evidence();
                let about = match about {
                    About::Conversation => None,
                    About::Document => work.session().document_start()?,
                    About::DocumentAt(before) => Some(*before),
                };
                self.pass = FirstPass::begin(work.session_mut(), ids, about)?;
                Ok(())
            }
            Some(_) => Ok(()),
            None => self.answer(siblings),
        }
    }

    fn end(&mut self, finish: Option<FinishReason>, rest: String, n_tokens: usize) {
        let mut work = self.work.take().expect("because it ends once");
        let memory = &mut work.session_mut().memory;
        self.trace.end(Some(n_tokens), memory.retrieval_time());
        memory.trace_into(Span::none());
        let ended = Ended { work, finish, rest, n_tokens };
        self.outbox.push_back(Event::Ended(self.number, Box::new(ended)));
        self.send();
    }

    /// Sends what the listener has room for.
    pub fn send(&mut self) -> Standing {
        while let Some(event) = self.outbox.pop_front() {
            // Who hears of the end finds the place free. Nobody else sends in between: the answers to
            // one question are all on this thread.
            let is_last = matches!(event, Event::Ended(..) | Event::Failed(_));
            if is_last && self.events.capacity() > 0 {
                self.place = None;
            }
            match self.events.try_send(event) {
                Ok(()) => self.blocked_since = None,
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    self.blocked_since.get_or_insert_with(Instant::now);
                    return Standing::GoesOn;
                }
                Err(TrySendError::Closed(_)) => return Standing::Over,
            }
        }
        if self.work.is_none() { Standing::Over } else { Standing::GoesOn }
    }

    /// Gives up because of an error, which is told.
    pub fn fail(&mut self, error: EngineError) {
        self.work = None;
        self.outbox.push_back(Event::Failed(error));
    }

    /// Gives up because nobody waits any more; what was read of a document is kept.
    pub fn give_up(&mut self) {
        let is_document =
            matches!(self.stages.front(), Some(Stage::Document { saving: Saving::AsItComes, .. }));
        if let (Some(Work::Context(mut context)), true) = (self.work.take(), is_document) {
            // It is read again from the last save where this fails. Waiting for the disk is part of
            // letting go: whoever removes the context now must not have it written afterwards.
            let _ = context.save_read(false).and_then(|()| context.sync());
        }
    }

    fn session(&self) -> &Session {
        self.work.as_ref().expect("because it is not over").session()
    }

    fn session_mut(&mut self) -> &mut Session {
        self.work.as_mut().expect("because it is not over").session_mut()
    }
}

impl Stage {
    fn len(&self) -> usize {
        match self {
            Self::Document { tokens, .. } => tokens.len(),
            Self::Tokens(ids) | Self::Question { ids, .. } => ids.len(),
        }
    }
}
