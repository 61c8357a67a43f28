//! How well does the model predict a text? Teacher-forced: each token's negative log-likelihood
//! given those before it, read as a document is.

use super::batch::Logits;
use super::error::EngineError;
use super::session::{Progress, ProgressFn, Session};
use super::sources::NOWHERE;
use crate::backend::cpu::log_sum_exp;
use crate::ids::TokenId;
use crate::memory::Phase;
use crate::model::LOGIT_ROWS;

/// Negative log-likelihoods of a text.
#[derive(Clone, Debug)]
pub struct Score {
    /// `[token - 1]`, in nats, of each token but the first.
    pub nll: Vec<f32>,
    /// The ten likeliest tokens after the text, with their logits.
    pub last_logits_top: Vec<(TokenId, f32)>,
}

impl Score {
    /// Mean negative log-likelihood in nats.
    pub fn mean_nll(&self) -> f64 {
        self.nll.iter().map(|x| f64::from(*x)).sum::<f64>() / self.nll.len() as f64
    }
}

impl Session {
    /// Reads `ids` and scores each of them but the first.
    ///
    /// # Errors
    /// When there are fewer than two tokens, the memory refuses, or `progress` says to stop.
    pub fn score(
        &mut self,
        ids: &[TokenId],
        progress: &mut ProgressFn<'_>,
    ) -> Result<Score, EngineError> {
        if ids.len() < 2 {
            return Err(EngineError::TooShort { n_tokens: ids.len() });
        }
        self.run_pending()?;
        let vocab = self.logits.len();
        let mut logits = vec![0.0; LOGIT_ROWS * vocab];
        let mut nll = Vec::with_capacity(ids.len() - 1);
        let mut done = 0;
        for chunk in ids.chunks(self.memory.config().chunk_tokens) {
            self.run_chunk(chunk, Phase::Reading, Logits::NotWanted)?;
            let mut runner = self.own_runner()?;
            self.sources.add(chunk.iter().map(|id| (*id, NOWHERE)))?;
            for first in (0..chunk.len()).step_by(LOGIT_ROWS) {
                let rows = first..(first + LOGIT_ROWS).min(chunk.len());
                let logits = &mut logits[..rows.len() * vocab];
                let transformer = self.engine.transformer();
                transformer.logits(rows.clone(), &mut runner.workspace, logits)?;
                for (row, logits) in rows.zip(logits.chunks_exact(vocab)) {
                    self.logits.copy_from_slice(logits);
                    if let Some(next) = ids.get(done + row + 1) {
                        nll.push(log_sum_exp(logits) - logits[next.0 as usize]);
                    }
                }
            }
            self.runner = Some(runner);
            done += chunk.len();
            let so_far = Progress { done_tokens: done, total_tokens: ids.len() };
            if progress(so_far).is_break() {
                return Err(EngineError::Stopped { done_tokens: done, total_tokens: ids.len() });
            }
        }
        self.has_logits = true;
        Ok(Score { nll, last_logits_top: top(&self.logits, 10) })
    }
}

/// How well an answer's token was foreseen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForcedToken {
    /// In nats.
    pub log_probability: f32,
    /// Whether it was the likeliest, so that a greedy answer has it too if it has those before.
    pub is_likeliest: bool,
}

impl Session {
    /// Says how likely each token of an answer is, given those before it, and takes them in as if
    /// they had been generated. A question must have been taken in before.
    ///
    /// # Errors
    /// When nothing was, or the memory refuses.
    pub fn force_answer(&mut self, ids: &[TokenId]) -> Result<Vec<ForcedToken>, EngineError> {
        let mut forced = Vec::with_capacity(ids.len());
        for id in ids {
            self.run_pending()?;
            if !self.has_logits {
                return Err(EngineError::NothingRead);
            }
            let logit = self.logits[id.0 as usize];
            let likeliest = self.logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let log_probability = logit - log_sum_exp(&self.logits);
            forced.push(ForcedToken { log_probability, is_likeliest: logit >= likeliest });
            self.pending = Some(*id);
        }
        Ok(forced)
    }
}

fn top(logits: &[f32], n: usize) -> Vec<(TokenId, f32)> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_unstable_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    order.truncate(n);
    order.into_iter().map(|token| (TokenId(token), logits[token as usize])).collect()
}
