//! Which units does a question need? It is taken in once on trial, and so is a question about nothing:
//! the units that the one attends to and the other does not, beyond what its lookups found on the way,
//! are pinned for the question itself and its answer, and so are those that share its rare words.

use std::time::Duration;

use super::batch::{Chunk, Logits};
use super::error::EngineError;
use super::session::Session;
use super::words::SharedWords;
use crate::ids::TokenId;
use crate::memory::{MemoryConfig, Phase, UnitMass, beyond_neutral, pins, wanted};

/// A question about nothing.
const NEUTRAL: &str = "N/A";

/// A first pass on its way: the question, then perhaps one about nothing.
pub(super) struct FirstPass {
    config: MemoryConfig, // of the session that asks
    n_units: usize,       // that can be pinned
    trial: Session,
    ids: Vec<TokenId>,
    at: usize,
    /// What comes after the question: a session for the one about nothing, and its tokens.
    neutral: Option<(Session, Vec<TokenId>)>,
    /// What the question attended to, and how long it was.
    asked: Option<(Vec<UnitMass>, usize)>,
    /// What units share with the question's words.
    words: SharedWords,
    retrieval_time: Duration,
}

impl FirstPass {
    /// Prepares a first pass of `ids`, where the session's settings want one; it has no pins then.
    pub fn begin(session: &mut Session, ids: &[TokenId]) -> Result<Option<Self>, EngineError> {
        session.memory.pin(Vec::new());
        let config = session.memory.config().clone();
        if config.pinned_units() == 0 || ids.is_empty() {
            return Ok(None);
        }
        session.make_way(ids.len())?;
        let n_units = session.memory.n_units();
        if config.retrieves(Phase::Asking) >= n_units {
            return Ok(None);
        }
        let memory = config.for_first_pass();
        let trial = || session.fork(&memory).map(Session::on_trial);
        let neutral_ids = session.engine.question_ids(NEUTRAL)?;
        let words = match config.pin_words_percent {
            0 => SharedWords::default(),
            _ => session.shared_words(ids, &neutral_ids)?,
        };
        let neutral = match config.pin_contrast {
            true => Some((trial()?, neutral_ids)),
            false => None,
        };
        let trial = trial()?;
        Ok(Some(Self {
            config,
            n_units,
            trial,
            ids: ids.to_vec(),
            at: 0,
            neutral,
            asked: None,
            words,
            retrieval_time: Duration::ZERO,
        }))
    }

    /// Tokens of the next chunk.
    pub fn next_tokens(&self) -> usize {
        (self.ids.len() - self.at).min(self.config.ask_chunk_tokens)
    }

    /// The next chunk.
    pub fn chunk(&mut self) -> Chunk<'_> {
        let ids = &self.ids[self.at..self.at + self.next_tokens()];
        let (session, phase) = (&mut self.trial, Phase::Asking);
        Chunk { session, ids, phase, logits: Logits::NotWanted, failed: None }
    }

    /// The session whose chunk is next, and one that waits for it.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        [&self.trial].into_iter().chain(self.neutral.iter().map(|(trial, _)| trial))
    }

    /// The same, to be changed.
    pub fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        [&mut self.trial].into_iter().chain(self.neutral.iter_mut().map(|(trial, _)| trial))
    }

    /// How long units were looked up, once it is over.
    pub fn retrieval_time(&self) -> Duration {
        self.retrieval_time
    }

    /// Takes note that a chunk was run; gives the units to pin once it was the last.
    pub fn ran(&mut self, n_tokens: usize) -> Result<Option<Vec<u32>>, EngineError> {
        self.at += n_tokens;
        if self.at < self.ids.len() {
            return Ok(None);
        }
        self.retrieval_time += self.trial.memory.retrieval_time();
        let masses = self.trial.memory.take_evidence();
        let masses = match (self.neutral.take(), self.asked.take()) {
            (Some((trial, ids)), None) => {
                self.asked = Some((masses, self.ids.len()));
                (self.trial, self.ids, self.at) = (trial, ids, 0);
                return Ok(None);
            }
            (_, Some((asked, n_asked))) => {
                beyond_neutral(&asked, &masses, n_asked as f32 / self.ids.len() as f32)
            }
            (None, None) => masses,
        };
        let wanted = wanted(&self.config, &masses, &self.words.scores);
        let units = (0..self.n_units as u32, &self.words.places[..]);
        Ok(Some(pins(&self.config, &wanted, units)))
    }

    /// Runs what is left of it.
    fn finish(mut self) -> Result<Vec<u32>, EngineError> {
        loop {
            let ids = self.ids[self.at..self.at + self.next_tokens()].to_vec();
            self.trial.run_chunk(&ids, Phase::Asking, Logits::NotWanted)?;
            if let Some(pins) = self.ran(ids.len())? {
                return Ok(pins);
            }
        }
    }
}

impl Session {
    /// Pins the units that a question attends to, as the settings say.
    pub(super) fn pin_units(&mut self, ids: &[TokenId]) -> Result<(), EngineError> {
        if let Some(pass) = FirstPass::begin(self, ids)? {
            let pins = pass.finish()?;
            self.memory.pin(pins);
        }
        Ok(())
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

    /// What units share with the words of a question that are none of `neutral`.
    fn shared_words(
        &self,
        ids: &[TokenId],
        neutral: &[TokenId],
    ) -> Result<SharedWords, EngineError> {
        let units = (0..self.memory.n_units()).map(|unit| self.memory.unit_tokens(unit));
        let units: Vec<_> = units.collect();
        Ok(self.engine.words().shared((ids, neutral), &self.sources, &units)?)
    }

    /// A fork for a first pass: what it attends to is tallied from here on.
    fn on_trial(mut self) -> Self {
        self.memory.take_evidence();
        self.memory.tally_questions();
        self
    }
}
