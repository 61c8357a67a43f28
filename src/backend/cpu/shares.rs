//! How likely is each token of a vocabulary? The softmax of its logits, for whoever draws from them.

use super::simd::Isa;
use super::simd::softmax::{RowState, SHARES_A_SUM, Shares};

/// The logarithm of the sum of `exp(logit)`.
pub fn log_sum_exp(logits: &[f32]) -> f32 {
    let isa = Isa::detect();
    let mut shares = [0.0; SHARES_A_SUM];
    let mut state = RowState::EMPTY;
    for logits in logits.chunks(SHARES_A_SUM) {
        let (mut sums, shares) = ([0.0], &mut shares[..logits.len()]);
        let step = Shares { logits, temperature: 1.0, shares, sums: &mut sums };
        let max = isa.run(step);
        state.merge(RowState { max, sum: sums[0] });
    }
    state.max + state.sum.ln()
}

/// The softmax of logits, not divided by its sum; an allocation to use again.
#[derive(Clone, Debug, Default)]
pub struct TokenShares {
    shares: Vec<f32>,
    sums: Vec<f32>, // of each `SHARES_A_SUM` shares
    max: f32,       // of the logits
}

impl TokenShares {
    /// Computes `exp((logit - max) / temperature)` of each of `logits`; `temperature` is above 0.
    /// What is minus infinity has no share.
    pub fn compute(&mut self, logits: &[f32], temperature: f32) {
        self.shares.resize(logits.len(), 0.0);
        self.sums.resize(logits.len().div_ceil(SHARES_A_SUM), 0.0);
        let (shares, sums) = (&mut self.shares[..], &mut self.sums[..]);
        self.max = Isa::detect().run(Shares { logits, temperature, shares, sums });
        for (share, logit) in self.shares.iter_mut().zip(logits) {
            // It was e^-87, which no sum notices. Always written, so that vectors can.
            *share = if *logit == f32::NEG_INFINITY { 0.0 } else { *share };
        }
    }

    /// `[token]`; the likeliest has 1.
    pub fn shares(&self) -> &[f32] {
        &self.shares
    }

    /// All shares together.
    pub fn total(&self) -> f64 {
        self.sums.iter().map(|sum| f64::from(*sum)).sum()
    }

    /// The logarithm of the sum of `exp(logit)`, where the temperature was 1.
    pub fn log_sum(&self) -> f32 {
        self.max + self.total().ln() as f32
    }

    /// The token whose share holds `point`, counted from the first token on; the last that has any
    /// where `point` is beyond all of them.
    pub fn token_at(&self, point: f64) -> Option<usize> {
        let mut left = point;
        let mut block = 0;
        while block + 1 < self.sums.len() && left >= f64::from(self.sums[block]) {
            left -= f64::from(self.sums[block]);
            block += 1;
        }
        let first = block * SHARES_A_SUM;
        let within = self.shares[first..].iter().position(|share| {
            left -= f64::from(*share);
            left < 0.0
        });
        let at = within.map(|at| first + at).filter(|at| self.shares[*at] > 0.0);
        at.or_else(|| self.shares.iter().rposition(|share| *share > 0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_definition_whatever_the_length() {
        let mut rng = fastrand::Rng::with_seed(5);
        for isa in Isa::under_test() {
            for n in [1, 15, 16, 255, 256, 257, 1000, 49_152] {
                let logits: Vec<f32> = (0..n).map(|_| 30.0 * rng.f32() - 10.0).collect();
                for temperature in [0.5, 1.0, 1.7] {
                    let mut shares = vec![f32::NAN; n];
                    let mut sums = vec![f32::NAN; n.div_ceil(SHARES_A_SUM)];
                    let (to, sums_) = (&mut shares[..], &mut sums[..]);
                    let max =
                        isa.run(Shares { logits: &logits, temperature, shares: to, sums: sums_ });
                    assert_eq!(max, logits.iter().copied().fold(f32::MIN, f32::max));
                    let exact = |x: &f32| (f64::from(*x - max) / f64::from(temperature)).exp();
                    for (share, logit) in shares.iter().zip(&logits) {
                        let exact = exact(logit);
                        let off = (f64::from(*share) - exact).abs();
                        assert!(off <= 4e-6 * exact, "{} {n}: {share} {exact}", isa.name());
                    }
                    for (sum, logits) in sums.iter().zip(logits.chunks(SHARES_A_SUM)) {
                        let exact: f64 = logits.iter().map(exact).sum();
                        assert!((f64::from(*sum) - exact).abs() <= 1e-5 * exact, "{}", isa.name());
                    }
                }
            }
        }
    }

    #[test]
    fn the_logarithm_of_the_sum_is_that_of_the_definition() {
        let mut rng = fastrand::Rng::with_seed(6);
        for n in [1, 17, 256, 300, 49_152] {
            let logits: Vec<f32> = (0..n).map(|_| 60.0 * rng.f32() - 30.0).collect();
            let exact = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
            assert!((f64::from(log_sum_exp(&logits)) - exact).abs() < 1e-5, "{n}");
            let mut shares = TokenShares::default();
            shares.compute(&logits, 1.0);
            assert!((f64::from(shares.log_sum()) - exact).abs() < 1e-5, "{n}");
        }
    }

    #[test]
    fn a_point_falls_into_the_share_that_holds_it() {
        let mut of = TokenShares::default();
        let mut logits = vec![f32::NEG_INFINITY; 600];
        logits[300] = 0.0;
        logits[599] = 2f32.ln();
        of.compute(&logits, 1.0);
        assert!((of.total() - 1.5).abs() < 1e-6 && (log_sum_exp(&logits) - 3f32.ln()).abs() < 1e-6);
        assert_eq!(of.token_at(0.0), Some(300), "the first that has any");
        assert_eq!([0.49, 0.51, 1.4, 9.0].map(|at| of.token_at(at).unwrap()), [300, 599, 599, 599]);
        of.compute(&[f32::NEG_INFINITY; 3], 1.0);
        assert_eq!(of.token_at(0.0), None);
        of.compute(&[], 1.0);
        assert_eq!(of.token_at(0.0), None);
    }
}
