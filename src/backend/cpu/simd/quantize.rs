//! How do activations become bytes? In blocks of 32 with a scale each, as one or two signed bytes
//! an element: `x ~ scale * (q0 + q1 / 128)`. One byte is what GGML calls Q8; its rounding noise
//! can be seen in the logits. The second byte brings 15 bits, more than the weights or the sums
//! deserve, at less than twice the products.

use super::vector::{Kernel, Simd};

/// Elements that share one scale, as in the weights' formats.
pub const BLOCK: usize = 32;

/// Rows are padded to whole steps of this many blocks: the widest vectors take four at once.
const PADDING_BLOCKS: usize = 4;

/// Where the parts of a quantised row are, in units of f32 words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowLayout {
    /// Elements; a multiple of [`BLOCK`].
    pub cols: usize,
    /// Bytes an element: 1 or 2.
    pub n_terms: usize,
}

impl RowLayout {
    fn padded(self) -> usize {
        self.cols.next_multiple_of(BLOCK * PADDING_BLOCKS)
    }

    /// Words of a row: bytes in order, bytes block-paired, `(scale, scale * sum)` of each block,
    /// `scale * sum` of each half block.
    pub fn words(self) -> usize {
        let bytes = self.n_terms * (self.cols + self.padded()) / 4;
        (bytes + self.padded() / 16 + self.cols / 16).next_multiple_of(16)
    }

    fn paired_at(self) -> usize {
        self.n_terms * self.cols / 4
    }

    fn pairs_at(self) -> usize {
        self.paired_at() + self.n_terms * self.padded() / 4
    }

    fn half_sums_at(self) -> usize {
        self.pairs_at() + self.padded() / 16
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

    /// Some of the tokens.
    pub fn tokens(&self, first: usize, n: usize) -> QuantizedRows<'a> {
        let width = self.layout.words();
        QuantizedRows { layout: self.layout, words: &self.words[first * width..][..n * width] }
    }

    /// `[term][cols]`: the bytes in the order of the elements.
    #[inline(always)]
    pub fn q(&self, token: usize) -> &'a [i8] {
        bytemuck::cast_slice(&self.row(token)[..self.layout.paired_at()])
    }

    /// `[term][step][half][block of the step][16]`: for steps of as many blocks as two vectors
    /// hold, the first halves of the blocks and then the second halves; zeros after the end.
    #[inline(always)]
    pub fn paired(&self, token: usize) -> &'a [i8] {
        bytemuck::cast_slice(&self.row(token)[self.layout.paired_at()..self.layout.pairs_at()])
    }

    /// Bytes of one term of [`paired`](Self::paired).
    #[inline(always)]
    pub fn paired_len(&self) -> usize {
        self.layout.padded()
    }

    /// `[block][scale, scale * sum]`, zeros after the end.
    #[inline(always)]
    pub fn pairs(&self, token: usize) -> &'a [f32] {
        &self.row(token)[self.layout.pairs_at()..self.layout.half_sums_at()]
    }

    /// `[half block]`: scale * sum.
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
        let (q, paired) = bytes.split_at_mut(layout.paired_at());
        let q: &mut [i8] = bytemuck::cast_slice_mut(q);
        let paired: &mut [i8] = bytemuck::cast_slice_mut(paired);
        let (pairs, half_sums) = floats.split_at_mut(layout.half_sums_at() - layout.pairs_at());
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
                let at = block * BLOCK + half * 16;
                let place = S::BLOCKS * BLOCK * (block / S::BLOCKS)
                    + (half * S::BLOCKS + block % S::BLOCKS) * 16;
                // SAFETY: 16 elements from `at` are in each term of `q`, and 16 from `place` in
                // each term of `paired`, whose length is a multiple of a step's.
                unsafe {
                    let q = q.as_mut_ptr().add(at);
                    let x = x.as_ptr().add(half * 16);
                    *sum = quantize_half::<S>(x, inverse, n_terms, q, cols);
                    for term in 0..n_terms {
                        let target = paired.as_mut_ptr().add(term * layout.padded() + place);
                        target.copy_from_nonoverlapping(q.add(term * cols), 16);
                    }
                }
            }
            pairs[2 * block] = scale;
            pairs[2 * block + 1] = scale * (sums[0] + sums[1]);
            half_sums[2 * block] = scale * sums[0];
            half_sums[2 * block + 1] = scale * sums[1];
        }
        pairs[cols / 16..].fill(0.0);
        for paired in paired.chunks_exact_mut(layout.padded()) {
            for block in cols / BLOCK..layout.padded() / BLOCK {
                for half in 0..2 {
                    let place = S::BLOCKS * BLOCK * (block / S::BLOCKS)
                        + (half * S::BLOCKS + block % S::BLOCKS) * 16;
                    paired[place..place + 16].fill(0);
                }
            }
        }
    }
}

/// Sixteen elements to `n_terms` bytes each, the terms `term_stride` apart; returns their sum in
/// units of the scale.
#[inline(always)]
unsafe fn quantize_half<S: Simd>(
    x: *const f32,
    inverse: f32,
    n_terms: usize,
    q: *mut i8,
    term_stride: usize,
) -> f32 {
    // SAFETY: by the caller's word.
    unsafe {
        let mut sum = S::splat(0.0);
        for i in (0..16).step_by(S::LANES) {
            let scaled = S::mul(S::load(x.add(i)), S::splat(inverse));
            let rounded = S::round(scaled);
            S::store_i8(q.add(i), rounded);
            sum = S::add(sum, rounded);
            if n_terms == 2 {
                // At most half a step is left over: 64 of 128.
                let rest = S::round(S::mul(S::sub(scaled, rounded), S::splat(128.0)));
                S::store_i8(q.add(term_stride + i), rest);
                sum = S::fma(rest, S::splat(1.0 / 128.0), sum);
            }
        }
        S::reduce_add(sum)
    }
}
