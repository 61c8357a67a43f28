//! Unpacking, quantising and small products, on every instruction set.

use fastrand::Rng;
use half::f16;

use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::simd::pairs::{ColScales, PairProduct, ShortRows};
use crate::backend::cpu::simd::quantize::{Quantize, QuantizedRows, RowLayout};
use crate::backend::cpu::simd::tile::{Product, Start};
use crate::backend::cpu::simd::unpack::{Unpack, UnpackedRows, group_of};
use crate::tensor::{DType, dequantize_row};

const QUANTISED: [DType; 10] = [
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];

/// Any bits but infinite and absent scales: a half with a full exponent becomes a large number.
fn random_row(dtype: DType, n_blocks: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..n_blocks * dtype.block_bytes()).map(|_| rng.u8(..)).collect();
    let places: &[usize] = match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::F32 | DType::F16 | DType::BF16 => panic!("{dtype} has no scales"),
    };
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for at in places {
            if block[at + 1] & 0x7c == 0x7c {
                block[at + 1] ^= 0x40;
            }
        }
    }
    bytes
}

#[test]
fn an_unpacked_row_means_what_the_format_says() {
    let mut rng = Rng::with_seed(5);
    for dtype in QUANTISED {
        for n_blocks in [1, 2, 3, 5, 18] {
            let bytes = random_row(dtype, n_blocks, &mut rng);
            let cols = n_blocks * dtype.block_len();
            let mut expected = vec![0.0; cols];
            dequantize_row(dtype, &bytes, &mut expected);
            for isa in Isa::under_test() {
                let mut unpacked = UnpackedRows::default();
                unpacked.resize(1, cols);
                isa.run(Unpack { dtype, bytes: &bytes, out: unpacked.row(0) });
                let group = group_of(dtype).unwrap();
                for (i, expected) in expected.iter().enumerate() {
                    let scale = f64::from(unpacked.scales[i / group]);
                    let offset = f64::from(unpacked.offsets[i / group]);
                    let product = scale * f64::from(unpacked.q[i]);
                    let error = (product + offset - f64::from(*expected)).abs();
                    // The twin rounds its product and its sum to f32, this form its offset.
                    let bound = (product.abs() + offset.abs()) * f64::from(f32::EPSILON);
                    assert!(error <= bound, "{dtype} {i}, {}: {error:e}", isa.name());
                }
                let most = if dtype == DType::Q8_0 { 255 } else { 127 };
                assert!(unpacked.q[..cols].iter().all(|q| *q <= most), "{dtype}");
            }
        }
    }
}

fn quantize(isa: Isa, x: &[f32], layout: RowLayout) -> Vec<f32> {
    let mut words = vec![f32::from_bits(0x7fc0_1234); layout.words()];
    isa.run(Quantize { x, layout, out: &mut words });
    words
}

#[test]
fn quantised_rows_are_within_half_a_step_and_their_sums_are_right() {
    let mut rng = Rng::with_seed(6);
    for cols in [32, 64, 96, 160, 576] {
        let mut x: Vec<f32> = (0..cols).map(|_| rng.f32() * 2.0 - 1.0).collect();
        for (block, x) in x.chunks_mut(32).enumerate() {
            let size = [1.0, 1e-20, 1e20, 0.0][block % 4];
            x.iter_mut().for_each(|x| *x *= size);
        }
        for n_terms in [1, 2] {
            let layout = RowLayout { cols, n_terms };
            for isa in Isa::under_test() {
                let words = quantize(isa, &x, layout);
                let row = QuantizedRows { layout, words: &words };
                check_row(&row, &x, &format!("{cols} columns, {n_terms} terms, {}", isa.name()));
            }
        }
    }
}

/// Bytes, scales and sums stand for `x`.
fn check_row(row: &QuantizedRows<'_>, x: &[f32], case: &str) {
    let n_terms = row.layout.n_terms;
    let element = |i: usize| match n_terms {
        1 => f64::from(row.q(0)[i]),
        _ => {
            let at = i / 32 * 64 + i % 32;
            16.0 * f64::from(row.q(0)[at]) + f64::from(row.q(0)[at + 32])
        }
    };
    let largest_element = if n_terms == 2 { 127.0 * 16.0 } else { 127.0 };
    for (block, x) in x.chunks(32).enumerate() {
        let [unit, sum] = [row.pairs(0)[2 * block], row.pairs(0)[2 * block + 1]].map(f64::from);
        let slack = unit * largest_element * 2e-7;
        let mut sums = [0.0; 2];
        for (i, x) in x.iter().enumerate() {
            let found = unit * element(32 * block + i);
            let error = (found - f64::from(*x)).abs();
            assert!(error <= unit / 2.0 + slack, "{case}: {found} for {x}");
            sums[i / 16] += found;
        }
        let slack = 32.0 * slack;
        assert!((sum - sums[0] - sums[1]).abs() <= slack, "{case}: {sum} {sums:?}");
        for half in 0..2 {
            let sum = f64::from(row.half_sums(0)[2 * block + half]);
            assert!((sum - sums[half]).abs() <= slack, "{case}: {sum} {sums:?}");
        }
    }
}

/// The story: the inverse of a scale overflows where the largest element of a block is below some
/// 1e-37, and infinity times zero made NaN of whole sums.
#[test]
fn a_block_of_almost_nothing_is_quantised_to_finite_sums() {
    for tiny in [1e-45, 1e-40, 3e-38, 1e-37, 1e-36, 1e-30] {
        let mut x = [0.0; 64];
        (x[3], x[5], x[40]) = (tiny, -tiny / 2.0, 1.0);
        for n_terms in [1, 2] {
            for isa in Isa::under_test() {
                let layout = RowLayout { cols: 64, n_terms };
                let words = quantize(isa, &x, layout);
                let row = QuantizedRows { layout, words: &words };
                for sums in [row.pairs(0), row.half_sums(0)] {
                    assert!(sums.iter().all(|x| x.is_finite()), "{tiny:e}, {}", isa.name());
                    assert!(sums.iter().all(|x| x.abs() <= 1.01), "{tiny:e}, {}", isa.name());
                }
                assert!(row.pairs(0)[0] <= tiny, "{tiny:e}, {}", isa.name());
            }
        }
    }
}

#[test]
fn products_of_small_matrices_are_their_sums_at_every_remainder() {
    let mut rng = Rng::with_seed(7);
    for n_rows in [1, 2, 3, 4, 5, 6, 7, 11, 13] {
        for n_cols in [16, 32, 48, 64, 80, 112] {
            for depth in [0, 1, 7, 64] {
                check_tile((n_rows, depth, n_cols), &mut rng);
            }
        }
    }
}

fn check_tile((n_rows, depth, n_cols): (usize, usize, usize), rng: &mut Rng) {
    let (a_stride, b_stride, c_stride) = (depth + 3, n_cols + 5, n_cols + 2);
    let mut whole = |len: usize| (0..len).map(|_| rng.i32(-20..=20) as f32).collect::<Vec<f32>>();
    let (a, b) = (whole(n_rows * a_stride), whole(depth.max(1) * b_stride));
    let (c, factors) = (whole(n_rows * c_stride), whole(n_rows));
    for start in [Start::Zero, Start::Scaled(&factors)] {
        let mut expected = c.clone();
        for row in 0..n_rows {
            for col in 0..n_cols {
                let dot: f32 =
                    (0..depth).map(|k| a[row * a_stride + k] * b[k * b_stride + col]).sum();
                let old = &mut expected[row * c_stride + col];
                let factor = if let Start::Scaled(factors) = start { factors[row] } else { 0.0 };
                *old = *old * factor + dot;
            }
        }
        let b_halved: Vec<u16> = b.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
        let asked_for = vec![0; rng.usize(0..9000)];
        for isa in Isa::under_test() {
            let (mut found, mut found_halved) = (c.clone(), c.clone());
            let a = &a[..];
            let (b, c) = (&b[..], &mut found[..]);
            isa.run(Product {
                n_rows,
                depth,
                n_cols,
                a,
                a_stride,
                b,
                b_stride,
                c,
                c_stride,
                start,
                next: &asked_for,
            });
            let (b, c) = (&b_halved[..], &mut found_halved[..]);
            isa.run(Product {
                n_rows,
                depth,
                n_cols,
                a,
                a_stride,
                b,
                b_stride,
                c,
                c_stride,
                start,
                next: &asked_for,
            });
            assert_eq!(found, found_halved, "{n_rows} x {depth} x {n_cols}, {}", isa.name());
            // Whole numbers: exact. What lies between the rows is not touched.
            assert_eq!(found, expected, "{n_rows} x {depth} x {n_cols}, {}", isa.name());
        }
    }
}

#[test]
fn products_of_pairs_are_exact_for_every_shape_scale_and_element() {
    let mut rng = Rng::with_seed(9);
    for n_rows in [1, 2, 3, 4, 6, 7, 13] {
        for n_cols in [16, 48, 64, 80] {
            for n_pairs in [0, 1, 8, 31, 32, 33, 70] {
                check_pairs((n_rows, n_pairs, n_cols), &mut rng);
            }
        }
    }
}

fn check_pairs((n_rows, n_pairs, n_cols): (usize, usize, usize), rng: &mut Rng) {
    let (a_stride, b_stride, c_stride) = (2 * n_pairs + 4, n_cols + 5, n_cols + 2);
    let q: Vec<i16> = (0..n_rows * a_stride).map(|_| rng.i16(-30..=30)).collect();
    let bytes: Vec<i8> = (0..n_pairs.max(1) * b_stride * 2).map(|_| rng.i8(-127..=127)).collect();
    let shorts: Vec<i16> = bytes.iter().map(|x| i16::from(*x)).collect();
    // Powers of two: products with them are exact.
    let mut powers =
        |len: usize| (0..len).map(|_| 2f32.powi(rng.i32(-2..=2))).collect::<Vec<f32>>();
    let (row_scales, factors) = (powers(n_rows), powers(n_rows));
    let (floats, c) = (powers(n_cols), powers(n_rows * c_stride));
    let halves = powers(9 * b_stride);
    let half_bits: Vec<u16> = halves.iter().map(|x| f16::from_f32(*x).to_bits()).collect();
    let spans = ColScales::Halves { scales: &half_bits, span_pairs: 8 };
    for col_scales in [ColScales::One, ColScales::Floats(&floats), spans] {
        for start in [Start::Zero, Start::Scaled(&factors)] {
            let expected = expected_of_pairs(&c, c_stride, n_cols, &|row, col| {
                let product = |k: usize| {
                    let scale = match col_scales {
                        ColScales::One => 1.0,
                        ColScales::Floats(scales) => scales[col],
                        ColScales::Halves { .. } => halves[k / 16 * b_stride + col],
                    };
                    let b = shorts[(k / 2 * b_stride + col) * 2 + k % 2];
                    f32::from(q[row * a_stride + k]) * f32::from(b) * scale
                };
                let sum: f32 = (0..2 * n_pairs).map(product).sum();
                let factor = if let Start::Scaled(factors) = start { factors[row] } else { 0.0 };
                c[row * c_stride + col] * factor + sum * row_scales[row]
            });
            let a = ShortRows { q: &q, scales: &row_scales };
            let asked_for = vec![0; rng.usize(0..9000)];
            for isa in Isa::under_test() {
                let (mut of_bytes, mut of_shorts) = (c.clone(), c.clone());
                let (b, c) = (&bytes[..], &mut of_bytes[..]);
                isa.run(PairProduct {
                    n_pairs,
                    n_cols,
                    a,
                    a_stride,
                    b,
                    b_stride,
                    col_scales,
                    c,
                    c_stride,
                    start,
                    next: &asked_for,
                });
                let (b, c) = (&shorts[..], &mut of_shorts[..]);
                isa.run(PairProduct {
                    n_pairs,
                    n_cols,
                    a,
                    a_stride,
                    b,
                    b_stride,
                    col_scales,
                    c,
                    c_stride,
                    start,
                    next: &asked_for,
                });
                let case = format!("{n_rows} x {n_pairs} x {n_cols}, {}", isa.name());
                assert_eq!(of_bytes, of_shorts, "{case}");
                // What lies between the rows is not touched.
                assert_eq!(of_bytes, expected, "{case}");
            }
        }
    }
}

fn expected_of_pairs(
    c: &[f32],
    c_stride: usize,
    n_cols: usize,
    element: &dyn Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let mut expected = c.to_vec();
    for (row, cells) in expected.chunks_exact_mut(c_stride).enumerate() {
        cells[..n_cols].iter_mut().enumerate().for_each(|(col, cell)| *cell = element(row, col));
    }
    expected
}
