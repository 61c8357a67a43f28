//! Products of few rows with weights of 16 bits, and rows of a table.

use half::{bf16, f16};
use kernels::naive;
use kernels::{
    Array, DenseKernels, DenseMatrix, EmulatedLibrary, Library, OutputMode, WeightFormat,
};

use crate::devices::{assert_close, numbers, on_devices, on_emulated};

/// Weights as bits, and what they stand for.
fn weights(format: WeightFormat, len: usize) -> (Vec<u16>, Vec<f32>) {
    let round = |x: &f32| match format {
        WeightFormat::Half => (f16::from_f32(*x).to_bits(), f16::from_f32(*x).to_f32()),
        WeightFormat::Bfloat => (bf16::from_f32(*x).to_bits(), bf16::from_f32(*x).to_f32()),
    };
    numbers(5, len).iter().map(round).unzip()
}

/// `before` with the products of `x` written, or added, to it.
fn multiplied(
    (format, bits): (WeightFormat, &[u16]),
    x: &[f32],
    (before, mode): (&[f32], OutputMode),
    [n_rows, n_outputs]: [usize; 2],
) -> Vec<f32> {
    on_devices(|device| {
        let mut kernels = DenseKernels::default();
        let matrix = DenseMatrix::new(device, (format, n_outputs), bits).unwrap();
        let mut out = Array::of(device, before).unwrap();
        let x = Array::of(device, x).unwrap();
        kernels.multiply(device, (&x, n_rows), &matrix.view(), (&mut out, mode)).unwrap();
        out.to_vec(device).unwrap()
    })
}

#[test]
fn products_are_those_of_their_twin_for_any_number_of_rows() {
    for (format, n_outputs, n_cols) in [
        (WeightFormat::Half, 9, 576),
        (WeightFormat::Bfloat, 17, 104),
        (WeightFormat::Half, 1, 8),
        (WeightFormat::Bfloat, 8, 2048),
    ] {
        let (bits, stands_for) = weights(format, n_outputs * n_cols);
        for (n_rows, mode) in [
            (1, OutputMode::Set),
            (3, OutputMode::Add),
            (13, OutputMode::Set),
            (4, OutputMode::Add),
        ] {
            let x = numbers(6, n_rows * n_cols);
            let before = numbers(7, n_rows * n_outputs);
            let sizes = [n_rows, n_outputs];
            let out = multiplied((format, &bits), &x, (&before, mode), sizes);
            let mut expected = naive::product(&x, &stands_for, n_cols);
            if mode == OutputMode::Add {
                expected.iter_mut().zip(&before).for_each(|(x, before)| *x += before);
            }
            assert_close(&out, &expected, 1e-5 * (n_cols as f32).sqrt());
        }
    }
}

#[test]
fn many_rows_go_through_tensor_cores_and_none_is_too_large() {
    for (format, n_rows, n_outputs, n_cols, mode) in [
        (WeightFormat::Half, 32, 130, 40, OutputMode::Set),
        (WeightFormat::Bfloat, 130, 9, 264, OutputMode::Add),
        (WeightFormat::Half, 129, 136, 72, OutputMode::Add),
    ] {
        let (bits, stands_for) = weights(format, n_outputs * n_cols);
        let mut x = numbers(6, n_rows * n_cols);
        // Rows of nothing, of what no half holds, and of what is nearly nothing.
        x[..n_cols].fill(0.0);
        x[n_cols..2 * n_cols].iter_mut().for_each(|x| *x *= 3e7);
        x[2 * n_cols..3 * n_cols].iter_mut().for_each(|x| *x *= 1e-20);
        let before = vec![0.5; n_rows * n_outputs];
        let sizes = [n_rows, n_outputs];
        let out = multiplied((format, &bits), &x, (&before, mode), sizes);
        let expected = naive::product(&x, &stands_for, n_cols);
        // Activations lose what 11 or 8 bits do not hold: six deviations of what that makes of a
        // sum.
        let digits: f32 = if format == WeightFormat::Half { 2048.0 } else { 256.0 };
        for (row, (out, expected)) in
            out.chunks(n_outputs).zip(expected.chunks(n_outputs)).enumerate()
        {
            let most = x[row * n_cols..][..n_cols].iter().fold(0.0f32, |most, x| most.max(x.abs()));
            let tolerance = 6.0 * most * (n_cols as f32 / 27.0).sqrt() / digits + 1e-6;
            for (out, expected) in out.iter().zip(expected) {
                let there = if mode == OutputMode::Add { 0.5 } else { 0.0 };
                assert!((out - there - expected).abs() <= tolerance, "{row}: {out} {expected}");
            }
        }
    }
}

#[test]
fn a_library_multiplies_once_it_has_computed_what_our_kernel_does() {
    let [n_rows, n_outputs, n_cols] = [37, 11, 48];
    for (format, mode) in
        [(WeightFormat::Half, OutputMode::Set), (WeightFormat::Bfloat, OutputMode::Add)]
    {
        let (bits, stands_for) = weights(format, n_outputs * n_cols);
        let mut x = numbers(6, n_rows * n_cols);
        x[..n_cols].iter_mut().for_each(|x| *x *= 3e7); // units are not all alike
        x[n_cols..2 * n_cols].fill(0.0);
        let before = vec![0.5; n_rows * n_outputs];
        let with = |library| {
            on_emulated(|device| {
                let emulation = device.emulation().expect("because it is one");
                emulation.set_library(library);
                let mut kernels = DenseKernels::default();
                let matrix = DenseMatrix::new(device, (format, n_outputs), &bits).unwrap();
                let rows = Array::of(device, &x).unwrap();
                let multiply = |kernels: &mut DenseKernels<_>| {
                    let mut out = Array::of(device, &before).unwrap();
                    let to = (&mut out, mode);
                    kernels.multiply(device, (&rows, n_rows), &matrix.view(), to).unwrap();
                    out.to_vec(device).unwrap()
                };
                let first = multiply(&mut kernels);
                // It is not tried again: once trusted it multiplies, and its mistakes are ours.
                assert_eq!(multiply(&mut kernels), first);
                (first, kernels.library().clone())
            })
        };
        let (ours, missing) = with(EmulatedLibrary::Missing);
        assert_eq!(missing, Library::Missing);
        let (theirs, used) = with(EmulatedLibrary::Right);
        assert_eq!(used, Library::Used);
        let most =
            |row: usize| x[row * n_cols..][..n_cols].iter().fold(1.0f32, |m, x| m.max(x.abs()));
        for (row, (theirs, ours)) in
            theirs.chunks(n_outputs).zip(ours.chunks(n_outputs)).enumerate()
        {
            assert_close(theirs, ours, 1e-5 * most(row));
        }
        let expected = naive::product(&x[2 * n_cols..], &stands_for, n_cols);
        let there = if mode == OutputMode::Add { 0.5 } else { 0.0 };
        let expected: Vec<f32> = expected.iter().map(|x| x + there).collect();
        assert_close(&theirs[2 * n_outputs..], &expected, 0.05);
        let (instead, refused) = with(EmulatedLibrary::Wrong);
        let Library::Refused(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("by the library") && why.contains("by our kernel"), "{why}");
        assert_eq!(instead, ours, "to the bit");
    }
}

#[test]
fn rows_of_a_table_are_its_weights() {
    for format in [WeightFormat::Half, WeightFormat::Bfloat] {
        let (bits, stands_for) = weights(format, 7 * 328);
        let ids = [6, 0, 3, 3];
        let out = on_devices(|device| {
            let mut kernels = DenseKernels::default();
            let table = DenseMatrix::new(device, (format, 7), &bits).unwrap();
            let mut out = Array::of(device, &vec![f32::NAN; ids.len() * 328]).unwrap();
            kernels.embed(device, (&table, &ids), &mut out).unwrap();
            let beyond = kernels.embed(device, (&table, &[7]), &mut out).unwrap_err();
            assert!(beyond.to_string().contains("a row of 7"));
            out.to_vec(device).unwrap()
        });
        for (row, id) in out.chunks(328).zip(ids) {
            assert_eq!(row, &stands_for[id as usize * 328..][..328]);
        }
    }
}

#[test]
fn what_cannot_be_multiplied_is_refused() {
    on_devices(|device| {
        let matrix = |n_outputs, len| {
            DenseMatrix::new(device, (WeightFormat::Half, n_outputs), &vec![0; len]).map(|_| ())
        };
        assert!(matrix(2, 16).is_ok());
        for (n_outputs, len) in [(2, 24), (3, 16), (0, 8), (1, 0)] {
            let told = matrix(n_outputs, len).unwrap_err().to_string();
            assert!(told.contains("a multiple of 8"), "{told}");
        }
        let weights = DenseMatrix::new(device, (WeightFormat::Half, 2), &[0; 16]).unwrap();
        let (x, mut out) =
            (Array::of(device, &[0.0; 16]).unwrap(), Array::of(device, &[0.0; 4]).unwrap());
        let mut kernels = DenseKernels::default();
        let three = kernels.multiply(device, (&x, 3), &weights.view(), (&mut out, OutputMode::Set));
        assert!(three.unwrap_err().to_string().contains("rows to multiply"));
    });
}
