//! How do a model file's weights lie on the device? As they are where blocks of 32 weights have one
//! scale, in 4 or 8 bits; all others as 16 bits.

use half::{bf16, f16};
use kernels::{AnyDevice, DenseMatrix, DeviceError, QuantizedMatrix, WeightBits, WeightFormat};

use crate::tensor::{DType, Matrix, dequantize_row};

/// Weights of a block.
const BLOCK: usize = 32;

/// A matrix on the device.
pub enum CudaWeight {
    /// Multiplied as it is.
    Quantized(QuantizedMatrix<AnyDevice>),
    /// In 16 bits a weight.
    Dense(DenseMatrix<AnyDevice>),
}

impl CudaWeight {
    /// A copy of `matrix` on the device.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn new(device: &AnyDevice, matrix: &Matrix) -> Result<Self, DeviceError> {
        match blocks(matrix) {
            Some(Blocks { bits, weights, scales }) => {
                let matrix = QuantizedMatrix::new(device, (bits, matrix.rows), &weights, &scales)?;
                Ok(Self::Quantized(matrix))
            }
            None => {
                let (format, weights) = sixteen_bits(matrix);
                Ok(Self::Dense(DenseMatrix::new(device, (format, matrix.rows), &weights)?))
            }
        }
    }

    /// Input features.
    pub fn n_cols(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.n_cols(),
            Self::Dense(matrix) => matrix.n_cols(),
        }
    }
}

/// Weights as [`QuantizedMatrix`] has them: `scale * q + shift`.
struct Blocks {
    bits: WeightBits,
    weights: Vec<u8>,
    scales: Vec<[u16; 2]>,
}

/// The blocks of a type that has them, exactly.
fn blocks(matrix: &Matrix) -> Option<Blocks> {
    let (bits, block): (_, fn(&[u8], &mut Blocks)) = match matrix.dtype {
        DType::Q4_0 => (WeightBits::Four, q4_0),
        DType::Q4_1 => (WeightBits::Four, q4_1),
        DType::Q5_0 => (WeightBits::Eight, q5_0),
        DType::Q5_1 => (WeightBits::Eight, q5_1),
        DType::Q8_0 => (WeightBits::Eight, q8_0),
        _ => return None,
    };
    let n_blocks = matrix.rows * matrix.cols / BLOCK;
    let mut blocks = Blocks {
        bits,
        weights: Vec::with_capacity(n_blocks * bits.number() * 4),
        scales: Vec::with_capacity(n_blocks),
    };
    let block_bytes = matrix.dtype.row_bytes(BLOCK);
    matrix.bytes.chunks_exact(block_bytes).for_each(|bytes| block(bytes, &mut blocks));
    Some(blocks)
}

fn half_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// `scale * (q - 8)`: the shift is a power of two times the scale, so exact.
fn q4_0(bytes: &[u8], out: &mut Blocks) {
    let scale = half_at(bytes, 0);
    let shift = f16::from_f32(-8.0 * f16::from_bits(scale).to_f32());
    out.scales.push([scale, shift.to_bits()]);
    out.weights.extend_from_slice(&bytes[2..]);
}

/// `scale * q + shift`
fn q4_1(bytes: &[u8], out: &mut Blocks) {
    out.scales.push([half_at(bytes, 0), half_at(bytes, 2)]);
    out.weights.extend_from_slice(&bytes[4..]);
}

/// `scale * (q - 16)`, a byte each.
fn q5_0(bytes: &[u8], out: &mut Blocks) {
    out.scales.push([half_at(bytes, 0), 0]);
    let centred = fives(&bytes[2..]).map(|q| q.wrapping_sub(16)); // as signed bytes
    out.weights.extend(centred);
}

/// `scale * q + shift`, a byte each.
fn q5_1(bytes: &[u8], out: &mut Blocks) {
    out.scales.push([half_at(bytes, 0), half_at(bytes, 2)]);
    out.weights.extend(fives(&bytes[4..]));
}

/// `scale * q`
fn q8_0(bytes: &[u8], out: &mut Blocks) {
    out.scales.push([half_at(bytes, 0), 0]);
    out.weights.extend_from_slice(&bytes[2..]);
}

/// Numbers of five bits: their highest bits in four bytes, then the others as nibbles.
fn fives(bytes: &[u8]) -> [u8; BLOCK] {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    std::array::from_fn(|i| {
        let byte = bytes[4 + i % 16];
        let low = if i < 16 { byte & 15 } else { byte >> 4 };
        low | ((high >> i & 1) << 4) as u8
    })
}

/// All weights in 16 bits: as they are, or rounded to halves (2^-11 of themselves); to bfloats
/// where one is beyond what halves hold.
fn sixteen_bits(matrix: &Matrix) -> (WeightFormat, Vec<u16>) {
    let n = matrix.rows * matrix.cols;
    let words = || matrix.bytes.chunks_exact(2).map(|word| half_at(word, 0)).collect();
    match matrix.dtype {
        DType::F16 => return (WeightFormat::Half, words()),
        DType::BF16 => return (WeightFormat::Bfloat, words()),
        _ => {}
    }
    let mut row = vec![0.0; matrix.cols];
    let mut halves = Vec::with_capacity(n);
    for r in 0..matrix.rows {
        dequantize_row(matrix.dtype, matrix.row(r), &mut row);
        if row.iter().any(|x| x.abs() > f16::MAX.to_f32()) {
            return (WeightFormat::Bfloat, bfloats(matrix, &mut row));
        }
        halves.extend(row.iter().map(|x| f16::from_f32(*x).to_bits()));
    }
    (WeightFormat::Half, halves)
}

fn bfloats(matrix: &Matrix, row: &mut [f32]) -> Vec<u16> {
    let mut words = Vec::with_capacity(matrix.rows * matrix.cols);
    for r in 0..matrix.rows {
        dequantize_row(matrix.dtype, matrix.row(r), row);
        words.extend(row.iter().map(|x| bf16::from_f32(*x).to_bits()));
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use fastrand::Rng;

    use super::*;
    use crate::tensor::{MappedBytes, MappedFile};

    /// Bytes of a file, which is mapped and gone.
    fn mapped(bytes: &[u8]) -> MappedBytes {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mneme-weights-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        let file = MappedFile::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        MappedBytes::new(&file, 0..bytes.len()).unwrap()
    }

    /// A matrix of random bytes whose scales are small halves.
    fn matrix(dtype: DType, rng: &mut Rng) -> Matrix {
        let (rows, cols) = (3, 512);
        let mut bytes: Vec<u8> = (0..rows * dtype.row_bytes(cols)).map(|_| rng.u8(..)).collect();
        let (block_bytes, scales): (_, &[usize]) = match dtype {
            DType::F32 => (4, &[2]),
            DType::F16 | DType::BF16 => (2, &[0]),
            DType::Q4_1 | DType::Q5_1 => (dtype.row_bytes(32), &[0, 2]),
            DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => (dtype.row_bytes(32), &[0]),
            DType::Q2_K => (84, &[80, 82]),
            DType::Q3_K => (110, &[108]),
            DType::Q4_K => (144, &[0, 2]),
            DType::Q5_K => (176, &[0, 2]),
            DType::Q6_K => (210, &[208]),
        };
        for block in bytes.chunks_exact_mut(block_bytes) {
            for at in scales {
                // Around 2^-7 as a half, around 1 as the upper part of a float.
                block[at + 1] = if matches!(dtype, DType::F32 | DType::BF16) { 0x3f } else { 0x20 };
            }
        }
        Matrix { dtype, rows, cols, bytes: mapped(&bytes) }
    }

    #[test]
    fn weights_on_the_device_are_those_of_the_file() {
        let mut rng = Rng::with_seed(7);
        for dtype in DType::ALL {
            let matrix = matrix(dtype, &mut rng);
            let mut expected = vec![0.0; matrix.rows * matrix.cols];
            for (r, row) in expected.chunks_exact_mut(matrix.cols).enumerate() {
                dequantize_row(dtype, matrix.row(r), row);
            }
            let stands_for: Vec<f32> = match blocks(&matrix) {
                Some(blocks) => blocks_stand_for(&blocks),
                None => {
                    let (format, words) = sixteen_bits(&matrix);
                    let widen = |word: &u16| match format {
                        WeightFormat::Half => f16::from_bits(*word).to_f32(),
                        WeightFormat::Bfloat => bf16::from_bits(*word).to_f32(),
                    };
                    words.iter().map(widen).collect()
                }
            };
            let is_exact = !matches!(
                dtype,
                DType::F32 | DType::Q2_K | DType::Q3_K | DType::Q4_K | DType::Q5_K | DType::Q6_K
            );
            let share = if is_exact { 1e-6 } else { 1.0 / 2048.0 };
            for (at, (weight, expected)) in stands_for.iter().zip(&expected).enumerate() {
                let bound = share * expected.abs().max(1e-3);
                assert!((weight - expected).abs() <= bound, "{dtype} {at}: {weight} {expected}");
            }
            assert_eq!(stands_for.len(), expected.len());
        }
    }

    fn blocks_stand_for(blocks: &Blocks) -> Vec<f32> {
        let block_bytes = blocks.bits.number() * 4;
        let blocks_of = blocks.weights.chunks_exact(block_bytes).zip(&blocks.scales);
        let stand_for = |(bytes, scale): (&[u8], &[u16; 2])| -> Vec<f32> {
            let [scale, shift] = scale.map(|half| f16::from_bits(half).to_f32());
            let q = |i: usize| match blocks.bits {
                WeightBits::Four => f32::from(bytes[i % 16] >> (i / 16 * 4) & 15),
                WeightBits::Eight => f32::from(bytes[i] as i8),
            };
            (0..BLOCK).map(|i| scale * q(i) + shift).collect()
        };
        blocks_of.flat_map(stand_for).collect()
    }

    #[test]
    fn what_halves_do_not_hold_becomes_bfloats() {
        let weights = [1.5f32, -70_000.0, 3e-6, 0.0, 1.0, 2.0, 3.0, 4.0];
        let bytes = weights.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let matrix = Matrix { dtype: DType::F32, rows: 1, cols: 8, bytes: mapped(&bytes) };
        let (format, words) = sixteen_bits(&matrix);
        assert_eq!(format, WeightFormat::Bfloat);
        assert!((bf16::from_bits(words[1]).to_f32() + 70_000.0).abs() < 300.0);
    }
}
