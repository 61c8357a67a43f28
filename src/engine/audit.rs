//! How well do policies find what a question needs? They look up along while an oracle answers.

use super::error::EngineError;
use super::session::Session;
use crate::ids::TokenId;
use crate::memory::{MemoryConfig, Phase, Recall};

/// How the lookups of a policy went, and what its index takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Audited {
    /// Sums over lookups.
    pub recall: Recall,
    /// Bytes of the index.
    pub index_bytes: usize,
}

impl Session {
    /// Has each of `memories` look up units along for a question and its answer, which a fork of
    /// this session takes in as the first of them says but by the exact policy. The session stays
    /// as it is.
    ///
    /// # Errors
    /// When a memory differs in what has shaped this session's, or there is no room for the forks.
    pub fn audit(
        &self,
        (question, answer): (&[TokenId], &[TokenId]),
        memories: &[MemoryConfig],
    ) -> Result<Vec<Audited>, EngineError> {
        self.check_question(question)?;
        let (transformer, trained) = (self.engine.transformer(), self.engine.trained_tokens());
        let trial = |config: &MemoryConfig| self.memory.trial(config.clone(), trained);
        let mut trials = memories.iter().map(trial).collect::<Result<Vec<_>, _>>()?;
        let Some(config) = memories.first() else { return Ok(Vec::new()) };
        let mut audit = self.memory.audit(&mut trials, (config, trained))?;
        let mut workspace = transformer.workspace(config.chunk_tokens)?;
        let asked = question.chunks(config.ask_chunk_tokens).map(|chunk| (chunk, Phase::Asking));
        let answered = answer.chunks(1).map(|token| (token, Phase::Answering));
        for (chunk, phase) in asked.chain(answered) {
            audit.begin_chunk(chunk.len(), phase)?;
            transformer.forward(chunk, &mut audit, &mut workspace)?;
            audit.end_chunk()?;
        }
        let audited = trials
            .iter()
            .map(|trial| Audited { recall: trial.recall(), index_bytes: trial.index_bytes() });
        Ok(audited.collect())
    }
}
