//! AVX-512 with VNNI (Intel since Cascade Lake, AMD since Zen 4).

use std::arch::x86_64::*;

use super::vector::{Blocks, Kernel, Simd};

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
    type P = __m256;

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
    unsafe fn reduce_add_4([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        unsafe {
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let low = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
            let all = _mm512_add_ps(low, _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd));
            let eight =
                _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps::<1>(all));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), four);
            sums
        }
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
    unsafe fn shift_left_7(a: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi32::<7>(a) }
    }

    #[inline(always)]
    unsafe fn load_q4_0(p: *const u8) -> Blocks<Self> {
        unsafe {
            // Four blocks are 72 bytes: 36 words, of which every ninth is a scale.
            let (head, tail) = (_mm512_loadu_si512(p.cast()), _mm512_loadu_si512(p.add(8).cast()));
            let quants = _mm512_loadu_si512(Q4_0_QUANTS.as_ptr().cast());
            let packed = _mm512_permutex2var_epi16(head, quants, tail);
            let scales = _mm512_loadu_si512(Q4_0_SCALES.as_ptr().cast());
            let scales = _mm512_castsi512_si128(_mm512_permutexvar_epi16(scales, head));
            let (first, second) = nibbles(packed);
            Blocks { first, second, pairs: _mm256_cvtph_ps(scales) }
        }
    }
    #[inline(always)]
    unsafe fn load_q4_1(p: *const u8) -> Blocks<Self> {
        unsafe {
            // Four blocks are 80 bytes: 20 double words, of which every fifth is scale and offset.
            let head = _mm512_loadu_si512(p.cast());
            let tail = _mm512_castsi128_si512(_mm_loadu_si128(p.add(64).cast()));
            let quants = _mm512_setr_epi32(1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18, 19);
            let packed = _mm512_permutex2var_epi32(head, quants, tail);
            let scales = _mm512_setr_epi32(0, 5, 10, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            let scales = _mm512_castsi512_si128(_mm512_permutexvar_epi32(scales, head));
            let (first, second) = nibbles(packed);
            Blocks { first, second, pairs: _mm256_cvtph_ps(scales) }
        }
    }
    #[inline(always)]
    unsafe fn load_q8_0(p: *const u8) -> Blocks<Self> {
        unsafe {
            let quarter = |at: usize| _mm_loadu_si128(p.add(at).cast());
            let gather = |at: usize| {
                let low = _mm256_set_m128i(quarter(at + 34), quarter(at));
                let high = _mm256_set_m128i(quarter(at + 102), quarter(at + 68));
                let all = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
                _mm512_xor_si512(all, _mm512_set1_epi8(-128))
            };
            let scale = |block: usize| {
                let bits = p.add(34 * block).cast::<u16>().read_unaligned();
                i32::from(bits).wrapping_mul(0x1_0001)
            };
            let scales = _mm_setr_epi32(scale(0), scale(1), scale(2), scale(3));
            Blocks { first: gather(2), second: gather(18), pairs: _mm256_cvtph_ps(scales) }
        }
    }
    #[inline(always)]
    unsafe fn zero_pairs() -> __m256 {
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn add_pairs(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul_pairs(a: __m256, p: *const f32) -> __m256 {
        unsafe { _mm256_mul_ps(a, _mm256_loadu_ps(p)) }
    }
    #[inline(always)]
    unsafe fn spread_firsts(pairs: __m256) -> __m512 {
        unsafe {
            let lanes = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
            _mm512_permutexvar_ps(lanes, _mm512_castps256_ps512(pairs))
        }
    }
    #[inline(always)]
    unsafe fn add_seconds(acc: __m512, pairs: __m256, factor: f32) -> __m512 {
        unsafe {
            let factors = _mm512_maskz_mov_ps(0xaaaa, _mm512_set1_ps(factor));
            _mm512_fmadd_ps(_mm512_zextps256_ps512(pairs), factors, acc)
        }
    }
}

/// Low and high nibbles of each byte.
#[inline(always)]
unsafe fn nibbles(packed: __m512i) -> (__m512i, __m512i) {
    // SAFETY: the caller vouches for the features; no memory is touched.
    unsafe {
        let mask = _mm512_set1_epi8(15);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask);
        (_mm512_and_si512(packed, mask), high)
    }
}

/// Words of four Q4_0 blocks that are quants; from 32 on those of the second load, 4 words later.
static Q4_0_QUANTS: [u16; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < 32 {
        let word = i / 8 * 9 + 1 + i % 8;
        words[i] = (if word < 32 { word } else { 32 + word - 4 }) as u16;
        i += 1;
    }
    words
};

/// Words of four Q4_0 blocks that are scales, each twice.
static Q4_0_SCALES: [u16; 32] = {
    let mut words = [0; 32];
    let mut i = 0;
    while i < 8 {
        words[i] = (i / 2 * 9) as u16;
        i += 1;
    }
    words
};
