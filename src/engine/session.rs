//! How does a text that never ends pass through a model? Chunk by chunk: a document in large ones,
//! a question in small ones, an answer token by token, each with the memory's lookups.

use std::ops::ControlFlow;

use super::error::EngineError;
use super::loaded::Engine;
use crate::backend::PageLayout;
use crate::backend::cpu::CpuBackend;
use crate::ids::{ByteSpan, TokenId};
use crate::memory::{Memory, MemoryConfig, Phase, Stores};
use crate::model::Workspace;

/// The place of a token that stands for no bytes of the text read.
const NOWHERE: ByteSpan = ByteSpan { start: 0, end: 0 };

/// How far a longer task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tokens done.
    pub done_tokens: usize,
    /// Tokens there are.
    pub total_tokens: usize,
}

/// Is told of progress after each chunk; `Break` stops the task there.
pub type ProgressFn<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// A [`ProgressFn`] that lets everything pass.
pub fn no_progress(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// One text, its memory, and the model's state at its end.
pub struct Session {
    pub(super) engine: Engine,
    pub(super) memory: Memory<CpuBackend>,
    pub(super) workspace: Workspace<CpuBackend>,
    /// Logits after the last token, `[vocab]`.
    pub(super) logits: Vec<f32>,
    /// Whether `logits` belong to the last token.
    pub(super) has_logits: bool,
    /// The last token taken in.
    pub(super) last: Option<TokenId>,
    /// Given out by a generation, but not yet run through the model.
    pub(super) pending: Option<TokenId>,
    /// `[token]`: the bytes of the read text that each token stands for; empty for tokens of
    /// templates, questions and answers.
    pub(super) sources: Vec<ByteSpan>,
    /// Bytes of text read so far.
    pub(super) read_bytes: usize,
}

impl Engine {
    /// A new session with nothing read yet.
    ///
    /// # Errors
    /// When the memory's sizes do not fit each other or the model.
    pub fn session(&self, memory: &MemoryConfig) -> Result<Session, EngineError> {
        Session::new(self.clone(), memory)
    }
}

impl Session {
    fn new(engine: Engine, config: &MemoryConfig) -> Result<Self, EngineError> {
        let transformer = engine.transformer();
        let layout = PageLayout {
            heads: transformer.heads(),
            n_layers: transformer.config().n_layers,
            page_len: config.unit_tokens,
            kv_type: config.kv_type,
        };
        config.validate(engine.trained_tokens())?;
        let memory = Memory::new(
            transformer.backend().clone(),
            config.clone(),
            layout,
            (transformer.rotary(), engine.trained_tokens()),
            Stores::in_memory(layout, config)?,
        )?;
        Ok(Self {
            workspace: transformer.workspace(config.chunk_tokens),
            logits: vec![0.0; transformer.config().vocab_size],
            has_logits: false,
            last: None,
            pending: None,
            sources: Vec::new(),
            read_bytes: 0,
            memory,
            engine,
        })
    }

    /// A session that has read the same, and goes its own way from here. `memory` may choose units
    /// otherwise than this session does; see [`Memory::fork`].
    ///
    /// # Errors
    /// When `memory` differs in what has shaped the memory, or there is no room for the fork.
    pub fn fork(&self, memory: &MemoryConfig) -> Result<Self, EngineError> {
        let memory = self.memory.fork(memory.clone(), self.engine.trained_tokens())?;
        Ok(Self {
            workspace: self.engine.transformer().workspace(memory.config().chunk_tokens),
            logits: self.logits.clone(),
            has_logits: self.has_logits,
            last: self.last,
            pending: self.pending,
            sources: self.sources.clone(),
            read_bytes: self.read_bytes,
            memory,
            engine: self.engine.clone(),
        })
    }

    /// Reads a piece of text. Byte offsets of evidence count from the first piece read.
    ///
    /// # Errors
    /// When the memory refuses, or `progress` says to stop; what was read until then stays.
    pub fn read(&mut self, text: &str, progress: &mut ProgressFn<'_>) -> Result<(), EngineError> {
        let encoded = self.engine.tokenizer().encode_document(text);
        let sources = encoded.spans.iter().map(|span| ByteSpan {
            start: self.read_bytes + span.start,
            end: self.read_bytes + span.end,
        });
        let sources: Vec<ByteSpan> = sources.collect();
        self.read_bytes += text.len();
        self.feed(&encoded.ids, Some(&sources), Phase::Reading, progress)
    }

    /// Reads tokens as a document is read; evidence has no bytes to name for them.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_tokens(
        &mut self,
        ids: &[TokenId],
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        self.feed(ids, None, Phase::Reading, progress)
    }

    /// Takes in a few tokens as a question is, see [`prompt`](Self::prompt).
    ///
    /// # Errors
    /// As there.
    pub fn prompt_tokens(&mut self, ids: &[TokenId]) -> Result<(), EngineError> {
        self.feed_question(ids)
    }

    /// Takes in a short text as a question is: in small chunks, each of which looks up units.
    ///
    /// # Errors
    /// When the text is longer than the window, or the memory refuses.
    pub fn prompt(&mut self, text: &str) -> Result<(), EngineError> {
        let ids = self.engine.tokenizer().encode_document(text).ids;
        self.feed_question(&ids)
    }

    /// Tokens taken in so far, answers included.
    pub fn n_tokens(&self) -> usize {
        self.memory.n_tokens() + usize::from(self.pending.is_some())
    }

    /// The memory, for what it can report.
    pub fn memory(&self) -> &Memory<CpuBackend> {
        &self.memory
    }

    /// The engine this session runs on.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn feed_question(&mut self, ids: &[TokenId]) -> Result<(), EngineError> {
        self.check_question(ids)?;
        self.ask_tokens(ids, &mut no_progress)
    }

    /// Takes in a question that fits the window, after a first pass where one is configured.
    pub(super) fn ask_tokens(
        &mut self,
        ids: &[TokenId],
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        self.run_pending()?;
        self.pin_units(ids)?;
        self.feed(ids, None, Phase::Asking, progress)
    }

    /// A question that does not fit the window would push itself out of it.
    pub(super) fn check_question(&self, ids: &[TokenId]) -> Result<(), EngineError> {
        let window_tokens = self.memory.config().window_tokens;
        if ids.len() > window_tokens {
            return Err(EngineError::QuestionTooLong { question_tokens: ids.len(), window_tokens });
        }
        Ok(())
    }

    /// Runs tokens through the model in the phase's chunks.
    pub(super) fn feed(
        &mut self,
        ids: &[TokenId],
        sources: Option<&[ByteSpan]>,
        phase: Phase,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        self.run_pending()?;
        let config = self.memory.config();
        let chunk_tokens = match phase {
            Phase::Reading => config.chunk_tokens,
            Phase::Asking => config.ask_chunk_tokens,
            Phase::Answering => config.answer_chunk_tokens,
        };
        for (i, chunk) in ids.chunks(chunk_tokens).enumerate() {
            let first = i * chunk_tokens;
            // Tokens before these that came from no text, scored ones for example.
            self.sources.resize(self.memory.n_tokens(), NOWHERE);
            self.run_chunk(chunk, phase)?;
            match sources {
                Some(sources) => self.sources.extend(&sources[first..first + chunk.len()]),
                None => self.sources.resize(self.memory.n_tokens(), NOWHERE),
            }
            let done = Progress { done_tokens: first + chunk.len(), total_tokens: ids.len() };
            if progress(done).is_break() {
                let Progress { done_tokens, total_tokens } = done;
                return Err(EngineError::Stopped { done_tokens, total_tokens });
            }
        }
        if !ids.is_empty() && phase != Phase::Reading {
            let last = (ids.len() - 1) % chunk_tokens;
            self.read_logits(last);
        }
        Ok(())
    }

    /// Takes in the token that was given out last, if it was not yet.
    pub(super) fn run_pending(&mut self) -> Result<(), EngineError> {
        match self.pending.take() {
            Some(token) => self.feed(&[token], None, Phase::Answering, &mut no_progress),
            None => Ok(()),
        }
    }

    /// One chunk through all layers and into memory.
    pub(super) fn run_chunk(&mut self, ids: &[TokenId], phase: Phase) -> Result<(), EngineError> {
        let before = (self.last, std::mem::replace(&mut self.has_logits, false));
        self.memory.begin_chunk(ids.len(), phase)?;
        let transformer = self.engine.transformer();
        transformer.forward(ids, &mut self.memory, &mut self.workspace)?;
        self.last = ids.last().copied();
        let is_document = phase == Phase::Reading;
        match is_document.then(|| self.borders(ids, before)).flatten() {
            Some(borders) => self.memory.end_chunk_at(&borders)?,
            None => self.memory.end_chunk()?,
        }
        Ok(())
    }

    fn read_logits(&mut self, row: usize) {
        let transformer = self.engine.transformer();
        transformer.logits(row..row + 1, &mut self.workspace, &mut self.logits);
        self.has_logits = true;
    }
}
