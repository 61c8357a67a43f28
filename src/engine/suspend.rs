//! How does a session outlive its process? Memory, logits and sources become bytes beside what lies in
//! stores, and a session is taken up from them as if nothing had happened.

use super::batch::Logits;
use super::error::EngineError;
use super::loaded::Engine;
use super::session::{Progress, ProgressFn, Session};
use super::sources::Sources;
use crate::bytes::{ByteReader, ByteWriter};
use crate::ids::TokenId;
use crate::memory::{Memory, MemoryConfig, MemoryError, Phase, Stores, StreamShape, UnitStore};

/// Stores that a session keeps its past in.
pub struct SessionStores {
    /// Units, and what stands for them.
    pub memory: Stores,
    /// Tokens, with the bytes that each stands for.
    pub tokens: Box<dyn UnitStore>,
    /// The text read.
    pub text: Box<dyn UnitStore>,
}

/// How many stores a session has.
pub const N_STORES: usize = 4;

/// A session between processes.
#[derive(Clone, Debug)]
pub struct SuspendedSession {
    /// What is not in the stores.
    pub state: Vec<u8>,
    /// Records that belong to it, of each store: the first so many.
    pub n_records: [usize; N_STORES],
}

impl SessionStores {
    /// What the stores of such a session keep: units, blocks, tokens, text.
    pub fn shapes(engine: &Engine, config: &MemoryConfig) -> [StreamShape; N_STORES] {
        let [units, blocks] = Stores::shapes(engine.page_layout(config), config);
        let [tokens, text] = Sources::SHAPES;
        [units, blocks, tokens, text]
    }
}

impl Session {
    /// What has to be kept to take the session up again.
    ///
    /// # Errors
    /// When a store refuses a record.
    pub fn suspend(&mut self) -> Result<SuspendedSession, EngineError> {
        let memory = self.memory.suspend()?;
        let mut out = ByteWriter::new();
        let id = |token: Option<TokenId>| token.map(|token| token.0 as usize);
        out.optional_len(id(self.last));
        out.optional_len(id(self.pending));
        out.f32s(if self.has_logits { &self.logits } else { &[] });
        self.sources.write(&mut out);
        out.bytes(&memory.state);
        let [tokens, text] = self.sources.n_records();
        let n_records = [memory.n_units, memory.n_blocks, tokens, text];
        Ok(SuspendedSession { state: out.finish(), n_records })
    }

    /// The tokens taken in so far, the one given out last included.
    ///
    /// # Errors
    /// When they cannot be read back.
    pub fn token_ids(&self) -> Result<Vec<TokenId>, EngineError> {
        let tokens = self.sources.tokens(0..self.sources.n_tokens())?;
        Ok(tokens.iter().map(|(id, _)| *id).chain(self.pending).collect())
    }

    /// The first token of which record `record` of the store of tokens holds anything.
    pub(super) fn tokens_before_record(record: usize) -> usize {
        Sources::tokens_before_record(record)
    }

    /// How many of the first `n_tokens` tokens stand for no byte of record `record` of the store of
    /// text, or any after it.
    pub(super) fn tokens_before_text(
        &self,
        record: usize,
        n_tokens: usize,
    ) -> Result<usize, EngineError> {
        Ok(self.sources.tokens_before_text(record, n_tokens)?)
    }

    /// Goes back to the state after the first `n_tokens` tokens, as if later ones had never been; see
    /// [`Memory::rewind`].
    ///
    /// # Errors
    /// When there are fewer tokens, or the memory does not keep what it takes.
    pub fn rewind(&mut self, n_tokens: usize) -> Result<(), EngineError> {
        if n_tokens == self.n_tokens() {
            return Ok(());
        }
        self.memory.rewind(n_tokens)?;
        self.pending = None;
        self.has_logits = false;
        self.sources.truncate(n_tokens)?;
        let last = self.sources.tokens(n_tokens.saturating_sub(1)..n_tokens)?;
        self.last = last.last().map(|(id, _)| *id);
        Ok(())
    }

    /// As [`rewind`](Self::rewind); but where the memory does not keep what that takes (int4, units cut at
    /// borders, a tally of attention) the tokens are read again, which takes as long as reading them did.
    ///
    /// # Errors
    /// When there are fewer tokens, the memory refuses, or `progress` says to stop: the session is of no
    /// use then.
    pub fn rewind_or_read_again(
        &mut self,
        n_tokens: usize,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        if n_tokens < self.n_tokens() && !self.memory.can_rewind() {
            let tokens = self.sources.tokens(0..n_tokens)?;
            let ids: Vec<TokenId> = tokens.into_iter().map(|(id, _)| id).collect();
            self.memory.restart()?;
            (self.last, self.pending, self.has_logits) = (None, None, false);
            let mut done_tokens = 0;
            for chunk in ids.chunks(self.memory.config().chunk_tokens) {
                self.run_chunk(chunk, Phase::Reading, Logits::NotWanted)?;
                done_tokens += chunk.len();
                if progress(Progress { done_tokens, total_tokens: n_tokens }).is_break() {
                    return Err(EngineError::Stopped { done_tokens, total_tokens: n_tokens });
                }
            }
            return Ok(self.sources.truncate(n_tokens)?);
        }
        self.rewind(n_tokens)
    }
}

impl Engine {
    /// A new session that keeps its past in `stores`, which must be empty.
    ///
    /// # Errors
    /// As for [`session`](Self::session).
    pub fn session_in(
        &self,
        config: &MemoryConfig,
        stores: SessionStores,
    ) -> Result<Session, EngineError> {
        let sources = Sources::new(stores.tokens, stores.text);
        Session::new(self.clone(), config, (stores.memory, sources))
    }

    /// The session that was suspended with `state`, the rest of it in `stores`. `config` may choose
    /// units otherwise than before, see [`Memory::fork`].
    ///
    /// # Errors
    /// When the state is not what was written, or does not fit this model and these sizes.
    pub fn resume(
        &self,
        config: &MemoryConfig,
        stores: SessionStores,
        state: &[u8],
    ) -> Result<Session, EngineError> {
        let transformer = self.transformer();
        let mut from = ByteReader::new(state);
        let vocab = transformer.config().vocab_size;
        let mut token = |what| match from.optional_len(what)? {
            Some(id) if id >= vocab => Err(from.malformed(what)),
            id => Ok(id.map(|id| TokenId(id as u32))),
        };
        let state = |error| EngineError::from(MemoryError::State(error));
        let last = token("last token").map_err(state)?;
        let pending = token("pending token").map_err(state)?;
        let mut logits = from.f32s("logits").map_err(state)?;
        let has_logits = !logits.is_empty();
        if has_logits && logits.len() != vocab {
            return Err(state(from.malformed("logits")));
        }
        logits.resize(vocab, 0.0);
        let sources = Sources::resume((stores.tokens, stores.text), &mut from).map_err(state)?;
        let memory = from.bytes("memory").map_err(state)?;
        from.finish("end of the session's state").map_err(state)?;
        let memory = Memory::resume(
            transformer.backend().clone(),
            config.clone(),
            self.page_layout(config),
            (transformer.rotary(), self.trained_tokens()),
            (stores.memory, memory),
        )?;
        Ok(Session {
            runner: None,
            logits,
            has_logits,
            log_probability: 0.0,
            drawn: None,
            last,
            pending,
            sources,
            memory,
            engine: self.clone(),
        })
    }
}
