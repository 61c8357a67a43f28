//! How do blocks of 32 elements expand? One f16 scale, for the `_1` types one f16 minimum, and 4,
//! 5 or 8 bits an element. In the 4-bit part element `i` is the low half of byte `i`, element
//! `i + 16` the high half.

use super::scale::scale;

/// `d:f16 q:[u8; 16]`, value `d * (q - 8)`.
pub(super) fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = scale([block[0], block[1]]);
    let (low, high) = out.split_at_mut(16);
    for i in 0..16 {
        let q = block[2 + i];
        low[i] = d * f32::from((q & 15) as i8 - 8);
        high[i] = d * f32::from((q >> 4) as i8 - 8);
    }
}

/// `d:f16 m:f16 q:[u8; 16]`, value `d * q + m`.
pub(super) fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let d = scale([block[0], block[1]]);
    let m = scale([block[2], block[3]]);
    let (low, high) = out.split_at_mut(16);
    for i in 0..16 {
        let q = block[4 + i];
        low[i] = d * f32::from(q & 15) + m;
        high[i] = d * f32::from(q >> 4) + m;
    }
}

/// `d:f16 fifth_bits:u32 q:[u8; 16]`, value `d * (q - 16)`.
pub(super) fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = scale([block[0], block[1]]);
    let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let (low, high) = out.split_at_mut(16);
    for i in 0..16 {
        let (first, second) = five_bits(block[6 + i], fifth >> i);
        low[i] = d * f32::from(first as i8 - 16);
        high[i] = d * f32::from(second as i8 - 16);
    }
}

/// `d:f16 m:f16 fifth_bits:u32 q:[u8; 16]`, value `d * q + m`.
pub(super) fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let d = scale([block[0], block[1]]);
    let m = scale([block[2], block[3]]);
    let fifth = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    let (low, high) = out.split_at_mut(16);
    for i in 0..16 {
        let (first, second) = five_bits(block[8 + i], fifth >> i);
        low[i] = d * f32::from(first) + m;
        high[i] = d * f32::from(second) + m;
    }
}

/// Elements `i` and `i + 16`, given their byte and the fifth bits from `i` on.
fn five_bits(q: u8, fifth: u32) -> (u8, u8) {
    let first = (q & 15) | ((fifth & 1) << 4) as u8;
    let second = (q >> 4) | ((fifth >> 16 & 1) << 4) as u8;
    (first, second)
}

/// `d:f16 q:[i8; 32]`, value `d * q`.
pub(super) fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = scale([block[0], block[1]]);
    for (element, &q) in out.iter_mut().zip(&block[2..]) {
        *element = d * f32::from(q as i8);
    }
}
