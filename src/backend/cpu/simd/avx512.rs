//! AVX-512 with VNNI (Intel since Cascade Lake, AMD since Zen 4).

use std::arch::x86_64::*;

use super::vector::{Kernel, Simd};

/// Vectors of 512 bits.
#[derive(Clone, Copy)]
pub struct Avx512;

/// # Safety
/// The features named are present.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
#[inline(never)]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here.
    unsafe { kernel.run::<Avx512>() }
}

// SAFETY (all blocks of this impl): the trait's contract: features present, pointers valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const LANES: usize = 16;
    const TILE_VECTORS: usize = 4;
    type F = __m512;
    type I = __m512i;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        unsafe { run(kernel) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, x: __m512) {
        unsafe {
            let half = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
            _mm256_storeu_si256(p.cast(), half);
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<_MM_FROUND_TO_NEAREST_INT>(a) }
    }
    #[inline(always)]
    unsafe fn scale_by_power(a: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    unsafe fn reduce_add(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    unsafe fn reduce_max(a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, a: __m512) {
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a))) }
    }

    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_early(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn zero_i() -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_4(p: *const i8) -> __m512i {
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn to_float(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn dot4<const WIDE: bool>(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, a, b) }
    }

    #[inline(always)]
    unsafe fn dot2(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // The saturating twin, which no sum here reaches: LLVM takes the other apart into a product
        // and an addition to shorten its latency, and so doubles what is to be done.
        unsafe { _mm512_dpwssds_epi32(acc, a, b) }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const i8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> __m512i {
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let low = _mm512_slli_epi32::<1>(bytes);
            let both = _mm512_or_si512(low, _mm512_slli_epi32::<13>(bytes));
            let doubled = _mm512_and_si512(both, _mm512_set1_epi16(0x1e));
            _mm512_sub_epi16(doubled, _mm512_set1_epi16(15))
        }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut u8, a: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn pack_pairs(low: __m512, high: __m512) -> __m512i {
        unsafe {
            let high = _mm512_slli_epi32::<16>(_mm512_cvtps_epi32(high));
            _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_cvtps_epi32(low), high)
        }
    }
    #[inline(always)]
    unsafe fn low_shorts(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_srai_epi32::<16>(_mm512_slli_epi32::<16>(a))) }
    }
    #[inline(always)]
    unsafe fn high_shorts(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_srai_epi32::<16>(a)) }
    }
    #[inline(always)]
    unsafe fn store_i16(p: *mut i16, a: __m512) {
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a))) }
    }

    #[inline(always)]
    unsafe fn add_ints(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_left_4(a: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi32::<4>(a) }
    }

    #[inline(always)]
    unsafe fn transpose_words(p: *const u8, stride: usize) -> [__m512i; 4] {
        unsafe {
            // Rows that are four apart go into one vector: within its quarters, which is where
            // the unpacking below takes place, the rows then come out in order.
            let every_fourth = |first: usize| {
                let row = |i: usize| _mm_loadu_si128(p.add((first + 4 * i) * stride).cast());
                let half = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(row(0)), row(1));
                let three = _mm512_inserti32x4::<2>(_mm512_castsi256_si512(half), row(2));
                _mm512_inserti32x4::<3>(three, row(3))
            };
            let (a, b) = (every_fourth(0), every_fourth(1));
            let (c, d) = (every_fourth(2), every_fourth(3));
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn flip_signs(a: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn split_halves(a: __m512i) -> [__m512; 2] {
        unsafe {
            let order = _mm512_loadu_si512(LOWER_THEN_UPPER.as_ptr().cast());
            let halves = _mm512_permutexvar_epi16(order, a);
            let (lower, upper) =
                (_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves));
            [_mm512_cvtph_ps(lower), _mm512_cvtph_ps(upper)]
        }
    }
}

/// The lower words of all integers, then the upper ones.
static LOWER_THEN_UPPER: [u16; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < 16 {
        words[i] = 2 * i as u16;
        words[16 + i] = 2 * i as u16 + 1;
        i += 1;
    }
    words
};
