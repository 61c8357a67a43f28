//! What does one do with a context? Read, ask, converse, go back; and save it as it is.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::ask::DocumentPrompt;
use super::context_error::ContextError;
use super::conversation::Conversation;
use super::error::EngineError;
use super::notes::ContextNotes;
use super::session::{Progress, ProgressFn, Session};
use crate::ids::TokenId;
use crate::memory::MemoryConfig;
use crate::memory::store::{Commit, DamagedRecord, Fingerprint, OpenContext, PrefixKey};
use crate::tokenizer::Message;

/// Tokens read between two saves, at most, unless one says otherwise.
pub const SAVE_EVERY_TOKENS: usize = 8192;

/// The longest that reading goes on without a save, but for the chunk at hand.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(5);

/// A session that can be saved.
pub struct Context {
    pub(super) session: Session,
    pub(super) stored: OpenContext,
    pub(super) tenant: String,
    pub(super) name: String,
    pub(super) notes: ContextNotes,
    pub(super) fingerprint: Fingerprint,
    pub(super) save_every: usize, // tokens
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
        self.rewind(self.tokens_of_turn(turn)?)
    }

    /// Tokens up to the end of turn `turn`, counted from 1; 0 is before the first.
    ///
    /// # Errors
    /// When there was no such turn.
    pub fn tokens_of_turn(&self, turn: usize) -> Result<usize, ContextError> {
        let no_turn = || ContextError::NoTurn {
            name: self.name.clone(),
            turn,
            n_turns: self.notes.turns.len().saturating_sub(1),
        };
        self.notes.turns.get(turn).copied().ok_or_else(no_turn)
    }

    /// Goes back to the state after the first `n_tokens` tokens. Not saved yet.
    ///
    /// # Errors
    /// When there are fewer, or the memory does not keep what it takes.
    pub fn rewind(&mut self, n_tokens: usize) -> Result<(), EngineError> {
        let n_before = self.session.n_tokens();
        self.session.rewind(n_tokens)?;
        self.note_rewound(n_before, n_tokens);
        Ok(())
    }

    /// The same, by reading again where the memory does not keep what it takes; see
    /// [`Session::rewind_or_read_again`].
    ///
    /// # Errors
    /// When there are fewer tokens, or `progress` says to stop: the context is of no use then, and what
    /// was saved of it is as it was.
    pub fn rewind_or_read_again(
        &mut self,
        n_tokens: usize,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        let n_before = self.session.n_tokens();
        self.session.rewind_or_read_again(n_tokens, progress)?;
        self.note_rewound(n_before, n_tokens);
        Ok(())
    }

    fn note_rewound(&mut self, n_before: usize, n_tokens: usize) {
        let document_tokens = self.notes.turns.first().copied().unwrap_or(n_before);
        self.notes.turns.retain(|end| *end <= n_tokens);
        self.notes.is_whole &= n_tokens >= document_tokens;
        let n_turns = self.notes.turns.len().saturating_sub(1);
        let conversation = self.notes.conversation.take();
        self.notes.conversation = conversation.filter(|_| n_turns > 0).map(|c| c.rewound(n_turns));
        if self.notes.conversation.is_none() {
            self.notes.turns.clear();
        }
    }

    /// Goes back to before the first of `damaged` records, at the border of a chunk; returns how many
    /// tokens are left.
    pub(super) fn rewind_before(
        &mut self,
        damaged: &[DamagedRecord],
        progress: &mut ProgressFn<'_>,
    ) -> Result<usize, EngineError> {
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
            self.rewind_or_read_again(sound, progress)?;
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

pub(super) fn hash_ids(hasher: &mut blake3::Hasher, ids: &[TokenId]) {
    ids.iter().for_each(|id| {
        hasher.update(&id.0.to_le_bytes());
    });
}
