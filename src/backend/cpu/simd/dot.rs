//! How are a few activation rows multiplied with weight rows straight from the mapped file?
//!
//! As by panels (`panel.rs`), lane by lane and in the same order, so that a sum is the same to the
//! last bit; but with nothing laid down in between: turned weights (`turn.rs`) go from registers
//! into the sums of all tokens, which fit into registers beside them.

use std::marker::PhantomData;

use super::quantize::QuantizedRows;
use super::turn::{BlockFormat, Q4_0, Q4_1, Q8_0, Sink, Source, turn};
use super::vector::Simd;
use crate::tensor::{DType, Matrix};

/// Most tokens of a call.
pub const MAX_TOKENS: usize = 4;

/// `out[token][lane] = weights[lane] . x[token]` for up to `LANES` rows of weights.
#[derive(Debug)]
pub struct DotRows<'a> {
    /// Of a type that can be turned.
    pub matrix: &'a Matrix,
    /// Up to `LANES`, or the rest of a task.
    pub rows: std::ops::Range<usize>,
    /// 1 to [`MAX_TOKENS`] tokens, as wide as the weights.
    pub x: QuantizedRows<'a>,
    /// What is read after these rows, for prefetching alone.
    pub next: *const u8,
}

/// Where sums go: `[token][stride]`, of which `LANES` are written.
#[derive(Clone, Copy)]
pub struct Target {
    /// The first.
    pub first: *mut f32,
    /// From token to token.
    pub stride: usize,
}

impl DotRows<'_> {
    /// Writes the sums.
    ///
    /// # Safety
    /// The instruction set is present, and there is room at `target`.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(self, target: Target, spare: &mut Vec<u8>) {
        // SAFETY: by the caller's word.
        unsafe {
            match self.matrix.dtype {
                DType::Q4_0 => self.run_format::<S, Q4_0>(target, spare),
                DType::Q4_1 => self.run_format::<S, Q4_1>(target, spare),
                DType::Q8_0 => self.run_format::<S, Q8_0>(target, spare),
                dtype => unreachable!("{dtype} cannot be turned"),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_format<S: Simd, B: BlockFormat>(self, target: Target, spare: &mut Vec<u8>) {
        let Self { matrix, rows, x, next } = self;
        let source = Source::new::<S, B>(matrix, rows, 0..matrix.cols / 32, spare);
        let source = source.followed_by(next);
        // SAFETY: by the caller's word; what `source` points at is borrowed here.
        unsafe {
            match (x.n_tokens(), x.layout.n_terms) {
                (1, 2) => dot::<S, B, 1, true>(source, x, target),
                (2, 2) => dot::<S, B, 2, true>(source, x, target),
                (3, 2) => dot::<S, B, 3, true>(source, x, target),
                (4, 2) => dot::<S, B, 4, true>(source, x, target),
                (1, _) => dot::<S, B, 1, false>(source, x, target),
                (2, _) => dot::<S, B, 2, false>(source, x, target),
                (3, _) => dot::<S, B, 3, false>(source, x, target),
                (4, _) => dot::<S, B, 4, false>(source, x, target),
                (n, _) => unreachable!("{n} tokens where at most {MAX_TOKENS} are"),
            }
        }
    }
}

#[inline(always)]
unsafe fn dot<S: Simd, B: BlockFormat, const N: usize, const TWO_TERMS: bool>(
    source: Source,
    x: QuantizedRows<'_>,
    target: Target,
) {
    let mut q = [std::ptr::null(); N];
    let mut pairs = [std::ptr::null(); N];
    for token in 0..N {
        q[token] = x.q(token).as_ptr();
        pairs[token] = x.pairs(token).as_ptr();
    }
    // SAFETY: by the caller's word.
    unsafe {
        let mut sums = Sums::<S, B, N, TWO_TERMS> {
            q,
            pairs,
            dots: [[S::zero_i(); N]; 2],
            scales: S::splat(0.0),
            offsets: S::splat(0.0),
            sums: [S::splat(0.0); N],
            format: PhantomData,
        };
        turn::<S, B>(source, &mut sums);
        for (token, sum) in sums.sums.into_iter().enumerate() {
            S::store(target.first.add(token * target.stride), sum);
        }
    }
}

/// Running sums of `LANES` rows and `N` tokens.
struct Sums<S: Simd, B, const N: usize, const TWO_TERMS: bool> {
    q: [*const i8; N],      // [block][term][32]
    pairs: [*const f32; N], // [block][unit, sum]
    dots: [[S::I; N]; 2],   // [term]: of the block so far
    scales: S::F,           // of the block
    offsets: S::F,          // of the block
    sums: [S::F; N],
    format: PhantomData<B>,
}

impl<S: Simd, B: BlockFormat, const N: usize, const TWO_TERMS: bool> Sink<S>
    for Sums<S, B, N, TWO_TERMS>
{
    #[inline(always)]
    unsafe fn scales(&mut self, _block: usize, scale: S::F, offset: S::F) {
        (self.scales, self.offsets) = (scale, offset);
    }

    #[inline(always)]
    unsafe fn quad(&mut self, block: usize, quad: usize, weights: S::I) {
        for token in 0..N {
            // SAFETY: by the caller's word: the block lies in the inputs.
            unsafe {
                let block_bytes = if TWO_TERMS { 64 } else { 32 };
                let x = self.q[token].add(block_bytes * block + 4 * quad);
                let [first, second] = &mut self.dots;
                first[token] = dot4::<S, B>(first[token], weights, S::splat_4(x));
                if TWO_TERMS {
                    let x = S::splat_4(x.add(32));
                    second[token] = dot4::<S, B>(second[token], weights, x);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn end(&mut self, block: usize) {
        for token in 0..N {
            // SAFETY: by the caller's word: the block lies in the inputs.
            unsafe {
                let mut dot = self.dots[0][token];
                if TWO_TERMS {
                    dot = S::add_ints(S::shift_left_4(dot), self.dots[1][token]);
                }
                let pair = self.pairs[token].add(2 * block);
                let scale = S::mul(self.scales, S::splat(*pair));
                let sum = S::fma(S::to_float(dot), scale, self.sums[token]);
                self.sums[token] = S::fma(self.offsets, S::splat(*pair.add(1)), sum);
                (self.dots[0][token], self.dots[1][token]) = (S::zero_i(), S::zero_i());
            }
        }
    }
}

#[inline(always)]
unsafe fn dot4<S: Simd, B: BlockFormat>(acc: S::I, weights: S::I, x: S::I) -> S::I {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        if B::WIDE { S::dot4::<true>(acc, weights, x) } else { S::dot4::<false>(acc, weights, x) }
    }
}
