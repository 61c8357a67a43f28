//! AVX2 with FMA and F16C (Intel since Haswell, AMD since Zen).

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Vectors of 256 bits.
#[derive(Clone, Copy)]
pub struct Avx2;

/// # Safety
/// The features named are present.
#[target_feature(enable = "avx2,fma,f16c")]
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
    unsafe fn load_nibbles(p: *const u8, _stride: usize) -> __m256i {
        unsafe {
            let bytes = _mm_loadu_si128(p.cast());
            let high = _mm_srli_epi16::<4>(bytes);
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(bytes), high);
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        }
    }
    #[inline(always)]
    unsafe fn load_bytes_plus_128(p: *const u8, _stride: usize) -> __m256i {
        unsafe { _mm256_xor_si256(_mm256_loadu_si256(p.cast()), _mm256_set1_epi8(-128)) }
    }
    #[inline(always)]
    unsafe fn scaled_pairs(p: *const u8, _stride: usize, x: *const f32) -> __m256 {
        unsafe {
            let halves = _mm_cvtsi32_si128(p.cast::<i32>().read_unaligned());
            let pair = _mm_castsi128_ps(_mm_loadl_epi64(x.cast()));
            _mm256_zextps128_ps256(_mm_mul_ps(_mm_cvtph_ps(halves), pair))
        }
    }
    #[inline(always)]
    unsafe fn scaled_singles(p: *const u8, _stride: usize, x: *const f32) -> __m256 {
        unsafe {
            let half = i32::from(p.cast::<u16>().read_unaligned());
            let halves = _mm_cvtsi32_si128(half | half << 16);
            let pair = _mm_castsi128_ps(_mm_loadl_epi64(x.cast()));
            _mm256_zextps128_ps256(_mm_mul_ps(_mm_cvtph_ps(halves), pair))
        }
    }
    #[inline(always)]
    unsafe fn spread_pairs(pairs: __m256) -> __m256 {
        unsafe { _mm256_broadcastss_ps(_mm256_castps256_ps128(pairs)) }
    }
    #[inline(always)]
    unsafe fn sum_offsets(pairs: __m256) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_movehdup_ps(_mm256_castps256_ps128(pairs))) }
    }
}
