//! How well does a page's best key match each query? The fine stage of a lookup.

use super::attend::{Arithmetic, FEW_ROWS, Scratch};
use super::page::{scale_to_channels, widen_keys};
use super::pairs::{BYTES_PARTNER_LARGEST, ColScales, Nibbles, PairProduct, RoundRows, ShortRows};
use super::tile::{Element, Product, Start};
use super::vector::{Kernel, Simd, TILE_ROWS};
use crate::backend::{HeadPage, KEY_GROUP, PageLayout};

/// For each query row the largest score of a page's keys. Queries are rotated to the far distance
/// from the middle of the page.
#[derive(Debug)]
pub struct BestKey<'a> {
    /// Sizes.
    pub layout: PageLayout,
    /// Numbers.
    pub arithmetic: Arithmetic,
    /// Its keys are rotated by their offset in the page.
    pub page: HeadPage<'a>,
    /// The page that comes next, to be asked for meanwhile.
    pub next: &'a [u8],
    /// `[row][head_dim]`
    pub queries: &'a [f32],
    /// The same, rounded for keys that are bytes.
    pub shorts: ShortRows<'a>,
    /// Reused between calls.
    pub scratch: &'a mut Scratch,
    /// `[row]`
    pub best: &'a mut [f32],
}

impl Kernel for BestKey<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Scratch { keys: room, scores, .. } = &mut *self.scratch;
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            match (self.page, self.arithmetic) {
                (HeadPage::Int8 { keys, key_scales, .. }, Arithmetic::Integer) => {
                    let rows = self.shorts;
                    let page = (keys, key_scales, self.next);
                    best_bytes::<S>(self.layout, rows, page, (scores, self.best));
                }
                (HeadPage::Int4 { .. }, Arithmetic::Integer) => {
                    let page = (self.page, self.next);
                    best_nibbles::<S>(self.layout, self.queries, page, (self.scratch, self.best));
                }
                (HeadPage::F16 { keys, .. }, _) if self.best.len() <= FEW_ROWS => {
                    let page = (keys, self.next);
                    best_floats::<S, u16>(self.layout, self.queries, page, (scores, self.best));
                }
                _ => {
                    widen_keys::<S>(self.layout, self.page, room);
                    let page = (&room[..], self.next);
                    best_floats::<S, f32>(self.layout, self.queries, page, (scores, self.best));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn best_bytes<S: Simd>(
    layout: PageLayout,
    rows: ShortRows<'_>,
    (keys, key_scales, next): (&[i8], &[u16], &[u8]),
    (scores, best): (&mut [f32], &mut [f32]),
) {
    let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
    for (tile, best) in best.chunks_mut(TILE_ROWS).enumerate() {
        let (row, n_rows) = (tile * TILE_ROWS, best.len());
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            S::call(PairProduct {
                n_pairs: head_dim / 2,
                n_cols: page_len,
                a: ShortRows {
                    q: &rows.q[row * head_dim..][..n_rows * head_dim],
                    scales: &rows.scales[row..][..n_rows],
                },
                a_stride: head_dim,
                b: keys,
                b_stride: page_len,
                col_scales: ColScales::Halves { scales: key_scales, span_pairs: KEY_GROUP / 2 },
                c: scores,
                c_stride: page_len,
                start: Start::Zero,
                next: if tile == 0 { next } else { &[] },
            });
            keep_best::<S>(scores, page_len, best);
        }
    }
}

/// The queries take the steps of the keys' channels.
#[inline(always)]
unsafe fn best_nibbles<S: Simd>(
    layout: PageLayout,
    queries: &[f32],
    (page, next): (HeadPage<'_>, &[u8]),
    (scratch, best): (&mut Scratch, &mut [f32]),
) {
    let HeadPage::Int4 { keys, key_steps, key_middles, .. } = page else {
        unreachable!("nibbles come here")
    };
    let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
    let Scratch { turned, turned_shorts, turned_scales, rests, scores, .. } = scratch;
    for (tile, best) in best.chunks_mut(TILE_ROWS).enumerate() {
        let n = best.len() * head_dim;
        let rows = &mut turned[..n];
        rows.copy_from_slice(&queries[tile * TILE_ROWS * head_dim..][..n]);
        let (q, scales) = (&mut turned_shorts[..n], &mut turned_scales[..best.len()]);
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            scale_to_channels::<S>((key_steps, key_middles), rows, rests);
            RoundRows { x: rows, width: head_dim, largest: BYTES_PARTNER_LARGEST, q, scales }
                .run::<S>();
            S::call(PairProduct::<Nibbles> {
                n_pairs: head_dim / 2,
                n_cols: page_len,
                a: ShortRows { q: &turned_shorts[..n], scales: &turned_scales[..best.len()] },
                a_stride: head_dim,
                b: bytemuck::cast_slice(keys),
                b_stride: page_len,
                col_scales: ColScales::One,
                c: scores,
                c_stride: page_len,
                start: Start::Zero,
                next: if tile == 0 { next } else { &[] },
            });
            keep_best::<S>(scores, page_len, best);
        }
        best.iter_mut().zip(&*rests).for_each(|(best, rest)| *best += rest);
    }
}

#[inline(always)]
unsafe fn best_floats<S: Simd, T: Element>(
    layout: PageLayout,
    queries: &[f32],
    (keys, next): (&[T], &[u8]),
    (scores, best): (&mut [f32], &mut [f32]),
) {
    let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
    for (tile, best) in best.chunks_mut(TILE_ROWS).enumerate() {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            S::call(Product {
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
                next: if tile == 0 { next } else { &[] },
            });
            keep_best::<S>(scores, page_len, best);
        }
    }
}

/// `best[row]`: the largest of a row's scores.
#[inline(always)]
unsafe fn keep_best<S: Simd>(scores: &[f32], page_len: usize, best: &mut [f32]) {
    for (scores, best) in scores.chunks_exact(page_len).zip(best) {
        // SAFETY: a row is a multiple of 16 long; the caller vouches for the instruction set.
        unsafe {
            let mut max = S::splat(f32::NEG_INFINITY);
            for i in (0..page_len).step_by(S::LANES) {
                max = S::max(max, S::load(scores.as_ptr().add(i)));
            }
            *best = S::reduce_max(max);
        }
    }
}
