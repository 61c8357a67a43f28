//! What happens to one row of activations between the products? Norm, quantisation, gate, sums.

use super::vector::{Kernel, Simd, exp};
use crate::tensor::{DType, Matrix, dequantize_row};

/// `out = x / rms(x) * gain` (RMSNorm, arXiv 1910.07467), with `rms` over the whole row.
#[derive(Debug)]
pub struct RmsNorm<'a> {
    /// The row.
    pub x: &'a [f32],
    /// As long as the row.
    pub gain: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
    /// As long as the row.
    pub out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n = self.x.len();
        assert!(self.gain.len() == n && self.out.len() == n, "rows of one length");
        let whole = n / S::LANES * S::LANES;
        // SAFETY: `whole <= n`, the length of all three rows.
        unsafe {
            let mut squares = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let x = S::load(self.x.as_ptr().add(i));
                squares = S::fma(x, x, squares);
            }
            let tail: f32 = self.x[whole..].iter().map(|x| x * x).sum();
            let mean = (S::reduce_add(squares) + tail) / n as f32;
            let factor = 1.0 / (mean + self.epsilon).sqrt();
            for i in (0..whole).step_by(S::LANES) {
                let x = S::mul(S::load(self.x.as_ptr().add(i)), S::splat(factor));
                S::store(
                    self.out.as_mut_ptr().add(i),
                    S::mul(x, S::load(self.gain.as_ptr().add(i))),
                );
            }
            for i in whole..n {
                self.out[i] = self.x[i] * factor * self.gain[i];
            }
        }
    }
}

/// `gate = silu(gate) * up` (SwiGLU, arXiv 2002.05202).
#[derive(Debug)]
pub struct SwiGlu<'a> {
    /// Any length; overwritten.
    pub gate: &'a mut [f32],
    /// As long as `gate`.
    pub up: &'a [f32],
}

impl Kernel for SwiGlu<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n = self.gate.len();
        assert_eq!(self.up.len(), n, "rows of one length");
        let whole = n / S::LANES * S::LANES;
        // SAFETY: `whole <= n`, the length of both rows.
        unsafe {
            for i in (0..whole).step_by(S::LANES) {
                let gate = S::load(self.gate.as_ptr().add(i));
                let inner = S::max(gate, S::splat(-87.0));
                let denominator = S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), inner)));
                let activated = S::div(gate, denominator);
                let up = S::load(self.up.as_ptr().add(i));
                S::store(self.gate.as_mut_ptr().add(i), S::mul(activated, up));
            }
        }
        for i in whole..n {
            let gate = self.gate[i];
            self.gate[i] = gate / (1.0 + (-gate).exp()) * self.up[i];
        }
    }
}

/// `out += x`.
#[derive(Debug)]
pub struct Add<'a> {
    /// As long as `x`.
    pub out: &'a mut [f32],
    /// The summand.
    pub x: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        assert_eq!(self.out.len(), self.x.len(), "rows of one length");
        for (out, x) in self.out.iter_mut().zip(self.x) {
            *out += x;
        }
    }
}

/// Inner product of two rows.
#[derive(Debug)]
pub struct Dot<'a> {
    /// One row.
    pub a: &'a [f32],
    /// The other, as long.
    pub b: &'a [f32],
}

impl Kernel for Dot<'_> {
    type Output = f32;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        assert_eq!(self.a.len(), self.b.len(), "rows of one length");
        let n = self.a.len();
        let step = 4 * S::LANES;
        let whole = n / step * step;
        // SAFETY: `whole <= n`, the length of both rows.
        let sum = unsafe {
            let mut sums = [S::splat(0.0); 4];
            for i in (0..whole).step_by(step) {
                for (v, sum) in sums.iter_mut().enumerate() {
                    let a = S::load(self.a.as_ptr().add(i + v * S::LANES));
                    *sum = S::fma(a, S::load(self.b.as_ptr().add(i + v * S::LANES)), *sum);
                }
            }
            S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])))
        };
        sum + self.a[whole..].iter().zip(&self.b[whole..]).map(|(a, b)| a * b).sum::<f32>()
    }
}

/// `x = exp(x - max)`; returns the maximum and the sum (the two halves of a softmax).
#[derive(Debug)]
pub struct ExpShifted<'a> {
    /// Overwritten; not empty.
    pub x: &'a mut [f32],
}

impl Kernel for ExpShifted<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> (f32, f32) {
        let n = self.x.len();
        let whole = n / S::LANES * S::LANES;
        // SAFETY: `whole <= n`.
        unsafe {
            let mut max = S::splat(f32::NEG_INFINITY);
            for i in (0..whole).step_by(S::LANES) {
                max = S::max(max, S::load(self.x.as_ptr().add(i)));
            }
            let tail_max = self.x[whole..].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let max = S::reduce_max(max).max(tail_max);
            let mut sum = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let shifted = S::sub(S::load(self.x.as_ptr().add(i)), S::splat(max));
                let e = exp::<S>(shifted);
                S::store(self.x.as_mut_ptr().add(i), e);
                sum = S::add(sum, e);
            }
            let mut tail_sum = 0.0;
            for x in &mut self.x[whole..] {
                *x = (*x - max).exp();
                tail_sum += *x;
            }
            (max, S::reduce_add(sum) + tail_sum)
        }
    }
}

/// `out = max(out, x * factor)`, element by element.
#[derive(Debug)]
pub struct MaxScaled<'a> {
    /// As long as `x`.
    pub out: &'a mut [f32],
    /// Compared.
    pub x: &'a [f32],
    /// Applied to `x` first.
    pub factor: f32,
}

impl Kernel for MaxScaled<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        assert_eq!(self.out.len(), self.x.len(), "rows of one length");
        for (out, x) in self.out.iter_mut().zip(self.x) {
            let x = x * self.factor;
            *out = if x > *out { x } else { *out };
        }
    }
}

/// Rounds a row to f16.
#[derive(Debug)]
pub struct ToHalf<'a> {
    /// A multiple of 16 long.
    pub x: &'a [f32],
    /// As long as `x`.
    pub out: &'a mut [u16],
}

impl Kernel for ToHalf<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n = self.x.len();
        assert!(n.is_multiple_of(16) && self.out.len() == n, "rows of one length, in sixteens");
        for i in (0..n).step_by(S::LANES) {
            // SAFETY: `i + LANES <= n`, since 16 is a multiple of LANES.
            unsafe { S::store_f16(self.out.as_mut_ptr().add(i), S::load(self.x.as_ptr().add(i))) }
        }
    }
}

/// One row of a weight matrix as f32.
#[derive(Debug)]
pub struct WidenRow<'a> {
    /// Of any type.
    pub matrix: &'a Matrix,
    /// Which row.
    pub row: usize,
    /// `[cols]`
    pub out: &'a mut [f32],
}

impl Kernel for WidenRow<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let bytes = self.matrix.row(self.row);
        let whole = self.out.len() / S::LANES * S::LANES;
        match self.matrix.dtype {
            DType::F16 => {
                for i in (0..whole).step_by(S::LANES) {
                    // SAFETY: `i + LANES` elements lie in the row, two bytes each.
                    unsafe {
                        let x = S::load_f16(bytes.as_ptr().add(2 * i).cast());
                        S::store(self.out.as_mut_ptr().add(i), x);
                    }
                }
                dequantize_row(DType::F16, &bytes[2 * whole..], &mut self.out[whole..]);
            }
            dtype => dequantize_row(dtype, bytes, self.out),
        }
    }
}

/// Rotates and scales head rows: `out = scale * R(angles) x` (rotary embedding, pairs
/// `(i, i + n_pairs)`; dimensions after the pairs are scaled only).
#[derive(Debug)]
pub struct RotateRows<'a> {
    /// `[row][head_dim]`
    pub x: &'a [f32],
    /// Width of a head.
    pub head_dim: usize,
    /// Cosines of the pairs, then their sines.
    pub angles: &'a [f32],
    /// Factor of all.
    pub scale: f32,
    /// `[row][head_dim]`
    pub out: &'a mut [f32],
}

impl Kernel for RotateRows<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n_pairs = self.angles.len() / 2;
        let (cos, sin) = self.angles.split_at(n_pairs);
        let rows = self.x.chunks_exact(self.head_dim);
        for (x, out) in rows.zip(self.out.chunks_exact_mut(self.head_dim)) {
            let (low, high) = x[..2 * n_pairs].split_at(n_pairs);
            let (out_low, rest) = out.split_at_mut(n_pairs);
            let (out_high, out_rest) = rest.split_at_mut(n_pairs);
            for i in 0..n_pairs {
                out_low[i] = (low[i] * cos[i] - high[i] * sin[i]) * self.scale;
                out_high[i] = (high[i] * cos[i] + low[i] * sin[i]) * self.scale;
            }
            for (out, x) in out_rest.iter_mut().zip(&x[2 * n_pairs..]) {
                *out = x * self.scale;
            }
        }
    }
}

/// Quantises a row to signed bytes with one scale; returns the scale and the sum of the bytes.
#[derive(Debug)]
pub struct QuantizeRow<'a> {
    /// The row.
    pub x: &'a [f32],
    /// As long.
    pub q: &'a mut [i8],
}

impl Kernel for QuantizeRow<'_> {
    type Output = (f32, i32);
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> (f32, i32) {
        let largest = largest(self.x);
        // The inverse of almost nothing overflows, as that of nothing does: both become zeros.
        let inverse = Some(127.0 / largest).filter(|x| x.is_finite()).unwrap_or(0.0);
        let mut sum = 0;
        for (q, x) in self.q.iter_mut().zip(self.x) {
            *q = (x * inverse).round_ties_even() as i8;
            sum += i32::from(*q);
        }
        (largest / 127.0, sum)
    }
}

/// The largest magnitude. What is no number counts as none.
#[inline(always)]
pub fn largest(x: &[f32]) -> f32 {
    // In lanes, since the compiler keeps the order of a single one.
    let mut largest = [0.0f32; 16];
    let (blocks, rest) = x.as_chunks::<16>();
    let larger = |max: f32, x: f32| if x.abs() > max { x.abs() } else { max };
    for block in blocks {
        largest.iter_mut().zip(block).for_each(|(max, x)| *max = larger(*max, *x));
    }
    largest.iter().chain(rest).fold(0.0, |max, x| larger(max, *x))
}
