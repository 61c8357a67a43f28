//! How do a few query rows attend to pages of keys and values, each key read once?
//!
//! A page holds `page_len` consecutive keys of one KV head, dimension-major so that vector lanes
//! are keys, and their values key-major so that vector lanes are dimensions: neither product
//! needs a horizontal sum. Keys are rotated by their offset in the page; what is left is one
//! rotation for the whole page, by the position of its first key. With few query rows it is the
//! queries that are turned back by it, and keys and values are widened from f16 as they are
//! multiplied; with many the page is turned and widened once, into L1-sized scratch.
//!
//! The softmax is online (FlashAttention-2, arXiv 2307.08691), its state `(max, sum, unnormalised
//! output)` mergeable with that of other pages (flash-decoding).

use super::tile::{Element, Product, Start};
use super::vector::{Kernel, Simd, TILE_ROWS, exp};
use crate::backend::{PlacedPage, Placement};

/// Up to so many query rows pages are used where they lie.
const FEW_ROWS: usize = 2 * TILE_ROWS;

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
    keys: &'a [u16],   // [head_dim][page_len] f16, rotated by their offset in the page
    values: &'a [u16], // [page_len][head_dim] f16
    n_keys: usize,
    first_index: usize,
    placement: Placement<'a>,
}

/// Room for one page and one tile.
#[derive(Debug)]
pub struct Scratch {
    keys: Vec<f32>,    // [head_dim][page_len]
    values: Vec<f32>,  // [page_len][head_dim]
    queries: Vec<f32>, // [FEW_ROWS][head_dim]
    scores: Vec<f32>,  // [TILE_ROWS][page_len]
}

impl Scratch {
    /// Scratch for pages of `shape`.
    pub fn new(shape: PageShape) -> Self {
        let page = shape.head_dim * shape.page_len;
        Self {
            keys: vec![0.0; page],
            values: vec![0.0; page],
            queries: vec![0.0; FEW_ROWS * shape.head_dim],
            scores: vec![0.0; TILE_ROWS * shape.page_len],
        }
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
    /// `[token][head of the group][head_dim]`, rotated to the tokens' positions and scaled.
    pub near: &'a [f32],
    /// The same rows rotated to the fixed far distance (for pages that have no position).
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
    /// Angles of the offsets in a page: cosines `[n_pairs][page_len]`, then sines.
    pub offset_angles: &'a [f32],
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
        let few = self.states.len() <= FEW_ROWS;
        for page_idx in 0..self.pages.len() {
            let page = self.page(page_idx);
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                match page.placement {
                    _ if self.visible_keys(&page, self.states.len() - 1) == 0 => {}
                    Placement::At(angles) if few => self.attend_in_place::<S>(page_idx, angles),
                    _ => self.attend_widened::<S>(page_idx),
                }
            }
        }
    }
}

impl<'a> Attend<'a> {
    #[inline(always)]
    fn page(&self, page_idx: usize) -> Page<'a> {
        let PlacedPage { page, n_keys, first_index, placement } = self.pages[page_idx];
        let part = self.shape.head_dim * self.shape.page_len;
        let (keys, values) = page[self.keys_at..][..2 * part].split_at(part);
        Page { keys, values, n_keys, first_index, placement }
    }

    /// Few rows: the queries are turned back by the page's position.
    #[inline(always)]
    unsafe fn attend_in_place<S: Simd>(&mut self, page_idx: usize, angles: &[f32]) {
        let page = self.page(page_idx);
        let head_dim = self.shape.head_dim;
        let n_rows = self.states.len();
        let mut queries = std::mem::take(&mut self.scratch.queries);
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            prefetch_page::<S>(self.pages.get(page_idx + 1), self.keys_at);
            let rows = queries[..n_rows * head_dim].chunks_exact_mut(head_dim);
            for (out, x) in rows.zip(self.queries.near.chunks_exact(head_dim)) {
                turn_back::<S>(x, angles, out);
            }
            let mut row = 0;
            while row < n_rows {
                let n_tile = TILE_ROWS.min(n_rows - row);
                let rows = &queries[row * head_dim..][..n_tile * head_dim];
                self.attend_tile::<S, u16>(page_idx, row, (rows, page.keys, page.values));
                row += n_tile;
            }
        }
        self.scratch.queries = queries;
    }

    /// Many rows: the page is turned to its position.
    #[inline(always)]
    unsafe fn attend_widened<S: Simd>(&mut self, page_idx: usize) {
        let page = self.page(page_idx);
        let PageShape { head_dim, .. } = self.shape;
        let n_rows = self.states.len();
        let n_values = self.visible_keys(&page, n_rows - 1) * head_dim;
        let mut keys = std::mem::take(&mut self.scratch.keys);
        let mut values = std::mem::take(&mut self.scratch.values);
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let queries = match page.placement {
                Placement::At(angles) => {
                    widen_turned::<S>(self.shape, page.keys, angles, &mut keys);
                    self.queries.near
                }
                Placement::Far => {
                    widen_unturned::<S>(self.shape, page.keys, self.offset_angles, &mut keys);
                    self.queries.far
                }
            };
            widen::<S>(&page.values[..n_values], &mut values);
            let mut row = 0;
            while row < n_rows {
                let n_tile = TILE_ROWS.min(n_rows - row);
                let rows = &queries[row * head_dim..][..n_tile * head_dim];
                self.attend_tile::<S, f32>(page_idx, row, (rows, &keys, &values));
                row += n_tile;
            }
        }
        (self.scratch.keys, self.scratch.values) = (keys, values);
    }

    /// How many of the page's keys row `row` may see.
    #[inline(always)]
    fn visible_keys(&self, page: &Page<'_>, row: usize) -> usize {
        let index = self.queries.first_index + row / self.queries.group;
        (index + 1).saturating_sub(page.first_index).min(page.n_keys)
    }

    /// The rows from `row` on, whose queries, with the page's keys and values, are given.
    #[inline(always)]
    unsafe fn attend_tile<S: Simd, T: Element>(
        &mut self,
        page_idx: usize,
        row: usize,
        (queries, keys, values): (&[f32], &[T], &[T]),
    ) {
        let PageShape { head_dim, page_len, .. } = self.shape;
        let page = self.page(page_idx);
        let n_tile = queries.len() / head_dim;
        let depth = self.visible_keys(&page, row + n_tile - 1);
        if depth == 0 {
            return;
        }
        let mut factors = [0.0; TILE_ROWS];
        // SAFETY: the caller vouches for the instruction set; the products check their lengths.
        unsafe {
            Product {
                n_rows: n_tile,
                depth: head_dim,
                n_cols: depth.next_multiple_of(16),
                a: queries,
                a_stride: head_dim,
                b: keys,
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
                b: values,
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

/// `out = R(-angles) x` for one row: cosines of the pairs, then their sines.
#[inline(always)]
unsafe fn turn_back<S: Simd>(x: &[f32], angles: &[f32], out: &mut [f32]) {
    let n_pairs = angles.len() / 2;
    let (cos, sin) = angles.split_at(n_pairs);
    let (low, high) = x[..2 * n_pairs].split_at(n_pairs);
    let (out_low, rest) = out.split_at_mut(n_pairs);
    let (out_high, out_rest) = rest.split_at_mut(n_pairs);
    for i in 0..n_pairs {
        out_low[i] = low[i] * cos[i] + high[i] * sin[i];
        out_high[i] = high[i] * cos[i] - low[i] * sin[i];
    }
    out_rest.copy_from_slice(&x[2 * n_pairs..]);
}

/// Widens a page's keys into `out[head_dim][page_len]`, all turned by the same angles.
#[inline(always)]
unsafe fn widen_turned<S: Simd>(shape: PageShape, keys: &[u16], angles: &[f32], out: &mut [f32]) {
    let PageShape { head_dim, page_len, n_pairs } = shape;
    assert!(keys.len() == head_dim * page_len && out.len() == keys.len(), "whole pages");
    assert!(angles.len() == 2 * n_pairs && 2 * n_pairs <= head_dim, "angles fit");
    let partner = n_pairs * page_len;
    // SAFETY: `at` and `at + partner` lie inside keys and out.
    unsafe {
        for pair in 0..n_pairs {
            let (cos, sin) = (S::splat(angles[pair]), S::splat(angles[n_pairs + pair]));
            for at in (pair * page_len..(pair + 1) * page_len).step_by(S::LANES) {
                let low = S::load_f16(keys.as_ptr().add(at));
                let high = S::load_f16(keys.as_ptr().add(at + partner));
                let turned = S::sub(S::mul(low, cos), S::mul(high, sin));
                S::store(out.as_mut_ptr().add(at), turned);
                let turned = S::fma(high, cos, S::mul(low, sin));
                S::store(out.as_mut_ptr().add(at + partner), turned);
            }
        }
        widen::<S>(&keys[2 * partner..], &mut out[2 * partner..]);
    }
}

/// Widens a page's keys into `out[head_dim][page_len]`, each turned back by its offset's angles.
#[inline(always)]
unsafe fn widen_unturned<S: Simd>(shape: PageShape, keys: &[u16], angles: &[f32], out: &mut [f32]) {
    let PageShape { head_dim, page_len, n_pairs } = shape;
    assert!(keys.len() == head_dim * page_len && out.len() == keys.len(), "whole pages");
    assert!(angles.len() == 2 * n_pairs * page_len && 2 * n_pairs <= head_dim, "angles fit");
    let partner = n_pairs * page_len;
    // SAFETY: `at` and `at + partner` lie inside keys, out and angles.
    unsafe {
        for at in (0..partner).step_by(S::LANES) {
            let low = S::load_f16(keys.as_ptr().add(at));
            let high = S::load_f16(keys.as_ptr().add(at + partner));
            let cos = S::load(angles.as_ptr().add(at));
            let sin = S::load(angles.as_ptr().add(at + partner));
            S::store(out.as_mut_ptr().add(at), S::fma(low, cos, S::mul(high, sin)));
            let turned = S::sub(S::mul(high, cos), S::mul(low, sin));
            S::store(out.as_mut_ptr().add(at + partner), turned);
        }
        widen::<S>(&keys[2 * partner..], &mut out[2 * partner..]);
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

/// Asks for the beginning of a page's part: pages lie apart, and the hardware's prefetcher needs
/// some lines to get going.
#[inline(always)]
unsafe fn prefetch_page<S: Simd>(page: Option<&PlacedPage<'_>>, keys_at: usize) {
    if let Some(page) = page {
        // SAFETY: prefetching takes any address.
        unsafe { prefetch_start::<S>(&page.page[keys_at..]) }
    }
}

#[inline(always)]
unsafe fn prefetch_start<S: Simd>(elements: &[u16]) {
    /// Lines of 64 bytes.
    const LINES: usize = 32;
    for line in 0..LINES {
        // SAFETY: prefetching takes any address.
        unsafe { S::prefetch(elements.as_ptr().wrapping_add(32 * line).cast()) }
    }
}

/// For each query row the largest score of a page's keys: the fine stage of a lookup. Queries are
/// rotated to the far distance from the middle of the page.
#[derive(Debug)]
pub struct BestKey<'a> {
    /// Sizes.
    pub shape: PageShape,
    /// `[head_dim][page_len]` f16, rotated by their offset in the page.
    pub keys: &'a [u16],
    /// The keys that come next, to be asked for meanwhile.
    pub next_keys: &'a [u16],
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
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            prefetch_start::<S>(self.next_keys);
            let Scratch { keys, scores, .. } = self.scratch;
            if self.best.len() <= FEW_ROWS {
                best_keys::<S, u16>(self.shape, (self.queries, self.keys), scores, self.best);
            } else {
                widen::<S>(self.keys, keys);
                best_keys::<S, f32>(self.shape, (self.queries, keys), scores, self.best);
            }
        }
    }
}

#[inline(always)]
unsafe fn best_keys<S: Simd, T: Element>(
    shape: PageShape,
    (queries, keys): (&[f32], &[T]),
    scores: &mut [f32],
    best: &mut [f32],
) {
    let PageShape { head_dim, page_len, .. } = shape;
    for (tile, best) in best.chunks_mut(TILE_ROWS).enumerate() {
        // SAFETY: the caller vouches for the instruction set; scores are whole vectors.
        unsafe {
            Product {
                n_rows: best.len(),
                depth: head_dim,
                n_cols: page_len,
                a: &queries[tile * TILE_ROWS * head_dim..][..best.len() * head_dim],
                a_stride: head_dim,
                b: keys,
                b_stride: page_len,
                c: scores,
                c_stride: page_len,
                start: Start::Zero,
            }
            .run::<S>();
            for (scores, best) in scores.chunks_exact(page_len).zip(best) {
                let mut max = S::splat(f32::NEG_INFINITY);
                for i in (0..page_len).step_by(S::LANES) {
                    max = S::max(max, S::load(scores.as_ptr().add(i)));
                }
                *best = S::reduce_max(max);
            }
        }
    }
}
