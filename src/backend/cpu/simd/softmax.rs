//! How do scores of a page become weights, page after page? The online softmax (Milakov and
//! Gimelshein, arXiv 1805.02867): a row's state is the largest score so far and the sum of
//! exponentials below it, and states of different keys merge.

use std::f32::consts::LOG2_E;

use super::page::WEIGHT_LARGEST;
use super::pairs::step_of;
use super::vector::{Kernel, Simd, TILE_ROWS, exp, exp2_rough};

/// Softmax state of a query row, mergeable with that of the same row over other keys.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct RowState {
    /// The largest score so far.
    pub max: f32,
    /// The sum of `exp(score - max)`.
    pub sum: f32,
}

impl RowState {
    /// Nothing attended yet.
    pub const EMPTY: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Adds `other`, over other keys; returns the factors for what was summed so far and for what
    /// `other` summed.
    #[inline(always)]
    pub fn merge(&mut self, other: Self) -> (f32, f32) {
        if other.sum == 0.0 {
            return (1.0, 0.0);
        }
        // Most pages do not raise the maximum: no exponential of ours then.
        let max = self.max.max(other.max);
        let ours = if self.max == max { 1.0 } else { (self.max - max).exp() };
        let theirs = if other.max == max { 1.0 } else { (other.max - max).exp() };
        self.sum = self.sum * ours + other.sum * theirs;
        self.max = max;
        (ours, theirs)
    }
}

/// Turns scores into `exp(score - max)` with `max` at least `floor`; what is not visible becomes 0.
///
/// # Safety
/// The instruction set `S` is present.
#[inline(always)]
pub unsafe fn softmax_row<S: Simd>(scores: &mut [f32], visible: usize, floor: f32) -> RowState {
    scores[visible..].fill(f32::NEG_INFINITY);
    if visible == 0 {
        scores.fill(0.0);
        return RowState::EMPTY;
    }
    // SAFETY: the row is a multiple of 16 long; the caller vouches for the instruction set.
    let state = unsafe {
        let max = largest::<S>(scores, floor);
        let mut sum = S::splat(0.0);
        for i in (0..scores.len()).step_by(S::LANES) {
            let e = exp::<S>(S::sub(S::load(scores.as_ptr().add(i)), S::splat(max)));
            S::store(scores.as_mut_ptr().add(i), e);
            sum = S::add(sum, e);
        }
        RowState { max, sum: S::reduce_add(sum) }
    };
    // What was masked became e^-87 and not 0; the sum is too large by less than one rounding.
    scores[visible..].fill(0.0);
    state
}

/// Logits whose shares have one sum.
pub const SHARES_A_SUM: usize = 256;

/// `exp((x - max) / temperature)` of each logit, above 0 even for those of minus infinity, and their
/// sums, [`SHARES_A_SUM`] at a time. Returns the largest logit.
#[derive(Debug)]
pub struct Shares<'a> {
    /// Any length.
    pub logits: &'a [f32],
    /// More than 0.
    pub temperature: f32,
    /// As long as `logits`.
    pub shares: &'a mut [f32],
    /// One for each `SHARES_A_SUM` logits, and for the rest.
    pub sums: &'a mut [f32],
}

impl Kernel for Shares<'_> {
    type Output = f32;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let Self { logits, temperature, shares, sums } = self;
        let n = logits.len();
        assert!(shares.len() == n && sums.len() == n.div_ceil(SHARES_A_SUM), "a share each");
        let whole = n / S::LANES * S::LANES;
        // SAFETY: what is loaded and stored lies before `whole <= n`, the length of both rows; the
        // caller vouches for the instruction set.
        unsafe {
            let max = largest::<S>(&logits[..whole], f32::NEG_INFINITY);
            let max = logits[whole..].iter().copied().fold(max, f32::max);
            let inverse = 1.0 / temperature;
            for (block, sum) in sums.iter_mut().enumerate() {
                let first = block * SHARES_A_SUM;
                let end = (first + SHARES_A_SUM).min(n);
                let whole = whole.clamp(first, end);
                let mut of_lanes = S::splat(0.0);
                for i in (first..whole).step_by(S::LANES) {
                    let x = S::sub(S::load(logits.as_ptr().add(i)), S::splat(max));
                    let e = exp::<S>(S::mul(x, S::splat(inverse)));
                    S::store(shares.as_mut_ptr().add(i), e);
                    of_lanes = S::add(of_lanes, e);
                }
                *sum = S::reduce_add(of_lanes);
                for i in whole..end {
                    shares[i] = ((logits[i] - max) * inverse).max(-87.0).exp();
                    *sum += shares[i];
                }
            }
            max
        }
    }
}

/// The softmax of some rows over one page, in weights of 16 bits.
pub struct WeighTile {
    /// Rows; at most `TILE_ROWS`.
    pub n_rows: usize,
    /// Floats from row to row.
    pub page_len: usize,
    /// Scores of a row; a multiple of 16.
    pub n_cols: usize,
}

impl WeighTile {
    /// Turns scores `[row][page_len]` into whole multiples of a step, `exp(score - max)` times the
    /// value's scale; what is not visible becomes 0. Returns each row's state over this page alone,
    /// and its step. All rows go through each phase together: a row's reductions wait for one
    /// another, those of different rows do not.
    ///
    /// # Safety
    /// The instruction set `S` is present.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(
        &self,
        visible: &dyn Fn(usize) -> usize,
        value_scales: &[f32],
        (scores, weights): (&mut [f32], &mut [i16]),
    ) -> ([RowState; TILE_ROWS], [f32; TILE_ROWS]) {
        let Self { n_rows, page_len, n_cols } = *self;
        assert!(n_rows <= TILE_ROWS && n_cols <= page_len && n_cols.is_multiple_of(16), "a tile");
        assert!(scores.len() >= n_rows * page_len && weights.len() >= n_rows * page_len, "rows");
        assert!(value_scales.len() >= n_cols, "a scale a value");
        let mut states = [RowState::EMPTY; TILE_ROWS];
        let mut steps = [0.0; TILE_ROWS];
        let mut heaviest = [0.0; TILE_ROWS];
        // SAFETY: the first `n_cols` of each row are there, a multiple of 16; the caller vouches
        // for the instruction set.
        unsafe {
            for row in 0..n_rows {
                let scores = &mut scores[row * page_len..][..n_cols];
                scores[visible(row).min(n_cols)..].fill(f32::NEG_INFINITY);
                states[row].max = largest::<S>(scores, f32::NEG_INFINITY);
            }
            for row in 0..n_rows {
                let scores = scores.as_mut_ptr().add(row * page_len);
                // Where nothing is visible all become 2^-126, which no weight of 13 bits is.
                let max = if states[row].max == f32::NEG_INFINITY { 0.0 } else { states[row].max };
                let (unit, shift) = (S::splat(LOG2_E), S::splat(-LOG2_E * max));
                let (mut sum, mut most) = (S::splat(0.0), S::splat(0.0));
                for i in (0..n_cols).step_by(S::LANES) {
                    let e = exp2_rough::<S>(S::fma(S::load(scores.add(i)), unit, shift));
                    sum = S::add(sum, e);
                    let weight = S::mul(e, S::load(value_scales.as_ptr().add(i)));
                    most = S::max(most, weight);
                    S::store(scores.add(i), weight);
                }
                states[row].sum = S::reduce_add(sum);
                heaviest[row] = S::reduce_max(most);
            }
            for row in 0..n_rows {
                let inverse;
                (steps[row], inverse) = step_of(heaviest[row], WEIGHT_LARGEST);
                for i in (row * page_len..row * page_len + n_cols).step_by(S::LANES) {
                    let weight = S::mul(S::load(scores.as_ptr().add(i)), S::splat(inverse));
                    S::store_i16(weights.as_mut_ptr().add(i), weight);
                }
                if states[row].max == f32::NEG_INFINITY {
                    weights[row * page_len..][..n_cols].fill(0);
                    states[row] = RowState::EMPTY;
                }
            }
        }
        (states, steps)
    }
}

/// The largest of the scores, whole vectors of them, and `floor`.
#[inline(always)]
unsafe fn largest<S: Simd>(scores: &[f32], floor: f32) -> f32 {
    // SAFETY: the row is whole vectors; the caller vouches for the instruction set.
    unsafe {
        let mut max = S::splat(floor);
        for i in (0..scores.len()).step_by(S::LANES) {
            max = S::max(max, S::load(scores.as_ptr().add(i)));
        }
        S::reduce_max(max)
    }
}
