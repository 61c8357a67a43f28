//! How do a token's key and value come into a page? Rotated by the token's offset, rounded to the page's
//! type, and laid where attention wants them: keys in columns, values in rows.

use std::ops::Range;

use half::f16;

use super::rows::{QuantizeRow, RotateRows, ToHalf, largest};
use super::vector::{Kernel, Simd};
use crate::backend::{HeadPageMut, HeadShape, KEY_GROUP, PageLayout};

/// Widest head supported.
pub const MAX_HEAD_DIM: usize = 512;

/// Writes keys and values of consecutive tokens to consecutive slots of a page, for some heads of one
/// layer.
#[derive(Debug)]
pub struct WriteSlots<'a> {
    /// The page's.
    pub layout: PageLayout,
    /// What these heads are of the page.
    pub heads: &'a mut [u8],
    /// The first of them.
    pub first_head: usize,
    /// Where the first token goes.
    pub first_slot: usize,
    /// `[slot of the page][cosines, then sines]`
    pub slot_angles: &'a [f32],
    /// `[token][n_kv_heads * head_dim]`, not yet rotated.
    pub keys: &'a [f32],
    /// As `keys`.
    pub values: &'a [f32],
    /// Which tokens.
    pub tokens: Range<usize>,
}

impl Kernel for WriteSlots<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let HeadShape { n_kv_heads, head_dim, n_pairs, .. } = self.layout.heads;
        let mut row = Row { turned: [0.0; MAX_HEAD_DIM], rounded: [0; MAX_HEAD_DIM] };
        let bytes_a_head = self.layout.head(0, 0).len();
        for (i, head) in self.heads.chunks_exact_mut(bytes_a_head).enumerate() {
            let mut page = self.layout.view_mut(head, 0, 0);
            for (slot, token) in (self.first_slot..).zip(self.tokens.clone()) {
                let at = (token * n_kv_heads + self.first_head + i) * head_dim;
                let (x, value) = (&self.keys[at..][..head_dim], &self.values[at..][..head_dim]);
                let angles = &self.slot_angles[slot * 2 * n_pairs..][..2 * n_pairs];
                let out = &mut row.turned[..head_dim];
                // SAFETY: the caller vouches for the instruction set.
                unsafe {
                    RotateRows { x, head_dim, angles, scale: 1.0, out }.run::<S>();
                    match &mut page {
                        HeadPageMut::F16 { keys, values } => {
                            row.write_halves::<S>(keys, values, (slot, value));
                        }
                        HeadPageMut::Int8 { keys, key_scales, values, value_scales } => {
                            row.write_key_bytes(keys, key_scales, (slot, head_dim));
                            value_scales[slot] = row.write_value_bytes::<S>(values, slot, value);
                        }
                        HeadPageMut::Int4 { .. } => {
                            unreachable!("keys come in as bytes, see KvType::near")
                        }
                    }
                }
            }
        }
    }
}

/// A key on its way, and a key or a value rounded.
struct Row {
    turned: [f32; MAX_HEAD_DIM],
    rounded: [u16; MAX_HEAD_DIM], // or bytes
}

impl Row {
    #[inline(always)]
    unsafe fn write_halves<S: Simd>(
        &mut self,
        keys: &mut [u16],
        values: &mut [u16],
        (slot, value): (usize, &[f32]),
    ) {
        let head_dim = value.len();
        let halves = &mut self.rounded[..head_dim];
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            ToHalf { x: &self.turned[..head_dim], out: halves }.run::<S>();
            ToHalf { x: value, out: &mut values[slot * head_dim..][..head_dim] }.run::<S>();
        }
        let columns = keys.chunks_exact_mut(keys.len() / head_dim);
        columns.zip(&*halves).for_each(|(column, half)| column[slot] = *half);
    }

    /// With a scale, an f16, for each group of [`KEY_GROUP`].
    #[inline(always)]
    fn write_key_bytes(
        &mut self,
        keys: &mut [i8],
        scales: &mut [u16],
        (slot, head_dim): (usize, usize),
    ) {
        let bytes = &mut bytemuck::cast_slice_mut::<_, i8>(&mut self.rounded)[..head_dim];
        let page_len = keys.len() / head_dim;
        let groups = self.turned.chunks_exact(KEY_GROUP).zip(bytes.chunks_exact_mut(KEY_GROUP));
        for ((x, q), scales) in groups.zip(scales.chunks_exact_mut(page_len)) {
            let rounded = f16::from_f32(largest(x) / 127.0);
            scales[slot] = rounded.to_bits();
            let inverse = Some(1.0 / rounded.to_f32()).filter(|x| x.is_finite()).unwrap_or(0.0);
            for (q, x) in q.iter_mut().zip(x) {
                // A very small scale may have been rounded down by much.
                *q = (x * inverse).clamp(-127.0, 127.0).round_ties_even() as i8;
            }
        }
        for (row, pair) in keys.chunks_exact_mut(2 * page_len).zip(bytes.chunks_exact(2)) {
            row[2 * slot..][..2].copy_from_slice(pair);
        }
    }

    /// Returns the scale of all.
    #[inline(always)]
    unsafe fn write_value_bytes<S: Simd>(
        &mut self,
        values: &mut [i8],
        slot: usize,
        value: &[f32],
    ) -> f32 {
        let head_dim = value.len();
        let bytes = &mut bytemuck::cast_slice_mut::<_, i8>(&mut self.rounded)[..head_dim];
        // SAFETY: the caller vouches for the instruction set.
        let (scale, _) = unsafe { QuantizeRow { x: value, q: bytes }.run::<S>() };
        let row = &mut values[slot / 2 * 2 * head_dim..][..2 * head_dim];
        for (pair, byte) in row.chunks_exact_mut(2).zip(&*bytes) {
            pair[slot % 2] = *byte;
        }
        scale
    }
}
