//! AVX2 with FMA and F16C (Intel since Haswell, AMD since Zen).

use std::arch::x86_64::*;

use super::vector::{Blocks, Kernel, Simd};

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
    type P = __m128;

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
    unsafe fn reduce_add_4([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
        unsafe {
            let all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let four = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), four);
            sums
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
    unsafe fn shift_left_7(a: __m256i) -> __m256i {
        unsafe { _mm256_slli_epi32::<7>(a) }
    }

    #[inline(always)]
    unsafe fn load_q4_0(p: *const u8) -> Blocks<Self> {
        unsafe {
            let (first, second) = nibbles(p.add(2), p.add(20));
            Blocks { first, second, pairs: doubled_scales(p, p.add(18)) }
        }
    }
    #[inline(always)]
    unsafe fn load_q4_1(p: *const u8) -> Blocks<Self> {
        unsafe {
            let (first, second) = nibbles(p.add(4), p.add(24));
            let scales = _mm_cvtsi32_si128(p.cast::<i32>().read_unaligned());
            let scales = _mm_insert_epi32::<1>(scales, p.add(20).cast::<i32>().read_unaligned());
            Blocks { first, second, pairs: _mm_cvtph_ps(scales) }
        }
    }
    #[inline(always)]
    unsafe fn load_q8_0(p: *const u8) -> Blocks<Self> {
        unsafe {
            let gather = |at: usize| {
                let low = _mm_loadu_si128(p.add(at).cast());
                let both = _mm256_set_m128i(_mm_loadu_si128(p.add(at + 34).cast()), low);
                _mm256_xor_si256(both, _mm256_set1_epi8(-128))
            };
            Blocks { first: gather(2), second: gather(18), pairs: doubled_scales(p, p.add(34)) }
        }
    }
    #[inline(always)]
    unsafe fn zero_pairs() -> __m128 {
        unsafe { _mm_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn add_pairs(a: __m128, b: __m128) -> __m128 {
        unsafe { _mm_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_pairs(a: __m128, p: *const f32) -> __m128 {
        unsafe { _mm_mul_ps(a, _mm_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn spread_firsts(pairs: __m128) -> __m256 {
        unsafe {
            let lanes = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
            _mm256_permutevar8x32_ps(_mm256_castps128_ps256(pairs), lanes)
        }
    }
    #[inline(always)]
    unsafe fn add_seconds(acc: __m256, pairs: __m128, factor: f32) -> __m256 {
        unsafe {
            let factors = _mm256_setr_ps(0.0, factor, 0.0, factor, 0.0, 0.0, 0.0, 0.0);
            _mm256_fmadd_ps(_mm256_zextps128_ps256(pairs), factors, acc)
        }
    }
}

/// Low and high nibbles of 16 bytes at `a` and 16 at `b`.
#[inline(always)]
unsafe fn nibbles(a: *const u8, b: *const u8) -> (__m256i, __m256i) {
    // SAFETY: the caller vouches for the features and the pointers.
    unsafe {
        let both = _mm256_set_m128i(_mm_loadu_si128(b.cast()), _mm_loadu_si128(a.cast()));
        let mask = _mm256_set1_epi8(15);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
        (_mm256_and_si256(both, mask), high)
    }
}

/// The f16 at `a` twice, the f16 at `b` twice.
#[inline(always)]
unsafe fn doubled_scales(a: *const u8, b: *const u8) -> __m128 {
    // SAFETY: the caller vouches for the features and the pointers.
    unsafe {
        let doubled =
            |p: *const u8| i32::from(p.cast::<u16>().read_unaligned()).wrapping_mul(0x1_0001);
        _mm_cvtph_ps(_mm_insert_epi32::<1>(_mm_cvtsi32_si128(doubled(a)), doubled(b)))
    }
}
