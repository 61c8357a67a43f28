//! Which token comes next?

use std::collections::HashMap;

use crate::backend::Draw;
use crate::backend::cpu::TokenShares;
use crate::ids::TokenId;

/// How to draw tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Draw from the likeliest tokens that together have this share; 1 for all (arXiv 1904.09751).
    pub top_p: f32,
    /// Draw from so many of the likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Draw from tokens at least so likely beside the likeliest; 0 for all (arXiv 2407.01082).
    pub min_p: f32,
    /// Is taken off a token's logit for each time that the answer has it.
    pub frequency_penalty: f32,
    /// Is taken off a token's logit once the answer has it.
    pub presence_penalty: f32,
    /// Is added to tokens' logits.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// Same seed, same answer.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    fn changes_logits(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 || !self.logit_bias.is_empty()
    }
}

/// Draws tokens from logits, reproducibly.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    sampling: Sampling,
    random: fastrand::Rng,
    prepared: Option<u32>, // the random number of a draw that was prepared
    counts: HashMap<TokenId, u32>, // of the answer's tokens, where they are penalised
    changed: Vec<f32>,     // [vocab], where logits are changed
    order: Vec<u32>,       // tokens that are kept, where the tail is cut
    shares: TokenShares,
    log_sum: Option<f32>, // of the last logits, where drawing needed it
}

impl Sampler {
    pub fn new(sampling: Sampling) -> Self {
        Self {
            random: fastrand::Rng::with_seed(sampling.seed),
            sampling,
            prepared: None,
            counts: HashMap::new(),
            changed: Vec::new(),
            order: Vec::new(),
            shares: TokenShares::default(),
            log_sum: None,
        }
    }

    /// The logarithm of the sum of `exp(logit)` over the logits that the last token was drawn from, as
    /// the model gave them; where it was not come by, nothing.
    pub fn log_sum(&self) -> Option<f32> {
        self.log_sum
    }

    /// How the next token is to be drawn: a device that draws so takes the token that
    /// [`pick`](Self::pick) would, and [`took`](Self::took) is told of it.
    pub fn prepare(&mut self) -> Draw {
        let random = match self.sampling.temperature > 0.0 {
            true => self.random(),
            false => 0,
        };
        self.prepared = Some(random);
        let Sampling { temperature, min_p, top_k, top_p, .. } = self.sampling;
        Draw { temperature, min_p, top_k, top_p, random, edits: self.edits() }
    }

    /// Takes note of a token that was drawn elsewhere.
    pub fn took(&mut self, token: TokenId) {
        (self.prepared, self.log_sum) = (None, None);
        self.count(token);
    }

    fn random(&mut self) -> u32 {
        let Self { prepared, random, .. } = self;
        prepared.take().unwrap_or_else(|| random.u32(..))
    }

    /// What is added to logits, in the order of tokens.
    fn edits(&self) -> Vec<(TokenId, f32)> {
        let mut edits = self.sampling.logit_bias.clone();
        let Sampling { frequency_penalty, presence_penalty, .. } = self.sampling;
        edits.extend(
            self.counts
                .iter()
                .map(|(token, n)| (*token, -(frequency_penalty * *n as f32 + presence_penalty))),
        );
        edits.sort_by_key(|(token, _)| *token);
        edits.dedup_by(|next, first| {
            let is_same = next.0 == first.0;
            first.1 += if is_same { next.1 } else { 0.0 };
            is_same
        });
        edits
    }

    fn count(&mut self, token: TokenId) {
        if self.sampling.frequency_penalty != 0.0 || self.sampling.presence_penalty != 0.0 {
            *self.counts.entry(token).or_default() += 1;
        }
    }

    /// The next token, among those of `allowed` where that says which may come.
    pub fn pick(&mut self, logits: &[f32], allowed: Option<&dyn Fn(TokenId) -> bool>) -> TokenId {
        self.log_sum = None;
        if !self.sampling.changes_logits() && allowed.is_none() {
            let token = self.draw(logits);
            self.log_sum = (self.sampling.temperature == 1.0).then(|| self.shares.log_sum());
            return token;
        }
        let mut changed = std::mem::take(&mut self.changed);
        changed.clear();
        changed.extend_from_slice(logits);
        self.edits().iter().for_each(|(token, by)| changed[token.0 as usize] += by);
        if let Some(allowed) = allowed {
            for (token, logit) in changed.iter_mut().enumerate() {
                if !allowed(TokenId(token as u32)) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        let token = self.draw(&changed);
        self.changed = changed;
        self.count(token);
        token
    }

    fn draw(&mut self, logits: &[f32]) -> TokenId {
        let Sampling { temperature, top_p, top_k, min_p, .. } = self.sampling;
        if temperature <= 0.0 {
            return greedy(logits);
        }
        self.shares.compute(logits, temperature);
        let is_cut = top_p < 1.0 || (top_k > 0 && top_k < logits.len()) || min_p > 0.0;
        if is_cut {
            return self.draw_of_likeliest().unwrap_or_else(|| greedy(logits));
        }
        let point = part(self.random()) * self.shares.total();
        match self.shares.token_at(point) {
            Some(token) => TokenId(token as u32),
            None => greedy(logits), // no logit is a number
        }
    }

    /// Draws of the tokens that the settings leave.
    fn draw_of_likeliest(&mut self) -> Option<TokenId> {
        let Sampling { top_p, top_k, min_p, .. } = self.sampling;
        let part = part(self.random());
        let shares = self.shares.shares();
        let is_likely = |token: &u32| shares[*token as usize] >= min_p;
        self.order.clear();
        self.order.extend((0..shares.len() as u32).filter(is_likely));
        let by_share =
            |a: &u32, b: &u32| shares[*b as usize].total_cmp(&shares[*a as usize]).then(a.cmp(b));
        if top_k > 0 && top_k < self.order.len() {
            self.order.select_nth_unstable_by(top_k, by_share);
            self.order.truncate(top_k);
        }
        self.order.sort_unstable_by(by_share);
        let sum = |tokens: &[u32]| tokens.iter().map(|token| shares[*token as usize]).sum::<f32>();
        let mut left = top_p * sum(&self.order);
        let reached = self.order.iter().position(|token| {
            left -= shares[*token as usize];
            left <= 0.0
        });
        self.order.truncate(reached.map_or(self.order.len(), |last| last + 1));
        self.order.sort_unstable(); // a GPU draws in the order of tokens, without sorting any
        let mut left = part as f32 * sum(&self.order);
        let drawn = self.order.iter().find(|token| {
            left -= shares[**token as usize];
            left < 0.0
        });
        // Else the draw fell into the rounding at the very end.
        drawn.or(self.order.last()).map(|token| TokenId(*token))
    }
}

/// What part of a whole a random number is.
fn part(random: u32) -> f64 {
    f64::from(random) / 4_294_967_296.0 // 2^32
}

/// The token with the largest logit; of equals the first.
pub(super) fn greedy(logits: &[f32]) -> TokenId {
    // Two passes that vectors make, where one that carries the place along is scalar.
    let mut largest = [f32::NEG_INFINITY; 16];
    let (blocks, rest) = logits.as_chunks::<16>();
    for block in blocks {
        largest.iter_mut().zip(block).for_each(|(max, x)| *max = if *x > *max { *x } else { *max });
    }
    let max = largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let best = logits.iter().position(|logit| *logit == max);
    TokenId(best.unwrap_or(0) as u32) // where no logit is a number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(change: impl Fn(&mut Sampling)) -> Sampler {
        let mut sampling = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
        change(&mut sampling);
        Sampler::new(sampling)
    }

    fn drawn(sampler: &mut Sampler, logits: &[f32], n: usize) -> Vec<usize> {
        (0..n).map(|_| sampler.pick(logits, None).0 as usize).collect()
    }

    #[test]
    fn the_sum_is_that_of_the_models_own_logits_or_none() {
        let logits = [0.0, 1.0, 2.0, -30.0];
        let exact = logits.iter().map(|x: &f32| x.exp()).sum::<f32>().ln();
        let sum_after = |change: fn(&mut Sampling), allowed: Option<&dyn Fn(TokenId) -> bool>| {
            let mut sampler = sampler(change);
            sampler.pick(&logits, None);
            sampler.pick(&logits, allowed);
            sampler.log_sum()
        };
        let all_or_cut: [fn(&mut Sampling); 2] = [|_| {}, |it| it.top_p = 0.5];
        for change in all_or_cut {
            assert!((sum_after(change, None).unwrap() - exact).abs() < 1e-6);
        }
        assert_eq!(sum_after(|_| {}, Some(&|token| token.0 == 1)), None);
        assert_eq!(sum_after(|it| it.temperature = 0.7, None), None);
        assert_eq!(sum_after(|it| it.temperature = 0.0, None), None);
        assert_eq!(sum_after(|it| it.logit_bias = vec![(TokenId(0), 1.0)], None), None);
    }

    #[test]
    fn temperature_zero_takes_the_largest_and_of_equals_the_first() {
        let mut sampler = sampler(|it| it.temperature = 0.0);
        assert_eq!(sampler.pick(&[0.0, 3.0, 3.0, -1.0], None), TokenId(1));
    }

    #[test]
    fn the_largest_of_any_number_of_logits_is_that_of_a_plain_loop() {
        let plain = |logits: &[f32]| {
            let mut best = 0;
            for (token, logit) in logits.iter().enumerate() {
                if *logit > logits[best] {
                    best = token;
                }
            }
            TokenId(best as u32)
        };
        let mut rng = fastrand::Rng::with_seed(7);
        for n in (1..70).chain([1000]) {
            // Few values, so that the largest is there more than once.
            let logits: Vec<f32> = (0..n).map(|_| f32::from(rng.u8(..20)) - 30.0).collect();
            assert_eq!(greedy(&logits), plain(&logits), "{logits:?}");
        }
        let none_allowed = [f32::NEG_INFINITY; 40];
        assert_eq!(greedy(&none_allowed), TokenId(0));
    }

    #[test]
    fn draws_follow_the_softmax_and_the_seed() {
        let logits = [0.0, 1.0, 2.0, -30.0];
        let draw = |seed| drawn(&mut sampler(|it| it.seed = seed), &logits, 4000);
        let first = draw(1);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
        let total: f32 = logits.iter().map(|x| x.exp()).sum();
        for (token, logit) in logits.iter().enumerate() {
            let share = first.iter().filter(|t| **t == token).count() as f32 / 4000.0;
            assert!((share - logit.exp() / total).abs() < 0.03, "token {token}: {share}");
        }
    }

    #[test]
    fn the_tail_is_cut_by_share_by_number_and_by_likeliness() {
        let logits = [2.0, 1.5, 0.0, 0.0]; // shares of 0.51, 0.31, 0.07, 0.07
        type Change = fn(&mut Sampling);
        let cases: [(Change, &[usize]); 5] = [
            (|it| it.top_p = 0.5, &[0]),
            (|it| it.top_p = 0.6, &[0, 1]),
            (|it| it.top_k = 1, &[0]),
            (|it| it.min_p = 0.5, &[0, 1]),
            (|_| {}, &[0, 1, 2, 3]),
        ];
        for (case, (change, allowed)) in cases.into_iter().enumerate() {
            let drawn = drawn(&mut sampler(change), &logits, 500);
            assert!(drawn.iter().all(|token| allowed.contains(token)), "case {case}");
            assert!(allowed.iter().all(|token| drawn.contains(token)), "case {case}");
        }
    }

    #[test]
    fn what_was_said_is_said_less_and_what_is_wanted_more() {
        let logits = [1.0, 0.9, 0.0];
        let greedy = |change: fn(&mut Sampling)| {
            let mut sampler = sampler(|it| {
                it.temperature = 0.0;
                change(it);
            });
            drawn(&mut sampler, &logits, 4)
        };
        assert_eq!(greedy(|it| it.presence_penalty = 0.5), [0, 1, 0, 0]);
        assert_eq!(greedy(|it| it.frequency_penalty = 0.5), [0, 1, 0, 1]);
        assert_eq!(greedy(|it| it.logit_bias = vec![(TokenId(2), 5.0)]), [2, 2, 2, 2]);
        assert_eq!(greedy(|it| it.logit_bias = vec![(TokenId(0), -100.0)]), [1, 1, 1, 1]);
    }

    #[test]
    fn what_is_not_allowed_never_comes() {
        let mut sampler = sampler(|_| {});
        let allowed = |token: TokenId| token.0 % 2 == 1;
        let tokens = (0..200).map(|_| sampler.pick(&[9.0, 0.0, 9.0, 0.0], Some(&allowed)).0);
        assert!(tokens.collect::<Vec<_>>().iter().all(|token| token % 2 == 1));
    }
}
