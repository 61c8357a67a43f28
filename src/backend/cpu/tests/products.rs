//! Products with weights of every type, at shapes that leave every kind of remainder.

use fastrand::Rng;

use super::{ROUNDING, Weights, backends, floats};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::project::{Tasks, takes_bytes};
use crate::backend::cpu::simd::Isa;
use crate::backend::cpu::simd::unpack::{Unpack, UnpackedRows, group_of};
use crate::backend::{Backend, Precision, Projection, Write};
use crate::ids::TokenId;
use crate::tensor::{DType, Matrix};

const ROWS: [usize; 4] = [1, 5, 33, 100];
const TOKENS: [usize; 10] = [1, 2, 3, 4, 5, 8, 11, 16, 17, 40];
const MAX_ROWS: usize = 100;
const MAX_TOKENS: usize = 40;
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Int16, Precision::Int8];

/// Columns whose blocks are no multiple of the four or two that a vector holds, and some that are.
fn cols_of(dtype: DType) -> &'static [usize] {
    match dtype.block_len() {
        256 => &[256, 512, 768],
        32 => &[32, 96, 160, 256, 576],
        _ => &[16, 32, 72, 160, 576], // plain types know no blocks
    }
}

/// Rows of inputs with blocks of very different sizes, one of them all zero.
fn inputs(n_tokens: usize, cols: usize, rng: &mut Rng) -> Vec<f32> {
    let mut x = floats(n_tokens * cols, rng);
    for (i, block) in x.chunks_mut(16).enumerate() {
        let size = [1.0, 30.0, 0.01, 0.0, 1e-4][i % 5];
        block.iter_mut().for_each(|x| *x *= size);
    }
    x
}

/// What rounding to bytes makes of `x`: blocks of 32 with a scale, `n_terms` bytes an element.
fn rounded(x: &[f32], n_terms: usize) -> Vec<f64> {
    let round_block = |block: &[f32]| {
        let largest = block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let (scale, inverse) = (largest / 127.0, if largest > 0.0 { 127.0 / largest } else { 0.0 });
        let element = |x: &f32| {
            let first = (x * inverse).round_ties_even();
            let second = ((x * inverse - first) * 16.0).round_ties_even();
            let second = if n_terms == 2 { second / 16.0 } else { 0.0 };
            f64::from(scale) * f64::from(first + second)
        };
        block.iter().map(element).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(round_block).collect()
}

/// The inputs as the product sees them.
fn seen(x: &[f32], dtype: DType, precision: Precision) -> Vec<f64> {
    match (group_of(dtype), precision) {
        (None, _) | (_, Precision::F32) => x.iter().map(|x| f64::from(*x)).collect(),
        (_, Precision::Int16) => rounded(x, 2),
        (_, Precision::Int8) => rounded(x, 1),
    }
}

/// `[row][cols]`: how large the terms of a weight are, which are rounded one by one: the quant
/// times its scale, and the offset.
fn term_sizes(weights: &Weights) -> Vec<f64> {
    let mut sizes: Vec<f64> = weights.values.iter().map(|w| f64::from(w.abs())).collect();
    let Some(group) = group_of(weights.dtype) else { return sizes };
    let matrix = weights.matrix(weights.rows);
    let mut unpacked = UnpackedRows::default();
    unpacked.resize(1, weights.cols);
    for row in 0..weights.rows {
        let (dtype, bytes) = (weights.dtype, matrix.row(row));
        Isa::present()[0].run(Unpack { dtype, bytes, out: unpacked.row(0) });
        for (col, size) in sizes[row * weights.cols..][..weights.cols].iter_mut().enumerate() {
            *size += 2.0 * f64::from(unpacked.offsets[col / group].abs());
        }
    }
    sizes
}

/// Sums of `n_tokens x n_rows` products by definition, with the bound of their rounding errors:
/// `n` additions and multiplications of terms `t` are off by at most `n * ROUNDING * sum |t|`
/// (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3).
struct Expected {
    sums: Vec<f64>,   // [token][MAX_ROWS]
    bounds: Vec<f64>, // [token][MAX_ROWS]
}

impl Expected {
    fn new(weights: &Weights, x: &[f64]) -> Self {
        let (sizes, cols) = (term_sizes(weights), weights.cols);
        let (mut sums, mut bounds) = (Vec::new(), Vec::new());
        for x in x.chunks_exact(cols) {
            for row in 0..weights.rows {
                let products = weights.row(row).iter().zip(x).map(|(w, x)| f64::from(*w) * x);
                sums.push(products.sum());
                let terms = sizes[row * cols..][..cols].iter().zip(x).map(|(w, x)| w * x.abs());
                bounds.push((cols + 8) as f64 * ROUNDING * terms.sum::<f64>());
            }
        }
        Self { sums, bounds }
    }

    #[track_caller]
    fn check(&self, found: &[f32], before: &[f32], n_rows: usize, case: &str) {
        for (i, (found, before)) in found.iter().zip(before).enumerate() {
            let at = i / n_rows * MAX_ROWS + i % n_rows;
            let expected = f64::from(*before) + self.sums[at];
            let bound = self.bounds[at] + ROUNDING * expected.abs();
            let error = (f64::from(*found) - expected).abs();
            assert!(
                error <= bound,
                "{case}, token {}, row {}: {found} is {error:e} off {expected}, more than {bound:e}",
                i / n_rows,
                i % n_rows,
            );
        }
    }
}

fn check_products(dtype: DType, cols: usize) {
    let mut rng = Rng::with_seed(cols as u64 * 100 + u64::from(dtype.ggml_id()));
    let weights = Weights::random(dtype, MAX_ROWS, cols, &mut rng);
    let x = inputs(MAX_TOKENS, cols, &mut rng);
    let before = floats(MAX_TOKENS * MAX_ROWS, &mut rng);
    let zeros = vec![0.0; before.len()];
    for precision in PRECISIONS {
        let expected = Expected::new(&weights, &seen(&x, dtype, precision));
        for n_rows in ROWS {
            let matrix = weights.matrix(n_rows);
            for backend in backends(precision) {
                for n_tokens in TOKENS {
                    let case = format!(
                        "{dtype} {n_rows} x {cols}, {n_tokens} tokens, {precision:?}, {backend:?}"
                    );
                    let mut out = before[..n_tokens * n_rows].to_vec();
                    let mut project = |write| {
                        let mut outputs = [Projection { weight: &matrix, out: &mut out }];
                        backend.project(&x, n_tokens, &mut outputs, write);
                        out.clone()
                    };
                    let added = project(Write::Add);
                    backend.expect(&matrix); // changes nothing
                    expected.check(&added, &before, n_rows, &case);
                    expected.check(&project(Write::Set), &zeros, n_rows, &case);
                }
            }
        }
    }
}

fn check_type(dtype: DType) {
    for &cols in cols_of(dtype) {
        check_products(dtype, cols);
    }
}

/// Also proves that no product reads past the end of the file: the matrices lie at its end.
#[test]
fn products_with_plain_weights_are_their_sums() {
    [DType::F32, DType::F16, DType::BF16].into_iter().for_each(check_type);
}

#[test]
fn products_with_weights_in_blocks_of_32_are_their_sums() {
    DType::ALL.into_iter().filter(|dtype| dtype.block_len() == 32).for_each(check_type);
}

#[test]
fn products_with_weights_in_blocks_of_256_are_their_sums() {
    DType::ALL.into_iter().filter(|dtype| dtype.block_len() == 256).for_each(check_type);
}

#[test]
fn weights_of_several_types_and_heights_are_multiplied_at_once() {
    let mut rng = Rng::with_seed(11);
    let x = inputs(MAX_TOKENS, 256, &mut rng);
    let types = [DType::Q4_K, DType::F16, DType::Q8_0];
    let weights = types.map(|dtype| Weights::random(dtype, MAX_ROWS, 256, &mut rng));
    let n_rows = [100, 7, 34];
    let matrices: Vec<_> = weights.iter().zip(n_rows).map(|(w, rows)| w.matrix(rows)).collect();
    for precision in PRECISIONS {
        for backend in backends(precision) {
            for n_tokens in [1, 13] {
                let mut outs = n_rows.map(|rows| vec![0.0; n_tokens * rows]);
                let mut outputs: Vec<_> = matrices
                    .iter()
                    .zip(&mut outs)
                    .map(|(weight, out)| Projection { weight, out })
                    .collect();
                backend.project(&x, n_tokens, &mut outputs, Write::Set);
                for ((weights, out), n_rows) in weights.iter().zip(&outs).zip(n_rows) {
                    let expected = Expected::new(weights, &seen(&x, weights.dtype, precision));
                    let case = format!("{} of three, {backend:?}", weights.dtype);
                    expected.check(out, &vec![0.0; out.len()], n_rows, &case);
                }
            }
        }
    }
}

/// `[token][row]` of the first `n_tokens` tokens.
fn multiplied(backend: &CpuBackend, matrix: &Matrix, x: &[f32], n_tokens: usize) -> Vec<f32> {
    let mut out = vec![0.0; n_tokens * matrix.rows];
    let mut outputs = [Projection { weight: matrix, out: &mut out }];
    backend.project(&x.to_vec(), n_tokens, &mut outputs, Write::Set);
    out
}

/// Contexts are decoded together, documents are read in chunks: neither may change what is said.
#[test]
fn a_tokens_sums_are_the_same_bits_alone_and_with_others() {
    const N_TOKENS: usize = 20;
    const N_ROWS: usize = 53;
    let mut rng = Rng::with_seed(14);
    for dtype in DType::ALL {
        let cols = *cols_of(dtype).last().unwrap();
        let weights = Weights::random(dtype, N_ROWS, cols, &mut rng);
        let (matrix, x) = (weights.matrix(N_ROWS), inputs(N_TOKENS, cols, &mut rng));
        for precision in PRECISIONS {
            for backend in backends(precision) {
                let alone: Vec<f32> = x
                    .chunks_exact(cols)
                    .flat_map(|x| multiplied(&backend, &matrix, x, 1))
                    .collect();
                let all = multiplied(&backend, &matrix, &x, N_TOKENS);
                for n_tokens in 1..=N_TOKENS {
                    let found = multiplied(&backend, &matrix, &x, n_tokens);
                    // What is multiplied in floats is added in another order above sixteen tokens.
                    let is_other = !takes_bytes(&matrix, precision) && n_tokens > 16;
                    let expected = if is_other { &all } else { &alone };
                    let is_same =
                        found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(is_same, "{dtype}, {n_tokens} tokens, {precision:?}, {backend:?}");
                }
            }
        }
    }
}

/// Lanes never meet, so their number makes no difference; a fused multiply-add does.
#[test]
fn sums_of_quantised_weights_are_the_same_bits_on_all_sets_that_fuse() {
    let mut rng = Rng::with_seed(15);
    for dtype in DType::ALL.into_iter().filter(|dtype| group_of(*dtype).is_some()) {
        let cols = *cols_of(dtype).last().unwrap();
        let weights = Weights::random(dtype, 37, cols, &mut rng);
        let (matrix, x) = (weights.matrix(37), inputs(7, cols, &mut rng));
        for precision in [Precision::Int16, Precision::Int8] {
            let fusing =
                Isa::under_test().into_iter().filter(|isa| !isa.name().starts_with("portable"));
            let sums: Vec<Vec<f32>> = fusing
                .map(|isa| multiplied(&CpuBackend::with_isa(isa, 1, precision), &matrix, &x, 7))
                .collect();
            assert!(sums.iter().all(|found| *found == sums[0]), "{dtype}, {precision:?}");
        }
    }
}

#[test]
fn rounding_inputs_to_bytes_costs_at_most_half_a_step() {
    let x = inputs(8, 576, &mut Rng::with_seed(12));
    for (n_terms, steps) in [(1, 127.0), (2, 127.0 * 16.0)] {
        for (block, x_rounded) in x.chunks(32).zip(rounded(&x, n_terms).chunks(32)) {
            let largest = block.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let half_step = f64::from(largest) / steps / 2.0;
            for (x, rounded) in block.iter().zip(x_rounded) {
                let error = (f64::from(*x) - rounded).abs();
                assert!(error <= half_step + 4.0 * ROUNDING * f64::from(largest), "{x} {rounded}");
            }
        }
    }
}

#[test]
fn rows_of_an_embedding_come_out_as_they_are_stored() {
    for dtype in DType::ALL {
        let cols = cols_of(dtype)[1];
        let weights = Weights::random(dtype, 9, cols, &mut Rng::with_seed(13));
        let table = weights.matrix(9);
        for backend in backends(Precision::F32) {
            let mut out = vec![0.0; 4 * cols];
            backend.embed(&table, &[8, 0, 8, 3].map(TokenId), &mut out);
            for (row, out) in [8, 0, 8, 3].into_iter().zip(out.chunks_exact(cols)) {
                assert_eq!(out, weights.row(row), "{dtype} {backend:?}");
            }
        }
    }
}

/// What the tasks say that a thread reads next is what the pool gives it next: task `w`, `w + n`
/// and so on of all weights, then its first of the product after.
#[test]
fn a_thread_is_told_the_weights_of_its_next_task() {
    let mut rng = Rng::with_seed(8);
    let matrix = |rows, rng: &mut Rng| Weights::random(DType::Q4_1, rows, 64, rng).matrix(rows);
    let (a, b) = (matrix(44, &mut rng), matrix(9, &mut rng));
    let after = matrix(21, &mut rng);
    for n_threads in 1..=4 {
        let weights = [Some((&a, 12)), Some((&b, 8)), None, None];
        let tasks = Tasks { weights, expected: Some((&after, 8)), n_threads };
        let of = |matrix: &'_ Matrix, rows: [usize; 2]| {
            let row_bytes = matrix.bytes.len() / matrix.rows;
            matrix.bytes[rows[0] * row_bytes..rows[1] * row_bytes].to_vec()
        };
        let all = [
            of(&a, [0, 12]),
            of(&a, [12, 24]),
            of(&a, [24, 36]),
            of(&a, [36, 44]),
            of(&b, [0, 8]),
            of(&b, [8, 9]),
        ];
        let firsts = [of(&after, [0, 8]), of(&after, [8, 16]), of(&after, [16, 21]), Vec::new()];
        for task in 0..all.len() {
            let next = all.get(task + n_threads).unwrap_or(&firsts[task % n_threads]);
            assert_eq!(tasks.after(task), next, "task {task} of {n_threads} threads");
        }
        let nothing_known = Tasks { expected: None, ..tasks };
        assert!(nothing_known.after(all.len() - 1).is_empty());
    }
}
