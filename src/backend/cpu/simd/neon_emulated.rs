//! What do the NEON intrinsics that `neon.rs` uses compute? Plain Rust with the same names, types
//! and meanings (Arm's "Neon Intrinsics Reference"), so that tests on other machines run the very
//! source that aarch64 compiles. All are unsafe: so are those of `std::arch` to a caller that does
//! not name the target feature.

#![allow(non_camel_case_types)]

#[derive(Clone, Copy)]
pub struct float32x4_t([f32; 4]);
#[derive(Clone, Copy)]
pub struct int32x4_t([i32; 4]);
#[derive(Clone, Copy)]
pub struct uint32x4_t([u32; 4]);
#[derive(Clone, Copy)]
pub struct int16x8_t([i16; 8]);
#[derive(Clone, Copy)]
pub struct int16x4_t([i16; 4]);
#[derive(Clone, Copy)]
pub struct uint16x4_t([u16; 4]);
#[derive(Clone, Copy)]
pub struct int8x16_t([i8; 16]);
#[derive(Clone, Copy)]
pub struct int8x8_t([i8; 8]);
#[derive(Clone, Copy)]
pub struct uint8x16_t([u8; 16]);

/// A function of one vector, lane by lane.
macro_rules! unary {
    ($($name:ident: $a:ident -> $out:ident = $f:expr;)*) => {$(
        #[inline(always)]
        pub unsafe fn $name(a: $a) -> $out {
            $out(a.0.map($f))
        }
    )*};
}

/// A function of two vectors, lane by lane.
macro_rules! binary {
    ($($name:ident: $a:ident = $f:expr;)*) => {$(
        #[inline(always)]
        pub unsafe fn $name(a: $a, b: $a) -> $a {
            $a(std::array::from_fn(|i| $f(a.0[i], b.0[i])))
        }
    )*};
}

/// A shift of each lane by a constant.
macro_rules! shift {
    ($($name:ident: $a:ident = $f:expr;)*) => {$(
        #[inline(always)]
        pub unsafe fn $name<const N: i32>(a: $a) -> $a {
            $a(a.0.map(|a| $f(a, N)))
        }
    )*};
}

/// The same number in each lane.
macro_rules! duplicate {
    ($($name:ident: $number:ty => $out:ident;)*) => {$(
        #[inline(always)]
        pub unsafe fn $name(x: $number) -> $out {
            $out([x; size_of::<$out>() / size_of::<$number>()])
        }
    )*};
}

/// The same bits as lanes of another type.
macro_rules! reinterpret {
    ($($name:ident: $a:ident -> $out:ident;)*) => {$(
        #[inline(always)]
        pub unsafe fn $name(a: $a) -> $out {
            $out(bytemuck::cast(a.0))
        }
    )*};
}

/// Loads of a whole vector, from any address.
macro_rules! load {
    ($($name:ident: $number:ty => $out:ident;)*) => {$(
        /// # Safety
        /// A vector can be read at `p`.
        #[inline(always)]
        pub unsafe fn $name(p: *const $number) -> $out {
            // SAFETY: by the caller's word.
            unsafe { p.cast::<$out>().read_unaligned() }
        }
    )*};
}

/// Stores of a whole vector, to any address.
macro_rules! store {
    ($($name:ident: $number:ty => $a:ident;)*) => {$(
        /// # Safety
        /// A vector can be written at `p`.
        #[inline(always)]
        pub unsafe fn $name(p: *mut $number, a: $a) {
            // SAFETY: by the caller's word.
            unsafe { p.cast::<$a>().write_unaligned(a) }
        }
    )*};
}

duplicate! {
    vdupq_n_f32: f32 => float32x4_t;
    vdupq_n_s32: i32 => int32x4_t;
    vdupq_n_u32: u32 => uint32x4_t;
    vdupq_n_s16: i16 => int16x8_t;
    vdupq_n_s8: i8 => int8x16_t;
}
load! {
    vld1q_f32: f32 => float32x4_t;
    vld1q_u8: u8 => uint8x16_t;
    vld1_u16: u16 => uint16x4_t;
    vld1_s8: i8 => int8x8_t;
}
store! {
    vst1q_f32: f32 => float32x4_t;
    vst1_s8: i8 => int8x8_t;
    vst1q_s16: i16 => int16x8_t;
    vst1q_s32: i32 => int32x4_t;
}
reinterpret! {
    vreinterpretq_f32_s32: int32x4_t -> float32x4_t;
    vreinterpretq_f32_u32: uint32x4_t -> float32x4_t;
    vreinterpretq_u32_f32: float32x4_t -> uint32x4_t;
    vreinterpretq_u32_s32: int32x4_t -> uint32x4_t;
    vreinterpretq_s32_u8: uint8x16_t -> int32x4_t;
    vreinterpretq_s8_s32: int32x4_t -> int8x16_t;
    vreinterpretq_s16_s32: int32x4_t -> int16x8_t;
    vreinterpretq_s32_s16: int16x8_t -> int32x4_t;
}
binary! {
    vaddq_f32: float32x4_t = |a, b| a + b;
    vsubq_f32: float32x4_t = |a, b| a - b;
    vmulq_f32: float32x4_t = |a, b| a * b;
    vdivq_f32: float32x4_t = |a, b| a / b;
    vmaxnmq_f32: float32x4_t = f32::max;
    vaddq_s32: int32x4_t = i32::wrapping_add;
    vandq_s32: int32x4_t = |a, b| a & b;
    vsubq_s16: int16x8_t = i16::wrapping_sub;
    vorrq_s32: int32x4_t = |a, b| a | b;
    vandq_u32: uint32x4_t = |a, b| a & b;
    vorrq_u32: uint32x4_t = |a, b| a | b;
    vcgeq_u32: uint32x4_t = |a, b| if a >= b { u32::MAX } else { 0 };
    veorq_s32: int32x4_t = |a, b| a ^ b;
    veorq_s8: int8x16_t = |a, b| a ^ b;
}
unary! {
    vabsq_f32: float32x4_t -> float32x4_t = f32::abs;
    vrndnq_f32: float32x4_t -> float32x4_t = f32::round_ties_even;
    vcvtq_f32_s32: int32x4_t -> float32x4_t = |a| a as f32;
    // Ties to even, saturating; NaN becomes 0.
    vcvtnq_s32_f32: float32x4_t -> int32x4_t = |a| a.round_ties_even() as i32;
    vmovl_u16: uint16x4_t -> uint32x4_t = u32::from;
    vmovn_u32: uint32x4_t -> uint16x4_t = |a| a as u16;
    vmovl_s8: int8x8_t -> int16x8_t = i16::from;
    vmovl_s16: int16x4_t -> int32x4_t = i32::from;
    vqmovn_s32: int32x4_t -> int16x4_t = |a| a.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    vqmovn_s16: int16x8_t -> int8x8_t = |a| a.clamp(i8::MIN.into(), i8::MAX.into()) as i8;
}
shift! {
    vshlq_n_s32: int32x4_t = |a, n| a << n;
    vshrq_n_s32: int32x4_t = |a, n| a >> n;
    vshlq_n_u32: uint32x4_t = |a, n| a << n;
    vshrq_n_u32: uint32x4_t = |a, n| a >> n;
    vshlq_n_s16: int16x8_t = |a, n| a << n;
}

/// `a + b * c`, rounded once.
#[inline(always)]
pub unsafe fn vfmaq_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    float32x4_t(std::array::from_fn(|i| b.0[i].mul_add(c.0[i], a.0[i])))
}

/// The sum of all lanes, in pairs.
#[inline(always)]
pub unsafe fn vaddvq_f32(a: float32x4_t) -> f32 {
    (a.0[0] + a.0[1]) + (a.0[2] + a.0[3])
}

/// The largest lane.
#[inline(always)]
pub unsafe fn vmaxnmvq_f32(a: float32x4_t) -> f32 {
    a.0.into_iter().fold(f32::NAN, f32::max)
}

/// The first two lanes of each, one of `a` and one of `b` in turn.
#[inline(always)]
pub unsafe fn vzip1q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    int32x4_t([a.0[0], b.0[0], a.0[1], b.0[1]])
}

/// The last two lanes of each, one of `a` and one of `b` in turn.
#[inline(always)]
pub unsafe fn vzip2q_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    int32x4_t([a.0[2], b.0[2], a.0[3], b.0[3]])
}

#[inline(always)]
pub unsafe fn vcombine_s16(low: int16x4_t, high: int16x4_t) -> int16x8_t {
    int16x8_t(std::array::from_fn(|i| if i < 4 { low.0[i] } else { high.0[i - 4] }))
}

#[inline(always)]
pub unsafe fn vget_low_s8(a: int8x16_t) -> int8x8_t {
    int8x8_t(std::array::from_fn(|i| a.0[i]))
}

#[inline(always)]
pub unsafe fn vget_low_s16(a: int16x8_t) -> int16x4_t {
    int16x4_t(std::array::from_fn(|i| a.0[i]))
}

#[inline(always)]
pub unsafe fn vget_high_s16(a: int16x8_t) -> int16x4_t {
    int16x4_t(std::array::from_fn(|i| a.0[i + 4]))
}

/// Products of 16-bit numbers, in 32 bits.
#[inline(always)]
pub unsafe fn vmull_s16(a: int16x4_t, b: int16x4_t) -> int32x4_t {
    int32x4_t(std::array::from_fn(|i| i32::from(a.0[i]) * i32::from(b.0[i])))
}

/// Products of the upper four 16-bit numbers, in 32 bits.
#[inline(always)]
pub unsafe fn vmull_high_s16(a: int16x8_t, b: int16x8_t) -> int32x4_t {
    int32x4_t(std::array::from_fn(|i| i32::from(a.0[i + 4]) * i32::from(b.0[i + 4])))
}

/// Sums of neighbours: two of `a`, then two of `b`.
#[inline(always)]
pub unsafe fn vpaddq_s32(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    let pair = |x: int32x4_t, i: usize| x.0[2 * i].wrapping_add(x.0[2 * i + 1]);
    int32x4_t(std::array::from_fn(|i| if i < 2 { pair(a, i) } else { pair(b, i - 2) }))
}

/// Products of bytes, in 16 bits.
#[inline(always)]
pub unsafe fn vmull_s8(a: int8x8_t, b: int8x8_t) -> int16x8_t {
    int16x8_t(std::array::from_fn(|i| i16::from(a.0[i]) * i16::from(b.0[i])))
}

/// Products of the upper eight bytes, in 16 bits.
#[inline(always)]
pub unsafe fn vmull_high_s8(a: int8x16_t, b: int8x16_t) -> int16x8_t {
    int16x8_t(std::array::from_fn(|i| i16::from(a.0[i + 8]) * i16::from(b.0[i + 8])))
}

/// Sums of neighbours: four of `a`, then four of `b`.
#[inline(always)]
pub unsafe fn vpaddq_s16(a: int16x8_t, b: int16x8_t) -> int16x8_t {
    let pair = |x: int16x8_t, i: usize| x.0[2 * i].wrapping_add(x.0[2 * i + 1]);
    int16x8_t(std::array::from_fn(|i| if i < 4 { pair(a, i) } else { pair(b, i - 4) }))
}

/// Sums of neighbours, widened.
#[inline(always)]
pub unsafe fn vpaddlq_s8(a: int8x16_t) -> int16x8_t {
    int16x8_t(std::array::from_fn(|i| i16::from(a.0[2 * i]) + i16::from(a.0[2 * i + 1])))
}

/// Adds the sums of neighbours, widened, to `acc`.
#[inline(always)]
pub unsafe fn vpadalq_s16(acc: int32x4_t, a: int16x8_t) -> int32x4_t {
    let pair = |i: usize| i32::from(a.0[2 * i]) + i32::from(a.0[2 * i + 1]);
    int32x4_t(std::array::from_fn(|i| acc.0[i].wrapping_add(pair(i))))
}
