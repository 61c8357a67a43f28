//! AVX2 with FMA and F16C (Intel since Haswell, AMD since Zen).

use std::arch::x86_64::*;

use super::vector::{Kernel, Simd};

/// Vectors of 256 bits.
#[derive(Clone, Copy)]
pub struct Avx2;

/// # Safety
/// The features named are present.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline(never)]
pub unsafe fn run<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: the features are enabled here.
    unsafe { kernel.run::<Avx2>() }
}

// SAFETY (all blocks of this impl): the trait's contract: features present, pointers valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    const LANES: usize = 8;
    const TILE_VECTORS: usize = 2;
    type F = __m256;
    type I = __m256i;

    #[inline(always)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        unsafe { run(kernel) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, x: __m256) {
        unsafe {
            let half = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
            _mm_storeu_si128(p.cast(), half);
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn abs(a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn scale_by_power(a: __m256, n: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    unsafe fn reduce_add(a: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn reduce_max(a: __m256) -> f32 {
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, a: __m256) {
        unsafe {
            let words = _mm256_cvtps_epi32(a);
            let low = _mm256_castsi256_si128(words);
            let shorts = _mm_packs_epi32(low, _mm256_extracti128_si256::<1>(words));
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(shorts, shorts));
        }
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
    unsafe fn zero_i() -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn splat_4(p: *const i8) -> __m256i {
        unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn to_float(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn dot4<const WIDE: bool>(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // `maddubs` adds two products in 16 bits and saturates: 2 * 127 * 128 fits, 2 * 255 * 128
        // does not, so the top bit of a wide byte is multiplied on its own.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let top = _mm256_set1_epi8(-128);
            let low = if WIDE { _mm256_andnot_si256(top, a) } else { a };
            let sum = _mm256_madd_epi16(_mm256_maddubs_epi16(low, b), ones);
            let acc = _mm256_add_epi32(acc, sum);
            if !WIDE {
                return acc;
            }
            // 128 * b + 128 * b' would saturate at -32768 only for b = b' = -128, and then
            // exactly; activations are within -127..=127 anyway.
            let high = _mm256_maddubs_epi16(_mm256_and_si256(top, a), b);
            _mm256_add_epi32(acc, _mm256_madd_epi16(high, ones))
        }
    }

    #[inline(always)]
    unsafe fn dot2(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const i8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> __m256i {
        unsafe {
            let bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
            let low = _mm256_slli_epi32::<1>(bytes);
            let both = _mm256_or_si256(low, _mm256_slli_epi32::<13>(bytes));
            let doubled = _mm256_and_si256(both, _mm256_set1_epi16(0x1e));
            _mm256_sub_epi16(doubled, _mm256_set1_epi16(15))
        }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut u8, a: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn pack_pairs(low: __m256, high: __m256) -> __m256i {
        unsafe {
            let high = _mm256_slli_epi32::<16>(_mm256_cvtps_epi32(high));
            _mm256_blend_epi16::<0b1010_1010>(_mm256_cvtps_epi32(low), high)
        }
    }
    #[inline(always)]
    unsafe fn low_shorts(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(a))) }
    }
    #[inline(always)]
    unsafe fn high_shorts(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_srai_epi32::<16>(a)) }
    }
    #[inline(always)]
    unsafe fn store_i16(p: *mut i16, a: __m256) {
        unsafe {
            let words = _mm256_cvtps_epi32(a);
            let low = _mm256_castsi256_si128(words);
            let high = _mm256_extracti128_si256::<1>(words);
            _mm_storeu_si128(p.cast(), _mm_packs_epi32(low, high));
        }
    }

    #[inline(always)]
    unsafe fn add_ints(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_left_4(a: __m256i) -> __m256i {
        unsafe { _mm256_slli_epi32::<4>(a) }
    }

    #[inline(always)]
    unsafe fn transpose_words(p: *const u8, stride: usize) -> [__m256i; 4] {
        unsafe {
            // Rows that are four apart go into one vector: within its halves, which is where the
            // unpacking below takes place, the rows then come out in order.
            let every_fourth = |first: usize| {
                let row = |i: usize| _mm_loadu_si128(p.add((first + 4 * i) * stride).cast());
                _mm256_set_m128i(row(1), row(0))
            };
            let (a, b) = (every_fourth(0), every_fourth(1));
            let (c, d) = (every_fourth(2), every_fourth(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(a), _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    unsafe fn flip_signs(a: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, _mm256_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn split_halves(a: __m256i) -> [__m256; 2] {
        unsafe {
            // Lower words first, within each half; then across the halves.
            let words = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
            let sorted = _mm256_shuffle_epi8(a, _mm256_set_m128i(words, words));
            let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(sorted);
            let upper = _mm256_extracti128_si256::<1>(halves);
            [_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(upper)]
        }
    }
}
