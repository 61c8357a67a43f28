//! How are a few activation rows multiplied with weight rows straight from the mapped file?
//!
//! The decode path: each weight is read once and used for up to four tokens. Activations are
//! bytes with a scale a block (`quantize.rs`), products are summed in integers within a block and
//! in f32 across blocks. Q4_0, Q4_1 and Q8_0 are unpacked in registers, several blocks at once;
//! the other formats row by row in L1.

use super::quantize::QuantizedRows;
use super::unpack::{Unpack, UnpackedRow, group_of};
use super::vector::{Blocks, Kernel, Simd};
use crate::tensor::{DType, Matrix};

/// Tokens that one pass over the weights serves.
pub const MAX_TOKENS: usize = 4;

/// How far ahead weights are asked for: several rows are read at once, which the hardware's own
/// prefetcher does not follow well.
const PREFETCH_BYTES: usize = 4096;

/// How much is asked for of what is read after the last row: while threads wait for one another
/// and little is read, the memory would have nothing to do.
const NEXT_BYTES: usize = 16 * 1024;

/// `out[token][row] = weights[row] . x[token]`, quantised weights.
#[derive(Debug)]
pub struct DotRows<'a> {
    /// Of a quantised type.
    pub matrix: &'a Matrix,
    /// Which rows.
    pub rows: std::ops::Range<usize>,
    /// 1 to [`MAX_TOKENS`] tokens.
    pub x: QuantizedRows<'a>,
    /// `[token][row]`
    pub out: &'a mut [f32],
    /// What this thread reads next; its beginning is asked for as the rows end.
    pub next: &'a [u8],
    /// Reused between calls; resized for the columns.
    pub unpacked: &'a mut UnpackedRow,
}

/// What a thread reads: rows, then something else.
#[derive(Clone, Copy)]
struct Stream<'a> {
    rows: &'a [u8],
    next: &'a [u8],
}

impl Stream<'_> {
    /// The address of a byte, counted from the first row; for prefetching alone.
    #[inline(always)]
    fn address(&self, at: usize) -> *const u8 {
        let Self { rows, next } = self;
        if at < rows.len() {
            rows.as_ptr().wrapping_add(at)
        } else {
            next.as_ptr().wrapping_add(at - rows.len())
        }
    }
}

/// The rows that are left.
#[derive(Clone, Copy)]
struct Weights<'a> {
    rest: &'a [u8], // up to the end of the tensor
    row_bytes: usize,
    stream: Stream<'a>,
}

impl Kernel for DotRows<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        assert_eq!(self.x.layout.cols, self.matrix.cols, "inputs as wide as the weights");
        assert_eq!(self.out.len(), self.rows.len() * self.x.n_tokens(), "a sum a row and token");
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
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            match self.matrix.dtype {
                DType::Q4_0 => self.fused::<S, Q4_0, TOKENS, ROWS>(),
                DType::Q4_1 => self.fused::<S, Q4_1, TOKENS, ROWS>(),
                DType::Q8_0 => self.fused::<S, Q8_0, TOKENS, ROWS>(),
                dtype if group_of(dtype) == Some(16) => self.by_unpacking::<S, 16>(),
                _ => self.by_unpacking::<S, 32>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn fused<S: Simd, B: BlockFormat, const TOKENS: usize, const ROWS: usize>(self) {
        let row_bytes = self.matrix.cols / 32 * B::BYTES;
        let n_rows = self.rows.len();
        let all = &self.matrix.bytes[self.rows.start * row_bytes..];
        let rows = &all[..n_rows * row_bytes];
        // Where nothing is known to come, the rows again, which costs nothing: they are near.
        let next = if self.next.is_empty() { rows } else { self.next };
        let stream = Stream { rows, next };
        let mut row = 0;
        while row < n_rows {
            let weights = Weights { rest: &all[row * row_bytes..], row_bytes, stream };
            // SAFETY: the rows lie in `weights`.
            row += unsafe {
                if n_rows - row >= ROWS {
                    let sums = dot_blocks::<S, B, TOKENS, ROWS>(weights, self.x);
                    keep(sums, row, n_rows, self.out)
                } else {
                    let sums = dot_blocks::<S, B, TOKENS, 1>(weights, self.x);
                    keep(sums, row, n_rows, self.out)
                }
            };
        }
        for at in (PREFETCH_BYTES..self.next.len().min(NEXT_BYTES)).step_by(64) {
            // SAFETY: prefetching takes any address.
            unsafe { S::prefetch(stream.address(stream.rows.len() + at)) }
        }
    }

    #[inline(always)]
    unsafe fn by_unpacking<S: Simd, const GROUP: usize>(self) {
        let cols = self.matrix.cols;
        let n_rows = self.rows.len();
        for (i, row) in self.rows.clone().enumerate() {
            let (dtype, bytes) = (self.matrix.dtype, self.matrix.row(row));
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                Unpack { dtype, bytes, out: self.unpacked }.run::<S>();
                for token in 0..self.x.n_tokens() {
                    let x = self.x.tokens(token, 1);
                    let scales = &self.unpacked.scales[..cols / GROUP];
                    let offsets = &self.unpacked.offsets[..cols / GROUP];
                    let q = &self.unpacked.q[..cols];
                    self.out[token * n_rows + i] = dot_groups::<S, GROUP>(q, scales, offsets, x);
                }
            }
        }
    }
}

/// Puts sums `[token][row]` into `out`, `[token][n_rows]`, from `row` on; returns how many rows.
#[inline(always)]
fn keep<const TOKENS: usize, const ROWS: usize>(
    sums: [[f32; ROWS]; TOKENS],
    row: usize,
    n_rows: usize,
    out: &mut [f32],
) -> usize {
    for (token, sums) in sums.iter().enumerate() {
        out[token * n_rows + row..][..ROWS].copy_from_slice(sums);
    }
    ROWS
}

/// A format whose blocks of 32 are unpacked in registers.
trait BlockFormat {
    /// Bytes of a block.
    const BYTES: usize;
    /// Quants may exceed 127.
    const WIDE: bool;
    /// What the second number of a block's pair (its scale again where it has no offset) is
    /// multiplied by.
    const OFFSET: f32;
    /// # Safety
    /// `p` points at as many blocks as a step of `S` takes.
    unsafe fn load<S: Simd>(p: *const u8) -> Blocks<S>;
}

#[allow(non_camel_case_types)]
struct Q4_0;
#[allow(non_camel_case_types)]
struct Q4_1;
#[allow(non_camel_case_types)]
struct Q8_0;

impl BlockFormat for Q4_0 {
    const BYTES: usize = 18;
    const WIDE: bool = false;
    const OFFSET: f32 = -8.0;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> Blocks<S> {
        // SAFETY: by the caller's word.
        unsafe { S::load_q4_0(p) }
    }
}

impl BlockFormat for Q4_1 {
    const BYTES: usize = 20;
    const WIDE: bool = false;
    const OFFSET: f32 = 1.0;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> Blocks<S> {
        // SAFETY: by the caller's word.
        unsafe { S::load_q4_1(p) }
    }
}

impl BlockFormat for Q8_0 {
    const BYTES: usize = 34;
    const WIDE: bool = true;
    const OFFSET: f32 = -128.0;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u8) -> Blocks<S> {
        // SAFETY: by the caller's word.
        unsafe { S::load_q8_0(p) }
    }
}

/// Where one token's quantised row is: pointers, since the loops below have no time for bounds.
#[derive(Clone, Copy)]
struct TokenRow {
    paired: *const u8, // [term][step][half][block of the step][16]
    term_bytes: usize,
    pairs: *const f32, // [block][scale, scale * sum]
}

/// Running sums of `ROWS` rows and `TOKENS` tokens.
struct Sums<S: Simd, const TOKENS: usize, const ROWS: usize> {
    products: [[S::F; TOKENS]; ROWS],
    offsets: [[S::P; TOKENS]; ROWS],
}

/// One step's inputs of each token.
struct StepInputs<S: Simd, const TOKENS: usize> {
    q: [[S::I; 4]; TOKENS], // first and second halves, of one term and then of the other
    pairs: [*const f32; TOKENS], // scales and sums of the step's blocks
}

/// Sums `[token][row]` of the first `ROWS` rows of `weights`.
///
/// # Safety
/// The rows lie in `weights`.
#[inline(always)]
unsafe fn dot_blocks<S: Simd, B: BlockFormat, const TOKENS: usize, const ROWS: usize>(
    weights: Weights<'_>,
    x: QuantizedRows<'_>,
) -> [[f32; ROWS]; TOKENS] {
    let mut tokens =
        [TokenRow { paired: std::ptr::null(), term_bytes: 0, pairs: std::ptr::null() }; TOKENS];
    for (token, row) in tokens.iter_mut().enumerate() {
        let paired = x.paired(token).as_ptr().cast();
        *row = TokenRow { paired, term_bytes: x.paired_len(), pairs: x.pairs(token).as_ptr() };
    }
    // SAFETY: the caller vouches for the instruction set and the rows.
    unsafe {
        if x.layout.n_terms == 2 {
            let sums = sum_steps::<S, B, TOKENS, ROWS, true>(weights, x, &tokens);
            finish::<S, B, TOKENS, ROWS>(sums, 1.0 / 128.0)
        } else {
            let sums = sum_steps::<S, B, TOKENS, ROWS, false>(weights, x, &tokens);
            finish::<S, B, TOKENS, ROWS>(sums, 1.0)
        }
    }
}

#[inline(always)]
unsafe fn sum_steps<
    S: Simd,
    B: BlockFormat,
    const TOKENS: usize,
    const ROWS: usize,
    const TWO_TERMS: bool,
>(
    weights: Weights<'_>,
    x: QuantizedRows<'_>,
    tokens: &[TokenRow; TOKENS],
) -> Sums<S, TOKENS, ROWS> {
    let Weights { rest: weights, row_bytes, stream } = weights;
    let n_blocks = x.layout.cols / 32;
    let step_bytes = S::BLOCKS * B::BYTES;
    let done = weights.as_ptr().addr() - stream.rows.as_ptr().addr();
    let n_whole = n_blocks / S::BLOCKS;
    // SAFETY: whole steps lie within the rows; quantised rows are padded to whole steps.
    unsafe {
        let mut sums = Sums {
            products: [[S::splat(0.0); TOKENS]; ROWS],
            offsets: [[S::zero_pairs(); TOKENS]; ROWS],
        };
        for step in 0..n_whole {
            let ahead = stream.address(done + PREFETCH_BYTES + step * ROWS * step_bytes);
            for line in 0..(ROWS * step_bytes).div_ceil(64) {
                S::prefetch(ahead.wrapping_add(64 * line));
            }
            let inputs = load_step::<S, TOKENS, TWO_TERMS>(tokens, step);
            for row in 0..ROWS {
                let p = weights.as_ptr().add(row * row_bytes + step * step_bytes);
                let blocks = B::load::<S>(p);
                add_step::<S, B, TOKENS, ROWS, TWO_TERMS>(&mut sums, row, blocks, &inputs);
            }
        }
        if !n_blocks.is_multiple_of(S::BLOCKS) {
            let inputs = load_step::<S, TOKENS, TWO_TERMS>(tokens, n_whole);
            for row in 0..ROWS {
                // What lies after the row's last block is multiplied by the zeros that pad `x`.
                let rest = &weights[row * row_bytes + n_whole * step_bytes..];
                let blocks = if rest.len() >= step_bytes {
                    B::load::<S>(rest.as_ptr())
                } else {
                    B::load::<S>(at_the_end(rest).as_ptr())
                };
                add_step::<S, B, TOKENS, ROWS, TWO_TERMS>(&mut sums, row, blocks, &inputs);
            }
        }
        sums
    }
}

/// The inputs of a step: loaded once for all rows, since it is loads that the loop has most of.
#[inline(always)]
unsafe fn load_step<S: Simd, const TOKENS: usize, const TWO_TERMS: bool>(
    tokens: &[TokenRow; TOKENS],
    step: usize,
) -> StepInputs<S, TOKENS> {
    let half = 16 * S::BLOCKS;
    // SAFETY: by the caller's word: the step lies in the quantised rows.
    unsafe {
        let mut inputs =
            StepInputs { q: [[S::zero_i(); 4]; TOKENS], pairs: [std::ptr::null(); TOKENS] };
        for (token, row) in tokens.iter().enumerate() {
            let q = row.paired.add(step * 2 * half);
            inputs.q[token][0] = S::load_i(q);
            inputs.q[token][1] = S::load_i(q.add(half));
            if TWO_TERMS {
                inputs.q[token][2] = S::load_i(q.add(row.term_bytes));
                inputs.q[token][3] = S::load_i(q.add(row.term_bytes + half));
            }
            inputs.pairs[token] = row.pairs.add(step * 2 * S::BLOCKS);
        }
        inputs
    }
}

#[inline(always)]
unsafe fn add_step<
    S: Simd,
    B: BlockFormat,
    const TOKENS: usize,
    const ROWS: usize,
    const TWO_TERMS: bool,
>(
    sums: &mut Sums<S, TOKENS, ROWS>,
    row: usize,
    blocks: Blocks<S>,
    inputs: &StepInputs<S, TOKENS>,
) {
    for (token, q) in inputs.q.iter().enumerate() {
        // SAFETY: by the caller's word.
        unsafe {
            let mut dot = dot4::<S, B>(S::zero_i(), blocks.first, q[0]);
            dot = dot4::<S, B>(dot, blocks.second, q[1]);
            if TWO_TERMS {
                dot = S::shift_left_7(dot);
                dot = dot4::<S, B>(dot, blocks.first, q[2]);
                dot = dot4::<S, B>(dot, blocks.second, q[3]);
            }
            let scales = S::mul_pairs(blocks.pairs, inputs.pairs[token]);
            sums.offsets[row][token] = S::add_pairs(sums.offsets[row][token], scales);
            let scale = S::spread_firsts(scales);
            let products = &mut sums.products[row][token];
            *products = S::fma(S::to_float(dot), scale, *products);
        }
    }
}

#[inline(always)]
unsafe fn finish<S: Simd, B: BlockFormat, const TOKENS: usize, const ROWS: usize>(
    sums: Sums<S, TOKENS, ROWS>,
    unit: f32,
) -> [[f32; ROWS]; TOKENS] {
    let mut out = [[0.0; ROWS]; TOKENS];
    for (token, out) in out.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let mut totals = [S::splat(0.0); ROWS];
            for (row, total) in totals.iter_mut().enumerate() {
                let products = S::mul(sums.products[row][token], S::splat(unit));
                *total = S::add_seconds(products, sums.offsets[row][token], B::OFFSET);
            }
            let (fours, rest) = totals.as_chunks::<4>();
            let (out_fours, out_rest) = out.as_chunks_mut::<4>();
            for (out, four) in out_fours.iter_mut().zip(fours) {
                *out = S::reduce_add_4(*four);
            }
            for (out, total) in out_rest.iter_mut().zip(rest) {
                *out = S::reduce_add(*total);
            }
        }
    }
    out
}

#[inline(always)]
unsafe fn dot4<S: Simd, B: BlockFormat>(acc: S::I, weights: S::I, x: S::I) -> S::I {
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        if B::WIDE { S::dot4::<true>(acc, weights, x) } else { S::dot4::<false>(acc, weights, x) }
    }
}

/// The last blocks of a tensor, with zeros after them.
fn at_the_end(blocks: &[u8]) -> [u8; 4 * 34] {
    let mut copy = [0; 4 * 34];
    copy[..blocks.len()].copy_from_slice(blocks);
    copy
}

/// One unpacked row against one token.
#[inline(always)]
unsafe fn dot_groups<S: Simd, const GROUP: usize>(
    q: &[u8],
    scales: &[f32],
    offsets: &[f32],
    x: QuantizedRows<'_>,
) -> f32 {
    let (cols, two_terms) = (q.len(), x.layout.n_terms == 2);
    let step = 4 * S::LANES;
    let mut lanes = [0.0f32; 16];
    let mut sum = 0.0;
    // SAFETY: a vector of quants lies inside `q` and each term of `x.q`; the tail, a block where
    // vectors hold two, is done one by one.
    unsafe {
        let (bytes, pairs) = (x.q(0), x.pairs(0));
        let whole = cols / step * step;
        let mut products = S::splat(0.0);
        for at in (0..whole).step_by(step) {
            let weights = S::load_i(q.as_ptr().add(at));
            let p = bytes.as_ptr().add(at).cast();
            let mut dot = S::dot4::<true>(S::zero_i(), weights, S::load_i(p));
            if two_terms {
                dot = S::shift_left_7(dot);
                dot = S::dot4::<true>(dot, weights, S::load_i(p.add(cols)));
            }
            for (i, lanes) in lanes[..S::LANES].chunks_exact_mut(4).enumerate() {
                lanes.fill(scales[(at + 16 * i) / GROUP] * pairs[(at + 16 * i) / 32 * 2]);
            }
            products = S::fma(S::to_float(dot), S::load(lanes.as_ptr()), products);
        }
        sum += S::reduce_add(products);
        for i in whole..cols {
            let mut product = i32::from(q[i]) * i32::from(bytes[i]);
            if two_terms {
                product = (product << 7) + i32::from(q[i]) * i32::from(bytes[cols + i]);
            }
            sum += product as f32 * scales[i / GROUP] * pairs[i / 32 * 2];
        }
    }
    if two_terms {
        sum /= 128.0;
    }
    for (group, offset) in offsets.iter().enumerate() {
        let x_sum = if GROUP == 16 { x.half_sums(0)[group] } else { x.pairs(0)[2 * group + 1] };
        sum += offset * x_sum;
    }
    sum
}
