//! Which operations are the inner loops written in? A small vocabulary over vectors; one file an
//! instruction set implements it.
//!
//! Every method of `Simd` and every generic function that calls one is `inline(always)`: it must
//! end up inside the one function that carries the `target_feature` attribute.

/// Query rows or token rows that one register tile covers.
pub const TILE_ROWS: usize = 6;

/// Vectors of `Simd::LANES` floats, and as many 32-bit integers (or four times as many bytes).
///
/// # Safety
/// All methods: the instruction set is present, and every pointer is valid for what is read or
/// written there, without demands on alignment.
pub trait Simd: Copy + 'static {
    /// Floats in a vector: 8 or 16.
    const LANES: usize;
    /// Vectors side by side in a register tile of `TILE_ROWS` rows.
    const TILE_VECTORS: usize;
    /// `LANES` floats.
    type F: Copy;
    /// `LANES` integers of 32 bits, or `4 * LANES` bytes.
    type I: Copy;

    /// Runs another kernel as a function of its own: one that several loops use is compiled once.
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    /// Reads f16.
    unsafe fn load_f16(p: *const u16) -> Self::F;
    /// Writes f16, rounded to nearest even.
    unsafe fn store_f16(p: *mut u16, x: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(a: Self::F) -> Self::F;
    /// `a * b + c`
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Nearest integer, as float.
    unsafe fn round(a: Self::F) -> Self::F;
    /// `a * 2^n` for integral `n` in `-126..=127`.
    unsafe fn scale_by_power(a: Self::F, n: Self::F) -> Self::F;
    unsafe fn reduce_add(a: Self::F) -> f32;
    unsafe fn reduce_max(a: Self::F) -> f32;
    /// Rounds to the nearest integers and writes them as `LANES` signed bytes (they must fit).
    unsafe fn store_i8(p: *mut i8, a: Self::F);

    /// Asks for the cache line at `p`, which need not be valid.
    unsafe fn prefetch(p: *const u8);
    /// As [`prefetch`](Self::prefetch), but no nearer than the L2 cache: for what is read later.
    unsafe fn prefetch_early(p: *const u8);

    unsafe fn zero_i() -> Self::I;
    /// Reads `4 * LANES` bytes.
    unsafe fn load_i(p: *const u8) -> Self::I;
    /// The same four bytes in each integer.
    unsafe fn splat_4(p: *const i8) -> Self::I;
    unsafe fn to_float(a: Self::I) -> Self::F;
    /// To each integer of `acc` adds the four products of unsigned bytes of `a` and signed bytes
    /// of `b`, within -127..=127, that lie in it. `WIDE`: `a` may exceed 127.
    unsafe fn dot4<const WIDE: bool>(acc: Self::I, a: Self::I, b: Self::I) -> Self::I;

    /// To each integer of `acc` adds the two products of signed 16-bit numbers of `a` and `b` that
    /// lie in it.
    unsafe fn dot2(acc: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// Reads `2 * LANES` signed bytes as 16-bit numbers.
    unsafe fn load_pairs(p: *const i8) -> Self::I;
    /// Reads `LANES` bytes, the nibbles of each as two 16-bit numbers, `2 * nibble - 15`, the lower
    /// nibble first.
    unsafe fn load_nibbles(p: *const u8) -> Self::I;
    /// Writes `4 * LANES` bytes.
    unsafe fn store_i(p: *mut u8, a: Self::I);
    /// Rounds to the nearest integers, which must fit 16 bits, and puts each of `low` below that
    /// of `high`.
    unsafe fn pack_pairs(low: Self::F, high: Self::F) -> Self::I;
    /// The lower 16-bit number of each integer.
    unsafe fn low_shorts(a: Self::I) -> Self::F;
    /// The upper 16-bit number of each integer.
    unsafe fn high_shorts(a: Self::I) -> Self::F;
    /// Rounds to the nearest integers and writes them as `LANES` 16-bit numbers (they must fit).
    unsafe fn store_i16(p: *mut i16, a: Self::F);

    unsafe fn add_ints(a: Self::I, b: Self::I) -> Self::I;
    /// `a << 4`
    unsafe fn shift_left_4(a: Self::I) -> Self::I;

    /// Sixteen bytes of each of `LANES` rows, `stride` bytes apart, turned on their side: vector
    /// `j` holds the `j`-th four bytes of each row.
    unsafe fn transpose_words(p: *const u8, stride: usize) -> [Self::I; 4];
    /// The lower four bits of each byte.
    unsafe fn low_nibbles(a: Self::I) -> Self::I;
    /// The upper four bits of each byte.
    unsafe fn high_nibbles(a: Self::I) -> Self::I;
    /// Each byte plus 128, so that signed bytes become unsigned.
    unsafe fn flip_signs(a: Self::I) -> Self::I;
    /// The lower and the upper f16 of each integer.
    unsafe fn split_halves(a: Self::I) -> [Self::F; 2];
}

/// A loop, ready to run: its arguments, and a body generic over the instruction set.
pub trait Kernel {
    /// What the loop returns.
    type Output;
    /// The body. Implementations must be `#[inline(always)]`.
    ///
    /// # Safety
    /// The instruction set `S` is present on this machine.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// e^x with a relative error below 2e-7; 0 < result where x is below the range of f32.
///
/// # Safety
/// As `Simd`.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // Range reduction to |r| <= ln(2)/2, then the Taylor polynomial of degree 7 (Cody and Waite).
    // SAFETY: the caller vouches for the instruction set; no memory is touched.
    unsafe {
        let x = S::max(x, S::splat(-87.0));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = S::fma(p, r, S::splat(c));
        }
        S::scale_by_power(p, n)
    }
}

/// 2^x for x within -126..=126, and for all below as for -126, with a relative error below 3e-6:
/// for what is rounded to 13 bits anyway.
///
/// # Safety
/// As `Simd`.
#[inline(always)]
pub unsafe fn exp2_rough<S: Simd>(x: S::F) -> S::F {
    // The polynomial of degree 4 with the least relative error on -1/2..=1/2.
    // SAFETY: the caller vouches for the instruction set; no memory is touched.
    unsafe {
        let x = S::max(x, S::splat(-126.0));
        let n = S::round(x);
        let r = S::sub(x, n);
        let mut p = S::splat(0.009_570_102);
        for c in [0.055_917_86, 0.240_247_45, 0.693_121_8, 0.999_999_3] {
            p = S::fma(p, r, S::splat(c));
        }
        S::scale_by_power(p, n)
    }
}
