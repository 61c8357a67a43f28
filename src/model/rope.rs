//! By how much does each pair of a head turn? Rotary embedding with its scaling, whatever file it
//! came from, reduced to one frequency a pair and one factor. The rotation itself is not here.

use std::f64::consts::PI;

/// Rotary position embedding (Su et al., arXiv 2104.09864) with its scaling already applied:
/// pair `i` turns by `position * inverse_frequencies[i]` radians.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// One per rotated pair, so half the rotated width of a head.
    pub inverse_frequencies: Vec<f64>,
    /// Factor on cosine and sine (YaRN's attention factor; 1 elsewhere).
    pub magnitude: f32,
    /// Which elements of a head make a pair.
    pub layout: RopeLayout,
}

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// `(2i, 2i+1)`: GGUF files of the llama family.
    Interleaved,
    /// `(i, i + rotated/2)`: Hugging Face files, and GGUF files of the Qwen family.
    Half,
}

/// The names of the scalings below, for messages.
pub(super) const SUPPORTED_SCALINGS: &str = "none, default, linear, llama3, yarn";

/// Rotation before any scaling.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnscaledRope {
    /// The base of the frequencies, 10000 in the paper.
    pub(super) theta: f64,
    /// Elements of a head that turn; even.
    pub(super) rotated: usize,
    pub(super) layout: RopeLayout,
}

/// How frequencies are changed to reach beyond the length of pre-training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum RopeScaling {
    None,
    /// Position interpolation (arXiv 2306.15595).
    Linear {
        factor: f64,
    },
    /// Llama 3.1: long waves are stretched, short ones stay.
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        original_tokens: f64,
    },
    /// YaRN (arXiv 2309.00071).
    Yarn(Yarn),
}

/// The parameters of YaRN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Yarn {
    pub(super) factor: f64,
    pub(super) original_tokens: f64,
    /// Turns within the original length above which a pair is left alone.
    pub(super) beta_fast: f64,
    /// Turns below which a pair is stretched in full.
    pub(super) beta_slow: f64,
    /// Whether the borders of the ramp between are rounded to whole pairs.
    pub(super) rounds_borders: bool,
    /// Factor on cosine and sine.
    pub(super) magnitude: f64,
}

impl UnscaledRope {
    /// Applies `divisors` (one per pair, where the file has them), then `scaling`.
    pub(super) fn scaled(&self, divisors: Option<&[f32]>, scaling: RopeScaling) -> RopeConfig {
        let width = self.rotated as f64;
        let mut frequencies: Vec<f64> =
            (0..self.rotated / 2).map(|pair| self.theta.powf(-2.0 * pair as f64 / width)).collect();
        for (frequency, &divisor) in frequencies.iter_mut().zip(divisors.unwrap_or(&[])) {
            *frequency /= f64::from(divisor);
        }
        let mut magnitude = 1.0;
        match scaling {
            RopeScaling::None => {}
            RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= factor),
            RopeScaling::Llama3 { .. } => {
                frequencies
                    .iter_mut()
                    .for_each(|frequency| *frequency *= llama3(scaling, *frequency));
            }
            RopeScaling::Yarn(yarn) => {
                magnitude = yarn.magnitude;
                let ramp = yarn.ramp(self);
                for (pair, frequency) in frequencies.iter_mut().enumerate() {
                    let kept = 1.0 - ramp.at(pair);
                    *frequency *= kept + (1.0 - kept) / yarn.factor;
                }
            }
        }
        RopeConfig {
            inverse_frequencies: frequencies,
            magnitude: magnitude as f32,
            layout: self.layout,
        }
    }
}

/// What Llama 3.1's scaling multiplies this frequency by.
fn llama3(scaling: RopeScaling, frequency: f64) -> f64 {
    let RopeScaling::Llama3 {
        factor,
        low_frequency_factor,
        high_frequency_factor,
        original_tokens,
    } = scaling
    else {
        return 1.0;
    };
    let turns = original_tokens * frequency / (2.0 * PI); // within the original length
    if turns < low_frequency_factor {
        1.0 / factor
    } else if turns > high_frequency_factor {
        1.0
    } else {
        let span = high_frequency_factor - low_frequency_factor;
        let smooth = (turns - low_frequency_factor) / span;
        (1.0 - smooth) / factor + smooth
    }
}

/// The magnitude that YaRN uses when the file gives none.
pub(super) fn yarn_magnitude(factor: f64, coefficient: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * coefficient * factor.ln() + 1.0 }
}

/// Rises from 0 to 1 between two pairs.
struct Ramp {
    low: f64,
    high: f64,
}

impl Ramp {
    fn at(&self, pair: usize) -> f64 {
        ((pair as f64 - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }
}

impl Yarn {
    /// The length that the stretched frequencies cover, in tokens.
    pub(super) fn reach(&self) -> usize {
        (self.original_tokens * self.factor) as usize
    }

    fn ramp(&self, rope: &UnscaledRope) -> Ramp {
        let width = rope.rotated as f64;
        // The pair that makes `turns` turns within the original length.
        let pair = |turns: f64| {
            width * (self.original_tokens / (turns * 2.0 * PI)).ln() / (2.0 * rope.theta.ln())
        };
        let (mut low, mut high) = (pair(self.beta_fast), pair(self.beta_slow));
        if self.rounds_borders {
            (low, high) = (low.floor(), high.ceil());
        }
        low = low.max(0.0);
        high = high.min(width - 1.0);
        if low >= high {
            high = low + 0.001; // a step instead of a division by zero
        }
        Ramp { low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::{RopeLayout, RopeScaling, UnscaledRope, Yarn, yarn_magnitude};

    /// Frequencies by the formulas of transformers; see `make_rope.py`.
    const GOLDEN: &str = include_str!("../../tests/golden/rope.json");

    fn number(json: &serde_json::Value, field: &str) -> f64 {
        json[field].as_f64().unwrap_or_else(|| panic!("{field} in {json}"))
    }

    fn scaling(json: &serde_json::Value) -> RopeScaling {
        match json["type"].as_str().unwrap() {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: number(json, "factor") },
            "llama3" => RopeScaling::Llama3 {
                factor: number(json, "factor"),
                low_frequency_factor: number(json, "low_freq_factor"),
                high_frequency_factor: number(json, "high_freq_factor"),
                original_tokens: number(json, "original"),
            },
            "yarn" => RopeScaling::Yarn(Yarn {
                factor: number(json, "factor"),
                original_tokens: number(json, "original"),
                beta_fast: number(json, "beta_fast"),
                beta_slow: number(json, "beta_slow"),
                rounds_borders: json["truncate"].as_bool().unwrap(),
                magnitude: yarn_magnitude(number(json, "factor"), 1.0),
            }),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn frequencies_and_magnitude_are_those_of_transformers() {
        let cases: Vec<serde_json::Value> = serde_json::from_str(GOLDEN).unwrap();
        assert!(cases.len() >= 8);
        for case in cases {
            let unscaled = UnscaledRope {
                theta: number(&case, "theta"),
                rotated: number(&case, "rotated") as usize,
                layout: RopeLayout::Half,
            };
            let rope = unscaled.scaled(None, scaling(&case));
            let expected = case["frequencies"].as_array().unwrap();
            assert_eq!(rope.inverse_frequencies.len(), expected.len());
            for (found, expected) in rope.inverse_frequencies.iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected} {case}");
            }
            assert!((f64::from(rope.magnitude) - number(&case, "magnitude")).abs() < 1e-6);
        }
    }

    #[test]
    fn divisors_come_before_the_scaling() {
        let unscaled = UnscaledRope { theta: 100.0, rotated: 4, layout: RopeLayout::Half };
        let rope = unscaled.scaled(Some(&[1.0, 8.0]), RopeScaling::Linear { factor: 2.0 });
        assert_eq!(rope.inverse_frequencies, [0.5, 0.1 / 16.0]);
    }
}
