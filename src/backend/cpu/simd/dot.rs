//! How are a few activation rows multiplied with weight rows straight from the mapped file?
//!
//! The decode path: each weight is read once and used for up to four tokens. Activations are
//! bytes with a scale a block, products are summed in integers within a block and in f32 across
//! blocks. Q4_0, Q4_1 and Q8_0 are unpacked in registers; the other formats row by row in L1.

use super::unpack::{Unpack, UnpackedRow, group_of};
use super::{Kernel, Simd};
use crate::tensor::DType;

/// Tokens that one pass over the weights serves.
pub const MAX_TOKENS: usize = 4;

/// Quantised activations of some tokens (see `rows::Quantize`).
#[derive(Clone, Copy, Debug)]
pub struct QuantizedRows<'a> {
    /// Elements of a row; a multiple of 32.
    pub cols: usize,
    /// `[token][cols]`
    pub q: &'a [i8],
    /// `[token][cols / 32][scale, scale * sum]`
    pub pairs: &'a [f32],
    /// `[token][cols / 16]`
    pub half_sums: &'a [f32],
}

impl<'a> QuantizedRows<'a> {
    /// Tokens there are.
    pub fn n_tokens(&self) -> usize {
        self.q.len() / self.cols
    }

    /// Some of the tokens.
    pub fn tokens(&self, first: usize, n: usize) -> QuantizedRows<'a> {
        let sixteenths = self.cols / 16;
        QuantizedRows {
            cols: self.cols,
            q: &self.q[first * self.cols..][..n * self.cols],
            pairs: &self.pairs[first * sixteenths..][..n * sixteenths],
            half_sums: &self.half_sums[first * sixteenths..][..n * sixteenths],
        }
    }
}

/// `out[token][row] = weights[row] . x[token]`, quantised weights.
#[derive(Debug)]
pub struct DotRows<'a> {
    /// A quantised type.
    pub dtype: DType,
    /// `[row]` of `cols` weights.
    pub weights: &'a [u8],
    /// 1 to [`MAX_TOKENS`] tokens.
    pub x: QuantizedRows<'a>,
    /// `[token][row]`
    pub out: &'a mut [f32],
    /// Reused between calls; resized for `cols`.
    pub unpacked: &'a mut UnpackedRow,
}

impl Kernel for DotRows<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            match self.x.n_tokens() {
                1 => self.run_tokens::<S, 1, 4>(),
                2 => self.run_tokens::<S, 2, 2>(),
                3 => self.run_tokens::<S, 3, 2>(),
                4 => self.run_tokens::<S, 4, 2>(),
                n => unreachable!("{n} tokens in a pass made for 1 to {MAX_TOKENS}"),
            }
        }
    }
}

impl DotRows<'_> {
    #[inline(always)]
    unsafe fn run_tokens<S: Simd, const TOKENS: usize, const ROWS: usize>(self) {
        let row_bytes = self.dtype.row_bytes(self.x.cols);
        let n_rows = self.weights.len() / row_bytes;
        assert_eq!(self.weights.len(), n_rows * row_bytes, "whole rows");
        assert_eq!(self.out.len(), n_rows * TOKENS, "a sum a row and token");
        assert_eq!(self.x.q.len(), TOKENS * self.x.cols, "whole tokens");
        assert_eq!(self.x.pairs.len(), TOKENS * self.x.cols / 16, "a pair a block");
        // SAFETY: lengths are checked; the caller vouches for the instruction set.
        unsafe {
            match self.dtype {
                DType::Q4_0 => self.fused::<S, Q4_0, TOKENS, ROWS>(n_rows, row_bytes),
                DType::Q4_1 => self.fused::<S, Q4_1, TOKENS, ROWS>(n_rows, row_bytes),
                DType::Q8_0 => self.fused::<S, Q8_0, TOKENS, ROWS>(n_rows, row_bytes),
                dtype if group_of(dtype) == Some(16) => {
                    self.by_unpacking::<S, 16>(n_rows, row_bytes);
                }
                _ => self.by_unpacking::<S, 32>(n_rows, row_bytes),
            }
        }
    }

    #[inline(always)]
    unsafe fn fused<S: Simd, B: BlockFormat, const TOKENS: usize, const ROWS: usize>(
        self,
        n_rows: usize,
        row_bytes: usize,
    ) {
        let whole = n_rows / ROWS * ROWS;
        for row in 0..n_rows {
            // SAFETY: the rows lie inside the weights.
            unsafe {
                let weights = self.weights.as_ptr().add(row * row_bytes);
                if row < whole {
                    if row.is_multiple_of(ROWS) {
                        let sums = dot_blocks::<S, B, TOKENS, ROWS>(weights, row_bytes, self.x);
                        for (i, sums) in sums.into_iter().enumerate() {
                            for (token, sum) in sums.into_iter().enumerate() {
                                self.out[token * n_rows + row + i] = sum;
                            }
                        }
                    }
                } else {
                    let [sums] = dot_blocks::<S, B, TOKENS, 1>(weights, row_bytes, self.x);
                    for (token, sum) in sums.into_iter().enumerate() {
                        self.out[token * n_rows + row] = sum;
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn by_unpacking<S: Simd, const GROUP: usize>(self, n_rows: usize, row_bytes: usize) {
        let cols = self.x.cols;
        for (row, bytes) in self.weights.chunks_exact(row_bytes).enumerate() {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                Unpack { dtype: self.dtype, bytes, out: self.unpacked }.run::<S>();
                for token in 0..self.x.n_tokens() {
                    let x = self.x.tokens(token, 1);
                    let scales = &self.unpacked.scales[..cols / GROUP];
                    let offsets = &self.unpacked.offsets[..cols / GROUP];
                    let q = &self.unpacked.q[..cols];
                    self.out[token * n_rows + row] = dot_groups::<S, GROUP>(q, scales, offsets, x);
                }
            }
        }
    }
}

/// A format whose blocks of 32 are unpacked in registers.
trait BlockFormat {
    /// Bytes of a block.
    const BYTES: usize;
    /// Quants may exceed 127.
    const WIDE: bool;
    /// What the format's second number (its own scale again where it has none) is multiplied by.
    const OFFSET: f32;
    unsafe fn quants<S: Simd>(block: *const u8) -> S::I;
    unsafe fn scales<S: Simd>(block: *const u8, x: *const f32) -> S::F;
    /// One quant, for the odd block at the end of a row.
    unsafe fn quant(block: *const u8, i: usize) -> i32;
}

#[allow(non_camel_case_types)]
struct Q4_0;
#[allow(non_camel_case_types)]
struct Q4_1;
#[allow(non_camel_case_types)]
struct Q8_0;

// SAFETY (all blocks): `block` points at whole blocks of the format, `x` at a pair for each.
#[allow(clippy::undocumented_unsafe_blocks)]
impl BlockFormat for Q4_0 {
    const BYTES: usize = 18;
    const WIDE: bool = false;
    const OFFSET: f32 = -8.0;
    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8) -> S::I {
        unsafe { S::load_nibbles(block.add(2), Self::BYTES) }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8, x: *const f32) -> S::F {
        unsafe { S::scaled_singles(block, Self::BYTES, x) }
    }
    #[inline(always)]
    unsafe fn quant(block: *const u8, i: usize) -> i32 {
        unsafe { i32::from(*block.add(2 + i % 16) >> (i / 16 * 4) & 15) }
    }
}

// SAFETY (all blocks): as above.
#[allow(clippy::undocumented_unsafe_blocks)]
impl BlockFormat for Q4_1 {
    const BYTES: usize = 20;
    const WIDE: bool = false;
    const OFFSET: f32 = 1.0;
    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8) -> S::I {
        unsafe { S::load_nibbles(block.add(4), Self::BYTES) }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8, x: *const f32) -> S::F {
        unsafe { S::scaled_pairs(block, Self::BYTES, x) }
    }
    #[inline(always)]
    unsafe fn quant(block: *const u8, i: usize) -> i32 {
        unsafe { i32::from(*block.add(4 + i % 16) >> (i / 16 * 4) & 15) }
    }
}

// SAFETY (all blocks): as above.
#[allow(clippy::undocumented_unsafe_blocks)]
impl BlockFormat for Q8_0 {
    const BYTES: usize = 34;
    const WIDE: bool = true;
    const OFFSET: f32 = -128.0;
    #[inline(always)]
    unsafe fn quants<S: Simd>(block: *const u8) -> S::I {
        unsafe { S::load_bytes_plus_128(block.add(2), Self::BYTES) }
    }
    #[inline(always)]
    unsafe fn scales<S: Simd>(block: *const u8, x: *const f32) -> S::F {
        unsafe { S::scaled_singles(block, Self::BYTES, x) }
    }
    #[inline(always)]
    unsafe fn quant(block: *const u8, i: usize) -> i32 {
        unsafe { i32::from(*block.add(2 + i) ^ 0x80) }
    }
}

/// Sums `[row][token]` of `ROWS` consecutive rows.
#[inline(always)]
unsafe fn dot_blocks<S: Simd, B: BlockFormat, const TOKENS: usize, const ROWS: usize>(
    weights: *const u8,
    row_bytes: usize,
    x: QuantizedRows<'_>,
) -> [[f32; TOKENS]; ROWS] {
    let n_blocks = x.cols / 32;
    let whole = n_blocks / S::BLOCKS * S::BLOCKS;
    // SAFETY: `whole` blocks lie in each row and each token.
    unsafe {
        let mut sums = [[S::splat(0.0); TOKENS]; ROWS];
        let mut offsets = [[S::splat(0.0); TOKENS]; ROWS];
        let mut block = 0;
        while block < whole {
            for row in 0..ROWS {
                let weights = weights.add(row * row_bytes + block * B::BYTES);
                let quants = B::quants::<S>(weights);
                for token in 0..TOKENS {
                    let q = S::load_i(x.q.as_ptr().add(token * x.cols + block * 32).cast());
                    let pairs = x.pairs.as_ptr().add(token * x.cols / 16 + 2 * block);
                    let scales = B::scales::<S>(weights, pairs);
                    let dot = if B::WIDE {
                        S::dot4::<true>(S::zero_i(), quants, q)
                    } else {
                        S::dot4::<false>(S::zero_i(), quants, q)
                    };
                    offsets[row][token] = S::add(offsets[row][token], scales);
                    let scale = S::spread_pairs(scales);
                    sums[row][token] = S::fma(S::to_float(dot), scale, sums[row][token]);
                }
            }
            block += S::BLOCKS;
        }
        let mut out = [[0.0; TOKENS]; ROWS];
        for (row, out) in out.iter_mut().enumerate() {
            for (token, out) in out.iter_mut().enumerate() {
                let offset = S::sum_offsets(offsets[row][token]);
                *out = S::reduce_add(sums[row][token]) + B::OFFSET * offset;
                for block in whole..n_blocks {
                    let weights = weights.add(row * row_bytes + block * B::BYTES);
                    *out += odd_block::<B>(weights, x, token, block);
                }
            }
        }
        out
    }
}

/// The last block of a row with an odd number of them, where a vector holds two.
#[inline(always)]
unsafe fn odd_block<B: BlockFormat>(
    weights: *const u8,
    x: QuantizedRows<'_>,
    token: usize,
    block: usize,
) -> f32 {
    let q = &x.q[token * x.cols + block * 32..][..32];
    let pair = &x.pairs[token * x.cols / 16 + 2 * block..][..2];
    // SAFETY: `weights` points at a whole block; the portable set needs nothing of the machine.
    unsafe {
        let dot: i32 =
            q.iter().enumerate().map(|(i, q)| B::quant(weights, i) * i32::from(*q)).sum();
        let scales = B::scales::<super::portable::Portable>(weights, pair.as_ptr());
        dot as f32 * scales[0] + B::OFFSET * scales[1]
    }
}

/// One unpacked row against one token.
#[inline(always)]
unsafe fn dot_groups<S: Simd, const GROUP: usize>(
    q: &[u8],
    scales: &[f32],
    offsets: &[f32],
    x: QuantizedRows<'_>,
) -> f32 {
    let lanes_a_group = GROUP / 4;
    let mut sum = 0.0;
    // SAFETY: vectors of quants lie inside `q` and `x.q`; the tail is done one by one.
    unsafe {
        let step = 4 * S::LANES;
        let whole = q.len() / step * step;
        let mut products = S::splat(0.0);
        let mut factors = [0.0f32; 16];
        for at in (0..whole).step_by(step) {
            let dot = S::dot4::<true>(
                S::zero_i(),
                S::load_i(q.as_ptr().add(at)),
                S::load_i(x.q.as_ptr().add(at).cast()),
            );
            for (lane, factor) in factors.iter_mut().enumerate().take(S::LANES) {
                let element = at + 4 * lane;
                *factor = scales[element / 4 / lanes_a_group] * x.pairs[element / 32 * 2];
            }
            products = S::fma(S::to_float(dot), S::load(factors.as_ptr()), products);
        }
        sum += S::reduce_add(products);
        for i in whole..q.len() {
            let product = i32::from(q[i]) * i32::from(x.q[i]);
            sum += product as f32 * scales[i / GROUP] * x.pairs[i / 32 * 2];
        }
    }
    for (group, offset) in offsets.iter().enumerate() {
        let x_sum = if GROUP == 16 { x.half_sums[group] } else { x.pairs[2 * group + 1] };
        sum += offset * x_sum;
    }
    sum
}
