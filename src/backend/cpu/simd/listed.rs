//! How well does each segment of a list match each query? As `segments`, but with query rows side by side:
//! segments of a list are of units from all over a text, so that a unit's best scores of all rows are
//! raised at once, where one lane a unit would have each row look for the unit anew.

use super::segments::UNITS;
use super::vector::{Kernel, Simd, exp};

/// Query rows side by side: rows of a table are as many, or a multiple.
pub const ROW_LANES: usize = 16;

/// Segments scored at once.
const AT_ONCE: usize = 8;

/// Query rows as [`RaiseListed`] takes them, those that fill up the last [`ROW_LANES`] being zero.
#[derive(Debug, Default)]
pub struct RowQueries {
    /// `[row / ROW_LANES][width / 4][ROW_LANES][4]`
    pub bytes: Vec<i8>,
    /// `[row]`: what one step of the row's bytes is worth.
    pub scales: Vec<f32>,
    /// `[row]`: what is too much in a product, since means are stored 128 too high; negative.
    pub excess: Vec<f32>,
}

impl RowQueries {
    /// Of rows `[row][width]`, with their scales and the sums of their bytes.
    pub fn pack(&mut self, (bytes, scales, sums): (&[i8], &[f32], &[i32])) {
        let width = bytes.len() / scales.len();
        let padded = scales.len().next_multiple_of(ROW_LANES);
        self.bytes.clear();
        self.bytes.resize(padded * width, 0);
        for (row, bytes) in bytes.chunks_exact(width).enumerate() {
            let first = row / ROW_LANES * ROW_LANES * width + row % ROW_LANES * 4;
            for (quad, bytes) in bytes.chunks_exact(4).enumerate() {
                self.bytes[first + quad * ROW_LANES * 4..][..4].copy_from_slice(bytes);
            }
        }
        self.scales.clear();
        self.scales.extend_from_slice(scales);
        self.scales.resize(padded, 0.0);
        self.excess.clear();
        self.excess.extend(sums.iter().map(|sum| -128.0 * *sum as f32));
        self.excess.resize(padded, 0.0);
    }

    /// Rows, those that fill up included.
    pub fn n_rows(&self) -> usize {
        self.scales.len()
    }
}

/// Raises the scores of units to those of segments of theirs, where these are better.
#[derive(Debug)]
pub struct RaiseListed<'a> {
    /// Rows.
    pub queries: &'a RowQueries,
    /// `[block][width / 4][UNITS][4]`, each byte a value in units of its scale + 128.
    pub means: &'a [u8],
    /// `[block][UNITS]`
    pub scales: &'a [f32],
    /// `[block][UNITS]`: the row of `table` that is the segment's unit's.
    pub places: &'a [u32],
    /// `[unit][row]`
    pub table: &'a mut [f32],
    /// Means that are read after these: asked for meanwhile.
    pub next: &'a [u8],
}

impl Kernel for RaiseListed<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let n_rows = self.queries.n_rows();
        let n_segments = self.scales.len();
        assert!(n_segments.is_multiple_of(UNITS) && self.places.len() == n_segments, "blocks");
        let width = self.means.len().checked_div(n_segments).unwrap_or(0);
        assert!(width.is_multiple_of(4) && self.means.len() == n_segments * width);
        assert!(n_rows.is_multiple_of(ROW_LANES) && self.queries.excess.len() == n_rows);
        assert!(n_segments == 0 || self.queries.bytes.len() == n_rows * width);
        let n_units = self.table.len() / n_rows.max(1);
        assert!(self.places.iter().all(|place| (*place as usize) < n_units), "units of the table");
        for row in (0..n_rows).step_by(S::LANES) {
            for first in (0..n_segments).step_by(AT_ONCE) {
                // SAFETY: segments, rows and places lie inside the slices, as checked above; what is
                // asked for may be anywhere.
                unsafe {
                    if row == 0 {
                        let next = self.next.as_ptr().wrapping_add(first * width);
                        for line in (0..AT_ONCE * width).step_by(64) {
                            S::prefetch_early(next.wrapping_add(line));
                        }
                    }
                    self.raise::<S>(width, first, row)
                }
            }
        }
    }
}

impl RaiseListed<'_> {
    #[inline(always)]
    unsafe fn raise<S: Simd>(&mut self, width: usize, first: usize, row: usize) {
        // SAFETY: by the caller's word.
        unsafe {
            let queries = self.queries.bytes.as_ptr();
            let queries = queries.add(row / ROW_LANES * ROW_LANES * width + row % ROW_LANES * 4);
            let means = self.means.as_ptr();
            let means = means.add(first / UNITS * UNITS * width + first % UNITS * 4);
            let mut sums = [S::zero_i(); AT_ONCE];
            for quad in 0..width / 4 {
                let query = S::load_i(queries.add(quad * ROW_LANES * 4).cast());
                for (i, sum) in sums.iter_mut().enumerate() {
                    let mean = S::splat_4(means.add(quad * UNITS * 4 + i * 4).cast());
                    *sum = S::dot4::<true>(*sum, mean, query);
                }
            }
            let excess = S::load(self.queries.excess.as_ptr().add(row));
            let query_scale = S::load(self.queries.scales.as_ptr().add(row));
            let n_rows = self.queries.n_rows();
            for (i, sum) in sums.into_iter().enumerate() {
                let scale = S::splat(*self.scales.get_unchecked(first + i));
                let dot = S::mul(S::add(S::to_float(sum), excess), scale);
                let place = *self.places.get_unchecked(first + i) as usize;
                let best = self.table.as_mut_ptr().add(place * n_rows + row);
                S::store(best, S::max(S::load(best), S::mul(dot, query_scale)));
            }
        }
    }
}

/// The largest of each row of `table`.
#[derive(Debug)]
pub struct MostOfRows<'a> {
    /// `[unit][row]`
    pub table: &'a [f32],
    /// `[row]`: raised.
    pub most: &'a mut [f32],
}

impl Kernel for MostOfRows<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n_rows = self.most.len();
        assert!(n_rows.is_multiple_of(ROW_LANES) && self.table.len().is_multiple_of(n_rows.max(1)));
        for row in (0..n_rows).step_by(S::LANES) {
            // SAFETY: rows lie inside the slices, as checked above.
            unsafe {
                let mut most = S::load(self.most.as_ptr().add(row));
                for at in (row..self.table.len()).step_by(n_rows) {
                    most = S::max(most, S::load(self.table.as_ptr().add(at)));
                }
                S::store(self.most.as_mut_ptr().add(row), most);
            }
        }
    }
}

/// `e^(score - most)`, with the sum of each row.
#[derive(Debug)]
pub struct ExpOfRows<'a> {
    /// `[unit][row]`: overwritten.
    pub table: &'a mut [f32],
    /// `[row]`
    pub most: &'a [f32],
    /// `[row]`: overwritten.
    pub sums: &'a mut [f32],
}

impl Kernel for ExpOfRows<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n_rows = self.most.len();
        assert!(n_rows.is_multiple_of(ROW_LANES) && self.sums.len() == n_rows);
        assert!(self.table.len().is_multiple_of(n_rows.max(1)));
        for row in (0..n_rows).step_by(S::LANES) {
            // SAFETY: rows lie inside the slices, as checked above.
            unsafe {
                let most = S::load(self.most.as_ptr().add(row));
                let mut sum = S::splat(0.0);
                for at in (row..self.table.len()).step_by(n_rows) {
                    let cell = self.table.as_mut_ptr().add(at);
                    let e = exp::<S>(S::sub(S::load(cell), most));
                    S::store(cell, e);
                    sum = S::add(sum, e);
                }
                S::store(self.sums.as_mut_ptr().add(row), sum);
            }
        }
    }
}

/// Of each unit the sum over heads of the best that it has of any group of tokens.
#[derive(Debug)]
pub struct SumOfBest<'a> {
    /// `[unit][row]`, rows being `[group of tokens][head]` and what fills up.
    pub table: &'a [f32],
    /// `[row]`: applied first.
    pub factors: &'a [f32],
    /// Groups of tokens.
    pub n_groups: usize,
    /// Heads.
    pub group: usize,
    /// `[unit]`
    pub out: &'a mut [f32],
}

impl Kernel for SumOfBest<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { table, factors, n_groups, group, out } = self;
        let n_rows = factors.len();
        assert!(n_groups * group <= n_rows && table.len() == out.len() * n_rows, "whole tables");
        for (row, out) in table.chunks_exact(n_rows.max(1)).zip(out) {
            let best = |head: usize| {
                let shares =
                    (head..n_groups * group).step_by(group).map(|at| row[at] * factors[at]);
                shares.fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
            };
            *out = (0..group).map(best).sum();
        }
    }
}
