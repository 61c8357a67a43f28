//! How is a text read once remembered for ever? As a context: a session whose past lies in the store,
//! saved as often as one likes, and taken up by name in another process.

use super::ask::DocumentPrompt;
use super::context::{Context, SAVE_EVERY_TOKENS, hash_ids};
use super::context_error::ContextError;
use super::error::EngineError;
use super::loaded::Engine;
use super::notes::ContextNotes;
use super::session::ProgressFn;
use super::suspend::{N_STORES, SessionStores};
use crate::ids::TokenId;
use crate::memory::store::{ContextSummary, Fingerprint, OpenContext, PrefixKey, Store};
use crate::memory::{MemoryConfig, Stores};

/// The contexts of one tenant, for one model.
#[derive(Clone)]
pub struct Contexts {
    engine: Engine,
    store: Store,
    tenant: String,
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

    /// The context of this name as far as it was read. Where there is none: a fork of the document that
    /// is the longest beginning of this one, or a new one.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and when the store cannot be read.
    pub fn to_read(
        &self,
        name: &str,
        config: &MemoryConfig,
        (document, source): (&DocumentPrompt, &str),
    ) -> Result<Context, EngineError> {
        if self.store.show(&self.tenant, name)?.is_some() {
            return self.open(name);
        }
        let known = self.longest_prefix(config, document.ids())?;
        let Some(known) = known.filter(|known| known.notes.conversation.is_none()) else {
            return self.create(name, config, source);
        };
        self.store.fork(&self.tenant, known.name(), name)?;
        let mut fork = self.open(name)?;
        source.clone_into(&mut fork.notes.source);
        fork.notes.metadata.clear();
        Ok(fork)
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
    /// When there is none, another model has read it, the store refuses, or `progress` says to stop: it
    /// is as it was then.
    pub fn repair(
        &self,
        name: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<Option<usize>, EngineError> {
        let damaged = self.store.damaged(&self.tenant, name)?;
        let kept = match self.open(name) {
            Ok(mut context) => match context.rewind_before(&damaged, progress) {
                Ok(n_tokens) if n_tokens > 0 => Some((context, n_tokens)),
                Err(stopped @ EngineError::Stopped { .. }) => return Err(stopped),
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
