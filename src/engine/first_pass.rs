//! What of a text does a question need? It is taken in once on trial, and so is a question about nothing:
//! what the one attends to and the other does not, beyond what its lookups found on the way, and what
//! shares its rare words. Of a document the best passages there are read again (`read_again.rs`); else
//! these units are pinned for the question itself and its answer.

use std::ops::Range;
use std::time::Duration;

use super::batch::{Chunk, Logits};
use super::error::EngineError;
use super::passages::Wanted;
use super::read_again::{Found, ReadAgain};
use super::session::Session;
use super::words::SharedWords;
use crate::ids::TokenId;
use crate::memory::{MemoryConfig, Phase, UnitMass, beyond_neutral, pins, wanted};

/// A question about nothing.
const NEUTRAL: &str = "N/A";

/// A first pass on its way: the question, then perhaps one about nothing, then perhaps passages.
pub(super) struct FirstPass {
    config: MemoryConfig, // of the session that asks
    /// Units, and after them what the window holds of a document that is asked about.
    parts: Vec<Range<usize>>, // [part]: tokens
    n_units: usize,
    /// The tokens of the document that is asked about, if one is.
    document: Option<Range<usize>>,
    /// Where passages are looked at, until they are: a fork that has all of the text in units.
    base: Option<Session>,
    trial: Session,
    ids: Vec<TokenId>,
    at: usize,
    /// What comes after the question: a session for the one about nothing, and its tokens.
    neutral: Option<(Session, Vec<TokenId>)>,
    /// What the question attended to, and its tokens.
    asked: Option<(Vec<UnitMass>, Vec<TokenId>)>,
    /// What parts share with the question's words.
    words: SharedWords,
    read_again: Option<ReadAgain>,
    retrieval_time: Duration,
}

/// What a question and its answer attend to.
pub(super) enum Choice {
    /// These units, the most wanted first.
    Pins(Vec<u32>),
    /// A passage that was read again.
    Passage(Box<Found>),
}

impl FirstPass {
    /// Prepares a first pass of `ids`, where the session's settings want one; it has no pins then.
    /// `about` says where the document is that is asked about, of which all else that was taken in is
    /// the beginning; none in a conversation.
    pub fn begin(
        session: &mut Session,
        ids: &[TokenId],
        about: Option<usize>,
    ) -> Result<Option<Self>, EngineError> {
        session.memory.forget_choice();
        let config = session.memory.config().clone();
        let finds_nothing = config.retrieves(Phase::Asking) == 0; // there are no lookups
        if config.pinned_units() == 0 || finds_nothing || ids.is_empty() {
            return Ok(None);
        }
        session.make_way(ids.len())?;
        let n_units = session.memory.n_units();
        if config.retrieves(Phase::Asking) >= n_units {
            return Ok(None);
        }
        let about = about.filter(|_| config.read_again_passages > 0);
        let document = about.map(|before| before..session.memory.n_tokens());
        let units = (0..n_units).map(|unit| session.memory.unit_tokens(unit));
        let near = document.iter().flat_map(|_| session.memory.window_tokens());
        let mut parts: Vec<Range<usize>> = units.chain(near).collect();
        if let (Some(document), Some(first)) = (&document, parts.first_mut()) {
            first.start = document.start; // what of it is in the sinks belongs to the first unit
        }
        let base = document.as_ref().map(|_| session.fork_sealed()).transpose()?;
        let memory = config.for_first_pass();
        let trial = |session: &Session| {
            let mut trial = session.fork(&memory)?.on_trial();
            if document.is_some() {
                trial.memory.tally_near();
            }
            Ok::<_, EngineError>(trial)
        };
        let neutral_ids = session.engine.question_ids(NEUTRAL)?;
        let words = match config.pin_words_percent {
            0 => SharedWords::default(),
            _ => session.shared_words((ids, &neutral_ids), &parts)?,
        };
        let neutral = match config.pin_contrast {
            true => Some((trial(session)?, neutral_ids)),
            false => None,
        };
        let trial = trial(session)?;
        Ok(Some(Self {
            config,
            parts,
            n_units,
            document,
            base,
            trial,
            ids: ids.to_vec(),
            at: 0,
            neutral,
            asked: None,
            words,
            read_again: None,
            retrieval_time: Duration::ZERO,
        }))
    }

    /// Tokens of the next chunk.
    pub fn next_tokens(&self) -> usize {
        match &self.read_again {
            Some(passages) => passages.next_tokens(),
            None => (self.ids.len() - self.at).min(self.config.ask_chunk_tokens),
        }
    }

    /// Whether the next chunk is read as a document is.
    pub fn is_reading(&self) -> bool {
        self.read_again.is_some()
    }

    /// The next chunk.
    pub fn chunk(&mut self) -> Chunk<'_> {
        let n = self.next_tokens();
        if let Some(passages) = &mut self.read_again {
            return passages.chunk();
        }
        let ids = &self.ids[self.at..self.at + n];
        let (session, phase) = (&mut self.trial, Phase::Asking);
        Chunk { session, ids, phase, logits: Logits::NotWanted, failed: None }
    }

    /// The session whose chunk is next, and those that wait.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        let passages = self.read_again.iter().flat_map(ReadAgain::sessions);
        let neutral = self.neutral.iter().map(|(trial, _)| trial);
        passages.chain([&self.trial]).chain(neutral).chain(&self.base)
    }

    /// The same, to be changed.
    pub fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        let passages = self.read_again.iter_mut().flat_map(ReadAgain::sessions_mut);
        let neutral = self.neutral.iter_mut().map(|(trial, _)| trial);
        passages.chain([&mut self.trial]).chain(neutral).chain(&mut self.base)
    }

    /// How long units were looked up, once it is over.
    pub fn retrieval_time(&self) -> Duration {
        self.retrieval_time
    }

    /// Takes note that a chunk was run; gives what was chosen once it was the last.
    pub fn ran(&mut self, n_tokens: usize) -> Result<Option<Choice>, EngineError> {
        if let Some(passages) = &mut self.read_again {
            let found = passages.ran(n_tokens)?;
            return Ok(found.map(|found| Choice::Passage(Box::new(found))));
        }
        self.at += n_tokens;
        if self.at < self.ids.len() {
            return Ok(None);
        }
        self.retrieval_time += self.trial.memory.retrieval_time();
        let masses = self.masses();
        let masses = match (self.neutral.take(), self.asked.take()) {
            (Some((trial, ids)), None) => {
                let asked = std::mem::replace(&mut self.ids, ids);
                self.asked = Some((masses, asked));
                (self.trial, self.at) = (trial, 0);
                return Ok(None);
            }
            (_, Some((asked, ids))) => {
                let n_neutral = std::mem::replace(&mut self.ids, ids).len();
                beyond_neutral(&asked, &masses, self.ids.len() as f32 / n_neutral as f32)
            }
            (None, None) => masses,
        };
        self.choose(&masses)
    }

    /// What parts received of the session on trial, heaviest first.
    fn masses(&mut self) -> Vec<UnitMass> {
        let memory = &mut self.trial.memory;
        let mut masses = memory.take_evidence();
        for (first, mass) in memory.take_near_masses() {
            let near = self.parts[self.n_units..].iter().position(|part| part.start == first);
            masses.extend(near.map(|i| UnitMass { unit: (self.n_units + i) as u32, mass }));
        }
        masses.sort_by(|a, b| b.mass.total_cmp(&a.mass).then(a.unit.cmp(&b.unit)));
        masses
    }

    /// Passages to read again, which goes on, or else the units to pin.
    fn choose(&mut self, masses: &[UnitMass]) -> Result<Option<Choice>, EngineError> {
        let config = &self.config;
        if let (Some(document), Some(base)) = (&self.document, self.base.take()) {
            let masses = wanted(config, masses, &self.words.scores);
            // What does not fit the window beside the question is cut.
            let room = config.sink_tokens + config.window_tokens;
            let room = room.saturating_sub(document.start + self.ids.len());
            let most = config.passage_tokens.min(room);
            let tokens = (config.unit_tokens.min(most), most);
            let passages = Wanted {
                parts: &self.parts,
                masses: &masses,
                n: config.read_again_passages,
                share_percent: config.passage_share_percent,
                tokens,
            };
            let passages = self.trial.passages(document.clone(), passages)?;
            self.read_again = ReadAgain::begin(base, document.start, passages, &self.ids)?;
            if self.read_again.is_some() {
                return Ok(None);
            }
        }
        let is_unit = |part: &&UnitMass| (part.unit as usize) < self.n_units;
        let masses: Vec<UnitMass> = masses.iter().filter(is_unit).copied().collect();
        let of_units = |of: &[f32]| of[..self.n_units.min(of.len())].to_vec();
        let wanted = wanted(config, &masses, &of_units(&self.words.scores));
        let units = (0..self.n_units as u32, &self.words.places[..]);
        Ok(Some(Choice::Pins(pins(config, &wanted, units))))
    }

    /// Runs what is left of it.
    fn finish(mut self) -> Result<Choice, EngineError> {
        loop {
            let Chunk { session, ids, phase, logits, .. } = self.chunk();
            let n_tokens = ids.len();
            session.run_chunk(ids, phase, logits)?;
            if let Some(choice) = self.ran(n_tokens)? {
                return Ok(choice);
            }
        }
    }
}

impl Session {
    /// Chooses what a question and its answer attend to, as the settings say; `about` as for
    /// [`FirstPass::begin`].
    pub(super) fn choose(
        &mut self,
        ids: &[TokenId],
        about: Option<usize>,
    ) -> Result<(), EngineError> {
        if let Some(pass) = FirstPass::begin(self, ids, about)? {
            let choice = pass.finish()?;
            self.attend_to(choice);
        }
        Ok(())
    }

    /// Has what is taken in next attend to what was chosen.
    pub(super) fn attend_to(&mut self, choice: Choice) {
        match choice {
            Choice::Pins(units) => self.memory.pin(units),
            Choice::Passage(found) => self.memory.answer_from(found.session.memory, found.place),
        }
    }

    /// How many tokens there are before the document that was read last, unless something was said
    /// since.
    ///
    /// # Errors
    /// When they cannot be read back.
    pub(super) fn document_start(&self) -> Result<Option<usize>, EngineError> {
        const LAST: usize = 4; // tokens of a character, of which the first may stand for all of it
        let n = self.sources.n_tokens();
        if self.pending.is_some() || self.sources.span_of(n.saturating_sub(LAST)..n)?.is_none() {
            return Ok(None);
        }
        let most = self.memory.config().window_tokens;
        let first = self.sources.tokens(0..n.min(most))?;
        Ok(first.iter().position(|(_, span)| span.start < span.end))
    }

    /// Has leave the window now what a question of `n_tokens` tokens and the first of its answer will push
    /// out: as units they can be found by a first pass, which would miss what leaves in the middle.
    ///
    /// # Errors
    /// When a unit cannot be stored; the session must then be dropped.
    pub fn make_way(&mut self, n_tokens: usize) -> Result<(), EngineError> {
        let of_answer = self.memory.config().unit_tokens;
        Ok(self.memory.make_way(n_tokens + of_answer)?)
    }

    /// Takes in a question, and tells what it attended to: units, the heaviest first.
    ///
    /// # Errors
    /// As for [`prompt`](Self::prompt).
    pub fn first_pass(self, ids: &[TokenId]) -> Result<Vec<UnitMass>, EngineError> {
        self.check_question(ids)?;
        let mut trial = self.on_trial();
        let most = trial.memory.config().ask_chunk_tokens;
        for ids in ids.chunks(most) {
            trial.run_chunk(ids, Phase::Asking, Logits::NotWanted)?;
        }
        Ok(trial.memory.take_evidence())
    }

    /// What parts of the text share with the words of a question that are none of `neutral`.
    fn shared_words(
        &self,
        (ids, neutral): (&[TokenId], &[TokenId]),
        parts: &[Range<usize>],
    ) -> Result<SharedWords, EngineError> {
        Ok(self.engine.words().shared((ids, neutral), &self.sources, parts)?)
    }

    /// A fork for a first pass: what it attends to is tallied from here on.
    fn on_trial(mut self) -> Self {
        self.memory.take_evidence();
        self.memory.tally_questions();
        self
    }
}
