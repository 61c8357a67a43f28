//! Plain Rust: for machines without the others, and the twin that the others are tested against.

use half::f16;

use super::vector::{Kernel, Simd};

/// Vectors of eight floats in an array.
#[derive(Clone, Copy)]
pub struct Portable;

type F = [f32; 8];

#[inline(always)]
fn map(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

// SAFETY (all blocks of this impl): the trait's contract: pointers valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Portable {
    const LANES: usize = 8;
    const TILE_VECTORS: usize = 1;
    type F = F;
    type I = [i32; 8];

    #[inline(never)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        unsafe { kernel.run::<Self>() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        unsafe { p.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        unsafe { p.cast::<F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        let bits = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        bits.map(|bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, x: F) {
        let bits = x.map(|x| f16::from_f32(x).to_bits());
        unsafe { p.cast::<[u16; 8]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        map(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        map(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        map(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        map(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        map(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        a.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        // Not `mul_add`: without the instruction it is a call into the C library.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn scale_by_power(a: F, n: F) -> F {
        map(a, n, |a, n| a * f32::from_bits(((n as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn reduce_add(a: F) -> f32 {
        let four: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    unsafe fn reduce_max(a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, a: F) {
        let bytes = a.map(|a| a.round_ties_even() as i8);
        unsafe { p.cast::<[i8; 8]>().write_unaligned(bytes) }
    }

    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {}
    #[inline(always)]
    unsafe fn prefetch_early(_p: *const u8) {}

    #[inline(always)]
    unsafe fn zero_i() -> [i32; 8] {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn load_i(p: *const u8) -> [i32; 8] {
        unsafe { p.cast::<[i32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat_4(p: *const i8) -> [i32; 8] {
        [unsafe { p.cast::<i32>().read_unaligned() }; 8]
    }
    #[inline(always)]
    unsafe fn to_float(a: [i32; 8]) -> F {
        a.map(|a| a as f32)
    }
    #[inline(always)]
    unsafe fn dot4<const WIDE: bool>(acc: [i32; 8], a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| {
            let (a, b) = (a[i].to_ne_bytes(), b[i].to_ne_bytes());
            (0..4).fold(acc[i], |sum, j| sum + i32::from(a[j]) * i32::from(b[j] as i8))
        })
    }

    #[inline(always)]
    unsafe fn dot2(acc: [i32; 8], a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| acc[i] + low(a[i]) * low(b[i]) + high(a[i]) * high(b[i]))
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const i8) -> [i32; 8] {
        let bytes = unsafe { p.cast::<[i8; 16]>().read_unaligned() };
        std::array::from_fn(|i| pair(bytes[2 * i].into(), bytes[2 * i + 1].into()))
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> [i32; 8] {
        let bytes = unsafe { p.cast::<[u8; 8]>().read_unaligned() };
        let whole = |nibble: u8| 2 * i32::from(nibble) - 15;
        bytes.map(|byte| pair(whole(byte & 15), whole(byte >> 4)))
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut u8, a: [i32; 8]) {
        unsafe { p.cast::<[i32; 8]>().write_unaligned(a) }
    }
    #[inline(always)]
    unsafe fn pack_pairs(low: F, high: F) -> [i32; 8] {
        let round = |x: f32| x.round_ties_even() as i32;
        std::array::from_fn(|i| pair(round(low[i]), round(high[i])))
    }
    #[inline(always)]
    unsafe fn low_shorts(a: [i32; 8]) -> F {
        a.map(|a| low(a) as f32)
    }
    #[inline(always)]
    unsafe fn high_shorts(a: [i32; 8]) -> F {
        a.map(|a| high(a) as f32)
    }
    #[inline(always)]
    unsafe fn store_i16(p: *mut i16, a: F) {
        let shorts = a.map(|a| a.round_ties_even() as i16);
        unsafe { p.cast::<[i16; 8]>().write_unaligned(shorts) }
    }

    #[inline(always)]
    unsafe fn add_ints(a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn shift_left_4(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a << 4)
    }

    #[inline(always)]
    unsafe fn transpose_words(p: *const u8, stride: usize) -> [[i32; 8]; 4] {
        let row = |i: usize| unsafe { p.add(i * stride).cast::<[i32; 4]>().read_unaligned() };
        let rows: [[i32; 4]; 8] = std::array::from_fn(row);
        std::array::from_fn(|j| rows.map(|row| row[j]))
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a & 0x0f0f_0f0f)
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a >> 4 & 0x0f0f_0f0f)
    }
    #[inline(always)]
    unsafe fn flip_signs(a: [i32; 8]) -> [i32; 8] {
        a.map(|a| a ^ i32::from_ne_bytes([0x80; 4]))
    }
    #[inline(always)]
    unsafe fn split_halves(a: [i32; 8]) -> [F; 2] {
        let float = |bits: i32| f16::from_bits(bits as u16).to_f32();
        [a.map(float), a.map(|a| float(a >> 16))]
    }
}

/// Two 16-bit numbers in one integer.
#[inline(always)]
fn pair(low: i32, high: i32) -> i32 {
    low & 0xffff | high << 16
}

#[inline(always)]
fn low(pair: i32) -> i32 {
    pair << 16 >> 16
}

#[inline(always)]
fn high(pair: i32) -> i32 {
    pair >> 16
}
