//! How are activations multiplied with a panel where the machine multiplies whole tiles at once?
//!
//! As in `panel.rs`, block after block and in the same order of additions, so that a sum is the same
//! to the last bit; but the integers of a block of 32 columns, for up to sixteen tokens and as many
//! rows of the panel, come from a [`TileUnit`], which works on the next block while vectors add up
//! this one. (Formats with a scale for sixteen columns fill half of a unit, and vectors are faster.) A
//! panel already lies as such units want their right-hand side: four columns of a row side by side,
//! the rows of a quad one after another.
//!
//! For activations of two terms, `16 * q0 + q1`, the panel holds sixteen times each quant as well, so
//! that one product, as deep as the unit goes, is all. So quants must be of four bits; with more, two
//! products and their sum would be needed, and vectors are as fast.

use super::panel::{PANEL_ROWS, PanelProduct};
use super::quantize::BLOCK;
use super::unpack::group_of;
use super::vector::Simd;
use crate::tensor::DType;

/// Tokens of a tile at most.
pub const TILE_TOKENS: usize = 16;

/// Rows of the panel in a tile.
pub const TILE_WEIGHTS: usize = 16;

/// Integers of one block: `[token][row]`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct TileDots(pub [i32; TILE_TOKENS * TILE_WEIGHTS]);

impl Default for TileDots {
    fn default() -> Self {
        Self([0; TILE_TOKENS * TILE_WEIGHTS])
    }
}

/// Which tile unit is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// None.
    Absent,
    /// Intel's.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
    /// Its twin in plain Rust, for tests on machines without one.
    #[cfg(test)]
    Emulated,
}

/// What one block of a panel product is made of.
pub struct TileInputs {
    /// The first token's bytes.
    pub x: *const i8,
    /// Bytes from token to token.
    pub x_stride: usize,
    /// `[quad of columns][PANEL_ROWS][4]`, unsigned, from the tile's first row on.
    pub weights: *const u8,
}

/// What multiplies tiles of bytes.
pub trait TileUnit {
    /// Makes ready for `n_tokens` tokens, at most [`TILE_TOKENS`], and products of `depth` bytes of
    /// each: 32 or 64.
    ///
    /// # Safety
    /// The unit is present.
    unsafe fn begin(n_tokens: usize, depth: usize);

    /// The integers of one block and [`TILE_WEIGHTS`] rows. `ODD` blocks use other tiles than even
    /// ones, so that none waits for the one before it.
    ///
    /// # Safety
    /// `begin` came before, on this thread; the inputs are there.
    unsafe fn dots<const ODD: bool>(inputs: &TileInputs, out: &mut TileDots);

    /// Lets go of the unit.
    ///
    /// # Safety
    /// The unit is present.
    unsafe fn end();
}

/// Whether activations of `n_terms` terms can be multiplied with weights of this type by tiles.
pub fn can_be_tiled(dtype: DType, n_terms: usize) -> bool {
    match n_terms {
        1 => group_of(dtype) == Some(BLOCK),
        _ => matches!(dtype, DType::Q4_0 | DType::Q4_1 | DType::Q4_K), // four bits, blocks of 32
    }
}

impl PanelProduct<'_> {
    /// As [`run`](Self::run), with a tile unit.
    ///
    /// # Safety
    /// As for `run`; the unit is present, and `can_be_tiled` holds.
    #[inline(always)]
    pub unsafe fn run_tiles<S: Simd, T: TileUnit>(&self, dots: &mut [TileDots; 2]) {
        // SAFETY: by the caller's word.
        unsafe {
            match self.x.layout.n_terms {
                2 => self.all_tiles::<S, T, 64>(dots),
                _ => self.all_tiles::<S, T, 32>(dots),
            }
        }
    }

    #[inline(always)]
    unsafe fn all_tiles<S: Simd, T: TileUnit, const DEPTH: usize>(&self, dots: &mut [TileDots; 2]) {
        let n_tokens = self.x.n_tokens();
        let mut ready_for = 0;
        for token in (0..n_tokens).step_by(TILE_TOKENS) {
            let n = TILE_TOKENS.min(n_tokens - token);
            // SAFETY: the tokens are there.
            unsafe {
                if n != ready_for {
                    T::begin(n, DEPTH);
                    ready_for = n;
                }
                for row in (0..PANEL_ROWS).step_by(S::LANES) {
                    let sums = TokenSums::<DEPTH>::new(self, (token, n), row);
                    match n {
                        TILE_TOKENS => sums.run::<S, T, true>(dots),
                        _ => sums.run::<S, T, false>(dots),
                    }
                }
            }
        }
        // SAFETY: by the caller's word.
        unsafe { T::end() }
    }
}

/// Sums of a tile's tokens with one vector of rows. Places are of the first token and block.
struct TokenSums<const DEPTH: usize> {
    n: usize, // tokens
    n_blocks: usize,
    is_begun: bool, // by columns before
    x: *const i8,
    block_bytes: usize,
    words: usize,        // from token to token, of all of `x`, `units` and `x_sums`
    units: *const f32,   // of each block, every other float
    x_sums: *const f32,  // of each block, every other float
    weights: *const u8,  // of the tile
    scales: *const f32,  // of the rows
    offsets: *const f32, // of the rows
    row_of_tile: usize,  // the first row
    out: *mut f32,       // of the rows
    out_stride: usize,   // from token to token
}

// SAFETY (all blocks of this impl): tokens, groups and rows lie inside the inputs, the panel and the
// sums; the caller vouches for the instruction set and the unit.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const DEPTH: usize> TokenSums<DEPTH> {
    #[inline(always)]
    fn new(of: &PanelProduct<'_>, (token, n): (usize, usize), row: usize) -> Self {
        let PanelProduct { panel, x, cols, out, .. } = of;
        let block_bytes = x.layout.block_bytes();
        let pairs = &x.pairs(token)[cols.start / 16..];
        Self {
            n,
            n_blocks: cols.len() / BLOCK,
            is_begun: cols.start > 0,
            x: x.q(token)[cols.start / BLOCK * block_bytes..].as_ptr(),
            block_bytes,
            words: x.layout.words(),
            units: pairs.as_ptr(),
            x_sums: pairs[1..].as_ptr(),
            weights: panel.q[row / TILE_WEIGHTS * TILE_WEIGHTS * 4..].as_ptr(),
            scales: panel.scales[row..].as_ptr(),
            offsets: panel.offsets[row..].as_ptr(),
            row_of_tile: row % TILE_WEIGHTS,
            out: out.first.wrapping_add(token * out.stride + row),
            out_stride: out.stride,
        }
    }

    /// Computes and keeps them. Sums are in registers, of sixteen tokens; where those are not `ALL`
    /// there, the others add up what the last token does, for nobody.
    #[inline(always)]
    unsafe fn run<S: Simd, T: TileUnit, const ALL: bool>(&self, [even, odd]: &mut [TileDots; 2]) {
        unsafe {
            T::dots::<false>(&self.inputs(0), even);
            let mut sums = [[S::splat(0.0); 4]; TILE_TOKENS / 4];
            if self.is_begun {
                for (i, sum) in sums.as_flattened_mut().iter_mut().enumerate() {
                    *sum = S::load(self.out.add(i.min(self.n - 1) * self.out_stride));
                }
            }
            for block in (0..self.n_blocks).step_by(2) {
                let has_odd = block + 1 < self.n_blocks;
                if has_odd {
                    T::dots::<true>(&self.inputs(block + 1), odd);
                }
                self.add::<S, ALL>(&mut sums, block, even);
                if block + 2 < self.n_blocks {
                    T::dots::<false>(&self.inputs(block + 2), even);
                }
                if has_odd {
                    self.add::<S, ALL>(&mut sums, block + 1, odd);
                }
            }
            for (i, sum) in sums.as_flattened().iter().enumerate() {
                if ALL || i < self.n {
                    S::store(self.out.add(i * self.out_stride), *sum);
                }
            }
        }
    }

    /// What the integers of block `block` come from.
    #[inline(always)]
    fn inputs(&self, block: usize) -> TileInputs {
        TileInputs {
            x: self.x.wrapping_add(block * self.block_bytes),
            x_stride: 4 * self.words,
            weights: self.weights.wrapping_add(block * DEPTH * PANEL_ROWS),
        }
    }

    /// Adds what block `block` comes to.
    #[inline(always)]
    unsafe fn add<S: Simd, const ALL: bool>(
        &self,
        [a, b, c, d]: &mut [[S::F; 4]; TILE_TOKENS / 4],
        block: usize,
        dots: &TileDots,
    ) {
        // No loop: sums are in registers only where their numbers are known when this is compiled.
        unsafe {
            self.add_four::<S, 0, ALL>(a, block, dots);
            self.add_four::<S, 4, ALL>(b, block, dots);
            self.add_four::<S, 8, ALL>(c, block, dots);
            self.add_four::<S, 12, ALL>(d, block, dots);
        }
    }

    #[inline(always)]
    unsafe fn add_four<S: Simd, const FIRST: usize, const ALL: bool>(
        &self,
        sums: &mut [S::F; 4],
        block: usize,
        dots: &TileDots,
    ) {
        unsafe {
            let scales = S::load(self.scales.add(block * PANEL_ROWS));
            let offsets = S::load(self.offsets.add(block * PANEL_ROWS));
            let units = self.units.add(2 * block);
            let x_sums = self.x_sums.add(2 * block);
            let dots = dots.0.as_ptr().add(self.row_of_tile);
            for (i, sum) in (FIRST..).zip(sums) {
                let dots = dots.add(i * TILE_WEIGHTS);
                let dot = S::load_i(dots.cast());
                let token = self.words * if ALL { i } else { i.min(self.n - 1) };
                let scale = S::mul(scales, S::splat(*units.add(token)));
                *sum = S::fma(S::to_float(dot), scale, *sum);
                *sum = S::fma(offsets, S::splat(*x_sums.add(token)), *sum);
            }
        }
    }
}
