//! Which of a few passages answers a question best? Each is read again by itself, and the question is
//! scored after it: the one after which it is likeliest is kept (Sachan et al., arXiv 2204.07496).

use std::collections::VecDeque;
use std::ops::Range;

use super::batch::{Chunk, Logits};
use super::error::EngineError;
use super::loaded::Engine;
use super::session::Session;
use crate::ids::TokenId;
use crate::memory::{MemoryConfig, Phase};

/// Passages on their way.
pub(super) struct ReadAgain {
    engine: Engine,
    config: MemoryConfig,
    question: Vec<TokenId>,
    waiting: VecDeque<Passage>,
    current: Option<Current>, // until the end
    /// The best that was scored so far.
    best: Option<(f32, Found)>,
    is_alone: bool,
}

/// A passage of a text, ready to be read.
struct Passage {
    ids: Vec<TokenId>, // with what stands before every text
    before: usize,     // tokens of that
    tokens: Range<usize>,
}

/// The passage at hand.
struct Current {
    passage: Passage,
    session: Session,
    at: usize, // tokens read
    /// A fork that the question is scored in, and how many of its tokens were.
    scored: Option<(Session, usize)>,
}

/// A passage that was read.
pub(super) struct Found {
    pub session: Session,
    /// Tokens before it, and which it is of the text's.
    pub place: (usize, Range<usize>),
}

impl ReadAgain {
    /// Prepares to read `passages`, tokens of what `asked` was given, after its first `before` ones;
    /// none where there is no passage.
    ///
    /// # Errors
    /// When they cannot be read back, or there is no room for them.
    pub fn begin(
        asked: &Session,
        before: usize,
        passages: Vec<Range<usize>>,
        question: &[TokenId],
    ) -> Result<Option<Self>, EngineError> {
        let config = asked.memory.config().clone();
        let ids = |range: Range<usize>| -> Result<Vec<TokenId>, EngineError> {
            Ok(asked.sources.tokens(range)?.into_iter().map(|(id, _)| id).collect())
        };
        let first = ids(0..before)?;
        let mut waiting = VecDeque::with_capacity(passages.len());
        for tokens in passages {
            let ids: Vec<TokenId> = first.iter().copied().chain(ids(tokens.clone())?).collect();
            waiting.push_back(Passage { ids, before, tokens });
        }
        let is_alone = waiting.len() == 1;
        let Some(first) = waiting.pop_front() else { return Ok(None) };
        let current = Some(Current::new(&asked.engine, &config, first)?);
        let (engine, question) = (asked.engine.clone(), question.to_vec());
        Ok(Some(Self { engine, config, question, waiting, current, best: None, is_alone }))
    }

    /// The next chunk.
    pub fn chunk(&mut self) -> Chunk<'_> {
        let n = self.next_tokens();
        let current = self.current.as_mut().expect("because it is not over");
        let Current { passage, session, at, scored } = current;
        let (session, ids, logits) = match scored {
            Some((session, at)) => (session, &self.question[*at..*at + n], Logits::Scored),
            None => (session, &passage.ids[*at..*at + n], Logits::NotWanted),
        };
        Chunk { session, ids, phase: Phase::Reading, logits, failed: None }
    }

    /// Tokens of it.
    pub fn next_tokens(&self) -> usize {
        let left = match &self.current {
            Some(Current { scored: Some((_, at)), .. }) => self.question.len() - at,
            Some(current) => current.passage.ids.len() - current.at,
            None => 0,
        };
        left.min(self.config.chunk_tokens)
    }

    /// The session whose chunk is next, and those that are kept beside it.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        let current = self.current.iter().flat_map(|Current { session, scored, .. }| {
            scored.iter().map(|(session, _)| session).chain([session])
        });
        current.chain(self.best.iter().map(|(_, found)| &found.session))
    }

    /// The same, to be changed.
    pub fn sessions_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        let current = self.current.iter_mut().flat_map(|Current { session, scored, .. }| {
            scored.iter_mut().map(|(session, _)| session).chain([session])
        });
        current.chain(self.best.iter_mut().map(|(_, found)| &mut found.session))
    }

    /// Takes note that a chunk was run; gives the best passage once it was the last.
    ///
    /// # Errors
    /// When there is no room for the next passage.
    pub fn ran(&mut self, n_tokens: usize) -> Result<Option<Found>, EngineError> {
        let current = self.current.as_mut().expect("because it is not over");
        let score = match &mut current.scored {
            Some((session, at)) => {
                *at += n_tokens;
                (*at == self.question.len()).then_some(session.log_probability)
            }
            None => {
                current.at += n_tokens;
                let is_read = current.at == current.passage.ids.len();
                if is_read && !self.is_alone {
                    current.scored = Some((current.session.fork(&self.config)?, 0));
                }
                (is_read && self.is_alone).then_some(0.0)
            }
        };
        let Some(score) = score else { return Ok(None) };
        let Some(Current { passage, session, .. }) = self.current.take() else { return Ok(None) };
        if self.best.as_ref().is_none_or(|(best, _)| score > *best) {
            let place = (passage.before, passage.tokens);
            self.best = Some((score, Found { session, place }));
        }
        let next = self.waiting.pop_front();
        self.current =
            next.map(|next| Current::new(&self.engine, &self.config, next)).transpose()?;
        match self.current {
            Some(_) => Ok(None),
            None => Ok(self.best.take().map(|(_, found)| found)),
        }
    }
}

impl Current {
    fn new(engine: &Engine, config: &MemoryConfig, passage: Passage) -> Result<Self, EngineError> {
        Ok(Self { passage, session: engine.session(config)?, at: 0, scored: None })
    }
}
