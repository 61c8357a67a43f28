//! Each method of `Simd`, on every instruction set.

use fastrand::Rng;
use half::f16;

use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::simd::vector::{Kernel, Simd, exp};

/// Most lanes of any set.
const LANES: usize = 16;

/// Applies `exp` to each element.
struct Exp<'a>(&'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for x in self.0.chunks_exact_mut(S::LANES) {
            // SAFETY: a chunk holds a vector; the caller vouches for the instruction set.
            unsafe { S::store(x.as_mut_ptr(), exp::<S>(S::load(x.as_ptr()))) }
        }
    }
}

#[test]
fn the_exponential_is_within_two_ten_millionths() {
    let x: Vec<f32> = (0..160_000).map(|i| -87.0 + i as f32 / 160_000.0 * 174.9).collect();
    for isa in Isa::under_test() {
        let mut found = x.clone();
        isa.run(Exp(&mut found));
        let errors = x.iter().zip(&found).map(|(x, found)| {
            let expected = f64::from(*x).exp();
            ((f64::from(*found) - expected) / expected).abs()
        });
        let worst = errors.fold(0.0, f64::max);
        assert!(worst < 2e-7, "{}: {worst:e}", isa.name());
    }
}

#[test]
fn the_exponential_of_what_is_very_small_is_positive_and_tiny() {
    for isa in Isa::under_test() {
        let mut found = [-87.5, -100.0, -1e4, f32::MIN, f32::NEG_INFINITY, -0.0, 0.0, -88.0];
        let mut twice: Vec<f32> = found.repeat(2);
        isa.run(Exp(&mut twice));
        found.copy_from_slice(&twice[..8]);
        assert_eq!(found[5..7], [1.0, 1.0], "{}", isa.name());
        assert!(found.iter().all(|x| *x > 0.0), "{}: {found:?}", isa.name());
        assert!(found[..5].iter().all(|x| *x < 2e-38), "{}: {found:?}", isa.name());
    }
}

/// One lane-wise operation over `LANES` floats.
#[derive(Clone, Copy, Debug)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Abs,
    Round,
}

const OPS: [Op; 7] = [Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Max, Op::Abs, Op::Round];

struct Lanewise<'a> {
    op: Op,
    a: &'a [f32; LANES],
    b: &'a [f32; LANES],
    out: &'a mut [f32; LANES],
}

impl Kernel for Lanewise<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..LANES).step_by(S::LANES) {
            // SAFETY: `i + S::LANES <= LANES`; the caller vouches for the instruction set.
            unsafe {
                let (a, b) = (S::load(self.a.as_ptr().add(i)), S::load(self.b.as_ptr().add(i)));
                let out = match self.op {
                    Op::Add => S::add(a, b),
                    Op::Sub => S::sub(a, b),
                    Op::Mul => S::mul(a, b),
                    Op::Div => S::div(a, b),
                    Op::Max => S::max(a, b),
                    Op::Abs => S::abs(a),
                    Op::Round => S::round(a),
                };
                S::store(self.out.as_mut_ptr().add(i), out);
            }
        }
    }
}

fn lanes(rng: &mut Rng) -> [f32; LANES] {
    std::array::from_fn(|_| (rng.f32() * 2.0 - 1.0) * 10f32.powi(rng.i32(-3..=3)))
}

#[test]
fn lanewise_operations_round_as_ieee_says() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..200 {
        let (mut a, b) = (lanes(&mut rng), lanes(&mut rng));
        a[..6].copy_from_slice(&[0.5, 1.5, -2.5, -0.5, 126.5, 1e7]); // ties go to even
        for op in OPS {
            let expected: [f32; LANES] = std::array::from_fn(|i| match op {
                Op::Add => a[i] + b[i],
                Op::Sub => a[i] - b[i],
                Op::Mul => a[i] * b[i],
                Op::Div => a[i] / b[i],
                Op::Max => a[i].max(b[i]),
                Op::Abs => a[i].abs(),
                Op::Round => a[i].round_ties_even(),
            });
            for isa in Isa::under_test() {
                let mut out = [0.0; LANES];
                isa.run(Lanewise { op, a: &a, b: &b, out: &mut out });
                assert_eq!(out, expected, "{op:?}, {}", isa.name());
            }
        }
    }
}

/// Sum, maximum and multiply-add of vectors; powers of two.
struct Reduce<'a> {
    a: &'a [f32; LANES],
    b: &'a [f32; LANES],
}

impl Kernel for Reduce<'_> {
    /// For each vector: sum, maximum, sum of `a * b + a`.
    type Output = Vec<[f32; 3]>;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Vec<[f32; 3]> {
        let vectors = (0..LANES).step_by(S::LANES);
        // SAFETY: `i + S::LANES <= LANES`; the caller vouches for the instruction set.
        let reduce = |i| unsafe {
            let (a, b) = (S::load(self.a.as_ptr().add(i)), S::load(self.b.as_ptr().add(i)));
            [S::reduce_add(a), S::reduce_max(a), S::reduce_add(S::fma(a, b, a))]
        };
        vectors.map(reduce).collect()
    }
}

#[test]
fn reductions_take_every_lane_once() {
    let mut rng = Rng::with_seed(2);
    for _ in 0..200 {
        // Whole numbers: sums are exact in any order.
        let a: [f32; LANES] = std::array::from_fn(|_| rng.i32(-1000..1000) as f32);
        let b: [f32; LANES] = std::array::from_fn(|_| rng.i32(-1000..1000) as f32);
        for isa in Isa::under_test() {
            let found = isa.run(Reduce { a: &a, b: &b });
            assert_eq!(found.len(), LANES / isa.lanes());
            for (i, [sum, max, fma]) in found.into_iter().enumerate() {
                let part = i * isa.lanes()..(i + 1) * isa.lanes();
                let (a, b) = (&a[part.clone()], &b[part]);
                assert_eq!(sum, a.iter().sum::<f32>(), "{}", isa.name());
                assert_eq!(max, a.iter().copied().fold(f32::MIN, f32::max), "{}", isa.name());
                let expected: f32 = a.iter().zip(b).map(|(a, b)| a * b + a).sum();
                assert_eq!(fma, expected, "{}", isa.name());
            }
        }
    }
}

/// `out = a * 2^n`.
struct ScaleByPower<'a> {
    a: f32,
    n: &'a [f32; LANES],
    out: &'a mut [f32; LANES],
}

impl Kernel for ScaleByPower<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..LANES).step_by(S::LANES) {
            // SAFETY: `i + S::LANES <= LANES`; the caller vouches for the instruction set.
            unsafe {
                let n = S::load(self.n.as_ptr().add(i));
                S::store(self.out.as_mut_ptr().add(i), S::scale_by_power(S::splat(self.a), n));
            }
        }
    }
}

#[test]
fn powers_of_two_are_exact_over_the_whole_range() {
    let exponents: Vec<i32> = (-126..=127).collect();
    for isa in Isa::under_test() {
        for chunk in exponents.chunks(LANES) {
            let n = std::array::from_fn(|i| chunk[i % chunk.len()] as f32);
            let mut out = [0.0; LANES];
            isa.run(ScaleByPower { a: 1.25, n: &n, out: &mut out });
            let expected = n.map(|n| (1.25 * 2f64.powf(f64::from(n))) as f32);
            assert_eq!(out, expected, "{}", isa.name());
        }
    }
}

/// f16 to f32 and back.
struct Halves<'a> {
    half: &'a [u16; LANES],
    wide: &'a [f32; LANES],
    widened: &'a mut [f32; LANES],
    narrowed: &'a mut [u16; LANES],
}

impl Kernel for Halves<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..LANES).step_by(S::LANES) {
            // SAFETY: `i + S::LANES <= LANES`; the caller vouches for the instruction set.
            unsafe {
                let widened = S::load_f16(self.half.as_ptr().add(i));
                S::store(self.widened.as_mut_ptr().add(i), widened);
                let wide = S::load(self.wide.as_ptr().add(i));
                S::store_f16(self.narrowed.as_mut_ptr().add(i), wide);
            }
        }
    }
}

#[test]
fn every_half_is_widened_exactly_and_floats_are_rounded_to_the_nearest_half() {
    let mut rng = Rng::with_seed(3);
    for isa in Isa::under_test() {
        for first in (0..=u16::MAX).step_by(LANES) {
            let half: [u16; LANES] = std::array::from_fn(|i| first + i as u16);
            // Any bits at all in a half's range; a half itself; the middle between two halves.
            let wide: [f32; LANES] = std::array::from_fn(|i| match i % 3 {
                0 => f32::from_bits(rng.u32(0x3200_0000..0x4780_0000) | rng.u32(0..2) << 31),
                1 => f16::from_bits(half[i]).to_f32(),
                _ => f32::from_bits(f16::from_bits(half[i]).to_f32().to_bits() | 0x1000),
            });
            let (mut widened, mut narrowed) = ([0.0; LANES], [0; LANES]);
            isa.run(Halves {
                half: &half,
                wide: &wide,
                widened: &mut widened,
                narrowed: &mut narrowed,
            });
            for i in 0..LANES {
                let expected = f16::from_bits(half[i]);
                let is_same = widened[i].to_bits() == expected.to_f32().to_bits();
                assert!(is_same || expected.is_nan(), "{:#06x}, {}", half[i], isa.name());
                let (found, expected) = (f16::from_bits(narrowed[i]), f16::from_f32(wide[i]));
                let is_same = found.to_bits() == expected.to_bits();
                assert!(is_same || wide[i].is_nan(), "{}: {found}, {}", wide[i], isa.name());
            }
        }
    }
}

/// Products of bytes.
struct Dots<'a> {
    a: &'a [u8; 4 * LANES],
    b: &'a [i8; 4 * LANES],
    narrow: &'a mut [f32; LANES],
    wide: &'a mut [f32; LANES],
    splat: &'a mut [f32; LANES],
    shifted: &'a mut [f32; LANES],
}

impl Kernel for Dots<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..LANES).step_by(S::LANES) {
            // SAFETY: `i + S::LANES <= LANES`; the caller vouches for the instruction set.
            unsafe {
                let a = S::load_i(self.a.as_ptr().add(4 * i));
                let b = S::load_i(self.b.as_ptr().add(4 * i).cast());
                let wide = S::dot4::<true>(S::zero_i(), a, b);
                S::store(self.wide.as_mut_ptr().add(i), S::to_float(wide));
                let halved = self.a.map(|a| a & 127);
                let narrow = S::load_i(halved.as_ptr().add(4 * i));
                // Onto what is there already.
                let narrow = S::dot4::<false>(wide, narrow, b);
                S::store(self.narrow.as_mut_ptr().add(i), S::to_float(narrow));
                let first = S::splat_4(self.b.as_ptr());
                let splat = S::dot4::<true>(S::zero_i(), a, first);
                S::store(self.splat.as_mut_ptr().add(i), S::to_float(splat));
                let shifted = S::shift_left_4(wide);
                S::store(self.shifted.as_mut_ptr().add(i), S::to_float(shifted));
            }
        }
    }
}

#[test]
fn products_of_bytes_are_exact_up_to_their_largest() {
    let mut rng = Rng::with_seed(4);
    for round in 0..500 {
        let mut a: [u8; 4 * LANES] = std::array::from_fn(|_| rng.u8(..));
        let mut b: [i8; 4 * LANES] = std::array::from_fn(|_| rng.i8(-127..=127));
        if round < 4 {
            a = [[255; 64], [128; 64], [127; 64], [0; 64]][round];
            b = std::array::from_fn(|i| if i % 8 < 4 { 127 } else { -127 });
        }
        let dot = |a: &dyn Fn(usize) -> i32, b: &dyn Fn(usize) -> i32| {
            let sum = |lane: usize| (4 * lane..4 * lane + 4).map(|i| a(i) * b(i)).sum::<i32>();
            std::array::from_fn::<f32, LANES, _>(|lane| sum(lane) as f32)
        };
        let expected_wide = dot(&|i| a[i].into(), &|i| b[i].into());
        let low = dot(&|i| (a[i] & 127).into(), &|i| b[i].into());
        let expected_narrow: [f32; LANES] = std::array::from_fn(|i| expected_wide[i] + low[i]);
        let expected_splat = dot(&|i| a[i].into(), &|i| b[i % 4].into());
        for isa in Isa::under_test() {
            let [mut narrow, mut wide, mut splat, mut shifted] = [[0.0; LANES]; 4];
            isa.run(Dots {
                a: &a,
                b: &b,
                narrow: &mut narrow,
                wide: &mut wide,
                splat: &mut splat,
                shifted: &mut shifted,
            });
            assert_eq!(wide, expected_wide, "{}", isa.name());
            assert_eq!(narrow, expected_narrow, "{}", isa.name());
            assert_eq!(splat, expected_splat, "{}", isa.name());
            assert_eq!(shifted, expected_wide.map(|x| 16.0 * x), "{}", isa.name());
        }
    }
}

/// Pairs of 16-bit numbers: made from floats and from bytes, taken apart, multiplied.
struct Pairs<'a> {
    low: &'a [f32; LANES],
    high: &'a [f32; LANES],
    bytes: &'a [i8; 2 * LANES],
    packed: &'a mut [i16; 2 * LANES],
    widened: &'a mut [i16; 2 * LANES],
    halves: [&'a mut [f32; LANES]; 2],
    dots: &'a mut [f32; LANES],
    shorts: &'a mut [i16; LANES],
}

impl Kernel for Pairs<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..LANES).step_by(S::LANES) {
            // SAFETY: `i + S::LANES <= LANES`; the caller vouches for the instruction set.
            unsafe {
                let low = S::load(self.low.as_ptr().add(i));
                let packed = S::pack_pairs(low, S::load(self.high.as_ptr().add(i)));
                S::store_i(self.packed.as_mut_ptr().add(2 * i).cast(), packed);
                let widened = S::load_pairs(self.bytes.as_ptr().add(2 * i));
                S::store_i(self.widened.as_mut_ptr().add(2 * i).cast(), widened);
                S::store(self.halves[0].as_mut_ptr().add(i), S::low_shorts(packed));
                S::store(self.halves[1].as_mut_ptr().add(i), S::high_shorts(packed));
                let dot = S::dot2(S::dot2(S::zero_i(), packed, widened), packed, widened);
                S::store(self.dots.as_mut_ptr().add(i), S::to_float(dot));
                S::store_i16(self.shorts.as_mut_ptr().add(i), low);
            }
        }
    }
}

#[test]
fn pairs_of_sixteen_bits_are_packed_rounded_and_multiplied_exactly() {
    let mut rng = Rng::with_seed(5);
    for round in 0..200 {
        let mut number = || match round {
            0 => 32767.0,
            1 => -32767.0,
            _ => (rng.i32(-32767 * 2..=32767 * 2) as f32) / 2.0, // ties go to even
        };
        let low: [f32; LANES] = std::array::from_fn(|_| number());
        let high: [f32; LANES] = std::array::from_fn(|_| number());
        let bytes: [i8; 2 * LANES] = std::array::from_fn(|_| rng.i8(-127..=127));
        let rounded = |x: f32| x.round_ties_even() as i16;
        let expected: [i16; 2 * LANES] =
            std::array::from_fn(|i| rounded(if i % 2 == 0 { low[i / 2] } else { high[i / 2] }));
        let product = |i: usize| i32::from(expected[i]) * i32::from(bytes[i]);
        let expected_dots: [f32; LANES] =
            std::array::from_fn(|i| (2 * (product(2 * i) + product(2 * i + 1))) as f32);
        for isa in Isa::under_test() {
            let (mut packed, mut widened) = ([0; 2 * LANES], [0; 2 * LANES]);
            let [mut low_back, mut high_back, mut dots] = [[0.0; LANES]; 3];
            let mut shorts = [0; LANES];
            isa.run(Pairs {
                low: &low,
                high: &high,
                bytes: &bytes,
                packed: &mut packed,
                widened: &mut widened,
                halves: [&mut low_back, &mut high_back],
                dots: &mut dots,
                shorts: &mut shorts,
            });
            assert_eq!(packed, expected, "{}", isa.name());
            assert_eq!(widened, bytes.map(i16::from), "{}", isa.name());
            assert_eq!(low_back, low.map(f32::round_ties_even), "{}", isa.name());
            assert_eq!(high_back, high.map(f32::round_ties_even), "{}", isa.name());
            assert_eq!(shorts, low.map(rounded), "{}", isa.name());
            assert_eq!(dots, expected_dots, "{}", isa.name());
        }
    }
}

/// Nibbles as pairs of 16-bit numbers.
struct LoadNibbles<'a> {
    bytes: &'a [u8; LANES],
    widened: &'a mut [i16; 2 * LANES],
}

impl Kernel for LoadNibbles<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in (0..LANES).step_by(S::LANES) {
            // SAFETY: `i + S::LANES <= LANES`; the caller vouches for the instruction set.
            unsafe {
                let widened = S::load_nibbles(self.bytes.as_ptr().add(i));
                S::store_i(self.widened.as_mut_ptr().add(2 * i).cast(), widened);
            }
        }
    }
}

#[test]
fn each_byte_holds_two_odd_numbers() {
    for first in (0..=255).step_by(LANES) {
        let bytes: [u8; LANES] = std::array::from_fn(|i| (first + i) as u8);
        let odd = |nibble: u8| 2 * i16::from(nibble) - 15;
        let expected: [i16; 2 * LANES] = std::array::from_fn(|i| match i % 2 {
            0 => odd(bytes[i / 2] % 16),
            _ => odd(bytes[i / 2] / 16),
        });
        for isa in Isa::under_test() {
            let mut widened = [0; 2 * LANES];
            isa.run(LoadNibbles { bytes: &bytes, widened: &mut widened });
            assert_eq!(widened, expected, "{}", isa.name());
        }
    }
}
