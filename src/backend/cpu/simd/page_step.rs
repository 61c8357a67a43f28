//! How does one page go into the rows' results? Scores, online softmax, weighted values; tile by
//! tile, in floats or in pairs of integers.

use super::pairs::{ColScales, PairElement, PairProduct, ShortRows};
use super::softmax::{RowState, WeighTile, softmax_row};
use super::tile::{Element, Product, Start};
use super::vector::{Simd, TILE_ROWS};
use crate::backend::cpu::host::HostPage;

/// What a page shows to the rows.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    queries_first: usize,
    group: usize,
    page_first: usize,
    pub n_keys: usize,
}

impl Sight {
    /// To rows of which so many share a token, the first's at index `queries_first` of the text.
    #[inline(always)]
    pub fn of((queries_first, group): (usize, usize), page: &HostPage<'_>) -> Self {
        Self { queries_first, group, page_first: page.first_index, n_keys: page.n_keys }
    }

    /// How many of the page's keys row `row` may see.
    #[inline(always)]
    pub fn keys_of(self, row: usize) -> usize {
        let index = self.queries_first + row / self.group;
        (index + 1).saturating_sub(self.page_first).min(self.n_keys)
    }
}

/// A page's way into the rows' results.
pub(super) struct PageStep<'a> {
    pub head_dim: usize,
    pub page_len: usize,
    pub sight: Sight,
    pub out: &'a mut [f32],
    pub states: &'a mut [RowState],
    pub page_states: Option<&'a mut [RowState]>,
    /// `[row]`: what each row's scores of all the page's keys lack.
    pub rests: Option<&'a [f32]>,
}

impl PageStep<'_> {
    /// Scales of the values that there are; zeros after them, where anything may lie.
    #[inline(always)]
    pub fn copy_scales(&self, scales: &[f32], out: &mut [f32]) {
        let (there, absent) = out.split_at_mut(self.sight.n_keys);
        there.copy_from_slice(&scales[..self.sight.n_keys]);
        absent.fill(0.0);
    }

    /// Adds the page to all rows, tile by tile, in floats; `next` is asked for meanwhile.
    #[inline(always)]
    pub unsafe fn add<S: Simd, T: Element>(
        &mut self,
        queries: &[f32],
        (keys, values): (&[T], &[T]),
        (scores, next): (&mut [f32], &[u8]),
    ) {
        let (head_dim, page_len) = (self.head_dim, self.page_len);
        let (next_keys, next_values) = next.split_at(next.len() / 2);
        for (tile, queries) in queries.chunks(TILE_ROWS * head_dim).enumerate() {
            let row = tile * TILE_ROWS;
            let n_tile = queries.len() / head_dim;
            let depth = self.sight.keys_of(row + n_tile - 1);
            if depth == 0 {
                continue;
            }
            let n_cols = depth.next_multiple_of(16);
            let mut factors = [0.0; TILE_ROWS];
            // SAFETY: the caller vouches for the instruction set; the products check lengths.
            unsafe {
                S::call(Product {
                    n_rows: n_tile,
                    depth: head_dim,
                    n_cols,
                    a: queries,
                    a_stride: head_dim,
                    b: keys,
                    b_stride: page_len,
                    c: scores,
                    c_stride: page_len,
                    start: Start::Zero,
                    next: if tile == 0 { next_keys } else { &[] },
                });
                for (i, factor) in factors.iter_mut().enumerate().take(n_tile) {
                    let scores = &mut scores[i * page_len..][..n_cols];
                    let floor = self.states[row + i].max;
                    let added = softmax_row::<S>(scores, self.sight.keys_of(row + i), floor);
                    (*factor, _) = self.note(row + i, added);
                }
                S::call(Product {
                    n_rows: n_tile,
                    depth,
                    n_cols: head_dim,
                    a: scores,
                    a_stride: page_len,
                    b: values,
                    b_stride: head_dim,
                    c: &mut self.out[row * head_dim..][..n_tile * head_dim],
                    c_stride: head_dim,
                    start: Start::Scaled(&factors),
                    next: if tile == 0 { next_values } else { &[] },
                });
            }
        }
    }

    /// Adds the page to all rows, tile by tile, in integers; `next` is asked for meanwhile.
    #[inline(always)]
    pub unsafe fn add_pairs<S: Simd, K: PairElement, V: PairElement>(
        &mut self,
        rows: ShortRows<'_>,
        (keys, key_scales): (&[K], ColScales<'_>),
        (values, value_scales): (&[V], &[f32]),
        (scores, weights, next): (&mut [f32], &mut [i16], &[u8]),
    ) {
        let (head_dim, page_len) = (self.head_dim, self.page_len);
        let (next_keys, next_values) = next.split_at(next.len() / 2);
        for (tile, scales) in rows.scales.chunks(TILE_ROWS).enumerate() {
            let (row, n_tile) = (tile * TILE_ROWS, scales.len());
            let depth = self.sight.keys_of(row + n_tile - 1);
            if depth == 0 {
                continue;
            }
            let n_cols = depth.next_multiple_of(16);
            let (mut factors, mut weight_scales) = ([0.0; TILE_ROWS], [0.0; TILE_ROWS]);
            // SAFETY: the caller vouches for the instruction set; the products check lengths.
            unsafe {
                S::call(PairProduct {
                    n_pairs: head_dim / 2,
                    n_cols,
                    a: ShortRows { q: &rows.q[row * head_dim..][..n_tile * head_dim], scales },
                    a_stride: head_dim,
                    b: keys,
                    b_stride: page_len,
                    col_scales: key_scales,
                    c: scores,
                    c_stride: page_len,
                    start: Start::Zero,
                    next: if tile == 0 { next_keys } else { &[] },
                });
                let visible = |i: usize| self.sight.keys_of(row + i);
                let weigh = WeighTile { n_rows: n_tile, page_len, n_cols };
                let (mut added, steps) =
                    weigh.run::<S>(&visible, value_scales, (&mut *scores, &mut *weights));
                for i in 0..n_tile {
                    // What is the same for all keys moves the largest score and no weight.
                    added[i].max += self.rests.map_or(0.0, |rests| rests[row + i]);
                    let (ours, theirs) = self.note(row + i, added[i]);
                    (factors[i], weight_scales[i]) = (ours, theirs * steps[i]);
                }
                S::call(PairProduct {
                    n_pairs: depth.div_ceil(2),
                    n_cols: head_dim,
                    a: ShortRows { q: weights, scales: &weight_scales[..n_tile] },
                    a_stride: page_len,
                    b: values,
                    b_stride: head_dim,
                    col_scales: ColScales::One,
                    c: &mut self.out[row * head_dim..][..n_tile * head_dim],
                    c_stride: head_dim,
                    start: Start::Scaled(&factors),
                    next: if tile == 0 { next_values } else { &[] },
                });
            }
        }
    }

    /// Takes note of what the page adds to a row; returns the factors of what was there and of
    /// what comes.
    #[inline(always)]
    fn note(&mut self, row: usize, added: RowState) -> (f32, f32) {
        if let Some(page_states) = self.page_states.as_deref_mut() {
            page_states[row] = added;
        }
        self.states[row].merge(added)
    }
}
