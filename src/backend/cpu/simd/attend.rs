//! How do a few query rows attend to pages of keys and values, each key read once?
//!
//! A page holds `page_len` consecutive keys of one KV head, dimension-major so that vector lanes
//! are keys, and their values key-major so that vector lanes are dimensions: neither product
//! needs a horizontal sum. A page is widened from f16 and rotated into L1-sized scratch once and
//! then serves all query rows of the head group, with an online softmax (FlashAttention-2, arXiv
//! 2307.08691) whose state `(max, sum, unnormalised output)` can be merged with that of other
//! pages (flash-decoding).

use super::tile::{Product, Start};
use super::vector::{Kernel, Simd, TILE_ROWS, exp};
use crate::backend::{PlacedPage, Placement};

/// Sizes of a page and of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageShape {
    /// Width of a head; a multiple of 16.
    pub head_dim: usize,
    /// Keys in a page; a multiple of 16.
    pub page_len: usize,
    /// Rotated pairs `(i, i + n_pairs)` of a head; the dimensions after `2 * n_pairs` stay.
    pub n_pairs: usize,
}

/// One page of one KV head.
#[derive(Clone, Copy, Debug)]
struct Page<'a> {
    keys: &'a [u16],   // [head_dim][page_len] f16, not rotated
    values: &'a [u16], // [page_len][head_dim] f16
    n_keys: usize,
    first_index: usize,
    rotation: Option<&'a [f32]>, // cosines [n_pairs][page_len], then sines
}

/// Widened keys and values of one page, and the scores of one tile.
#[derive(Debug)]
pub struct Scratch {
    keys: Vec<f32>,   // [head_dim][page_len]
    values: Vec<f32>, // [page_len][head_dim]
    scores: Vec<f32>, // [TILE_ROWS][page_len]
}

impl Scratch {
    /// Scratch for pages of `shape`.
    pub fn new(shape: PageShape) -> Self {
        let page = shape.head_dim * shape.page_len;
        let scores = TILE_ROWS * shape.page_len;
        Self { keys: vec![0.0; page], values: vec![0.0; page], scores: vec![0.0; scores] }
    }
}

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
}

/// The query rows of one head group.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `[token][head of the group][head_dim]`, rotated to the tokens' places and scaled.
    pub near: &'a [f32],
    /// The same rows rotated to the fixed far distance (used for pages without rotation).
    pub far: &'a [f32],
    /// Query heads that share the KV head.
    pub group: usize,
    /// Index in the text of the first row's token.
    pub first_index: usize,
}

/// Attends to `pages` in turn. `out` and `states` are overwritten.
#[derive(Debug)]
pub struct Attend<'a> {
    /// Sizes.
    pub shape: PageShape,
    /// The rows.
    pub queries: Queries<'a>,
    /// The pages, of all layers and heads.
    pub pages: &'a [PlacedPage<'a>],
    /// Where the layer's and KV head's keys are in a page; their values follow.
    pub keys_at: usize,
    /// Reused between calls.
    pub scratch: &'a mut Scratch,
    /// `[row][head_dim]`, not yet divided by the sums.
    pub out: &'a mut [f32],
    /// `[row]`
    pub states: &'a mut [RowState],
    /// `[page][row]`: what each page alone added, where someone asks.
    pub page_states: Option<&'a mut [RowState]>,
}

impl Kernel for Attend<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        self.out.fill(0.0);
        self.states.fill(RowState::EMPTY);
        if let Some(page_states) = self.page_states.as_deref_mut() {
            page_states.fill(RowState::EMPTY);
        }
        for page_idx in 0..self.pages.len() {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { self.attend_page::<S>(page_idx) }
        }
    }
}

impl<'a> Attend<'a> {
    #[inline(always)]
    fn page(&self, page_idx: usize) -> Page<'a> {
        let PlacedPage { page, n_keys, first_index, placement } = self.pages[page_idx];
        let part = self.shape.head_dim * self.shape.page_len;
        let (keys, values) = page[self.keys_at..][..2 * part].split_at(part);
        let rotation = match placement {
            Placement::Rotated(angles) => Some(angles),
            Placement::Far => None,
        };
        Page { keys, values, n_keys, first_index, rotation }
    }

    #[inline(always)]
    unsafe fn attend_page<S: Simd>(&mut self, page_idx: usize) {
        let page = self.page(page_idx);
        let n_rows = self.states.len();
        let last_visible = self.visible_keys(&page, n_rows - 1);
        if last_visible == 0 {
            return;
        }
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            widen_keys::<S>(self.shape, &page, &mut self.scratch.keys);
            let n_values = last_visible * self.shape.head_dim;
            widen::<S>(&page.values[..n_values], &mut self.scratch.values);
            let mut row = 0;
            while row < n_rows {
                let n_tile = TILE_ROWS.min(n_rows - row);
                if self.visible_keys(&page, row + n_tile - 1) > 0 {
                    self.attend_tile::<S>(page_idx, row, n_tile);
                }
                row += n_tile;
            }
        }
    }

    /// How many of the page's keys row `row` may see.
    #[inline(always)]
    fn visible_keys(&self, page: &Page<'_>, row: usize) -> usize {
        let index = self.queries.first_index + row / self.queries.group;
        (index + 1).saturating_sub(page.first_index).min(page.n_keys)
    }

    #[inline(always)]
    unsafe fn attend_tile<S: Simd>(&mut self, page_idx: usize, row: usize, n_tile: usize) {
        let PageShape { head_dim, page_len, .. } = self.shape;
        let page = self.page(page_idx);
        let queries = if page.rotation.is_some() { self.queries.near } else { self.queries.far };
        let depth = self.visible_keys(&page, row + n_tile - 1);
        let mut factors = [0.0; TILE_ROWS];
        // SAFETY: the caller vouches for the instruction set; the products check their lengths.
        unsafe {
            Product {
                n_rows: n_tile,
                depth: head_dim,
                n_cols: depth.next_multiple_of(16),
                a: &queries[row * head_dim..][..n_tile * head_dim],
                a_stride: head_dim,
                b: &self.scratch.keys,
                b_stride: page_len,
                c: &mut self.scratch.scores,
                c_stride: page_len,
                start: Start::Zero,
            }
            .run::<S>();
            for (i, factor) in factors.iter_mut().enumerate().take(n_tile) {
                let visible = self.visible_keys(&page, row + i);
                let scores = &mut self.scratch.scores[i * page_len..][..depth.next_multiple_of(16)];
                let added = softmax_row::<S>(scores, visible, self.states[row + i].max);
                *factor = self.states[row + i].absorb(added);
                if let Some(page_states) = self.page_states.as_deref_mut() {
                    page_states[page_idx * self.states.len() + row + i] = added;
                }
            }
            Product {
                n_rows: n_tile,
                depth,
                n_cols: head_dim,
                a: &self.scratch.scores,
                a_stride: page_len,
                b: &self.scratch.values,
                b_stride: head_dim,
                c: &mut self.out[row * head_dim..][..n_tile * head_dim],
                c_stride: head_dim,
                start: Start::Scaled(&factors),
            }
            .run::<S>();
        }
    }
}

impl RowState {
    /// Adds `other`, over other keys.
    pub fn merge(&mut self, other: Self) {
        if other.sum > 0.0 {
            let max = self.max.max(other.max);
            let ours = if self.sum > 0.0 { self.sum * (self.max - max).exp() } else { 0.0 };
            self.sum = ours + other.sum * (other.max - max).exp();
            self.max = max;
        }
    }

    /// Adds `other`, whose maximum is at least ours; returns the factor for what we summed so far.
    #[inline(always)]
    fn absorb(&mut self, other: Self) -> f32 {
        // Most pages do not raise the maximum: no exponential then.
        let factor = if other.max == self.max { 1.0 } else { (self.max - other.max).exp() };
        self.sum = self.sum * factor + other.sum;
        self.max = other.max;
        factor
    }
}

/// Turns scores into `exp(score - max)` with `max` at least `floor`; what is not visible becomes 0.
#[inline(always)]
unsafe fn softmax_row<S: Simd>(scores: &mut [f32], visible: usize, floor: f32) -> RowState {
    scores[visible..].fill(f32::NEG_INFINITY);
    if visible == 0 {
        scores.fill(0.0);
        return RowState { max: floor, sum: 0.0 };
    }
    // SAFETY: the row is a multiple of 16 long; the caller vouches for the instruction set.
    let (max, sum) = unsafe {
        let mut max = S::splat(floor);
        for i in (0..scores.len()).step_by(S::LANES) {
            max = S::max(max, S::load(scores.as_ptr().add(i)));
        }
        let max = S::reduce_max(max);
        let mut sum = S::splat(0.0);
        for i in (0..scores.len()).step_by(S::LANES) {
            let e = exp::<S>(S::sub(S::load(scores.as_ptr().add(i)), S::splat(max)));
            S::store(scores.as_mut_ptr().add(i), e);
            sum = S::add(sum, e);
        }
        (max, S::reduce_add(sum))
    };
    // What was masked became e^-87 and not 0; the sum is too large by less than one rounding.
    scores[visible..].fill(0.0);
    RowState { max, sum }
}

/// Widens a page's keys into `out[head_dim][page_len]`, rotated where the page is placed.
#[inline(always)]
unsafe fn widen_keys<S: Simd>(shape: PageShape, page: &Page<'_>, out: &mut [f32]) {
    let PageShape { head_dim, page_len, n_pairs } = shape;
    assert!(page.keys.len() == head_dim * page_len && out.len() == page.keys.len(), "whole pages");
    let Some(rotation) = page.rotation else {
        // SAFETY: the caller vouches for the instruction set.
        return unsafe { widen::<S>(page.keys, out) };
    };
    assert!(rotation.len() == 2 * n_pairs * page_len && 2 * n_pairs <= head_dim, "angles fit");
    let (cos, sin) = rotation.split_at(n_pairs * page_len);
    let partner = n_pairs * page_len;
    // SAFETY: `i` and `i + partner` lie inside keys and out, `i` inside the angles.
    unsafe {
        for i in (0..partner).step_by(S::LANES) {
            let low = S::load_f16(page.keys.as_ptr().add(i));
            let high = S::load_f16(page.keys.as_ptr().add(i + partner));
            let cos = S::load(cos.as_ptr().add(i));
            let sin = S::load(sin.as_ptr().add(i));
            let low_turned = S::sub(S::mul(low, cos), S::mul(high, sin));
            S::store(out.as_mut_ptr().add(i), low_turned);
            S::store(out.as_mut_ptr().add(i + partner), S::fma(high, cos, S::mul(low, sin)));
        }
        widen::<S>(&page.keys[2 * partner..], &mut out[2 * partner..]);
    }
}

/// `out[..x.len()] = x`, f16 to f32; a multiple of 16 long.
#[inline(always)]
unsafe fn widen<S: Simd>(x: &[u16], out: &mut [f32]) {
    assert!(x.len().is_multiple_of(16) && out.len() >= x.len(), "whole vectors");
    for i in (0..x.len()).step_by(S::LANES) {
        // SAFETY: `i + LANES <= x.len() <= out.len()`.
        unsafe { S::store(out.as_mut_ptr().add(i), S::load_f16(x.as_ptr().add(i))) }
    }
}

/// For each query row the largest score of a page's keys: the fine stage of a lookup. Keys are
/// not rotated, queries are rotated to the far distance.
#[derive(Debug)]
pub struct BestKey<'a> {
    /// Sizes.
    pub shape: PageShape,
    /// `[head_dim][page_len]` f16.
    pub keys: &'a [u16],
    /// `[row][head_dim]`
    pub queries: &'a [f32],
    /// Reused between calls.
    pub scratch: &'a mut Scratch,
    /// `[row]`
    pub best: &'a mut [f32],
}

impl Kernel for BestKey<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let PageShape { head_dim, page_len, .. } = self.shape;
        // SAFETY: the caller vouches for the instruction set; scores are whole vectors.
        unsafe {
            widen::<S>(self.keys, &mut self.scratch.keys);
            for (tile, best) in self.best.chunks_mut(TILE_ROWS).enumerate() {
                let first = tile * TILE_ROWS;
                Product {
                    n_rows: best.len(),
                    depth: head_dim,
                    n_cols: page_len,
                    a: &self.queries[first * head_dim..][..best.len() * head_dim],
                    a_stride: head_dim,
                    b: &self.scratch.keys,
                    b_stride: page_len,
                    c: &mut self.scratch.scores,
                    c_stride: page_len,
                    start: Start::Zero,
                }
                .run::<S>();
                for (i, best) in best.iter_mut().enumerate() {
                    let mut max = S::splat(f32::NEG_INFINITY);
                    for j in (0..page_len).step_by(S::LANES) {
                        let scores = self.scratch.scores.as_ptr().add(i * page_len + j);
                        max = S::max(max, S::load(scores));
                    }
                    *best = S::reduce_max(max);
                }
            }
        }
    }
}
