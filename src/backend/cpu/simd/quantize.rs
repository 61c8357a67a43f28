//! How do activations become bytes? In blocks of 32 with a scale each, as one or two signed bytes
//! an element: `x ~ scale * (q0 + q1 / 16)`. One byte is what GGML calls Q8; its rounding noise can
//! be seen in the logits. The second byte brings 12 bits, whose noise cannot (docs/benchmarks.md), at
//! less than twice the products. The products count in units of the last byte, so that is what the
//! scale kept stands for: `x ~ unit * (16 * q0 + q1)`. More bits would fit the second byte; but
//! sixteen times a weight of four bits is a byte as well, so that a tile unit adds up both terms at
//! once (`tiles.rs`).

use super::vector::{Kernel, Simd};

/// Elements that share one scale, as in the weights' formats.
pub const BLOCK: usize = 32;

/// Where the parts of a quantised row are, in units of f32 words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowLayout {
    /// Elements; a multiple of [`BLOCK`].
    pub cols: usize,
    /// Bytes an element: 1 or 2.
    pub n_terms: usize,
}

impl RowLayout {
    /// Words of a row: bytes block by block, `(unit, sum)` of each block, the sum of each half block.
    pub fn words(self) -> usize {
        (self.half_sums_at() + self.cols / 16).next_multiple_of(16)
    }

    /// Bytes of a block's elements.
    pub fn block_bytes(self) -> usize {
        self.n_terms * BLOCK
    }

    fn pairs_at(self) -> usize {
        self.n_terms * self.cols / 4
    }

    fn half_sums_at(self) -> usize {
        self.pairs_at() + self.cols / 16
    }
}

/// Quantised rows, one a token.
#[derive(Clone, Copy, Debug)]
pub struct QuantizedRows<'a> {
    /// Of each row.
    pub layout: RowLayout,
    /// `[token][layout.words()]`
    pub words: &'a [f32],
}

impl<'a> QuantizedRows<'a> {
    /// Tokens there are.
    pub fn n_tokens(&self) -> usize {
        self.words.len() / self.layout.words()
    }

    /// `[block][term][BLOCK]`: the bytes in the order of the elements.
    #[inline(always)]
    pub fn q(&self, token: usize) -> &'a [i8] {
        bytemuck::cast_slice(&self.row(token)[..self.layout.pairs_at()])
    }

    /// `[block][unit, sum of the elements]`
    #[inline(always)]
    pub fn pairs(&self, token: usize) -> &'a [f32] {
        &self.row(token)[self.layout.pairs_at()..self.layout.half_sums_at()]
    }

    /// `[half block]`: sums of the elements.
    #[inline(always)]
    pub fn half_sums(&self, token: usize) -> &'a [f32] {
        &self.row(token)[self.layout.half_sums_at()..][..self.layout.cols / 16]
    }

    #[inline(always)]
    fn row(&self, token: usize) -> &'a [f32] {
        let width = self.layout.words();
        &self.words[token * width..][..width]
    }
}

/// Quantises one row.
#[derive(Debug)]
pub struct Quantize<'a> {
    /// `[layout.cols]`
    pub x: &'a [f32],
    /// Of the result.
    pub layout: RowLayout,
    /// `[layout.words()]`
    pub out: &'a mut [f32],
}

impl Kernel for Quantize<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, layout, out } = self;
        let RowLayout { cols, n_terms } = layout;
        assert!(x.len() == cols && cols.is_multiple_of(BLOCK), "whole blocks");
        assert!(out.len() == layout.words() && (1..=2).contains(&n_terms), "a row of the layout");
        let (bytes, floats) = out.split_at_mut(layout.pairs_at());
        let q: &mut [i8] = bytemuck::cast_slice_mut(bytes);
        let (pairs, half_sums) = floats.split_at_mut(layout.half_sums_at() - layout.pairs_at());
        let units_of_scale = if n_terms == 2 { 1.0 / 16.0 } else { 1.0 };
        for block in 0..cols / BLOCK {
            let x = &x[block * BLOCK..][..BLOCK];
            // SAFETY: a block is 32 long, a multiple of the lanes.
            let largest = unsafe {
                let mut largest = S::splat(0.0);
                for i in (0..BLOCK).step_by(S::LANES) {
                    largest = S::max(largest, S::abs(S::load(x.as_ptr().add(i))));
                }
                S::reduce_max(largest)
            };
            let scale = largest / 127.0;
            // The inverse of almost nothing overflows, as that of nothing does: both become zeros.
            let inverse = Some(127.0 / largest).filter(|x| x.is_finite()).unwrap_or(0.0);
            let mut sums = [0.0; 2];
            for (half, sum) in sums.iter_mut().enumerate() {
                let at = block * layout.block_bytes() + half * 16;
                // SAFETY: 16 elements from `at` are in each term of `q`.
                unsafe {
                    let q = q.as_mut_ptr().add(at);
                    *sum = quantize_half::<S>(x.as_ptr().add(half * 16), inverse, n_terms, q);
                }
            }
            pairs[2 * block] = scale * units_of_scale;
            pairs[2 * block + 1] = scale * (sums[0] + sums[1]);
            half_sums[2 * block] = scale * sums[0];
            half_sums[2 * block + 1] = scale * sums[1];
        }
    }
}

/// Sixteen elements to `n_terms` bytes each, a block from term to term; returns their sum in units
/// of the scale.
#[inline(always)]
unsafe fn quantize_half<S: Simd>(x: *const f32, inverse: f32, n_terms: usize, q: *mut i8) -> f32 {
    // SAFETY: by the caller's word.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..16).step_by(S::LANES) {
            let scaled = S::mul(S::load(x.add(i)), S::splat(inverse));
            let rounded = S::round(scaled);
            S::store_i8(q.add(i), rounded);
            sum = S::add(sum, rounded);
            if n_terms == 2 {
                // At most half a step is left over: 8 of 16.
                let rest = S::round(S::mul(S::sub(scaled, rounded), S::splat(16.0)));
                S::store_i8(q.add(BLOCK + i), rest);
                sum = S::fma(rest, S::splat(1.0 / 16.0), sum);
            }
        }
        S::reduce_add(sum)
    }
}
