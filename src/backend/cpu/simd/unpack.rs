//! How does a quantised row become plain bytes with scales?
//!
//! Every GGML format is, group by group, `weight = scale * q + offset` with small unsigned `q`.
//! [`Unpack`] writes a row in that one form; the products then need no knowledge of formats.
//! (`tensor::dequantize_row` is the slow twin. Formats as in llama.cpp's `ggml-common.h`.)

use super::vector::{Kernel, Simd};
use crate::tensor::DType;

/// Rows as `weight[i] = scale[i / group] * q[i] + offset[i / group]`.
#[derive(Debug, Default)]
pub struct UnpackedRows {
    /// Columns of a row.
    pub cols: usize,
    /// `[row][cols]`
    pub q: Vec<u8>,
    /// `[row][scales_stride]`
    pub scales: Vec<f32>,
    /// `[row][scales_stride]`
    pub offsets: Vec<f32>,
}

/// One of them.
#[derive(Debug)]
pub struct UnpackedRow<'a> {
    /// `[cols]`
    pub q: &'a mut [u8],
    /// `[cols / group]`, and room for as many as there would be of 16.
    pub scales: &'a mut [f32],
    /// As `scales`.
    pub offsets: &'a mut [f32],
}

impl UnpackedRows {
    /// Makes room for rows of `cols` weights; keeps its allocations.
    pub fn resize(&mut self, n_rows: usize, cols: usize) {
        self.cols = cols;
        let (n_weights, n_scales) = (n_rows * cols, n_rows * self.scales_stride());
        self.q.resize(n_weights.max(self.q.len()), 0);
        self.scales.resize(n_scales.max(self.scales.len()), 0.0);
        self.offsets.resize(n_scales.max(self.offsets.len()), 0.0);
    }

    /// Floats from one row's scales to the next one's: whole fours.
    pub fn scales_stride(&self) -> usize {
        (self.cols / 16).next_multiple_of(4)
    }

    /// Row `row`.
    pub fn row(&mut self, row: usize) -> UnpackedRow<'_> {
        let stride = self.scales_stride();
        UnpackedRow {
            q: &mut self.q[row * self.cols..][..self.cols],
            scales: &mut self.scales[row * stride..][..stride],
            offsets: &mut self.offsets[row * stride..][..stride],
        }
    }
}

/// Weights that share a scale: 16 or 32. `None` for types that are not quantised.
pub fn group_of(dtype: DType) -> Option<usize> {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => None,
        DType::Q2_K | DType::Q3_K | DType::Q6_K => Some(16),
        _ => Some(32),
    }
}

/// Unpacks one row.
#[derive(Debug)]
pub struct Unpack<'a> {
    /// A quantised type.
    pub dtype: DType,
    /// The row.
    pub bytes: &'a [u8],
    /// As wide as the row.
    pub out: UnpackedRow<'a>,
}

impl Kernel for Unpack<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { dtype, bytes, out } = self;
        match dtype {
            DType::Q4_0 => blocks::<18, 32, 1>(bytes, out, q4_0),
            DType::Q4_1 => blocks::<20, 32, 1>(bytes, out, q4_1),
            DType::Q5_0 => blocks::<22, 32, 1>(bytes, out, q5_0),
            DType::Q5_1 => blocks::<24, 32, 1>(bytes, out, q5_1),
            DType::Q8_0 => blocks::<34, 32, 1>(bytes, out, q8_0),
            DType::Q2_K => blocks::<84, 256, 16>(bytes, out, q2_k),
            DType::Q3_K => blocks::<110, 256, 16>(bytes, out, q3_k),
            DType::Q4_K => blocks::<144, 256, 8>(bytes, out, q4_k),
            DType::Q5_K => blocks::<176, 256, 8>(bytes, out, q5_k),
            DType::Q6_K => blocks::<210, 256, 16>(bytes, out, q6_k),
            DType::F32 | DType::F16 | DType::BF16 => unreachable!("not quantised: no group"),
        }
    }
}

#[inline(always)]
fn blocks<const BYTES: usize, const LEN: usize, const GROUPS: usize>(
    bytes: &[u8],
    out: UnpackedRow<'_>,
    unpack: impl Fn(&[u8; BYTES], &mut [u8; LEN], &mut [f32; GROUPS], &mut [f32; GROUPS]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (q, _) = out.q.as_chunks_mut::<LEN>();
    let (scales, _) = out.scales.as_chunks_mut::<GROUPS>();
    let (offsets, _) = out.offsets.as_chunks_mut::<GROUPS>();
    for (((block, q), scales), offsets) in blocks.iter().zip(q).zip(scales).zip(offsets) {
        unpack(block, q, scales, offsets);
    }
}

#[inline(always)]
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Branch-free for the sake of the vectoriser; exact, subnormals included (scales are finite).
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13);
    let scaled = magnitude * f32::from_bits(0x7780_0000); // 2^112
    f32::from_bits(scaled.to_bits() | u32::from(bits & 0x8000) << 16)
}

#[inline(always)]
fn nibbles(packed: &[u8], q: &mut [u8; 32]) {
    for i in 0..16 {
        q[i] = packed[i] & 15;
        q[i + 16] = packed[i] >> 4;
    }
}

#[inline(always)]
fn fifth_bits(high: u32, q: &mut [u8; 32]) {
    for (i, q) in q.iter_mut().enumerate() {
        *q |= ((high >> i & 1) << 4) as u8;
    }
}

#[inline(always)]
fn q4_0(block: &[u8; 18], q: &mut [u8; 32], scales: &mut [f32; 1], offsets: &mut [f32; 1]) {
    nibbles(&block[2..], q);
    scales[0] = half_at(block, 0);
    offsets[0] = -8.0 * scales[0];
}

#[inline(always)]
fn q4_1(block: &[u8; 20], q: &mut [u8; 32], scales: &mut [f32; 1], offsets: &mut [f32; 1]) {
    nibbles(&block[4..], q);
    scales[0] = half_at(block, 0);
    offsets[0] = half_at(block, 2);
}

#[inline(always)]
fn q5_0(block: &[u8; 22], q: &mut [u8; 32], scales: &mut [f32; 1], offsets: &mut [f32; 1]) {
    nibbles(&block[6..], q);
    fifth_bits(u32::from_le_bytes([block[2], block[3], block[4], block[5]]), q);
    scales[0] = half_at(block, 0);
    offsets[0] = -16.0 * scales[0];
}

#[inline(always)]
fn q5_1(block: &[u8; 24], q: &mut [u8; 32], scales: &mut [f32; 1], offsets: &mut [f32; 1]) {
    nibbles(&block[8..], q);
    fifth_bits(u32::from_le_bytes([block[4], block[5], block[6], block[7]]), q);
    scales[0] = half_at(block, 0);
    offsets[0] = half_at(block, 2);
}

#[inline(always)]
fn q8_0(block: &[u8; 34], q: &mut [u8; 32], scales: &mut [f32; 1], offsets: &mut [f32; 1]) {
    for i in 0..32 {
        q[i] = block[2 + i] ^ 0x80; // two's complement + 128
    }
    scales[0] = half_at(block, 0);
    offsets[0] = -128.0 * scales[0];
}

/// Scales and minima 4 bits each; `[scales 16][q 64][d][dmin]`.
#[inline(always)]
fn q2_k(block: &[u8; 84], q: &mut [u8; 256], scales: &mut [f32; 16], offsets: &mut [f32; 16]) {
    let (d, d_min) = (half_at(block, 80), half_at(block, 82));
    for group in 0..16 {
        scales[group] = d * f32::from(block[group] & 15);
        offsets[group] = -d_min * f32::from(block[group] >> 4);
    }
    for (part, q) in q.chunks_exact_mut(32).enumerate() {
        let packed = &block[16 + part / 4 * 32..][..32];
        for (q, packed) in q.iter_mut().zip(packed) {
            *q = packed >> (2 * (part % 4)) & 3;
        }
    }
}

/// Third bits apart, scales of 6 bits in 12 bytes; `[high 32][q 64][scales 12][d]`.
#[inline(always)]
fn q3_k(block: &[u8; 110], q: &mut [u8; 256], scales: &mut [f32; 16], offsets: &mut [f32; 16]) {
    let d = half_at(block, 108);
    let packed_scales = &block[96..108];
    for group in 0..16 {
        let low = packed_scales[group % 8] >> (4 * (group / 8)) & 15;
        let high = packed_scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = i32::from(low | high << 4) - 32;
        scales[group] = d * scale as f32;
        offsets[group] = -4.0 * scales[group];
    }
    for (part, q) in q.chunks_exact_mut(32).enumerate() {
        let packed = &block[32 + part / 4 * 32..][..32];
        for ((q, packed), high) in q.iter_mut().zip(packed).zip(&block[..32]) {
            *q = packed >> (2 * (part % 4)) & 3 | (high >> part & 1) << 2;
        }
    }
}

/// The eight `(scale, minimum)` pairs of 6 bits in Q4_K and Q5_K.
#[inline(always)]
fn scales_of_k(block: &[u8], scales: &mut [f32; 8], offsets: &mut [f32; 8]) {
    let (d, d_min) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for j in 0..4 {
        scales[j] = d * f32::from(packed[j] & 63);
        offsets[j] = -d_min * f32::from(packed[j + 4] & 63);
        let scale = packed[j + 8] & 15 | packed[j] >> 6 << 4;
        let minimum = packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4;
        scales[j + 4] = d * f32::from(scale);
        offsets[j + 4] = -d_min * f32::from(minimum);
    }
}

#[inline(always)]
fn q4_k(block: &[u8; 144], q: &mut [u8; 256], scales: &mut [f32; 8], offsets: &mut [f32; 8]) {
    scales_of_k(block, scales, offsets);
    for (part, q) in q.chunks_exact_mut(64).enumerate() {
        let packed = &block[16 + part * 32..][..32];
        for i in 0..32 {
            q[i] = packed[i] & 15;
            q[i + 32] = packed[i] >> 4;
        }
    }
}

#[inline(always)]
fn q5_k(block: &[u8; 176], q: &mut [u8; 256], scales: &mut [f32; 8], offsets: &mut [f32; 8]) {
    scales_of_k(block, scales, offsets);
    let high = &block[16..48];
    for (part, q) in q.chunks_exact_mut(64).enumerate() {
        let packed = &block[48 + part * 32..][..32];
        for i in 0..32 {
            q[i] = packed[i] & 15 | (high[i] >> (2 * part) & 1) << 4;
            q[i + 32] = packed[i] >> 4 | (high[i] >> (2 * part + 1) & 1) << 4;
        }
    }
}

/// `[low nibbles 128][high pairs 64][scales i8 16][d]`.
#[inline(always)]
fn q6_k(block: &[u8; 210], q: &mut [u8; 256], scales: &mut [f32; 16], offsets: &mut [f32; 16]) {
    let d = half_at(block, 208);
    for group in 0..16 {
        scales[group] = d * f32::from(block[192 + group] as i8);
        offsets[group] = -32.0 * scales[group];
    }
    for (half, q) in q.chunks_exact_mut(128).enumerate() {
        let low = &block[half * 64..][..64];
        let high = &block[128 + half * 32..][..32];
        for i in 0..32 {
            q[i] = low[i] & 15 | (high[i] & 3) << 4;
            q[i + 32] = low[i + 32] & 15 | (high[i] >> 2 & 3) << 4;
            q[i + 64] = low[i] >> 4 | (high[i] >> 4 & 3) << 4;
            q[i + 96] = low[i + 32] >> 4 | (high[i] >> 6) << 4;
        }
    }
}
