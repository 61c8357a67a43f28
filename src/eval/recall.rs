//! How much of what matters does a lookup find? Policies look up the same queries beside an exact
//! oracle, in one text that is read once, at several lengths.

use serde::Serialize;

use super::case::answer_tokens;
use super::error::EvalError;
use super::haystack::Haystack;
use super::run::Policy;
use super::tasks::needle;
use crate::engine::{Audited, Engine, EngineError, Progress, ProgressFn};
use crate::memory::MemoryConfig;

/// Where the facts that are asked for lie, as shares of the shortest length.
const DEPTHS: [f32; 3] = [0.2, 0.5, 0.8];

/// What to look up.
pub struct RecallPlan<'a> {
    /// The model.
    pub engine: &'a Engine,
    /// Policies that look up; they must have read alike.
    pub policies: &'a [Policy],
    /// The text.
    pub haystack: &'a Haystack,
    /// Tokens read before questions are asked.
    pub lengths: &'a [usize],
    /// Chooses the stretch and the facts.
    pub seed: u64,
}

/// How the lookups of a policy went at a length; means over lookups, of one layer each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecallLine {
    /// Tokens read.
    pub tokens: usize,
    /// Units among which lookups choose.
    pub units: usize,
    /// The policy's name.
    pub policy: String,
    /// Lookups.
    pub lookups: usize,
    /// Share of the oracle's units that were retrieved.
    pub overlap: f64,
    /// Share of the queries' attention to all units that those retrieved have.
    pub mass: f64,
    /// The same of the oracle's units.
    pub oracle_mass: f64,
    /// Seconds.
    pub seconds: f64,
    /// Bytes of index, keys and scales read.
    pub bytes: f64,
    /// Bytes of the index of all layers, a token.
    pub index_bytes_per_token: f64,
}

impl RecallPlan<'_> {
    /// Reads the text and gives the lines of each length to `sink` as they come.
    ///
    /// # Errors
    /// When the haystack is too short, a policy has not read like the first, or `progress` says to stop.
    pub fn run(
        &self,
        sink: &mut dyn FnMut(RecallLine) -> std::io::Result<()>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EvalError> {
        let mut lengths = self.lengths.to_vec();
        lengths.sort_unstable();
        lengths.dedup();
        let (Some(&shortest), Some(&longest)) = (lengths.first(), lengths.last()) else {
            return Ok(());
        };
        let mut rng = fastrand::Rng::with_seed(self.seed);
        let prose = self.haystack.stretch(longest, &mut rng)?;
        let depths = DEPTHS.map(|depth| depth * shortest as f32 / longest as f32);
        let scene = needle::scene(prose, &depths, &mut rng);
        let mut session = self.engine.session(&self.policies[0].memory.for_reading())?;
        let mut prompts = Vec::new();
        for case in &scene.cases {
            let (start, answer) = answer_tokens(self.engine.tokenizer(), case);
            let prompt = self.engine.ask_prompt(&scene.document, &case.question, &start)?;
            prompts.push((prompt, answer));
        }
        let mut read = 0;
        for length in lengths {
            let (prompt, _) = &prompts[0];
            let to = length.min(prompt.document_ids().len());
            let mut of_all = |step: Progress| {
                progress(Progress { done_tokens: read + step.done_tokens, total_tokens: longest })
            };
            session.read_document(prompt.document(), read..to, &mut of_all)?;
            read = to;
            let memories: Vec<MemoryConfig> =
                self.policies.iter().map(|policy| policy.memory.clone()).collect();
            let mut lines: Vec<RecallLine> = Vec::new();
            for (prompt, answer) in &prompts {
                let audited = session.audit((prompt.question_ids(), answer), &memories)?;
                for (i, (policy, audited)) in self.policies.iter().zip(audited).enumerate() {
                    if lines.len() == i {
                        lines.push(RecallLine::new(policy, read, session.memory().n_units()));
                    }
                    lines[i].add(audited);
                }
                if progress(Progress { done_tokens: read, total_tokens: longest }).is_break() {
                    let stopped = EngineError::Stopped { done_tokens: read, total_tokens: longest };
                    return Err(stopped.into());
                }
            }
            for line in lines {
                sink(line.finish())?;
            }
        }
        Ok(())
    }
}

impl RecallLine {
    fn new(policy: &Policy, tokens: usize, units: usize) -> Self {
        Self {
            tokens,
            units,
            policy: policy.name.clone(),
            lookups: 0,
            overlap: 0.0,
            mass: 0.0,
            oracle_mass: 0.0,
            seconds: 0.0,
            bytes: 0.0,
            index_bytes_per_token: 0.0,
        }
    }

    /// Adds the lookups of a question, as sums.
    fn add(&mut self, Audited { recall, index_bytes }: Audited) {
        self.lookups += recall.n_lookups;
        self.overlap += recall.overlap;
        self.mass += recall.mass;
        self.oracle_mass += recall.oracle_mass;
        self.seconds += recall.time.as_secs_f64();
        self.bytes += recall.bytes as f64;
        self.index_bytes_per_token = index_bytes as f64 / self.tokens as f64;
    }

    /// Sums become means.
    fn finish(mut self) -> Self {
        let n = self.lookups.max(1) as f64;
        for sum in [
            &mut self.overlap,
            &mut self.mass,
            &mut self.oracle_mass,
            &mut self.seconds,
            &mut self.bytes,
        ] {
            *sum /= n;
        }
        self
    }
}
