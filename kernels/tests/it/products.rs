//! Products of few rows with quantised weights, of many with what they stand for, and rows of a table.

use half::f16;
use kernels::naive;
use kernels::{
    Array, DenseKernels, MANY_ROWS, OutputMode, ProductKernels, QuantizedMatrix, WeightBits,
};

use crate::devices::{assert_close, numbers, on_devices};

/// A matrix's bytes, scales and what they stand for.
fn matrix(bits: WeightBits, n_outputs: usize, n_cols: usize) -> (Vec<u8>, Vec<[u16; 2]>, Vec<f32>) {
    let n_blocks = n_outputs * n_cols / 32;
    let (mut bytes, mut scales, mut stands_for) = (Vec::new(), Vec::new(), Vec::new());
    let draws = numbers(5, n_blocks * 34);
    for block in draws.chunks(34) {
        let scale = f16::from_f32(0.02 + 0.01 * block[32]);
        let shift = f16::from_f32(-0.1 + 0.05 * block[33]);
        scales.push([scale.to_bits(), shift.to_bits()]);
        let q: Vec<i32> = match bits {
            WeightBits::Four => block[..32].iter().map(|x| ((x + 1.0) * 8.0) as i32 & 15).collect(),
            WeightBits::Eight => block[..32].iter().map(|x| (x * 128.0) as i32).collect(),
        };
        stands_for.extend(q.iter().map(|q| *q as f32 * scale.to_f32() + shift.to_f32()));
        match bits {
            WeightBits::Four => bytes.extend((0..16).map(|i| (q[i] | q[i + 16] << 4) as u8)),
            WeightBits::Eight => bytes.extend(q.iter().map(|q| *q as u8)),
        }
    }
    (bytes, scales, stands_for)
}

#[test]
fn products_are_those_of_their_twin_for_any_number_of_rows() {
    for (bits, n_outputs, n_cols) in [
        (WeightBits::Four, 9, 576),
        (WeightBits::Eight, 17, 96),
        (WeightBits::Four, 1, 32),
        (WeightBits::Eight, 8, 2048),
    ] {
        let (bytes, scales, weights) = matrix(bits, n_outputs, n_cols);
        for (n_rows, mode) in [
            (1, OutputMode::Set),
            (3, OutputMode::Add),
            (8, OutputMode::Set),
            (13, OutputMode::Add),
        ] {
            let x = numbers(6, n_rows * n_cols);
            let before = numbers(7, n_rows * n_outputs);
            let out = on_devices(|device| {
                let mut kernels = ProductKernels::default();
                let matrix =
                    QuantizedMatrix::new(device, (bits, n_outputs), &bytes, &scales).unwrap();
                let mut out = Array::of(device, &before).unwrap();
                let x = Array::of(device, &x).unwrap();
                kernels.round(device, &x, (n_rows, n_cols)).unwrap();
                kernels.multiply(device, &matrix, (&mut out, mode)).unwrap();
                out.to_vec(device).unwrap()
            });
            let mut expected = naive::product(&x, &weights, n_cols);
            if mode == OutputMode::Add {
                expected.iter_mut().zip(&before).for_each(|(x, before)| *x += before);
            }
            // Activations of up to 1 in steps of 1 / (16 * 127): six deviations of what that makes
            // of a sum.
            let square: f32 = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
            let tolerance = 6.0 * (n_cols as f32 * square / 12.0).sqrt() / (16.0 * 127.0);
            assert_close(&out, &expected, tolerance);
        }
    }
}

#[test]
fn many_rows_are_multiplied_with_what_weights_stand_for() {
    for (bits, n_outputs, n_cols, n_rows) in [
        (WeightBits::Four, 9, 576, MANY_ROWS),
        (WeightBits::Eight, 130, 96, MANY_ROWS + 7),
        (WeightBits::Four, 3, 32, 140),
    ] {
        let (bytes, scales, weights) = matrix(bits, n_outputs, n_cols);
        let x = numbers(8, n_rows * n_cols);
        let out = on_devices(|device| {
            let (mut kernels, mut dense) = (ProductKernels::default(), DenseKernels::default());
            // A larger one before it, whose room it takes.
            let (more, of_more, _) = matrix(WeightBits::Eight, 140, 1024);
            let larger =
                QuantizedMatrix::new(device, (WeightBits::Eight, 140), &more, &of_more).unwrap();
            assert!(kernels.widened(device, &larger).unwrap().is_some());
            let matrix = QuantizedMatrix::new(device, (bits, n_outputs), &bytes, &scales).unwrap();
            let x = Array::of(device, &x).unwrap();
            let mut out = Array::of(device, &vec![f32::NAN; n_rows * n_outputs]).unwrap();
            let widened = kernels.widened(device, &matrix).unwrap().unwrap();
            let to = (&mut out, OutputMode::Set);
            dense.multiply(device, (&x, n_rows), &widened, to).unwrap();
            out.to_vec(device).unwrap()
        });
        // Weights and activations of up to 1 with eleven bits: six deviations of the sum.
        let square: f32 = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
        let tolerance = 6.0 * (n_cols as f32 * square / 6.0).sqrt() / 2048.0;
        assert_close(&out, &naive::product(&x, &weights, n_cols), tolerance);
    }
}

#[test]
fn weights_that_halves_do_not_hold_are_not_widened() {
    let (bytes, mut scales, _) = matrix(WeightBits::Eight, 2, 64);
    scales[3][0] = f16::from_f32(600.0).to_bits(); // times 128
    on_devices(|device| {
        let bits = WeightBits::Eight;
        let matrix = QuantizedMatrix::new(device, (bits, 2), &bytes, &scales).unwrap();
        assert!(ProductKernels::default().widened(device, &matrix).unwrap().is_none());
        Vec::<f32>::new()
    });
}

#[test]
fn rows_of_a_table_are_what_its_weights_stand_for() {
    for bits in [WeightBits::Four, WeightBits::Eight] {
        let (bytes, scales, weights) = matrix(bits, 7, 576);
        let ids = [6, 0, 3, 3];
        let out = on_devices(|device| {
            let mut kernels = ProductKernels::default();
            let table = QuantizedMatrix::new(device, (bits, 7), &bytes, &scales).unwrap();
            let mut out = Array::of(device, &vec![f32::NAN; ids.len() * 576]).unwrap();
            kernels.embed(device, (&table, &ids), &mut out).unwrap();
            let beyond = kernels.embed(device, (&table, &[7]), &mut out).unwrap_err();
            assert!(beyond.to_string().contains("a row of 7"));
            out.to_vec(device).unwrap()
        });
        for (row, id) in out.chunks(576).zip(ids) {
            assert_close(row, &weights[id as usize * 576..][..576], 1e-6);
        }
    }
}
