//! How is a text read once remembered for ever? As a context: a session whose past lies in the store,
//! saved as often as one likes, and taken up by name in another process.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::ask::DocumentPrompt;
use super::context_error::ContextError;
use super::conversation::Conversation;
use super::error::EngineError;
use super::loaded::Engine;
use super::notes::ContextNotes;
use super::session::{Progress, ProgressFn, Session};
use super::suspend::{N_STORES, SessionStores};
use crate::ids::TokenId;
use crate::memory::store::{
    Commit, ContextSummary, DamagedRecord, Fingerprint, OpenContext, PrefixKey, Store,
};
use crate::memory::{MemoryConfig, Stores};
use crate::tokenizer::Message;

/// Tokens read between two saves, at most, unless one says otherwise.
pub const SAVE_EVERY_TOKENS: usize = 8192;

/// The longest that reading goes on without a save, but for the chunk at hand.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(5);

/// The contexts of one tenant, for one model.
#[derive(Clone)]
pub struct Contexts {
    engine: Engine,
    store: Store,
    tenant: String,
}

/// A session that can be saved.
pub struct Context {
    session: Session,
    stored: OpenContext,
    tenant: String,
    name: String,
    notes: ContextNotes,
    fingerprint: Fingerprint,
    save_every: usize, // tokens
}

impl Contexts {
    /// The contexts of `tenant` in `store`, for `engine`'s model.
    pub fn new(engine: Engine, store: Store, tenant: &str) -> Self {
        Self { engine, store, tenant: tenant.to_owned() }
    }

    /// Where they are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whose they are.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The model that reads them.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// A context with nothing read yet; the store knows of it when it is saved. `source` says where
    /// its text will come from.
    ///
    /// # Errors
    /// As for [`Engine::session`].
    pub fn create(
        &self,
        name: &str,
        config: &MemoryConfig,
        source: &str,
    ) -> Result<Context, EngineError> {
        let model = self.engine.path().display().to_string();
        let notes = ContextNotes::new(config, &model, source);
        let stored = self.store.create(&SessionStores::shapes(&self.engine, config));
        Ok(Context {
            session: self.engine.session_in(config, session_stores(&stored))?,
            fingerprint: fingerprint(&self.engine, &notes)?,
            stored,
            tenant: self.tenant.clone(),
            name: name.to_owned(),
            notes,
            save_every: SAVE_EVERY_TOKENS,
        })
    }

    /// Keeps the caller's own words with the context of this name, in place of those that were kept.
    ///
    /// # Errors
    /// When there is none, or its row cannot be written.
    pub fn set_metadata(&self, name: &str, metadata: String) -> Result<(), EngineError> {
        let notes = ContextNotes { metadata, ..self.notes(name)? };
        Ok(self.store.set_meta(&self.tenant, name, &notes.write())?)
    }

    /// What the context of this name says of itself.
    ///
    /// # Errors
    /// When there is none, or its notes cannot be read.
    pub fn notes(&self, name: &str) -> Result<ContextNotes, EngineError> {
        let summary = self.store.show(&self.tenant, name)?;
        let summary = summary.ok_or_else(|| ContextError::NoSuch { name: name.to_owned() })?;
        Ok(ContextNotes::of(&summary)?)
    }

    /// The context of this name as it was saved, with the settings that it was read with.
    ///
    /// # Errors
    /// When there is none, another model has read it, or it cannot be read.
    pub fn open(&self, name: &str) -> Result<Context, EngineError> {
        self.open_as(name, &self.notes(name)?.config()?)
    }

    /// The context of this name, to go on with `config`, which may choose units otherwise than it was
    /// read with.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when `config` differs in what has shaped the context.
    pub fn open_as(&self, name: &str, config: &MemoryConfig) -> Result<Context, EngineError> {
        let stored = self.store.open_context(&self.tenant, name)?;
        let no_such = || ContextError::NoSuch { name: name.to_owned() };
        let stored = stored.ok_or_else(no_such)?;
        let summary = stored.summary().ok_or_else(no_such)?;
        let mut notes = ContextNotes::of(summary)?;
        if fingerprint(&self.engine, &notes)? != summary.fingerprint {
            self.store.count_fingerprint_miss();
            let (name, model) = (name.to_owned(), notes.model);
            return Err(ContextError::OtherModel { name, model }.into());
        }
        let was = notes.config()?;
        if *config != was {
            config.check_goes_on_from(&was)?;
            notes.set_config(config);
        }
        let (stores, tail) = (session_stores(&stored), stored.tail()?);
        Ok(Context {
            session: self.engine.resume(config, stores, &tail)?,
            stored,
            tenant: self.tenant.clone(),
            name: name.to_owned(),
            fingerprint: fingerprint(&self.engine, &notes)?,
            notes,
            save_every: SAVE_EVERY_TOKENS,
        })
    }

    /// Takes a context with damaged parts back to before the first of them, or removes it where it
    /// cannot be; returns how many tokens are left.
    ///
    /// # Errors
    /// When there is none, another model has read it, or the store refuses.
    pub fn repair(&self, name: &str) -> Result<Option<usize>, EngineError> {
        let damaged = self.store.damaged(&self.tenant, name)?;
        let kept = match self.open(name) {
            Ok(mut context) => match context.rewind_before(&damaged) {
                Ok(n_tokens) if n_tokens > 0 => Some((context, n_tokens)),
                _ => None,
            },
            Err(error @ EngineError::Context(ContextError::OtherModel { .. })) => {
                return Err(error);
            }
            Err(_) => None,
        };
        let Some((mut context, n_tokens)) = kept else {
            self.store.delete(&self.tenant, name)?;
            return Ok(None);
        };
        context.save()?;
        context.sync()?;
        Ok(Some(n_tokens))
    }

    /// The context that has read the most of what `ids` begin with, and nothing else, as a text read
    /// with `config` would be.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn longest_prefix(
        &self,
        config: &MemoryConfig,
        ids: &[TokenId],
    ) -> Result<Option<Context>, EngineError> {
        let mut contexts = self.store.list(&self.tenant)?;
        contexts.retain(|context| context.length > 0 && context.length <= ids.len() as u64);
        contexts.sort_by_key(|context| context.length);
        let (mut hasher, mut hashed) = (blake3::Hasher::new(), 0);
        let mut longest = None;
        for context in &contexts {
            let n = context.length as usize;
            hash_ids(&mut hasher, &ids[hashed..n]);
            hashed = n;
            let is_prefix = PrefixKey(hasher.finalize().into()) == context.prefix_key;
            if is_prefix && self.is_read_alike(context, config)? {
                longest = Some(&context.name);
            }
        }
        longest.map(|name| self.open(name)).transpose()
    }

    /// Whether this model has read `context` as it would with `config`.
    fn is_read_alike(
        &self,
        context: &ContextSummary,
        config: &MemoryConfig,
    ) -> Result<bool, EngineError> {
        let Ok(notes) = ContextNotes::of(context) else { return Ok(false) };
        let Ok(was) = notes.config() else { return Ok(false) };
        // What is asked and answered depends on all settings, what is read on some.
        let is_alike = match notes.conversation {
            Some(_) => was == *config,
            None => was.for_reading() == config.for_reading(),
        };
        Ok(is_alike && fingerprint(&self.engine, &notes)? == context.fingerprint)
    }
}

impl Context {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The session as it is now, saved or not.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The same, to go on.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// A session to ask the document in, with `config`: the context stays as it is.
    ///
    /// # Errors
    /// When it is a conversation, or `config` differs in what has shaped the context.
    pub fn to_ask(&self, config: &MemoryConfig) -> Result<Session, EngineError> {
        self.check_document()?;
        self.session.fork(config)
    }

    /// Says where its text comes from, for one that was forked to read another.
    pub fn set_source(&mut self, source: &str) {
        source.clone_into(&mut self.notes.source);
    }

    /// Keeps the caller's own words with it, from the next save on.
    pub fn set_metadata(&mut self, metadata: String) {
        self.notes.metadata = metadata;
    }

    /// What it says of itself.
    pub fn notes(&self) -> &ContextNotes {
        &self.notes
    }

    /// Has a document saved each time that so many tokens of it were read, whole chunks of them, or
    /// earlier where that takes long.
    pub fn save_every(&mut self, tokens: usize) {
        self.save_every = tokens;
    }

    /// Saves it as it is now. The disk is not waited for, see [`sync`](Self::sync).
    ///
    /// # Errors
    /// When the store refuses, or an earlier save has failed.
    pub fn save(&mut self) -> Result<(), EngineError> {
        let suspended = self.session.suspend()?;
        self.notes.text_bytes = self.session.text_bytes();
        let ids = self.session.token_ids()?;
        let mut hasher = blake3::Hasher::new();
        hash_ids(&mut hasher, &ids);
        self.stored.commit(Commit {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            fingerprint: self.fingerprint,
            prefix_key: PrefixKey(hasher.finalize().into()),
            length: ids.len() as u64,
            meta: self.notes.write(),
            records: suspended.n_records.map(|n| n as u64).to_vec(),
            tail: suspended.state,
        })?;
        Ok(())
    }

    /// Waits until all that was saved is on the disk.
    ///
    /// # Errors
    /// When any of it could not be written.
    pub fn sync(&mut self) -> Result<(), EngineError> {
        Ok(self.stored.sync()?)
    }

    /// Reads a document, or what is left of it where a part was read before, and saves it every few
    /// seconds and at the end. Returns how many of its tokens had been read before.
    ///
    /// # Errors
    /// When the context has read something else, the memory or the store refuses, or `progress` says
    /// to stop: what was read until then is saved.
    pub fn read_document(
        &mut self,
        document: &DocumentPrompt,
        progress: &mut ProgressFn<'_>,
    ) -> Result<usize, EngineError> {
        let n_before = self.n_read_of(document)?;
        let n_tokens = document.ids().len();
        let (mut from, mut was_stopped) = (n_before, false);
        while from < n_tokens && !was_stopped {
            let begun = Instant::now();
            let mut done = 0;
            let read = self.session.read_document(document, from..n_tokens, &mut |step| {
                done = step.done_tokens;
                let so_far = Progress { done_tokens: from + done, total_tokens: n_tokens };
                was_stopped = progress(so_far).is_break();
                match was_stopped || done >= self.save_every || begun.elapsed() >= SAVE_EVERY {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            // After any other error the memory may be half of what it was to be.
            match read {
                Ok(()) | Err(EngineError::Stopped { .. }) => from += done,
                Err(error) => return Err(error),
            }
            self.notes.is_whole = from == n_tokens;
            self.save()?;
        }
        if was_stopped && from < n_tokens {
            self.sync()?;
            return Err(EngineError::Stopped { done_tokens: from, total_tokens: n_tokens });
        }
        if !self.notes.is_whole {
            self.notes.is_whole = true;
            self.save()?;
        }
        self.sync()?;
        Ok(n_before)
    }

    /// Saves what was read of its document, which may be all of it.
    pub(super) fn save_read(&mut self, is_whole: bool) -> Result<(), EngineError> {
        self.notes.is_whole = is_whole;
        self.save()
    }

    /// Saves what was read of its document as all of it, and waits for the disk.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn save_whole(&mut self) -> Result<(), EngineError> {
        self.save_read(true)?;
        self.sync()
    }

    /// How many tokens it has read, where it may read on.
    ///
    /// # Errors
    /// When it is a conversation.
    pub fn n_read_of_any(&self) -> Result<usize, EngineError> {
        self.check_document()?;
        Ok(self.session.n_tokens())
    }

    /// How many tokens of `document` it has read, where it may read on.
    ///
    /// # Errors
    /// When it is a conversation, or has read something else.
    pub fn n_read_of(&self, document: &DocumentPrompt) -> Result<usize, EngineError> {
        self.check_document()?;
        self.check_begins(document.ids())
    }

    /// Begins a conversation with what was said before: messages of the system, then turns of a user
    /// and the model. Gives the tokens to take in, after which [`has_said`](Self::has_said) is due.
    ///
    /// # Errors
    /// When something was read already, the messages do not come in that order, or the template
    /// refuses.
    pub fn begin_conversation(&mut self, said: &[Message]) -> Result<Vec<TokenId>, EngineError> {
        let (conversation, ids) = Conversation::of_messages(self.session.engine(), said)?;
        self.notes.turns = vec![0];
        self.notes.conversation = Some(conversation);
        Ok(ids)
    }

    /// Saves what was said before.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn has_said(&mut self) -> Result<(), EngineError> {
        let n_turns = self.notes.conversation.as_ref().map_or(0, Conversation::n_turns);
        // Turns of before are one step for those who go back: to before all of them, or to their end.
        self.notes.turns.resize(n_turns + 1, self.session.n_tokens());
        self.notes.is_whole = true;
        self.save()?;
        self.sync()
    }

    /// Reads more of the document, and saves it.
    ///
    /// # Errors
    /// When it is a conversation, the memory or the store refuses, or `progress` says to stop:
    /// nothing of `text` is saved then.
    pub fn append(&mut self, text: &str, progress: &mut ProgressFn<'_>) -> Result<(), EngineError> {
        self.check_document()?;
        self.session.read(text, progress)?;
        self.save()?;
        self.sync()
    }

    /// The conversation that it is, or becomes: about its document where it has read one.
    pub fn conversation(&mut self, system: Option<String>) -> Conversation {
        if self.notes.conversation.is_none() {
            let is_new = self.session.n_tokens() == 0;
            self.notes.turns = vec![self.session.n_tokens()];
            self.notes.conversation = Some(match is_new {
                true => Conversation::new(system),
                false => Conversation::about_document(),
            });
        }
        self.notes.conversation.clone().expect("because it was made sure of")
    }

    /// Notes that a turn has ended, as `conversation` knows it, and saves it.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn end_turn(&mut self, conversation: &Conversation) -> Result<(), EngineError> {
        self.notes.conversation = Some(conversation.clone());
        self.notes.turns.push(self.session.n_tokens());
        self.save()?;
        self.sync()
    }

    /// Goes back to the end of turn `turn`, counted from 1; 0 is before the first. Not saved yet.
    ///
    /// # Errors
    /// When there was no such turn, or the memory does not keep what it takes.
    pub fn rewind_to_turn(&mut self, turn: usize) -> Result<(), EngineError> {
        let no_turn = || ContextError::NoTurn {
            name: self.name.clone(),
            turn,
            n_turns: self.notes.turns.len().saturating_sub(1),
        };
        let n_tokens = *self.notes.turns.get(turn).ok_or_else(no_turn)?;
        self.rewind(n_tokens)
    }

    /// Goes back to the state after the first `n_tokens` tokens. Not saved yet.
    ///
    /// # Errors
    /// When there are fewer, or the memory does not keep what it takes.
    pub fn rewind(&mut self, n_tokens: usize) -> Result<(), EngineError> {
        let n_before = self.session.n_tokens();
        self.session.rewind(n_tokens)?;
        let document_tokens = self.notes.turns.first().copied().unwrap_or(n_before);
        self.notes.turns.retain(|end| *end <= n_tokens);
        self.notes.is_whole &= n_tokens >= document_tokens;
        let n_turns = self.notes.turns.len().saturating_sub(1);
        let conversation = self.notes.conversation.take();
        self.notes.conversation = conversation.filter(|_| n_turns > 0).map(|c| c.rewound(n_turns));
        if self.notes.conversation.is_none() {
            self.notes.turns.clear();
        }
        Ok(())
    }

    /// Goes back to before the first of `damaged` records, at the border of a chunk; returns how many
    /// tokens are left.
    fn rewind_before(&mut self, damaged: &[DamagedRecord]) -> Result<usize, EngineError> {
        let config = self.session.memory().config();
        let (sinks, unit) = (config.sink_tokens, config.unit_tokens);
        let chunk_tokens = config.chunk_tokens;
        let mut sound = self.session.n_tokens();
        for DamagedRecord { stream, record } in damaged {
            let record = *record as usize;
            let before = match stream {
                0 => sinks + record * unit,
                1 => sinks + self.session.memory().units_of_block(record).start * unit,
                2 => Session::tokens_before_record(record),
                _ => self.session.tokens_before_text(record, sound)?,
            };
            sound = sound.min(before);
        }
        if sound < self.session.n_tokens() {
            sound -= sound % chunk_tokens;
            self.rewind(sound)?;
        }
        Ok(sound)
    }

    fn check_document(&self) -> Result<(), ContextError> {
        match self.notes.conversation {
            Some(_) => Err(ContextError::Conversation { name: self.name.clone() }),
            None => Ok(()),
        }
    }

    /// How many tokens were read, all of which `ids` must begin with.
    fn check_begins(&self, ids: &[TokenId]) -> Result<usize, EngineError> {
        let read = self.session.token_ids()?;
        let alike = read.iter().zip(ids).take_while(|(a, b)| a == b).count();
        if alike < read.len() {
            let (name, n_tokens) = (self.name.clone(), read.len());
            return Err(ContextError::OtherText { name, at: alike, n_tokens }.into());
        }
        Ok(alike)
    }
}

/// The stores of a context's session.
fn session_stores(stored: &OpenContext) -> SessionStores {
    const { assert!(N_STORES == 4) };
    SessionStores {
        memory: Stores { units: stored.stream(0), blocks: stored.stream(1) },
        tokens: stored.stream(2),
        text: stored.stream(3),
    }
}

/// What decides the numbers of a context: the model, and the settings that it was read with.
fn fingerprint(engine: &Engine, notes: &ContextNotes) -> Result<Fingerprint, EngineError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&engine.identity()?);
    hasher.update(notes.settings.as_bytes());
    Ok(Fingerprint(hasher.finalize().into()))
}

fn hash_ids(hasher: &mut blake3::Hasher, ids: &[TokenId]) {
    ids.iter().for_each(|id| {
        hasher.update(&id.0.to_le_bytes());
    });
}
