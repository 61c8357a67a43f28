//! How are many tokens multiplied with quantised weights at several times the speed of f32?
//!
//! The prefill path: 32 weight rows are unpacked once into a panel in which vector lanes are rows,
//! then all tokens of the chunk run past it. A register tile holds six tokens and two vectors of
//! rows; four quants of a token are broadcast to all lanes. Within a group sums are integers, and
//! each group costs one conversion and two multiply-adds a vector: with VNNI some 45 multiply-adds
//! a cycle where f32 has 16.

use super::quantize::QuantizedRows;
use super::unpack::{Unpack, UnpackedRow, group_of};
use super::vector::{Kernel, Simd};
use crate::tensor::{DType, Matrix};

/// Weight rows in a panel.
pub const PANEL_ROWS: usize = 32;

/// Tokens in a register tile.
const TOKENS: usize = 6;

/// Some rows of a weight matrix, unpacked with rows side by side.
#[derive(Debug, Default)]
pub struct Panel {
    q: Vec<u8>,        // [cols / 4][PANEL_ROWS][4]
    scales: Vec<f32>,  // [cols / group][PANEL_ROWS]
    offsets: Vec<f32>, // [cols / group][PANEL_ROWS]
    unpacked: UnpackedRow,
    cols: usize,
    group: usize,
    wide: bool,
}

/// Unpacks `PANEL_ROWS` rows from `first_row` on; rows beyond the matrix are zeros.
#[derive(Debug)]
pub struct FillPanel<'a> {
    /// Of a quantised type.
    pub matrix: &'a Matrix,
    /// The panel's first row.
    pub first_row: usize,
    /// Its allocation is reused.
    pub panel: &'a mut Panel,
}

impl Kernel for FillPanel<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { matrix, first_row, panel } = self;
        let cols = matrix.cols;
        let group = group_of(matrix.dtype).expect("because only quantised types come here");
        (panel.cols, panel.group, panel.wide) = (cols, group, matrix.dtype == DType::Q8_0);
        panel.q.resize(cols * PANEL_ROWS, 0);
        panel.scales.resize(cols / group * PANEL_ROWS, 0.0);
        panel.offsets.resize(cols / group * PANEL_ROWS, 0.0);
        panel.unpacked.resize(cols);
        for lane in 0..PANEL_ROWS {
            let row = first_row + lane;
            if row < matrix.rows {
                let (dtype, bytes) = (matrix.dtype, matrix.row(row));
                // SAFETY: the caller vouches for the instruction set.
                unsafe { Unpack { dtype, bytes, out: &mut panel.unpacked }.run::<S>() }
            } else {
                panel.unpacked.q.fill(0);
                panel.unpacked.scales.fill(0.0);
                panel.unpacked.offsets.fill(0.0);
            }
            panel.place(lane);
        }
    }
}

impl Panel {
    /// Copies the unpacked row into its lane.
    #[inline(always)]
    fn place(&mut self, lane: usize) {
        let (words, _) = self.unpacked.q[..self.cols].as_chunks::<4>();
        let (places, _) = self.q.as_chunks_mut::<4>();
        for (places, word) in places.chunks_exact_mut(PANEL_ROWS).zip(words) {
            places[lane] = *word;
        }
        let groups = self.cols / self.group;
        for (group, scale) in self.unpacked.scales[..groups].iter().enumerate() {
            self.scales[group * PANEL_ROWS + lane] = *scale;
        }
        for (group, offset) in self.unpacked.offsets[..groups].iter().enumerate() {
            self.offsets[group * PANEL_ROWS + lane] = *offset;
        }
    }
}

/// `out[token][row of the panel] = panel[row] . x[token]`.
#[derive(Debug)]
pub struct PanelProduct<'a> {
    /// The weights.
    pub panel: &'a Panel,
    /// Any number of tokens.
    pub x: QuantizedRows<'a>,
    /// `[token][PANEL_ROWS]`
    pub out: &'a mut [f32],
}

impl Kernel for PanelProduct<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let n_tokens = self.x.n_tokens();
        assert_eq!(self.x.layout.cols, self.panel.cols, "inputs as wide as the weights");
        assert_eq!(self.out.len(), n_tokens * PANEL_ROWS, "a sum a row and token");
        // SAFETY: lengths are checked; the caller vouches for the instruction set.
        unsafe {
            match (self.panel.group, self.panel.wide) {
                (16, _) => self.run_group::<S, 16, false>(),
                (_, false) => self.run_group::<S, 32, false>(),
                (_, true) => self.run_group::<S, 32, true>(),
            }
        }
    }
}

impl PanelProduct<'_> {
    #[inline(always)]
    unsafe fn run_group<S: Simd, const GROUP: usize, const WIDE: bool>(&mut self) {
        let n_tokens = self.x.n_tokens();
        let mut token = 0;
        while token < n_tokens {
            let left = n_tokens - token;
            // SAFETY: the tokens are there, as `run` has checked.
            unsafe {
                match (left, S::TILE_VECTORS) {
                    (TOKENS.., 4) => self.tile::<S, GROUP, WIDE, TOKENS, 2>(token),
                    (_, 4) => self.tile::<S, GROUP, WIDE, 1, 2>(token),
                    (3.., _) => self.tile::<S, GROUP, WIDE, 3, 1>(token),
                    (_, _) => self.tile::<S, GROUP, WIDE, 1, 1>(token),
                }
            }
            token += match (left, S::TILE_VECTORS) {
                (TOKENS.., 4) => TOKENS,
                (_, 4) => 1,
                (3.., _) => 3,
                (_, _) => 1,
            };
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
        &mut self,
        token: usize,
    ) {
        for row in (0..PANEL_ROWS).step_by(V * S::LANES) {
            // SAFETY: `row + V * LANES <= PANEL_ROWS`, since both are powers of two.
            unsafe {
                let sums = self.sums::<S, GROUP, WIDE, N, V>(token, row);
                for (i, sums) in sums.into_iter().enumerate() {
                    let out = self.out.as_mut_ptr().add((token + i) * PANEL_ROWS + row);
                    for (v, sum) in sums.into_iter().enumerate() {
                        S::store(out.add(v * S::LANES), sum);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn sums<
        S: Simd,
        const GROUP: usize,
        const WIDE: bool,
        const N: usize,
        const V: usize,
    >(
        &self,
        token: usize,
        row: usize,
    ) -> [[S::F; V]; N] {
        let (cols, words) = (self.panel.cols, self.x.layout.words());
        let two_terms = self.x.layout.n_terms == 2;
        let unit = if two_terms { 1.0 / 128.0 } else { 1.0 };
        // SAFETY: rows, groups and tokens lie inside the panel and the inputs.
        unsafe {
            let x = self.x.q(token).as_ptr();
            let pairs = self.x.pairs(token).as_ptr();
            let half_sums = self.x.half_sums(token).as_ptr();
            let mut sums = [[S::splat(0.0); V]; N];
            for group in 0..cols / GROUP {
                let quads = group * GROUP / 4..(group + 1) * GROUP / 4;
                let mut dots = [[S::zero_i(); V]; N];
                self.add_quads::<S, WIDE, N, V>(&mut dots, quads.clone(), row, x);
                if two_terms {
                    for dot in dots.as_flattened_mut() {
                        *dot = S::shift_left_7(*dot);
                    }
                    self.add_quads::<S, WIDE, N, V>(&mut dots, quads, row, x.add(cols));
                }
                let scales = self.panel.scales.as_ptr().add(group * PANEL_ROWS + row);
                let offsets = self.panel.offsets.as_ptr().add(group * PANEL_ROWS + row);
                for (i, sums) in sums.iter_mut().enumerate() {
                    let pair = pairs.add(i * words + group * GROUP / 32 * 2);
                    let x_scale = S::splat(*pair * unit);
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
            sums
        }
    }

    /// Adds the products of some quads of weights with one term of `N` tokens.
    #[inline(always)]
    unsafe fn add_quads<S: Simd, const WIDE: bool, const N: usize, const V: usize>(
        &self,
        dots: &mut [[S::I; V]; N],
        quads: std::ops::Range<usize>,
        row: usize,
        x: *const i8,
    ) {
        let x_stride = 4 * self.x.layout.words();
        // SAFETY: by the caller's word.
        unsafe {
            for quad in quads {
                let weights = self.panel.q.as_ptr().add((quad * PANEL_ROWS + row) * 4);
                let mut w = [S::zero_i(); V];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = S::load_i(weights.add(v * 4 * S::LANES));
                }
                for (i, dots) in dots.iter_mut().enumerate() {
                    let x = S::splat_4(x.add(i * x_stride + 4 * quad));
                    for (dot, w) in dots.iter_mut().zip(w) {
                        *dot = S::dot4::<WIDE>(*dot, w, x);
                    }
                }
            }
        }
    }
}
