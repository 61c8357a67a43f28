//! How are two matrices multiplied when one of them is small enough for the L1 cache?
//!
//! `c[rows][cols] (+)= a[rows][k] * b[k][cols]` in register tiles of `TILE_ROWS` rows and
//! `Simd::TILE_VECTORS` vectors: each element of `a` is broadcast once a tile, each vector of
//! `b` serves six multiply-adds, and `c` stays in registers over the whole of `k`. The caller lays
//! `b` out so that its rows are contiguous (f32, or f16 widened as it is loaded); nothing is packed. Attention uses it for
//! `queries * keys^T` and `weights * values`, the f32 projections for `inputs * panel`.

use super::vector::{Kernel, Simd, TILE_ROWS};

/// What a tile starts from.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// Zeros.
    Zero,
    /// What `c` holds, each row times its factor.
    Scaled(&'a [f32]),
}

/// What the right-hand matrix is made of: f32, or f16 as bits.
pub trait Element: Copy {
    /// A vector of elements as floats.
    ///
    /// # Safety
    /// As `Simd::load`.
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: by the caller's word.
        unsafe { S::load(p) }
    }
}

impl Element for u16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Self) -> S::F {
        // SAFETY: by the caller's word.
        unsafe { S::load_f16(p) }
    }
}

/// A product of matrices with rows of `*_stride` elements.
#[derive(Debug)]
pub struct Product<'a, T> {
    /// Rows of `a` and `c`.
    pub n_rows: usize,
    /// Columns of `a`, rows of `b`.
    pub depth: usize,
    /// Columns of `b` and `c`; a multiple of 16.
    pub n_cols: usize,
    /// `[n_rows][depth]`
    pub a: &'a [f32],
    /// Floats from row to row of `a`.
    pub a_stride: usize,
    /// `[depth][n_cols]`
    pub b: &'a [T],
    /// Floats from row to row of `b`.
    pub b_stride: usize,
    /// `[n_rows][n_cols]`
    pub c: &'a mut [f32],
    /// Floats from row to row of `c`.
    pub c_stride: usize,
    /// What the sums start from.
    pub start: Start<'a>,
    /// Asked for meanwhile, since what is read next lies elsewhere.
    pub next: &'a [u8],
}

impl<T: Element> Kernel for Product<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        if self.n_rows == 0 || self.n_cols == 0 {
            return;
        }
        assert!(self.n_cols.is_multiple_of(16), "columns come in sixteens");
        assert!(self.a.len() >= (self.n_rows - 1) * self.a_stride + self.depth, "a is too short");
        let b_needs = (self.depth.max(1) - 1) * self.b_stride + self.n_cols;
        assert!(self.depth == 0 || self.b.len() >= b_needs, "b is too short");
        assert!(self.c.len() >= (self.n_rows - 1) * self.c_stride + self.n_cols, "c is too short");
        if let Start::Scaled(factors) = self.start {
            assert!(factors.len() >= self.n_rows, "a factor is missing");
        }
        // SAFETY: the lengths are checked above; the caller vouches for the instruction set.
        unsafe { self.run_unchecked::<S>() }
    }
}

impl<T: Element> Product<'_, T> {
    #[inline(always)]
    unsafe fn run_unchecked<S: Simd>(self) {
        let c = self.c.as_mut_ptr();
        let wide = S::TILE_VECTORS * S::LANES;
        let mut row = 0;
        while row < self.n_rows {
            let left = self.n_rows - row;
            let mut col = 0;
            while col < self.n_cols {
                let is_wide = self.n_cols - col >= wide;
                // SAFETY: the tile lies inside the matrices, whose lengths `run` has checked.
                unsafe {
                    let mut tile = self.tile_at(c, row, col);
                    if (row, col) == (0, 0) {
                        tile.ahead = Ahead::over(self.next, self.depth);
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
    unsafe fn tile_at(&self, c: *mut f32, row: usize, col: usize) -> Tile<T> {
        // SAFETY: inside the slices, by the caller's word.
        unsafe {
            Tile {
                depth: self.depth,
                a: self.a.as_ptr().add(row * self.a_stride),
                a_stride: self.a_stride,
                b: self.b.as_ptr().add(col),
                b_stride: self.b_stride,
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
struct Tile<T> {
    depth: usize,
    a: *const f32,
    a_stride: usize,
    b: *const T,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
    factors: Option<*const f32>,
    ahead: Ahead,
}

/// Cache lines to be asked for, some in each turn of a loop.
#[derive(Clone, Copy)]
pub struct Ahead {
    first: *const u8,
    lines_a_turn: usize,
}

impl Ahead {
    /// None.
    pub const NOTHING: Self = Self { first: std::ptr::null(), lines_a_turn: 0 };

    /// Those of `bytes`, spread over `n_turns`.
    #[inline(always)]
    pub fn over(bytes: &[u8], n_turns: usize) -> Self {
        Self {
            first: bytes.as_ptr(),
            lines_a_turn: bytes.len().div_ceil(CACHE_LINE * n_turns.max(1)),
        }
    }

    /// Asks for those of turn `turn`.
    ///
    /// # Safety
    /// As `Simd`.
    #[inline(always)]
    pub unsafe fn ask<S: Simd>(self, turn: usize) {
        for line in turn * self.lines_a_turn..(turn + 1) * self.lines_a_turn {
            // SAFETY: prefetching takes any address; the caller vouches for the instruction set.
            unsafe { S::prefetch(self.first.wrapping_add(CACHE_LINE * line)) }
        }
    }
}

const CACHE_LINE: usize = 64;

impl<T: Element> Tile<T> {
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
        // SAFETY: the tile of ROWS rows and VECTORS vectors lies inside the matrices.
        unsafe {
            let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
            if let Some(factors) = self.factors {
                for (row, sums) in sums.iter_mut().enumerate() {
                    let factor = S::splat(*factors.add(row));
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let old = S::load(self.c.add(row * self.c_stride + v * S::LANES));
                        *sum = S::mul(old, factor);
                    }
                }
            }
            for k in 0..self.depth {
                let b_row = self.b.add(k * self.b_stride);
                self.ahead.ask::<S>(k);
                let mut b = [S::splat(0.0); VECTORS];
                for (v, b) in b.iter_mut().enumerate() {
                    *b = T::load::<S>(b_row.add(v * S::LANES));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = S::splat(*self.a.add(row * self.a_stride + k));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = S::fma(a, b, *sum);
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    S::store(self.c.add(row * self.c_stride + v * S::LANES), sum);
                }
            }
        }
    }
}
