//! Which token comes next?

use crate::ids::TokenId;

/// Draws tokens from logits, reproducibly.
#[derive(Debug)]
pub(super) struct Sampler {
    temperature: f32,
    top_p: f32,
    random: fastrand::Rng,
    order: Vec<u32>, // tokens, likeliest first
    shares: Vec<f32>,
}

impl Sampler {
    /// Greedy where `temperature` is 0.
    pub fn new(temperature: f32, top_p: f32, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { temperature, top_p, random, order: Vec::new(), shares: Vec::new() }
    }

    pub fn pick(&mut self, logits: &[f32]) -> TokenId {
        if self.temperature <= 0.0 {
            return greedy(logits);
        }
        self.order.clear();
        self.order.extend(0..logits.len() as u32);
        let max = logits[greedy(logits).0 as usize];
        self.shares.clear();
        self.shares.extend(logits.iter().map(|x| ((x - max) / self.temperature).exp()));
        let total: f32 = self.shares.iter().sum();
        if self.top_p < 1.0 {
            self.keep_nucleus(total);
        }
        let kept: f32 = self.order.iter().map(|token| self.shares[*token as usize]).sum();
        let mut left = self.random.f32() * kept;
        for token in &self.order {
            left -= self.shares[*token as usize];
            if left < 0.0 {
                return TokenId(*token);
            }
        }
        TokenId(self.order[0]) // the draw fell into the rounding at the very end
    }

    /// Keeps the likeliest tokens that together reach `top_p` (arXiv 1904.09751).
    fn keep_nucleus(&mut self, total: f32) {
        let shares = &self.shares;
        self.order.sort_unstable_by(|a, b| {
            shares[*b as usize].total_cmp(&shares[*a as usize]).then(a.cmp(b))
        });
        let mut sum = 0.0;
        let reached = self.order.iter().position(|token| {
            sum += shares[*token as usize];
            sum >= self.top_p * total
        });
        self.order.truncate(reached.map_or(self.order.len(), |last| last + 1));
    }
}

/// The token with the largest logit; of equals the first.
pub(super) fn greedy(logits: &[f32]) -> TokenId {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    TokenId(best as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperature_zero_takes_the_largest_and_of_equals_the_first() {
        let mut sampler = Sampler::new(0.0, 1.0, 7);
        assert_eq!(sampler.pick(&[0.0, 3.0, 3.0, -1.0]), TokenId(1));
    }

    #[test]
    fn draws_follow_the_softmax_and_the_seed() {
        let logits = [0.0, 1.0, 2.0, -30.0];
        let draw = |seed| {
            let mut sampler = Sampler::new(1.0, 1.0, seed);
            (0..4000).map(|_| sampler.pick(&logits).0 as usize).collect::<Vec<_>>()
        };
        let drawn = draw(1);
        assert_eq!(drawn, draw(1));
        assert_ne!(drawn, draw(2));
        let total: f32 = logits.iter().map(|x| x.exp()).sum();
        for (token, logit) in logits.iter().enumerate() {
            let share = drawn.iter().filter(|t| **t == token).count() as f32 / 4000.0;
            assert!((share - logit.exp() / total).abs() < 0.03, "token {token}: {share}");
        }
    }

    #[test]
    fn a_nucleus_excludes_the_tail() {
        let mut sampler = Sampler::new(1.0, 0.6, 3);
        let drawn = (0..500).map(|_| sampler.pick(&[2.0, 0.0, 0.0, 0.0]).0);
        assert!(drawn.into_iter().all(|token| token == 0), "0.71 of the mass is on the first");
    }
}
