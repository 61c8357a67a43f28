//! AVX-512 with VNNI (Intel since Cascade Lake, AMD since Zen 4).

use std::arch::x86_64::*;

use super::{Kernel, Simd};

/// Vectors of 512 bits.
#[derive(Clone, Copy)]
pub struct Avx512;

/// # Safety
/// The features named are present.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")]
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
    unsafe fn load_nibbles(p: *const u8, stride: usize) -> __m512i {
        unsafe {
            let first = _mm_loadu_si128(p.cast());
            let second = _mm_loadu_si128(p.add(stride).cast());
            let both = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(first), second);
            let mask = _mm256_set1_epi8(15);
            let low = _mm256_and_si256(both, mask);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask);
            let mixed = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            _mm512_shuffle_i64x2::<0b11_01_10_00>(mixed, mixed)
        }
    }
    #[inline(always)]
    unsafe fn load_bytes_plus_128(p: *const u8, stride: usize) -> __m512i {
        unsafe {
            let first = _mm256_loadu_si256(p.cast());
            let second = _mm256_loadu_si256(p.add(stride).cast());
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second);
            _mm512_xor_si512(both, _mm512_set1_epi8(-128))
        }
    }
    #[inline(always)]
    unsafe fn scaled_pairs(p: *const u8, stride: usize, x: *const f32) -> __m512 {
        unsafe {
            let first = p.cast::<i32>().read_unaligned();
            let second = p.add(stride).cast::<i32>().read_unaligned();
            let halves = _mm_insert_epi32::<1>(_mm_cvtsi32_si128(first), second);
            _mm512_zextps128_ps512(_mm_mul_ps(_mm_cvtph_ps(halves), _mm_loadu_ps(x)))
        }
    }
    #[inline(always)]
    unsafe fn scaled_singles(p: *const u8, stride: usize, x: *const f32) -> __m512 {
        unsafe {
            let first = i32::from(p.cast::<u16>().read_unaligned());
            let second = i32::from(p.add(stride).cast::<u16>().read_unaligned());
            let halves = _mm_insert_epi16::<2>(_mm_cvtsi32_si128(first), second);
            let halves = _mm_or_si128(halves, _mm_slli_epi32::<16>(halves));
            _mm512_zextps128_ps512(_mm_mul_ps(_mm_cvtph_ps(halves), _mm_loadu_ps(x)))
        }
    }
    #[inline(always)]
    unsafe fn spread_pairs(pairs: __m512) -> __m512 {
        unsafe {
            let lanes = _mm512_set_epi32(2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0);
            _mm512_permutexvar_ps(lanes, pairs)
        }
    }
    #[inline(always)]
    unsafe fn sum_offsets(pairs: __m512) -> f32 {
        unsafe {
            let low = _mm512_castps512_ps128(pairs);
            let odd = _mm_movehdup_ps(low);
            _mm_cvtss_f32(_mm_add_ss(odd, _mm_movehl_ps(odd, odd)))
        }
    }
}
