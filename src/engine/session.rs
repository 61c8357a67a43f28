//! How does a text that never ends pass through a model? Chunk by chunk: a document in large ones,
//! a question in small ones, an answer token by token, each with the memory's lookups.

use std::ops::ControlFlow;

use super::buffers::Runner;
use super::error::EngineError;
use super::loaded::Engine;
use super::sources::Sources;
use crate::backend::PageLayout;
use crate::backend::any::AnyBackend;
use crate::ids::{ByteSpan, TokenId};
use crate::memory::{Memory, MemoryConfig, Phase, Stores};

/// The text that tokens stand for.
pub(super) struct SourceText<'a> {
    /// `[token]`: bytes of the text.
    pub spans: &'a [ByteSpan],
    /// The text, from byte `first_byte` on.
    pub bytes: &'a [u8],
    pub first_byte: usize,
}

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
    pub(super) memory: Memory<AnyBackend>,
    /// The buffers of its own passes, from the first of them on.
    pub(super) runner: Option<Box<Runner>>,
    /// Logits after the last token, `[vocab]`.
    pub(super) logits: Vec<f32>,
    /// Whether `logits` belong to the last token.
    pub(super) has_logits: bool,
    /// Of tokens that were [scored](super::batch::Logits::Scored), in nats.
    pub(super) log_probability: f32,
    /// The token that the device drew from logits that it kept, until it is taken.
    pub(super) drawn: Option<TokenId>,
    /// The last token taken in.
    pub(super) last: Option<TokenId>,
    /// Given out by a generation, but not yet run through the model.
    pub(super) pending: Option<TokenId>,
    /// The tokens, and the text that they stand for; tokens of templates, questions and answers
    /// stand for none.
    pub(super) sources: Sources,
}

impl Engine {
    /// A new session with nothing read yet.
    ///
    /// # Errors
    /// When the memory's sizes do not fit each other or the model.
    pub fn session(&self, memory: &MemoryConfig) -> Result<Session, EngineError> {
        let stores = Stores::in_memory(self.page_layout(memory), memory)?;
        Session::new(self.clone(), memory, (stores, Sources::in_memory()?))
    }

    /// How the pages of such a memory are laid out.
    pub(super) fn page_layout(&self, memory: &MemoryConfig) -> PageLayout {
        PageLayout {
            heads: self.transformer().heads(),
            n_layers: self.config().n_layers,
            page_len: memory.unit_tokens,
            kv_type: memory.kv_type,
        }
    }
}

impl Session {
    pub(super) fn new(
        engine: Engine,
        config: &MemoryConfig,
        (stores, sources): (Stores, Sources),
    ) -> Result<Self, EngineError> {
        let transformer = engine.transformer();
        let memory = Memory::new(
            transformer.backend().clone(),
            config.clone(),
            engine.page_layout(config),
            (transformer.rotary(), engine.trained_tokens()),
            stores,
        )?;
        Ok(Self {
            runner: None,
            logits: vec![0.0; transformer.config().vocab_size],
            has_logits: false,
            log_probability: 0.0,
            drawn: None,
            last: None,
            pending: None,
            sources,
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
            runner: None,
            logits: self.logits.clone(),
            has_logits: self.has_logits,
            log_probability: self.log_probability,
            drawn: self.drawn,
            last: self.last,
            pending: self.pending,
            sources: self.sources.fork()?,
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
        let source = SourceText { spans: &encoded.spans, bytes: text.as_bytes(), first_byte: 0 };
        self.feed(&encoded.ids, Some(source), Phase::Reading, progress)
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

    /// Bytes of text read so far.
    pub fn text_bytes(&self) -> usize {
        self.sources.text_bytes()
    }

    /// The memory, for what it can report.
    pub fn memory(&self) -> &Memory<AnyBackend> {
        &self.memory
    }

    /// The engine this session runs on.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn feed_question(&mut self, ids: &[TokenId]) -> Result<(), EngineError> {
        self.check_question(ids)?;
        self.ask_tokens(ids, None, &mut no_progress)
    }

    /// Takes in a question that fits the window, after a first pass where one is configured; `about`
    /// says how many tokens there are before the document that is asked about, if one is.
    pub(super) fn ask_tokens(
        &mut self,
        ids: &[TokenId],
        about: Option<usize>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        self.run_pending()?;
        self.choose(ids, about)?;
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
}
