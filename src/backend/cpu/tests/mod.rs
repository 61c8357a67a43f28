//! Does the processor compute what the definitions say? Every operation of the backend, on every
//! instruction set, against loops in f64 (crate `kernels::naive` where it has them). Tolerances
//! are bounds of rounding error worked out from the numbers at hand, not measured and padded.

mod attention;
mod kept;
mod listed;
mod lookup;
mod products;
mod rows;
mod together;

use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use half::f16;

use super::CpuBackend;
use super::simd::Isa;
use crate::backend::Precision;
use crate::tensor::{DType, MappedBytes, MappedFile, Matrix, dequantize_row};

/// Half the distance between 1 and the next f32: the relative error of one rounding.
const ROUNDING: f64 = f32::EPSILON as f64 / 2.0;

/// One backend an instruction set.
fn backends(precision: Precision) -> Vec<CpuBackend> {
    Isa::under_test().into_iter().map(|isa| CpuBackend::with_isa(isa, 1, precision)).collect()
}

/// `len` numbers from -1 to 1.
fn floats(len: usize, rng: &mut Rng) -> Vec<f32> {
    (0..len).map(|_| rng.f32() * 2.0 - 1.0).collect()
}

/// What f16 makes of a number.
fn halved(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// Random weights of one type.
struct Weights {
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: Vec<u8>,   // [rows][row_bytes]
    values: Vec<f32>, // [rows][cols]
}

impl Weights {
    fn random(dtype: DType, rows: usize, cols: usize, rng: &mut Rng) -> Self {
        let bytes = match dtype {
            DType::F32 => floats(rows * cols, rng).iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F16 => {
                let halves = floats(rows * cols, rng).into_iter().map(f16::from_f32);
                halves.flat_map(|x| x.to_le_bytes()).collect()
            }
            DType::BF16 => {
                let halves = floats(rows * cols, rng).into_iter().map(half::bf16::from_f32);
                halves.flat_map(|x| x.to_le_bytes()).collect()
            }
            _ => random_blocks(dtype, rows * cols / dtype.block_len(), rng),
        };
        let mut values = vec![0.0; rows * cols];
        dequantize_row(dtype, &bytes, &mut values);
        Self { dtype, rows, cols, bytes, values }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..][..self.cols]
    }

    /// The first `rows` rows as a matrix that ends where its file ends: a read past it ends the
    /// process.
    fn matrix(&self, rows: usize) -> Matrix {
        assert!(rows <= self.rows, "rows there are");
        let bytes = &self.bytes[..rows * self.dtype.row_bytes(self.cols)];
        let bytes = at_the_end_of_a_file(bytes);
        Matrix { dtype: self.dtype, rows, cols: self.cols, bytes }
    }
}

/// `bytes` at the very end of a mapped file with nothing readable after it.
fn at_the_end_of_a_file(bytes: &[u8]) -> MappedBytes {
    static N_FILES: AtomicUsize = AtomicUsize::new(0);
    let n_files = N_FILES.fetch_add(1, Ordering::Relaxed);
    let name = format!("mneme-test-{}-{n_files}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let len = bytes.len().next_multiple_of(64 * 1024);
    let mut contents = vec![0xff; len - bytes.len()];
    contents.extend(bytes);
    std::fs::write(&path, contents).unwrap();
    let file = MappedFile::open_guarded(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    MappedBytes::new(&file, len - bytes.len()..len).unwrap()
}

/// Where the f16 scales of a block lie.
fn scale_places(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => &[],
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
    }
}

/// Random bits under finite random scales of either sign.
fn random_blocks(dtype: DType, n_blocks: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..n_blocks * dtype.block_bytes()).map(|_| rng.u8(..)).collect();
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        for &at in scale_places(dtype) {
            let scale = f16::from_f32((rng.f32() * 2.0 - 1.0) * 0.05);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}
