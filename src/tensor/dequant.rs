//! How does a quantised row become f32? Block by block, exactly as GGML's reference does it, so
//! that every faster way (fused products, panels) has a twin to be compared with. The loops are
//! plain and of constant length: the compiler turns them into SIMD.

mod k_quants;
mod legacy;
mod scale;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::dtype::DType;
use scale::scale;

/// Expands one row. `bytes.len() == dtype.row_bytes(out.len())`.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % dtype.block_len(), 0, "a row of {dtype} is made of whole blocks");
    assert_eq!(bytes.len(), dtype.row_bytes(out.len()), "bytes of a row of {dtype}");
    match dtype {
        DType::F32 => f32_row(bytes, out),
        DType::F16 => f16_row(bytes, out),
        DType::BF16 => bf16_row(bytes, out),
        DType::Q4_0 => blocks(bytes, out, legacy::q4_0),
        DType::Q4_1 => blocks(bytes, out, legacy::q4_1),
        DType::Q5_0 => blocks(bytes, out, legacy::q5_0),
        DType::Q5_1 => blocks(bytes, out, legacy::q5_1),
        DType::Q8_0 => blocks(bytes, out, legacy::q8_0),
        DType::Q2_K => blocks(bytes, out, k_quants::q2_k),
        DType::Q3_K => blocks(bytes, out, k_quants::q3_k),
        DType::Q4_K => blocks(bytes, out, k_quants::q4_k),
        DType::Q5_K => blocks(bytes, out, k_quants::q5_k),
        DType::Q6_K => blocks(bytes, out, k_quants::q6_k),
    }
}

/// Expands each block of `BYTES` bytes to `LEN` elements.
fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    expand: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (block, elements) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
        expand(block, elements);
    }
}

fn f32_row(bytes: &[u8], out: &mut [f32]) {
    for (&raw, element) in bytes.as_chunks().0.iter().zip(out) {
        *element = f32::from_le_bytes(raw);
    }
}

fn f16_row(bytes: &[u8], out: &mut [f32]) {
    match bytemuck::try_cast_slice::<u8, f16>(bytes) {
        Ok(halves) if cfg!(target_endian = "little") => halves.convert_to_f32_slice(out),
        _ => {
            for (&raw, element) in bytes.as_chunks().0.iter().zip(out) {
                *element = scale(raw);
            }
        }
    }
}

fn bf16_row(bytes: &[u8], out: &mut [f32]) {
    for (&raw, element) in bytes.as_chunks().0.iter().zip(out) {
        *element = f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::{DType, dequantize_row};

    /// Random blocks and their values by GGML's own Python package; see `make_dequant.py`.
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/dequant.bin");

    fn u32_at(at: usize) -> u32 {
        u32::from_le_bytes(GOLDEN[at..at + 4].try_into().unwrap())
    }

    /// Each record of the golden file: type, bytes, values.
    fn golden() -> Vec<(DType, &'static [u8], Vec<f32>)> {
        let mut records = Vec::new();
        let mut at = 0;
        while at < GOLDEN.len() {
            let dtype = DType::from_ggml_id(u32_at(at)).unwrap();
            let n_blocks = u32_at(at + 4) as usize;
            let bytes = &GOLDEN[at + 8..][..n_blocks * dtype.block_bytes()];
            at += 8 + bytes.len();
            let values = &GOLDEN[at..][..n_blocks * dtype.block_len() * 4];
            at += values.len();
            let values = values.as_chunks().0.iter().map(|&raw| f32::from_le_bytes(raw));
            records.push((dtype, bytes, values.collect()));
        }
        records
    }

    #[test]
    fn every_type_expands_to_the_bits_that_ggml_gives() {
        let records = golden();
        assert_eq!(records.iter().map(|record| record.0).collect::<Vec<_>>(), DType::ALL);
        for (dtype, bytes, expected) in records {
            let mut out = vec![f32::NAN; expected.len()];
            dequantize_row(dtype, bytes, &mut out);
            for (idx, (found, expected)) in out.iter().zip(&expected).enumerate() {
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{dtype} {idx}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn rows_at_odd_addresses_expand_alike() {
        for (dtype, bytes, expected) in golden() {
            let mut moved = vec![0; bytes.len() + 1];
            moved[1..].copy_from_slice(bytes);
            let mut out = vec![0.0; expected.len()];
            dequantize_row(dtype, &moved[1..], &mut out);
            assert_eq!(out, expected, "{dtype}");
        }
    }

    #[test]
    #[should_panic(expected = "bytes of a row of Q4_0")]
    fn a_row_of_the_wrong_length_is_refused() {
        dequantize_row(DType::Q4_0, &[0; 17], &mut [0.0; 32]);
    }
}
