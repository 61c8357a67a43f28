//! How do 16-bit integers multiply twice as fast as floats? In pairs: one instruction adds two
//! products to each 32-bit lane (VNNI, or `madd` and an addition).
//!
//! `c[rows][cols] (+)= (a[rows][2 * pairs] * b[pairs][cols][2]) * row_scale * col_scale`, in the
//! register tiles of [`super::tile`]; a column may have a scale for each span of what is summed over. `b` holds 16-bit numbers, or bytes that are widened as they
//! are loaded: keys and values that are kept as bytes are multiplied where they lie. Attention uses
//! it for `queries * keys^T` and for `weights * values`.

use super::tile::{Ahead, Start};
use super::vector::{Kernel, Simd, TILE_ROWS};

/// Most pairs summed in integers before the sums become floats.
pub const SPAN: usize = 32;

/// The largest number of both factors when neither is a byte: 64 products of two of these are
/// within 31 bits.
pub const BOTH_LARGEST: f32 = 5792.0;

/// The largest number of a factor whose partner is a byte.
pub const BYTES_PARTNER_LARGEST: f32 = 32767.0;

/// What the right-hand matrix is made of.
pub trait PairElement: Copy {
    /// Elements of a pair.
    const OF_A_PAIR: usize = 2;
    /// `LANES` pairs.
    ///
    /// # Safety
    /// As `Simd::load_i`, for the elements of `LANES` pairs.
    unsafe fn load<S: Simd>(p: *const Self) -> S::I;
}

impl PairElement for i16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::I {
        // SAFETY: by the caller's word.
        unsafe { S::load_i(p.cast()) }
    }
}

impl PairElement for i8 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::I {
        // SAFETY: by the caller's word.
        unsafe { S::load_pairs(p) }
    }
}

/// Two nibbles, as `backend::KvType::Int4` has them.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Nibbles(u8);

impl PairElement for Nibbles {
    const OF_A_PAIR: usize = 1;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::I {
        // SAFETY: by the caller's word.
        unsafe { S::load_nibbles(p.cast()) }
    }
}

/// Rows of 16-bit numbers with a scale each.
#[derive(Clone, Copy, Debug)]
pub struct ShortRows<'a> {
    /// `[row][width]`
    pub q: &'a [i16],
    /// `[row]`
    pub scales: &'a [f32],
}

/// What a step of each column of a matrix of pairs is worth.
#[derive(Clone, Copy, Debug)]
pub enum ColScales<'a> {
    /// 1.
    One,
    /// `[n_cols]`
    Floats(&'a [f32]),
    /// `[span][b_stride]` f16, of spans of `span_pairs` pairs.
    Halves {
        /// The scales.
        scales: &'a [u16],
        /// At most [`SPAN`].
        span_pairs: usize,
    },
}

/// A product with a matrix of pairs.
#[derive(Debug)]
pub struct PairProduct<'a, T> {
    /// Pairs summed over.
    pub n_pairs: usize,
    /// Columns of `b` and `c`; a multiple of 16.
    pub n_cols: usize,
    /// As many as `c` has, `[row][a_stride]`.
    pub a: ShortRows<'a>,
    /// Numbers from row to row of `a`; even.
    pub a_stride: usize,
    /// `[n_pairs][b_stride][2]`
    pub b: &'a [T],
    /// Pairs from row to row of `b`.
    pub b_stride: usize,
    /// What a step of the columns is worth.
    pub col_scales: ColScales<'a>,
    /// `[row][c_stride]`
    pub c: &'a mut [f32],
    /// Floats from row to row of `c`.
    pub c_stride: usize,
    /// What the sums start from.
    pub start: Start<'a>,
    /// Asked for meanwhile, since what is read next lies elsewhere.
    pub next: &'a [u8],
}

impl<T: PairElement> Kernel for PairProduct<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n_rows = self.a.scales.len();
        if n_rows == 0 || self.n_cols == 0 {
            return;
        }
        assert!(self.n_cols.is_multiple_of(16), "columns come in sixteens");
        let a_needs = (n_rows - 1) * self.a_stride + 2 * self.n_pairs;
        assert!(self.a.q.len() >= a_needs && self.a_stride.is_multiple_of(2), "a is too short");
        let b_needs = (self.n_pairs.max(1) - 1) * self.b_stride + self.n_cols;
        let b_needs = T::OF_A_PAIR * b_needs;
        assert!(self.n_pairs == 0 || self.b.len() >= b_needs, "b is too short");
        assert!(self.c.len() >= (n_rows - 1) * self.c_stride + self.n_cols, "c is too short");
        let has_scales = match self.col_scales {
            ColScales::One => true,
            ColScales::Floats(scales) => scales.len() >= self.n_cols,
            ColScales::Halves { scales, span_pairs } => {
                let n_spans = self.n_pairs.div_ceil(span_pairs);
                assert!(span_pairs <= SPAN, "sums of a span fit 32 bits");
                scales.len() >= (n_spans.max(1) - 1) * self.b_stride + self.n_cols
            }
        };
        assert!(has_scales, "a scale a column");
        if let Start::Scaled(factors) = self.start {
            assert!(factors.len() >= n_rows, "a factor is missing");
        }
        // SAFETY: the lengths are checked above; the caller vouches for the instruction set.
        unsafe { self.run_unchecked::<S>(n_rows) }
    }
}

impl<T: PairElement> PairProduct<'_, T> {
    #[inline(always)]
    unsafe fn run_unchecked<S: Simd>(self, n_rows: usize) {
        let c = self.c.as_mut_ptr();
        let wide = S::TILE_VECTORS * S::LANES;
        let mut row = 0;
        while row < n_rows {
            let left = n_rows - row;
            let mut col = 0;
            while col < self.n_cols {
                let is_wide = self.n_cols - col >= wide;
                // SAFETY: the tile lies inside the matrices, whose lengths `run` has checked.
                unsafe {
                    let mut tile = self.tile_at(c, row, col);
                    if (row, col) == (0, 0) {
                        tile.ahead = Ahead::over(self.next, self.n_pairs);
                    }
                    match (is_wide, left) {
                        (true, TILE_ROWS..) => tile.run_wide::<S, TILE_ROWS>(),
                        (true, 3..) => tile.run_wide::<S, 3>(),
                        (true, 2) => tile.run_wide::<S, 2>(),
                        (true, _) => tile.run_wide::<S, 1>(),
                        (false, TILE_ROWS..) => tile.run_vectors::<S, TILE_ROWS, 1>(),
                        (false, 3..) => tile.run_vectors::<S, 3, 1>(),
                        (false, 2) => tile.run_vectors::<S, 2, 1>(),
                        (false, _) => tile.run_vectors::<S, 1, 1>(),
                    }
                }
                col += if is_wide { wide } else { S::LANES };
            }
            row += match left {
                TILE_ROWS.. => TILE_ROWS,
                3.. => 3,
                left => left,
            };
        }
    }

    /// # Safety
    /// `(row, col)` lies inside `c`, the matrix of the same name.
    #[inline(always)]
    unsafe fn tile_at(&self, c: *mut f32, row: usize, col: usize) -> Tile<'_, T> {
        // SAFETY: inside the slices, by the caller's word.
        unsafe {
            Tile {
                n_pairs: self.n_pairs,
                a: self.a.q.as_ptr().add(row * self.a_stride),
                a_stride: self.a_stride,
                row_scales: self.a.scales.as_ptr().add(row),
                b: self.b.as_ptr().add(T::OF_A_PAIR * col),
                b_stride: self.b_stride,
                col,
                col_scales: self.col_scales,
                c: c.add(row * self.c_stride + col),
                c_stride: self.c_stride,
                ahead: Ahead::NOTHING,
                factors: match self.start {
                    Start::Zero => None,
                    Start::Scaled(factors) => Some(factors.as_ptr().add(row)),
                },
            }
        }
    }
}

/// One register tile: pointers to its corner in each matrix.
struct Tile<'a, T> {
    n_pairs: usize,
    a: *const i16,
    a_stride: usize,
    row_scales: *const f32,
    b: *const T,
    b_stride: usize,
    col: usize,
    col_scales: ColScales<'a>,
    c: *mut f32,
    c_stride: usize,
    factors: Option<*const f32>,
    ahead: Ahead,
}

impl<T: PairElement> Tile<'_, T> {
    #[inline(always)]
    unsafe fn run_wide<S: Simd, const ROWS: usize>(self) {
        // SAFETY: passed on to the caller.
        unsafe {
            match S::TILE_VECTORS {
                1 => self.run_vectors::<S, ROWS, 1>(),
                2 => self.run_vectors::<S, ROWS, 2>(),
                _ => self.run_vectors::<S, ROWS, 4>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn run_vectors<S: Simd, const ROWS: usize, const VECTORS: usize>(self) {
        let span_pairs = match self.col_scales {
            ColScales::Halves { span_pairs, .. } => span_pairs,
            _ => SPAN,
        };
        // SAFETY: the tile of ROWS rows and VECTORS vectors lies inside the matrices.
        unsafe {
            let mut totals = [[S::splat(0.0); VECTORS]; ROWS];
            for (span, first) in (0..self.n_pairs).step_by(span_pairs).enumerate() {
                let last = (first + span_pairs).min(self.n_pairs);
                let mut sums = [[S::zero_i(); VECTORS]; ROWS];
                for pair in first..last {
                    let b_row = self.b.add(T::OF_A_PAIR * pair * self.b_stride);
                    self.ahead.ask::<S>(pair);
                    let mut b = [S::zero_i(); VECTORS];
                    for (v, b) in b.iter_mut().enumerate() {
                        *b = T::load::<S>(b_row.add(T::OF_A_PAIR * v * S::LANES));
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let a = S::splat_4(self.a.add(row * self.a_stride + 2 * pair).cast());
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = S::dot2(*sum, a, b);
                        }
                    }
                }
                let scales: [S::F; VECTORS] = self.scales_of::<S, VECTORS>(span);
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    for (v, total) in totals.iter_mut().enumerate() {
                        *total = S::fma(S::to_float(sums[v]), scales[v], *total);
                    }
                }
            }
            self.deliver::<S, ROWS, VECTORS>(totals);
        }
    }

    /// The scales of the tile's columns in one span.
    #[inline(always)]
    unsafe fn scales_of<S: Simd, const VECTORS: usize>(&self, span: usize) -> [S::F; VECTORS] {
        // SAFETY: there is a scale for each column of a span, as `PairProduct::run` has checked.
        unsafe {
            let mut out = [S::splat(1.0); VECTORS];
            for (v, out) in out.iter_mut().enumerate() {
                let at = self.col + v * S::LANES;
                match self.col_scales {
                    ColScales::One => {}
                    ColScales::Floats(scales) => *out = S::load(scales.as_ptr().add(at)),
                    ColScales::Halves { scales, .. } => {
                        *out = S::load_f16(scales.as_ptr().add(span * self.b_stride + at));
                    }
                }
            }
            out
        }
    }

    /// Adds the sums to what `c` starts from.
    #[inline(always)]
    unsafe fn deliver<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        totals: [[S::F; VECTORS]; ROWS],
    ) {
        // SAFETY: as for `run_vectors`.
        unsafe {
            for (row, totals) in totals.into_iter().enumerate() {
                let scale = S::splat(*self.row_scales.add(row));
                for (v, total) in totals.into_iter().enumerate() {
                    let c = self.c.add(row * self.c_stride + v * S::LANES);
                    let new = match self.factors {
                        None => S::mul(total, scale),
                        Some(factors) => {
                            let old = S::mul(S::load(c), S::splat(*factors.add(row)));
                            S::fma(total, scale, old)
                        }
                    };
                    S::store(c, new);
                }
            }
        }
    }
}

/// Rounds rows to 16-bit numbers with a scale each.
#[derive(Debug)]
pub struct RoundRows<'a> {
    /// `[row][width]`
    pub x: &'a [f32],
    /// A multiple of 16.
    pub width: usize,
    /// What the largest number of a row becomes.
    pub largest: f32,
    /// As long as `x`.
    pub q: &'a mut [i16],
    /// `[row]`: what a step is worth.
    pub scales: &'a mut [f32],
}

impl Kernel for RoundRows<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, width, largest, q, scales } = self;
        assert!(width.is_multiple_of(16) && q.len() == x.len(), "whole vectors");
        let rows = x.chunks_exact(width).zip(q.chunks_exact_mut(width));
        for ((x, q), scale) in rows.zip(scales) {
            // SAFETY: a row is a multiple of 16 long.
            unsafe {
                let mut max = S::splat(0.0);
                for i in (0..width).step_by(S::LANES) {
                    max = S::max(max, S::abs(S::load(x.as_ptr().add(i))));
                }
                let (step, inverse) = step_of(S::reduce_max(max), largest);
                *scale = step;
                for i in (0..width).step_by(S::LANES) {
                    let scaled = S::mul(S::load(x.as_ptr().add(i)), S::splat(inverse));
                    S::store_i16(q.as_mut_ptr().add(i), scaled);
                }
            }
        }
    }
}

/// What a step is worth when `max` becomes `largest`, and the factor that makes it so.
#[inline(always)]
pub fn step_of(max: f32, largest: f32) -> (f32, f32) {
    // The inverse of almost nothing overflows, as that of nothing does: both become zeros.
    let inverse = Some(largest / max).filter(|x| x.is_finite()).unwrap_or(0.0);
    (max / largest, inverse)
}
