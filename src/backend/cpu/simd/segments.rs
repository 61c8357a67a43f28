//! How well does each unit's best segment match each query? The coarse stage of a lookup.
//!
//! Segment means are kept as bytes (value / scale + 128), sixteen units side by side: lane `u` of
//! a vector is unit `u`, so the best of a unit's segments is a vertical maximum and no score ever
//! leaves its lane.

use super::vector::{Kernel, Simd};

/// Units side by side in a block of the index.
pub const UNITS: usize = 16;

/// Query rows scored at once, so that a block is read from L1 and not from memory for each.
const ROWS: usize = 4;

/// Scores of the units of some blocks against some query rows.
#[derive(Debug)]
pub struct ScoreSegments<'a> {
    /// Width of a head; a multiple of 4.
    pub head_dim: usize,
    /// Segments in a unit.
    pub n_segments: usize,
    /// `[block][segment][head_dim / 4][UNITS][4]`, each byte a value in units of its scale + 128.
    pub means: &'a [u8],
    /// `[block][segment][UNITS]`
    pub scales: &'a [f32],
    /// `[row][head_dim]`
    pub queries: &'a [i8],
    /// `[row]`: what one step of the row's bytes is worth.
    pub query_scales: &'a [f32],
    /// `[row]`: the sum of the row's bytes.
    pub query_sums: &'a [i32],
    /// `[row][stride]`: the best score of each unit of the blocks.
    pub best: &'a mut [f32],
    /// Floats from row to row of `best`.
    pub best_stride: usize,
}

impl Kernel for ScoreSegments<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let block_bytes = self.n_segments * self.head_dim * UNITS;
        let n_blocks = self.means.len() / block_bytes;
        let n_rows = self.query_scales.len();
        assert!(self.head_dim.is_multiple_of(4), "heads in fours");
        assert_eq!(self.means.len(), n_blocks * block_bytes, "whole blocks");
        assert_eq!(self.scales.len(), n_blocks * self.n_segments * UNITS, "a scale a segment");
        assert!(self.queries.len() == n_rows * self.head_dim && self.query_sums.len() == n_rows);
        assert!(
            n_rows == 0 || self.best.len() >= (n_rows - 1) * self.best_stride + n_blocks * UNITS
        );
        for block in 0..n_blocks {
            for lane in (0..UNITS).step_by(S::LANES) {
                let mut row = 0;
                while row < n_rows {
                    // SAFETY: blocks, lanes and rows lie inside the slices, as checked above.
                    unsafe {
                        match n_rows - row {
                            ROWS.. => self.score::<S, ROWS>(block, lane, row),
                            3 => self.score::<S, 3>(block, lane, row),
                            2 => self.score::<S, 2>(block, lane, row),
                            _ => self.score::<S, 1>(block, lane, row),
                        }
                    }
                    row += ROWS.min(n_rows - row);
                }
            }
        }
    }
}

impl ScoreSegments<'_> {
    #[inline(always)]
    unsafe fn score<S: Simd, const N: usize>(&mut self, block: usize, lane: usize, row: usize) {
        // SAFETY: by the caller's word.
        unsafe {
            let mut best = [S::splat(f32::NEG_INFINITY); N];
            for segment in 0..self.n_segments {
                let segment_idx = block * self.n_segments + segment;
                let means = self.means.as_ptr();
                let means = means.add(segment_idx * self.head_dim * UNITS + 4 * lane);
                let mut sums = [S::zero_i(); N];
                for quad in 0..self.head_dim / 4 {
                    let mean = S::load_i(means.add(quad * 4 * UNITS));
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let query = self.queries.as_ptr().add((row + i) * self.head_dim + 4 * quad);
                        *sum = S::dot4::<true>(*sum, mean, S::splat_4(query));
                    }
                }
                let scale = S::load(self.scales.as_ptr().add(segment_idx * UNITS + lane));
                for (i, best) in best.iter_mut().enumerate() {
                    // The means are stored 128 too high.
                    let excess = S::splat(-128.0 * self.query_sums[row + i] as f32);
                    let dot = S::add(S::to_float(sums[i]), excess);
                    *best = S::max(*best, S::mul(dot, scale));
                }
            }
            for (i, best) in best.into_iter().enumerate() {
                let out = (row + i) * self.best_stride + block * UNITS + lane;
                let scaled = S::mul(best, S::splat(self.query_scales[row + i]));
                S::store(self.best.as_mut_ptr().add(out), scaled);
            }
        }
    }
}
