//! How do blocks of 256 elements expand? Each is cut into 8 or 16 runs with small integer scales
//! of their own, which one or two f16 of the block multiply. Bits of an element are spread:
//! `q >> shift` of the same 32 bytes gives one run of 32 elements after another.

use super::scale::scale;

/// Elements of a block.
const LEN: usize = 256;

/// `scales:[u8; 16] q:[u8; 64] d:f16 d_min:f16`; runs of 16, each with a 4-bit scale and a 4-bit
/// minimum.
pub(super) fn q2_k(block: &[u8; 84], out: &mut [f32; LEN]) {
    let (scales, q) = (&block[..16], &block[16..80]);
    let (d, d_min) = (scale([block[80], block[81]]), scale([block[82], block[83]]));
    for (run_idx, run) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let Run { half, shift, start } = Run::of_16(run_idx);
        let factor = d * f32::from(scales[run_idx] & 15);
        let minimum = d_min * f32::from(scales[run_idx] >> 4);
        for (element, &q) in run.iter_mut().zip(&q[half * 32 + start..][..16]) {
            *element = factor * f32::from(q >> (2 * shift) & 3) - minimum;
        }
    }
}

/// `third_bits:[u8; 32] q:[u8; 64] scales:[u8; 12] d:f16`; runs of 16, each with a 6-bit scale.
pub(super) fn q3_k(block: &[u8; 110], out: &mut [f32; LEN]) {
    let (third, q, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = scale([block[108], block[109]]);
    for (run_idx, run) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let Run { half, shift, start } = Run::of_16(run_idx);
        let low = packed[run_idx % 8] >> (4 * (run_idx / 8)) & 15;
        let high = packed[8 + run_idx % 4] >> (2 * (run_idx / 4)) & 3;
        let factor = d * f32::from((low | high << 4) as i8 - 32);
        let (q, third) = (&q[half * 32 + start..][..16], &third[start..][..16]);
        for ((element, &q), &third) in run.iter_mut().zip(q).zip(third) {
            let low = (q >> (2 * shift) & 3) as i8;
            let high = (third >> (4 * half + shift) & 1) as i8;
            *element = factor * f32::from(low + 4 * high - 4);
        }
    }
}

/// Where the bits of a run lie: in which half of the bytes, shifted by how many elements, from
/// which of the 32 bytes on.
struct Run {
    half: usize,
    shift: usize,
    start: usize,
}

impl Run {
    /// Of the 16 runs of 16 elements.
    fn of_16(run_idx: usize) -> Self {
        Self { half: run_idx / 8, shift: run_idx % 8 / 2, start: run_idx % 2 * 16 }
    }
}

/// `d:f16 d_min:f16 scales:[u8; 12] q:[u8; 128]`; runs of 32, each with a 6-bit scale and a 6-bit
/// minimum.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; LEN]) {
    let (d, d_min) = (scale([block[0], block[1]]), scale([block[2], block[3]]));
    let q = &block[16..];
    for (run_idx, run) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (factor, minimum) = scale_and_minimum(&block[4..16], run_idx);
        let (factor, minimum) = (d * f32::from(factor), d_min * f32::from(minimum));
        let shift = run_idx % 2 * 4;
        for (element, &q) in run.iter_mut().zip(&q[run_idx / 2 * 32..][..32]) {
            *element = factor * f32::from(q >> shift & 15) - minimum;
        }
    }
}

/// `d:f16 d_min:f16 scales:[u8; 12] fifth_bits:[u8; 32] q:[u8; 128]`, else like `q4_k`.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; LEN]) {
    let (d, d_min) = (scale([block[0], block[1]]), scale([block[2], block[3]]));
    let (fifth, q) = (&block[16..48], &block[48..]);
    for (run_idx, run) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (factor, minimum) = scale_and_minimum(&block[4..16], run_idx);
        let (factor, minimum) = (d * f32::from(factor), d_min * f32::from(minimum));
        let shift = run_idx % 2 * 4;
        let q = &q[run_idx / 2 * 32..][..32];
        for ((element, &q), &fifth) in run.iter_mut().zip(q).zip(fifth) {
            let q = (q >> shift & 15) | (fifth >> run_idx & 1) << 4;
            *element = factor * f32::from(q) - minimum;
        }
    }
}

/// The 6-bit scale and minimum of run `run_idx` of 8, packed into 12 bytes: the first four runs
/// in the low bits of bytes 0-3 and 4-7, the others in bytes 8-11 and the spare high bits.
fn scale_and_minimum(packed: &[u8], run_idx: usize) -> (u8, u8) {
    let i = run_idx % 4;
    if run_idx < 4 {
        (packed[i] & 63, packed[4 + i] & 63)
    } else {
        let spare = |byte: u8| byte >> 2 & 0x30;
        (packed[8 + i] & 15 | spare(packed[i]), packed[8 + i] >> 4 | spare(packed[4 + i]))
    }
}

/// `low:[u8; 128] high:[u8; 64] scales:[i8; 16] d:f16`; runs of 16, each with an 8-bit scale;
/// 4 low and 2 high bits an element.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; LEN]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = scale([block[208], block[209]]);
    for (run_idx, run) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let Run { half, shift, start } = Run::of_16(run_idx);
        let factor = d * f32::from(scales[run_idx] as i8);
        let low = &low[half * 64 + shift % 2 * 32 + start..][..16];
        let high = &high[half * 32 + start..][..16];
        for ((element, &low), &high) in run.iter_mut().zip(low).zip(high) {
            let low = low >> (shift / 2 * 4) & 15;
            let high = high >> (2 * shift) & 3;
            *element = factor * f32::from((low | high << 4) as i8 - 32);
        }
    }
}
