//! How are activations multiplied with weight rows that lie side by side?
//!
//! 32 weight rows are unpacked into a panel in which vector lanes are rows (`fill.rs`), and all
//! tokens run past it while it lies in the L1 cache. A register tile holds up to six tokens and two
//! vectors of rows; four quants of a token are broadcast to all lanes. Within a group sums are
//! integers, and each group costs one conversion and two multiply-adds a vector: with VNNI some 45
//! multiply-adds a cycle where f32 has 16. No lane ever meets another, so that the additions of a
//! sum come in the order of the columns, whatever the tile, the vectors and the number of tokens.

use std::ops::Range;

use super::dot::Target;
use super::quantize::{BLOCK, QuantizedRows};
use super::unpack::group_of;
use super::vector::Simd;
use crate::tensor::DType;

/// Weight rows in a panel.
pub const PANEL_ROWS: usize = 32;

/// Columns of a panel: whole blocks of every format, and few enough that the panel leaves room in
/// the L1 cache for the tokens that run past it.
pub const PANEL_COLS: usize = 256;

/// Some rows of some columns of a weight matrix, unpacked with rows side by side.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Panel {
    /// `[quad of columns][row][4]`; or, where tiles want it (`fill.rs`), of each block of 32 columns
    /// sixteen times its quants before them.
    pub q: [u8; 2 * PANEL_COLS * PANEL_ROWS],
    /// `[group][row]`
    pub scales: [f32; PANEL_COLS / 16 * PANEL_ROWS],
    /// `[group][row]`
    pub offsets: [f32; PANEL_COLS / 16 * PANEL_ROWS],
}

impl Default for Panel {
    fn default() -> Self {
        let scales = [0.0; PANEL_COLS / 16 * PANEL_ROWS];
        Self { q: [0; 2 * PANEL_COLS * PANEL_ROWS], scales, offsets: scales }
    }
}

/// Adds a panel's part of the sums to those of the columns before it.
pub struct PanelProduct<'a> {
    /// Filled with the weights of `cols`.
    pub panel: &'a Panel,
    /// Of the weights.
    pub dtype: DType,
    /// Any number of tokens.
    pub x: QuantizedRows<'a>,
    /// Which columns; the first of all begin the sums.
    pub cols: Range<usize>,
    /// `[token][row of the panel]`
    pub out: Target,
}

impl PanelProduct<'_> {
    /// Adds it.
    ///
    /// # Safety
    /// The instruction set is present, there is room at `out`, and `cols` are the panel's.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(&self) {
        // SAFETY: by the caller's word.
        unsafe {
            match (group_of(self.dtype), self.dtype) {
                (Some(16), _) => self.run_group::<S, 16, false>(),
                (_, DType::Q8_0) => self.run_group::<S, 32, true>(),
                (_, _) => self.run_group::<S, 32, false>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_group<S: Simd, const GROUP: usize, const WIDE: bool>(&self) {
        let n_tokens = self.x.n_tokens();
        let most = if S::TILE_VECTORS == 4 { 6 } else { 4 };
        let mut token = 0;
        while token < n_tokens {
            let left = n_tokens - token;
            // As few tiles as will do, of about the same size: small ones are slow.
            let n = left.div_ceil(left.div_ceil(most));
            // SAFETY: the tokens are there.
            unsafe {
                match (n, S::TILE_VECTORS) {
                    (6, 4) => self.tile::<S, GROUP, WIDE, 6, 2>(token),
                    (5, 4) => self.tile::<S, GROUP, WIDE, 5, 2>(token),
                    (4, 4) => self.tile::<S, GROUP, WIDE, 4, 2>(token),
                    (3, 4) => self.tile::<S, GROUP, WIDE, 3, 2>(token),
                    (2, 4) => self.tile::<S, GROUP, WIDE, 2, 2>(token),
                    (_, 4) => self.tile::<S, GROUP, WIDE, 1, 2>(token),
                    (4, _) => self.tile::<S, GROUP, WIDE, 4, 1>(token),
                    (3, _) => self.tile::<S, GROUP, WIDE, 3, 1>(token),
                    (2, _) => self.tile::<S, GROUP, WIDE, 2, 1>(token),
                    (_, _) => self.tile::<S, GROUP, WIDE, 1, 1>(token),
                }
            }
            token += n;
        }
    }

    /// All rows of the panel for `N` tokens, `V` vectors of rows at a time.
    #[inline(always)]
    unsafe fn tile<
        S: Simd,
        const GROUP: usize,
        const WIDE: bool,
        const N: usize,
        const V: usize,
    >(
        &self,
        token: usize,
    ) {
        for row in (0..PANEL_ROWS).step_by(V * S::LANES) {
            // SAFETY: `row + V * LANES <= PANEL_ROWS`, since both are powers of two.
            unsafe {
                let Target { first, stride } = self.out;
                let out = first.add(token * stride + row);
                let mut sums = [[S::splat(0.0); V]; N];
                if self.cols.start > 0 {
                    for (i, sums) in sums.iter_mut().enumerate() {
                        for (v, sum) in sums.iter_mut().enumerate() {
                            *sum = S::load(out.add(i * stride + v * S::LANES));
                        }
                    }
                }
                self.add::<S, GROUP, WIDE, N, V>(&mut sums, token, row);
                for (i, sums) in sums.into_iter().enumerate() {
                    for (v, sum) in sums.into_iter().enumerate() {
                        S::store(out.add(i * stride + v * S::LANES), sum);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add<S: Simd, const GROUP: usize, const WIDE: bool, const N: usize, const V: usize>(
        &self,
        sums: &mut [[S::F; V]; N],
        token: usize,
        row: usize,
    ) {
        let Range { start, end } = self.cols.clone();
        let words = self.x.layout.words();
        let two_terms = self.x.layout.n_terms == 2;
        // SAFETY: rows, groups and tokens lie inside the panel and the inputs.
        unsafe {
            let block_bytes = self.x.layout.block_bytes();
            let x = self.x.q(token).as_ptr().add(start / BLOCK * block_bytes);
            let pairs = self.x.pairs(token).as_ptr().add(start / 16);
            let half_sums = self.x.half_sums(token).as_ptr().add(start / 16);
            for group in 0..(end - start) / GROUP {
                let quads = group * GROUP / 4..(group + 1) * GROUP / 4;
                let mut dots = [[S::zero_i(); V]; N];
                let (block, within) = (group * GROUP / BLOCK, group * GROUP % BLOCK);
                let x = x.add(block * block_bytes + within);
                self.add_quads::<S, WIDE, N, V>(&mut dots, quads.clone(), row, x);
                if two_terms {
                    for dot in dots.as_flattened_mut() {
                        *dot = S::shift_left_4(*dot);
                    }
                    self.add_quads::<S, WIDE, N, V>(&mut dots, quads, row, x.add(BLOCK));
                }
                let scales = self.panel.scales.as_ptr().add(group * PANEL_ROWS + row);
                let offsets = self.panel.offsets.as_ptr().add(group * PANEL_ROWS + row);
                for (i, sums) in sums.iter_mut().enumerate() {
                    let pair = pairs.add(i * words + group * GROUP / 32 * 2);
                    let x_scale = S::splat(*pair);
                    let x_sum = S::splat(if GROUP == 16 {
                        *half_sums.add(i * words + group)
                    } else {
                        *pair.add(1)
                    });
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let scale = S::mul(S::load(scales.add(v * S::LANES)), x_scale);
                        *sum = S::fma(S::to_float(dots[i][v]), scale, *sum);
                        *sum = S::fma(S::load(offsets.add(v * S::LANES)), x_sum, *sum);
                    }
                }
            }
        }
    }

    /// Adds the products of some quads of weights with one term of `N` tokens.
    #[inline(always)]
    unsafe fn add_quads<S: Simd, const WIDE: bool, const N: usize, const V: usize>(
        &self,
        dots: &mut [[S::I; V]; N],
        quads: Range<usize>,
        row: usize,
        x: *const i8,
    ) {
        let x_stride = 4 * self.x.layout.words();
        // SAFETY: by the caller's word.
        unsafe {
            for (i, quad) in quads.enumerate() {
                let x = x.add(4 * i);
                let weights = self.panel.q.as_ptr().add((quad * PANEL_ROWS + row) * 4);
                let mut w = [S::zero_i(); V];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = S::load_i(weights.add(v * 4 * S::LANES));
                }
                for (i, dots) in dots.iter_mut().enumerate() {
                    let x = S::splat_4(x.add(i * x_stride));
                    for (dot, w) in dots.iter_mut().zip(w) {
                        *dot = S::dot4::<WIDE>(*dot, w, x);
                    }
                }
            }
        }
    }
}
