//! What happens between the products, row by row.

use fastrand::Rng;
use kernels::naive;

use super::{ROUNDING, backends, floats};
use crate::backend::{Backend, HeadShape, Norm, Precision};

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], roundings: f64, case: &str) {
    assert_eq!(found.len(), expected.len(), "{case}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - f64::from(*expected)).abs();
        let bound = roundings * ROUNDING * f64::from(expected.abs()) + 1e-37; // as far as normal
        assert!(error <= bound, "{case}, element {i}: {found} for {expected}");
    }
}

#[test]
fn rms_norm_divides_each_row_asked_for_by_its_root_mean_square() {
    let mut rng = Rng::with_seed(1);
    for cols in [1, 16, 33, 576, 2048] {
        let (x, gain) = (floats(20 * cols, &mut rng), floats(cols, &mut rng));
        for rows in [0..1, 3..4, 2..20] {
            for epsilon in [0.0, 1e-5, 0.3] {
                let first = &x[rows.start * cols..rows.end * cols];
                let expected = first.chunks_exact(cols);
                let expected: Vec<f32> =
                    expected.flat_map(|row| naive::rms_norm(row, &gain, epsilon)).collect();
                for backend in backends(Precision::F32) {
                    let mut out = vec![7.0; rows.len() * cols + 3];
                    let norm = Norm { gain: &gain, epsilon, rows: rows.clone() };
                    backend.rms_norm(&x, norm, &mut out);
                    let (found, rest) = out.split_at(rows.len() * cols);
                    // Squares are all positive: their sum is off by `cols` roundings at most.
                    let case = format!("{cols} columns, {backend:?}");
                    assert_close(found, &expected, cols as f64 + 8.0, &case);
                    assert_eq!(rest, [7.0; 3], "{case}: rows that nobody asked for");
                }
            }
        }
    }
}

#[test]
fn heads_are_normalised_in_place_one_by_one() {
    let mut rng = Rng::with_seed(2);
    for head_dim in [16, 80, 128, 512] {
        for n_heads in [1, 6, 200] {
            let (x, gain) = (floats(n_heads * head_dim, &mut rng), floats(head_dim, &mut rng));
            let expected: Vec<f32> =
                x.chunks_exact(head_dim).flat_map(|x| naive::rms_norm(x, &gain, 1e-6)).collect();
            for backend in backends(Precision::F32) {
                let mut found = x.clone();
                let norm = Norm { gain: &gain, epsilon: 1e-6, rows: 0..n_heads };
                backend.norm_heads(&mut found, norm);
                let case = format!("{n_heads} heads of {head_dim}, {backend:?}");
                assert_close(&found, &expected, head_dim as f64 + 8.0, &case);
            }
        }
    }
}

#[test]
fn swiglu_is_silu_of_the_gate_times_up() {
    let mut rng = Rng::with_seed(3);
    for len in [1, 7, 16, 1000, 1024, 5000, 20_000] {
        let mut gate = floats(len, &mut rng);
        for (i, gate) in gate.iter_mut().enumerate() {
            *gate *= [1.0, 10.0, 80.0, 1e-6][i % 4];
        }
        let up = floats(len, &mut rng);
        let expected = naive::swiglu(&gate, &up);
        for backend in backends(Precision::F32) {
            let mut found = gate.clone();
            found.push(42.0);
            backend.swiglu(&mut found, &up, len);
            assert_eq!(found.pop(), Some(42.0));
            // The exponential is within 2e-7 (four roundings), the rest four operations.
            assert_close(&found, &expected, 12.0, &format!("{len} elements, {backend:?}"));
        }
    }
}

#[test]
fn swiglu_is_finite_at_both_ends() {
    let gate = [f32::MAX, 1e4, 200.0, 90.0, -87.5, -90.0, -200.0, -1e4, -1e30];
    for backend in backends(Precision::F32) {
        let mut found: Vec<f32> = gate.repeat(4); // in vectors and in the tail
        let up = vec![0.5; found.len()];
        let len = found.len();
        backend.swiglu(&mut found, &up, len);
        for (found, gate) in found.iter().zip(gate.repeat(4)) {
            let expected = naive::swiglu(&[gate], &[0.5])[0];
            let is_close = (found - expected).abs() <= 1e-6 * expected.abs() + 1e-6;
            assert!(is_close || gate < -1e20, "{gate}: {found} for {expected}, {backend:?}");
            assert!(found.is_finite(), "{gate}: {found}, {backend:?}");
        }
    }
}

#[test]
fn a_bias_is_added_to_each_row_asked_for() {
    let mut rng = Rng::with_seed(4);
    for (cols, n_rows) in [(1, 1), (48, 3), (576, 33)] {
        let (x, bias) = (floats((n_rows + 1) * cols, &mut rng), floats(cols, &mut rng));
        for backend in backends(Precision::F32) {
            let mut found = x.clone();
            backend.add_bias(&mut found, &bias, n_rows);
            for (i, (found, x)) in found.iter().zip(&x).enumerate() {
                let bias = if i < n_rows * cols { bias[i % cols] } else { 0.0 };
                assert_eq!(*found, x + bias, "{backend:?}");
            }
        }
    }
}

#[test]
fn interleaved_pairs_become_split_pairs_and_the_rest_stays() {
    let mut rng = Rng::with_seed(5);
    for (head_dim, n_pairs) in [(16, 8), (64, 32), (80, 20), (128, 64), (96, 0)] {
        let heads = HeadShape { n_heads: 3, n_kv_heads: 1, head_dim, n_pairs };
        let x = floats(7 * head_dim, &mut rng);
        for backend in backends(Precision::F32) {
            let mut found = x.clone();
            backend.split_pairs(&mut found, 6, heads);
            for (head, (found, x)) in
                found.chunks_exact(head_dim).zip(x.chunks_exact(head_dim)).enumerate()
            {
                for (i, found) in found.iter().enumerate() {
                    let from = match i {
                        _ if head == 6 => i,
                        i if i < n_pairs => 2 * i,
                        i if i < 2 * n_pairs => 2 * (i - n_pairs) + 1,
                        i => i,
                    };
                    assert_eq!(*found, x[from], "head {head} of {head_dim}, {backend:?}");
                }
            }
        }
    }
}
