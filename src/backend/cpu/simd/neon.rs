//! NEON, which every 64-bit Arm processor has: two registers of 128 bits make one vector of eight.
//!
//! Run through all kernel tests, on x86-64 with what its intrinsics compute in plain Rust
//! (`neon_emulated.rs`), and compiled for aarch64 under qemu (`cargo test --target
//! aarch64-unknown-linux-gnu --lib backend::`). It was never run on an Arm processor, nor its speed
//! measured. Products of bytes go without the `dotprod` extension, whose intrinsics are not stable
//! yet.

// On the real machine intrinsics carry a target feature and do not pass as functions themselves.
#![allow(clippy::redundant_closure, clippy::undocumented_unsafe_blocks)]

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

use half::f16;

#[cfg(not(target_arch = "aarch64"))]
use super::neon_emulated::*;
use super::vector::{Kernel, Simd};

/// Pairs of vectors of 128 bits.
#[derive(Clone, Copy)]
pub struct Neon;

type F = [float32x4_t; 2];
type I = [int32x4_t; 2];

#[inline(always)]
fn map(a: F, f: impl Fn(float32x4_t) -> float32x4_t) -> F {
    [f(a[0]), f(a[1])]
}

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(float32x4_t, float32x4_t) -> float32x4_t) -> F {
    [f(a[0], b[0]), f(a[1], b[1])]
}

// SAFETY (all blocks of this file): the trait's contract: pointers valid. NEON is a part of every
// aarch64 target.
impl Simd for Neon {
    const LANES: usize = 8;
    // 6 rows of 2 pairs are 24 of the 32 registers.
    const TILE_VECTORS: usize = 2;
    type F = F;
    type I = I;

    #[inline(never)]
    unsafe fn call<K: Kernel>(kernel: K) -> K::Output {
        unsafe { kernel.run::<Self>() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        unsafe { [vdupq_n_f32(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        unsafe {
            vst1q_f32(p, x[0]);
            vst1q_f32(p.add(4), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> F {
        unsafe { [widened(vld1_u16(p)), widened(vld1_u16(p.add(4)))] }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, x: F) {
        unsafe {
            // One by one: only keys and values of new tokens are narrowed.
            let mut lanes = [0.0; 8];
            Self::store(lanes.as_mut_ptr(), x);
            let bits = lanes.map(|x| f16::from_f32(x).to_bits());
            p.cast::<[u16; 8]>().write_unaligned(bits);
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        unsafe { zip(a, b, |a, b| vaddq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        unsafe { zip(a, b, |a, b| vsubq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        unsafe { zip(a, b, |a, b| vmulq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        unsafe { zip(a, b, |a, b| vdivq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        unsafe { zip(a, b, |a, b| vmaxnmq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn abs(a: F) -> F {
        unsafe { map(a, |a| vabsq_f32(a)) }
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        unsafe { map(a, |a| vrndnq_f32(a)) }
    }
    #[inline(always)]
    unsafe fn scale_by_power(a: F, n: F) -> F {
        unsafe {
            zip(a, n, |a, n| {
                let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
                vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
            })
        }
    }
    #[inline(always)]
    unsafe fn reduce_add(a: F) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(a[0], a[1])) }
    }
    #[inline(always)]
    unsafe fn reduce_max(a: F) -> f32 {
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(a[0], a[1])) }
    }
    #[inline(always)]
    unsafe fn store_i8(p: *mut i8, a: F) {
        unsafe {
            let shorts = a.map(|a| vqmovn_s32(vcvtnq_s32_f32(a)));
            vst1_s8(p, vqmovn_s16(vcombine_s16(shorts[0], shorts[1])))
        }
    }

    #[inline(always)]
    unsafe fn prefetch(_p: *const u8) {
        #[cfg(target_arch = "aarch64")]
        unsafe {
            // The intrinsic is not stable. A hint: it never faults.
            std::arch::asm!(
                "prfm pldl1keep, [{p}]",
                p = in(reg) _p,
                options(nostack, preserves_flags, readonly)
            );
        }
    }

    #[inline(always)]
    unsafe fn prefetch_early(_p: *const u8) {
        #[cfg(target_arch = "aarch64")]
        unsafe {
            // As above.
            std::arch::asm!(
                "prfm pldl2keep, [{p}]",
                p = in(reg) _p,
                options(nostack, preserves_flags, readonly)
            );
        }
    }

    #[inline(always)]
    unsafe fn zero_i() -> I {
        unsafe { [vdupq_n_s32(0); 2] }
    }
    #[inline(always)]
    unsafe fn load_i(p: *const u8) -> I {
        unsafe { [vld1q_u8(p), vld1q_u8(p.add(16))].map(|x| vreinterpretq_s32_u8(x)) }
    }
    #[inline(always)]
    unsafe fn splat_4(p: *const i8) -> I {
        unsafe { [vdupq_n_s32(p.cast::<i32>().read_unaligned()); 2] }
    }
    #[inline(always)]
    unsafe fn to_float(a: I) -> F {
        unsafe { a.map(|a| vcvtq_f32_s32(a)) }
    }
    #[inline(always)]
    unsafe fn dot4<const WIDE: bool>(acc: I, a: I, b: I) -> I {
        unsafe { [dot4::<WIDE>(acc[0], a[0], b[0]), dot4::<WIDE>(acc[1], a[1], b[1])] }
    }

    #[inline(always)]
    unsafe fn dot2(acc: I, a: I, b: I) -> I {
        unsafe { [dot2(acc[0], a[0], b[0]), dot2(acc[1], a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const i8) -> I {
        unsafe { [vld1_s8(p), vld1_s8(p.add(8))].map(|x| vreinterpretq_s32_s16(vmovl_s8(x))) }
    }
    #[inline(always)]
    unsafe fn load_nibbles(p: *const u8) -> I {
        unsafe {
            let bytes = vmovl_s8(vld1_s8(p.cast()));
            [vget_low_s16(bytes), vget_high_s16(bytes)].map(|bytes| {
                let bytes = vandq_s32(vmovl_s16(bytes), vdupq_n_s32(0xff)); // without the sign's bits
                let both = vorrq_s32(vshlq_n_s32::<1>(bytes), vshlq_n_s32::<13>(bytes));
                let doubled = vandq_s32(both, vdupq_n_s32(0x1e_001e));
                vreinterpretq_s32_s16(vsubq_s16(vreinterpretq_s16_s32(doubled), vdupq_n_s16(15)))
            })
        }
    }
    #[inline(always)]
    unsafe fn store_i(p: *mut u8, a: I) {
        unsafe {
            vst1q_s32(p.cast(), a[0]);
            vst1q_s32(p.add(16).cast(), a[1]);
        }
    }
    #[inline(always)]
    unsafe fn pack_pairs(low: F, high: F) -> I {
        unsafe {
            let pack = |low: float32x4_t, high: float32x4_t| {
                let low = vandq_s32(vcvtnq_s32_f32(low), vdupq_n_s32(0xffff));
                vorrq_s32(low, vshlq_n_s32::<16>(vcvtnq_s32_f32(high)))
            };
            [pack(low[0], high[0]), pack(low[1], high[1])]
        }
    }
    #[inline(always)]
    unsafe fn low_shorts(a: I) -> F {
        unsafe { a.map(|a| vcvtq_f32_s32(vshrq_n_s32::<16>(vshlq_n_s32::<16>(a)))) }
    }
    #[inline(always)]
    unsafe fn high_shorts(a: I) -> F {
        unsafe { a.map(|a| vcvtq_f32_s32(vshrq_n_s32::<16>(a))) }
    }
    #[inline(always)]
    unsafe fn store_i16(p: *mut i16, a: F) {
        unsafe {
            let shorts = a.map(|a| vqmovn_s32(vcvtnq_s32_f32(a)));
            vst1q_s16(p, vcombine_s16(shorts[0], shorts[1]))
        }
    }

    #[inline(always)]
    unsafe fn add_ints(a: I, b: I) -> I {
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn shift_left_4(a: I) -> I {
        unsafe { a.map(|a| vshlq_n_s32::<4>(a)) }
    }

    #[inline(always)]
    unsafe fn transpose_words(p: *const u8, stride: usize) -> [I; 4] {
        unsafe {
            // Four rows a register.
            let register = |first: usize| {
                let row = |i: usize| vld1q_u8(p.add((first + i) * stride));
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| vreinterpretq_s32_u8(row(i)));
                let (ac_low, ac_high) = (vzip1q_s32(a, c), vzip2q_s32(a, c));
                let (bd_low, bd_high) = (vzip1q_s32(b, d), vzip2q_s32(b, d));
                [
                    vzip1q_s32(ac_low, bd_low),
                    vzip2q_s32(ac_low, bd_low),
                    vzip1q_s32(ac_high, bd_high),
                    vzip2q_s32(ac_high, bd_high),
                ]
            };
            let (first, second) = (register(0), register(4));
            std::array::from_fn(|j| [first[j], second[j]])
        }
    }
    #[inline(always)]
    unsafe fn low_nibbles(a: I) -> I {
        unsafe { a.map(|a| vandq_s32(a, vdupq_n_s32(0x0f0f_0f0f))) }
    }
    #[inline(always)]
    unsafe fn high_nibbles(a: I) -> I {
        unsafe { a.map(|a| vandq_s32(vshrq_n_s32::<4>(a), vdupq_n_s32(0x0f0f_0f0f))) }
    }
    #[inline(always)]
    unsafe fn flip_signs(a: I) -> I {
        unsafe { a.map(|a| veorq_s32(a, vdupq_n_s32(i32::from_ne_bytes([0x80; 4])))) }
    }
    #[inline(always)]
    unsafe fn split_halves(a: I) -> [F; 2] {
        unsafe {
            let bits = a.map(|a| vreinterpretq_u32_s32(a));
            let upper = bits.map(|bits| vshrq_n_u32::<16>(bits));
            [bits, upper].map(|bits| bits.map(|bits| widened(vmovn_u32(bits))))
        }
    }
}

/// f16 to f32 by moving bits: the conversion's own intrinsics are younger than our oldest compiler.
/// Exact; subnormals, infinities and NaN included.
#[inline(always)]
unsafe fn widened(half: uint16x4_t) -> float32x4_t {
    unsafe {
        let bits = vmovl_u16(half);
        let magnitude = vshlq_n_u32::<13>(vandq_u32(bits, vdupq_n_u32(0x7fff)));
        // The exponent's bias is 127 and not 15: times 2^112.
        let factor = vdupq_n_f32(f32::from_bits(0x7780_0000));
        let finite = vreinterpretq_u32_f32(vmulq_f32(vreinterpretq_f32_u32(magnitude), factor));
        let is_infinite = vcgeq_u32(magnitude, vdupq_n_u32(0x7c00 << 13));
        let infinite = vandq_u32(is_infinite, vdupq_n_u32(0x7f80_0000));
        let sign = vshlq_n_u32::<16>(vandq_u32(bits, vdupq_n_u32(0x8000)));
        vreinterpretq_f32_u32(vorrq_u32(vorrq_u32(finite, infinite), sign))
    }
}

/// To each integer of `acc` adds the four products of unsigned bytes of `a` and signed bytes of
/// `b`, which are within -127..=127.
#[inline(always)]
unsafe fn dot4<const WIDE: bool>(acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    unsafe {
        let (a, b) = (vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
        // Unsigned bytes less 128 are signed bytes; 128 times the bytes of `b` make up for it.
        let a = if WIDE { veorq_s8(a, vdupq_n_s8(-128)) } else { a };
        let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        let high = vmull_high_s8(a, b);
        // Two products fit 16 bits: 2 * 128 * 127.
        let acc = vpadalq_s16(acc, vpaddq_s16(low, high));
        if WIDE { vpadalq_s16(acc, vshlq_n_s16::<7>(vpaddlq_s8(b))) } else { acc }
    }
}

/// To each integer of `acc` adds the two products of 16-bit numbers that lie in it.
#[inline(always)]
unsafe fn dot2(acc: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    unsafe {
        let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
        let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
        vaddq_s32(acc, vpaddq_s32(low, vmull_high_s16(a, b)))
    }
}
