//! Rows: norms, gates, biases, pairs.

use kernels::naive;
use kernels::{Array, Norm, RowKernels};

use crate::devices::{assert_close, numbers, on_devices};

#[test]
fn a_norm_is_that_of_its_twin_and_adds_to_the_residual_stream_first() {
    for (n_rows, width) in [(1, 16), (3, 576), (2, 1000), (5, 96)] {
        for has_delta in [false, true] {
            let (x, delta, gain) =
                (numbers(1, n_rows * width), numbers(2, n_rows * width), numbers(3, width));
            let (stream, out) = on_devices(|device| {
                let rows = RowKernels::new(device).unwrap();
                let mut stream = Array::of(device, &x).unwrap();
                let delta = Array::of(device, &delta).unwrap();
                let gain = Array::of(device, &gain).unwrap();
                let mut out = Array::of(device, &vec![f32::NAN; n_rows * width]).unwrap();
                let norm = Norm {
                    x: &mut stream,
                    delta: has_delta.then_some(&delta),
                    gain: &gain,
                    epsilon: 1e-5,
                    out: &mut out,
                };
                rows.rms_norm(device, n_rows, norm).unwrap();
                (stream.to_vec(device).unwrap(), out.to_vec(device).unwrap())
            });
            let sum = |(x, d): (&f32, &f32)| if has_delta { x + d } else { *x };
            let expected: Vec<f32> = x.iter().zip(&delta).map(sum).collect();
            assert_eq!(stream, expected);
            let normed = expected.chunks(width).flat_map(|row| naive::rms_norm(row, &gain, 1e-5));
            assert_close(&out, &normed.collect::<Vec<_>>(), 1e-5);
        }
    }
}

#[test]
fn some_rows_are_normalised_and_all_stay_as_they_are() {
    let (n_rows, width, rows) = (5, 100, 2..4);
    let (x, gain) = (numbers(1, n_rows * width), numbers(3, width));
    let (after, out) = on_devices(|device| {
        let kernels = RowKernels::new(device).unwrap();
        let x = Array::of(device, &x).unwrap();
        let gain = Array::of(device, &gain).unwrap();
        let mut out = Array::of(device, &vec![f32::NAN; 2 * width]).unwrap();
        kernels.norm_rows(device, (&x, rows.clone()), (&gain, 1e-5), &mut out).unwrap();
        (x.to_vec(device).unwrap(), out.to_vec(device).unwrap())
    });
    assert_eq!(after, x);
    let normed = x[2 * width..4 * width].chunks(width);
    let normed = normed.flat_map(|row| naive::rms_norm(row, &gain, 1e-5));
    assert_close(&out, &normed.collect::<Vec<_>>(), 1e-5);
}

#[test]
fn heads_are_normalised_in_place_and_what_is_after_them_stays() {
    for (n_rows, width) in [(1, 64), (9, 128), (8, 80), (17, 256)] {
        let (x, gain) = (numbers(4, (n_rows + 1) * width), numbers(5, width));
        let out = on_devices(|device| {
            let rows = RowKernels::new(device).unwrap();
            let mut heads = Array::of(device, &x).unwrap();
            let gain = Array::of(device, &gain).unwrap();
            rows.norm_heads(device, (&mut heads, n_rows), (&gain, 1e-6)).unwrap();
            heads.to_vec(device).unwrap()
        });
        let (heads, after) = x.split_at(n_rows * width);
        let normed = heads.chunks(width).flat_map(|row| naive::rms_norm(row, &gain, 1e-6));
        let expected: Vec<f32> = normed.chain(after.iter().copied()).collect();
        assert_close(&out, &expected, 1e-5);
    }
}

#[test]
fn gates_let_through_what_their_twin_says() {
    for len in [1, 3, 4, 1023, 1024, 2500] {
        let gate: Vec<f32> = numbers(6, len).iter().map(|x| x * 8.0).collect();
        let up = numbers(7, len);
        let out = on_devices(|device| {
            let rows = RowKernels::new(device).unwrap();
            let mut gate = Array::of(device, &gate).unwrap();
            let up = Array::of(device, &up).unwrap();
            rows.swiglu(device, (&mut gate, &up), len).unwrap();
            gate.to_vec(device).unwrap()
        });
        assert_close(&out, &naive::swiglu(&gate, &up), 1e-5);
    }
}

#[test]
fn a_bias_is_added_to_every_row() {
    let (x, bias) = (numbers(8, 5 * 70), numbers(9, 70));
    let out = on_devices(|device| {
        let rows = RowKernels::new(device).unwrap();
        let mut x = Array::of(device, &x).unwrap();
        let bias = Array::of(device, &bias).unwrap();
        rows.add_bias(device, (&mut x, 5), &bias).unwrap();
        x.to_vec(device).unwrap()
    });
    let expected: Vec<f32> = x.iter().enumerate().map(|(i, x)| x + bias[i % 70]).collect();
    assert_eq!(out, expected);
}

#[test]
fn pairs_are_split_and_what_is_not_rotated_stays() {
    for (n_rows, head_dim, n_pairs) in [(1, 64, 32), (10, 80, 20), (3, 256, 128)] {
        let x = numbers(10, n_rows * head_dim);
        let out = on_devices(|device| {
            let rows = RowKernels::new(device).unwrap();
            let mut heads = Array::of(device, &x).unwrap();
            rows.split_pairs(device, (&mut heads, n_rows), (head_dim, n_pairs)).unwrap();
            heads.to_vec(device).unwrap()
        });
        for (before, after) in x.chunks(head_dim).zip(out.chunks(head_dim)) {
            let from = |i| match i {
                i if i < n_pairs => 2 * i,
                i if i < 2 * n_pairs => 2 * (i - n_pairs) + 1,
                i => i,
            };
            let expected: Vec<f32> = (0..head_dim).map(|i| before[from(i)]).collect();
            assert_eq!(after, expected);
        }
    }
}

#[test]
fn what_would_go_beyond_an_array_is_refused_before_it_is_launched() {
    on_devices(|device| {
        let rows = RowKernels::new(device).unwrap();
        let mut gate = Array::of(device, &[0.0f32; 10]).unwrap();
        let up = Array::of(device, &[0.0f32; 9]).unwrap();
        let refused = rows.swiglu(device, (&mut gate, &up), 10).unwrap_err().to_string();
        assert!(refused.contains("would touch 10 elements, the buffer has 9"), "{refused}");
    });
}
