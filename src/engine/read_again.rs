//! Which of a few passages answers a question, and how is it read again? The question is scored with
//! each of them in view and nothing else of the text, which takes no reading. The best two are read by
//! themselves, and the one after which the question is likeliest is kept (Sachan et al., arXiv
//! 2204.07496).

use std::ops::Range;

use super::batch::{Chunk, Logits};
use super::error::EngineError;
use super::session::Session;
use crate::ids::TokenId;
use crate::memory::{MemoryConfig, Phase};

/// Passages that are read.
const FINALISTS: usize = 2;

/// Passages on their way.
pub(super) struct ReadAgain {
    /// Has read the text, all of which is in units.
    base: Session,
    question: Vec<TokenId>,
    /// Tokens of the text before the document.
    before: usize,
    passages: Vec<Range<usize>>, // tokens of the text
    /// `[passage]`: how likely the question is with it in view, in nats, of those that were scored.
    scores: Vec<f32>,
    /// Passages that are still to be read, the last of them next.
    finalists: Vec<usize>,
    step: Step,
    session: Session,
    /// Tokens of the step that were run.
    at: usize,
    /// The passage after which the question was likeliest so far.
    best: Option<(f32, Found)>,
}

/// What is done with a passage.
enum Step {
    /// The question is scored with it in view.
    View,
    /// It is read by itself: what stands before every text, and its tokens.
    Read(usize, Vec<TokenId>),
    /// The question is scored after it, in a fork.
    Score(usize, Box<Session>),
}

/// A passage that was read.
pub(super) struct Found {
    pub session: Session,
    /// Tokens before it, and which it is of the text's.
    pub place: (usize, Range<usize>),
}

impl Session {
    /// A fork in which all that was read is in units, but for less than a page.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(super) fn fork_sealed(&self) -> Result<Self, EngineError> {
        let mut fork = self.fork(self.memory.config())?;
        let MemoryConfig { window_tokens, unit_tokens, .. } = *fork.memory.config();
        fork.memory.make_way(window_tokens + unit_tokens)?;
        fork.memory.release_spare();
        Ok(fork)
    }

    /// How likely the tokens of a question are in nats, but for the first of them, when tokens `passage`
    /// of what was read are in view and nothing else of it: units that hold any of them, sinks, and what
    /// is on the last page.
    ///
    /// # Errors
    /// When there is no room for the fork that finds out, or it fails.
    pub fn log_probability_in_view(
        &self,
        passage: Range<usize>,
        question: &[TokenId],
    ) -> Result<f32, EngineError> {
        let mut session = view(&self.fork_sealed()?, &passage)?;
        for ids in question.chunks(self.memory.config().chunk_tokens) {
            session.run_chunk(ids, Phase::Asking, Logits::Scored)?;
        }
        Ok(session.log_probability)
    }
}

impl ReadAgain {
    /// Prepares to choose one of `passages`, the most wanted first, tokens of what `base` was given,
    /// all of which is in units there, after its first `before` ones; none where there is no passage.
    ///
    /// # Errors
    /// When they cannot be read back, or there is no room for them.
    pub fn begin(
        base: Session,
        before: usize,
        passages: Vec<Range<usize>>,
        question: &[TokenId],
    ) -> Result<Option<Self>, EngineError> {
        let Some(first) = passages.first() else { return Ok(None) };
        let mut begun = Self {
            session: view(&base, first)?,
            base,
            question: question.to_vec(),
            before,
            scores: Vec::with_capacity(passages.len()),
            finalists: vec![0],
            passages,
            step: Step::View,
            at: 0,
            best: None,
        };
        if begun.passages.len() <= FINALISTS {
            begun.finalists = (0..begun.passages.len()).rev().collect();
            begun.read_next()?;
        }
        Ok(Some(begun))
    }

    /// The next chunk.
    pub fn chunk(&mut self) -> Chunk<'_> {
        let tokens = self.at..self.at + self.next_tokens();
        let (session, ids, phase, logits) = match &mut self.step {
            Step::View => (&mut self.session, &self.question, Phase::Asking, Logits::Scored),
            Step::Read(_, ids) => (&mut self.session, &*ids, Phase::Reading, Logits::NotWanted),
            Step::Score(_, fork) => (&mut **fork, &self.question, Phase::Reading, Logits::Scored),
        };
        Chunk { session, ids: &ids[tokens], phase, logits, failed: None }
    }

    /// Tokens of it.
    pub fn next_tokens(&self) -> usize {
        let left = self.step_tokens() - self.at;
        left.min(self.session.memory.config().chunk_tokens)
    }

    fn step_tokens(&self) -> usize {
        match &self.step {
            Step::Read(_, ids) => ids.len(),
            Step::View | Step::Score(..) => self.question.len(),
        }
    }

    /// The session whose chunk is next, and those that are kept beside it.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        let fork = match &self.step {
            Step::Score(_, fork) => Some(&**fork),
            Step::View | Step::Read(..) => None,
        };
        let best = self.best.iter().map(|(_, found)| &found.session);
        fork.into_iter().chain([&self.session, &self.base]).chain(best)
    }

    /// The same, to be changed.
    pub fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        let fork = match &mut self.step {
            Step::Score(_, fork) => Some(&mut **fork),
            Step::View | Step::Read(..) => None,
        };
        let best = self.best.iter_mut().map(|(_, found)| &mut found.session);
        fork.into_iter().chain([&mut self.session, &mut self.base]).chain(best)
    }

    /// Takes note that a chunk was run; gives the passage that is kept once all is done.
    ///
    /// # Errors
    /// When there is no room for the next session.
    pub fn ran(&mut self, n_tokens: usize) -> Result<Option<Found>, EngineError> {
        self.at += n_tokens;
        if self.at < self.step_tokens() {
            return Ok(None);
        }
        self.at = 0;
        match std::mem::replace(&mut self.step, Step::View) {
            Step::View => {
                self.scores.push(self.session.log_probability);
                match self.passages.get(self.scores.len()) {
                    Some(next) => self.session = view(&self.base, next)?,
                    None => {
                        self.finalists = best(&self.scores, FINALISTS);
                        self.read_next()?;
                    }
                }
            }
            Step::Read(passage, _) if self.finalists.is_empty() && self.best.is_none() => {
                return self.keep(passage).map(Some); // there is no other
            }
            Step::Read(passage, _) => {
                let mut fork = self.session.fork(self.base.memory.config())?;
                fork.log_probability = 0.0;
                self.step = Step::Score(passage, Box::new(fork));
            }
            Step::Score(passage, fork) => {
                let score = fork.log_probability;
                if self.best.as_ref().is_none_or(|(best, _)| score > *best) {
                    self.best = Some((score, self.keep(passage)?));
                }
                if self.finalists.is_empty() {
                    return Ok(self.best.take().map(|(_, found)| found));
                }
                self.read_next()?;
            }
        }
        Ok(None)
    }

    /// Goes on to the next finalist.
    fn read_next(&mut self) -> Result<(), EngineError> {
        let passage = self.finalists.pop().expect("because there is one");
        let sources = &self.base.sources;
        let tokens = sources.tokens(self.passages[passage].clone())?;
        let ids = [sources.tokens(0..self.before)?, tokens].concat();
        self.step = Step::Read(passage, ids.into_iter().map(|(id, _)| id).collect());
        self.session = self.base.engine.session(self.base.memory.config())?;
        Ok(())
    }

    /// The passage that was read last.
    fn keep(&mut self, passage: usize) -> Result<Found, EngineError> {
        let empty = self.base.engine.session(self.base.memory.config())?;
        let session = std::mem::replace(&mut self.session, empty);
        Ok(Found { session, place: (self.before, self.passages[passage].clone()) })
    }
}

/// The `n` with the highest scores, best last.
fn best(scores: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]).then(b.cmp(a)));
    order.split_off(order.len().saturating_sub(n))
}

/// A fork that has only `passage` in view.
fn view(base: &Session, passage: &Range<usize>) -> Result<Session, EngineError> {
    let config = base.memory.config();
    let mut units: Vec<u32> = passage
        .clone()
        .filter_map(|token| base.memory.unit_of(token))
        .map(|unit| unit as u32)
        .collect();
    units.dedup();
    units.truncate(config.pinned_units());
    let mut session = match units.is_empty() {
        // It is all in sinks and window, and nothing is looked up beside it.
        true => {
            let none = MemoryConfig { retrieved_units: 0, first_layers: 0, ..config.clone() };
            base.fork(&none)?
        }
        false => base.fork(config)?,
    };
    session.memory.pin(units);
    session.log_probability = 0.0;
    Ok(session)
}
