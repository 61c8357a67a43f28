//! How are keys and values laid out? In pages of consecutive tokens that hold all layers: what is
//! in the window, what a unit is, and what the store keeps are the same bytes.

use std::ops::Range;

use half::f16;
use serde::{Deserialize, Serialize};

/// Sizes of a model's attention heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head; a multiple of 16.
    pub head_dim: usize,
    /// Rotated pairs `(i, i + n_pairs)` of a head; dimensions after `2 * n_pairs` stay.
    pub n_pairs: usize,
}

impl HeadShape {
    /// Query heads that share a key/value head.
    pub fn group(self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KvType {
    /// Halves.
    F16,
    /// Bytes with scales: a little more than half the memory and half the reading. Keys have a
    /// scale for each token and [`KEY_GROUP`] dimensions, since a few of a key's dimensions are
    /// much larger than the others; values have one for each token.
    #[default]
    Int8,
    /// Units as nibbles, half of what bytes take; what is in the window stays bytes, since a key's
    /// channels have their scales over a whole unit (KIVI, arXiv 2402.02750). A key's element is
    /// `middle + step * (2 * nibble - 15)` with step and middle of its channel, a value's
    /// `step * (2 * nibble - 15)` with a step a token and head.
    Int4,
}

impl KvType {
    /// Each of them, the default first.
    pub const ALL: [Self; 3] = [Self::Int8, Self::F16, Self::Int4];

    /// In which type keys and values come in and stay while they are in the window.
    pub fn near(self) -> Self {
        match self {
            Self::Int4 => Self::Int8,
            near => near,
        }
    }

    /// As flags and files name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

/// Dimensions of a key that share a scale.
pub const KEY_GROUP: usize = 16;

/// The layout of a page: `[layer][kv_head]`, and for each of them a [`HeadPage`].
///
/// Keys are rotated by their offset in the page and by nothing else. A page can so be placed
/// anywhere: rotations add up, and what its position adds is the same for all its keys, so that it
/// can be taken out of the few queries instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// Sizes of heads.
    pub heads: HeadShape,
    /// Layers.
    pub n_layers: usize,
    /// Tokens in a page: the unit length; a multiple of 16.
    pub page_len: usize,
    /// How keys and values are kept, where a page does not say otherwise.
    pub kv_type: KvType,
}

/// Keys and values of one layer and KV head in a page. Keys are dimension-major, so that vector
/// lanes are keys; values are token-major, so that lanes are dimensions: no product with them
/// needs a horizontal sum. Bytes come in pairs of what is summed over, for products of 16-bit
/// pairs.
#[derive(Clone, Copy, Debug)]
pub enum HeadPage<'a> {
    /// [`KvType::F16`]
    F16 {
        /// `[head_dim][page_len]` f16
        keys: &'a [u16],
        /// `[page_len][head_dim]` f16
        values: &'a [u16],
    },
    /// [`KvType::Int8`]: `byte * scale`.
    Int8 {
        /// `[head_dim / 2][page_len][2]`
        keys: &'a [i8],
        /// `[head_dim / KEY_GROUP][page_len]` f16
        key_scales: &'a [u16],
        /// `[page_len / 2][head_dim][2]`
        values: &'a [i8],
        /// `[page_len]`
        value_scales: &'a [f32],
    },
    /// [`KvType::Int4`]: two nibbles a byte, the first of a pair in the lower half.
    Int4 {
        /// `[head_dim / 2][page_len]`, pairs of dimensions.
        keys: &'a [u8],
        /// `[head_dim]` f16
        key_steps: &'a [u16],
        /// `[head_dim]` f16
        key_middles: &'a [u16],
        /// `[page_len / 2][head_dim]`, pairs of tokens.
        values: &'a [u8],
        /// `[page_len]`
        value_steps: &'a [f32],
    },
}

/// A [`HeadPage`] to be written.
#[derive(Debug)]
pub enum HeadPageMut<'a> {
    /// See [`HeadPage::F16`].
    F16 {
        /// `[head_dim][page_len]` f16
        keys: &'a mut [u16],
        /// `[page_len][head_dim]` f16
        values: &'a mut [u16],
    },
    /// See [`HeadPage::Int8`].
    Int8 {
        /// `[head_dim / 2][page_len][2]`
        keys: &'a mut [i8],
        /// `[head_dim / KEY_GROUP][page_len]` f16
        key_scales: &'a mut [u16],
        /// `[page_len / 2][head_dim][2]`
        values: &'a mut [i8],
        /// `[page_len]`
        value_scales: &'a mut [f32],
    },
    /// See [`HeadPage::Int4`].
    Int4 {
        /// `[head_dim / 2][page_len]`
        keys: &'a mut [u8],
        /// `[head_dim]` f16
        key_steps: &'a mut [u16],
        /// `[head_dim]` f16
        key_middles: &'a mut [u16],
        /// `[page_len / 2][head_dim]`
        values: &'a mut [u8],
        /// `[page_len]`
        value_steps: &'a mut [f32],
    },
}

impl PageLayout {
    /// The same sizes in another type.
    pub fn of_type(self, kv_type: KvType) -> Self {
        Self { kv_type, ..self }
    }

    /// Bytes of a page.
    pub fn page_bytes(self) -> usize {
        self.n_layers * self.heads.n_kv_heads * self.head_bytes()
    }

    /// Bytes of keys and values a token.
    pub fn bytes_per_token(self) -> usize {
        self.page_bytes() / self.page_len
    }

    /// Where the keys and values of a layer and KV head are in a page.
    pub fn head(self, layer: usize, kv_head: usize) -> Range<usize> {
        let start = (layer * self.heads.n_kv_heads + kv_head) * self.head_bytes();
        start..start + self.head_bytes()
    }

    /// Where the keys of a layer and KV head are in a page, with their scales.
    pub fn keys(self, layer: usize, kv_head: usize) -> Range<usize> {
        let start = self.head(layer, kv_head).start;
        start..start + self.key_bytes()
    }

    /// The keys and values of a layer and KV head.
    ///
    /// # Panics
    /// When the page is too short, or not at a multiple of four bytes in memory.
    pub fn view(self, page: &[u8], layer: usize, kv_head: usize) -> HeadPage<'_> {
        let (keys, values) = page[self.head(layer, kv_head)].split_at(self.key_bytes());
        match self.kv_type {
            KvType::F16 => HeadPage::F16 {
                keys: bytemuck::cast_slice(keys),
                values: bytemuck::cast_slice(values),
            },
            KvType::Int8 => {
                let (keys, key_scales) = keys.split_at(self.part());
                let (values, value_scales) = values.split_at(self.part());
                HeadPage::Int8 {
                    keys: bytemuck::cast_slice(keys),
                    key_scales: bytemuck::cast_slice(key_scales),
                    values: bytemuck::cast_slice(values),
                    value_scales: bytemuck::cast_slice(value_scales),
                }
            }
            KvType::Int4 => {
                let (keys, channels) = keys.split_at(self.part() / 2);
                let (steps, middles) = channels.split_at(channels.len() / 2);
                let (values, value_steps) = values.split_at(self.part() / 2);
                HeadPage::Int4 {
                    keys,
                    key_steps: bytemuck::cast_slice(steps),
                    key_middles: bytemuck::cast_slice(middles),
                    values,
                    value_steps: bytemuck::cast_slice(value_steps),
                }
            }
        }
    }

    /// As [`view`](Self::view), to be written.
    ///
    /// # Panics
    /// As there.
    pub fn view_mut(self, page: &mut [u8], layer: usize, kv_head: usize) -> HeadPageMut<'_> {
        let (keys, values) = page[self.head(layer, kv_head)].split_at_mut(self.key_bytes());
        match self.kv_type {
            KvType::F16 => HeadPageMut::F16 {
                keys: bytemuck::cast_slice_mut(keys),
                values: bytemuck::cast_slice_mut(values),
            },
            KvType::Int8 => {
                let (keys, key_scales) = keys.split_at_mut(self.part());
                let (values, value_scales) = values.split_at_mut(self.part());
                HeadPageMut::Int8 {
                    keys: bytemuck::cast_slice_mut(keys),
                    key_scales: bytemuck::cast_slice_mut(key_scales),
                    values: bytemuck::cast_slice_mut(values),
                    value_scales: bytemuck::cast_slice_mut(value_scales),
                }
            }
            KvType::Int4 => {
                let (keys, channels) = keys.split_at_mut(self.part() / 2);
                let (steps, middles) = channels.split_at_mut(channels.len() / 2);
                let (values, value_steps) = values.split_at_mut(self.part() / 2);
                HeadPageMut::Int4 {
                    keys,
                    key_steps: bytemuck::cast_slice_mut(steps),
                    key_middles: bytemuck::cast_slice_mut(middles),
                    values,
                    value_steps: bytemuck::cast_slice_mut(value_steps),
                }
            }
        }
    }

    /// Copies the last of a page's `n_keys` keys, and its value, to all slots after it: a search
    /// for the best key, or for the largest element, then finds there what it has found already.
    pub fn repeat_last(self, page: &mut [u8], n_keys: usize) {
        let (page_len, head_dim) = (self.page_len, self.heads.head_dim);
        for head in 0..self.n_layers * self.heads.n_kv_heads {
            if n_keys == page_len {
                return;
            }
            let (layer, kv_head) = (head / self.heads.n_kv_heads, head % self.heads.n_kv_heads);
            match self.view_mut(page, layer, kv_head) {
                HeadPageMut::F16 { keys, values } => {
                    repeat_column(keys, page_len, n_keys, 1);
                    repeat_row(values, head_dim, n_keys);
                }
                HeadPageMut::Int8 { keys, key_scales, values, value_scales } => {
                    repeat_column(keys, page_len, n_keys, 2);
                    repeat_column(key_scales, page_len, n_keys, 1);
                    for slot in n_keys..page_len {
                        for dim in 0..head_dim {
                            let at = |slot: usize| (slot / 2 * head_dim + dim) * 2 + slot % 2;
                            values[at(slot)] = values[at(n_keys - 1)];
                        }
                    }
                    repeat_row(value_scales, 1, n_keys);
                }
                HeadPageMut::Int4 { .. } => unreachable!("pages are packed when they are full"),
            }
        }
    }

    fn head_bytes(self) -> usize {
        let value_bytes = match self.kv_type {
            KvType::F16 => self.part() * size_of::<u16>(),
            KvType::Int8 => self.part() + self.page_len * size_of::<f32>(),
            KvType::Int4 => self.part() / 2 + self.page_len * size_of::<f32>(),
        };
        self.key_bytes() + value_bytes
    }

    fn key_bytes(self) -> usize {
        match self.kv_type {
            KvType::F16 => self.part() * size_of::<u16>(),
            KvType::Int8 => self.part() + self.part() / KEY_GROUP * size_of::<u16>(),
            KvType::Int4 => self.part() / 2 + 2 * self.heads.head_dim * size_of::<u16>(),
        }
    }

    /// Elements of keys, or of values, of one layer and KV head.
    fn part(self) -> usize {
        self.heads.head_dim * self.page_len
    }
}

impl HeadPage<'_> {
    /// The keys as `[head_dim][page_len]`, still rotated by their offsets.
    ///
    /// # Panics
    /// When `out` is not as long as the keys.
    pub fn read_keys(&self, page_len: usize, out: &mut [f32]) {
        match self {
            Self::F16 { keys, .. } => {
                assert_eq!(keys.len(), out.len(), "a float a key and dimension");
                out.iter_mut().zip(*keys).for_each(|(x, key)| *x = f16::from_bits(*key).to_f32());
            }
            Self::Int8 { keys, key_scales, .. } => {
                assert_eq!(keys.len(), out.len(), "a float a key and dimension");
                let (pairs, _) = keys.as_chunks::<2>();
                let rows = out.chunks_exact_mut(2 * page_len);
                for (i, (rows, pairs)) in rows.zip(pairs.chunks_exact(page_len)).enumerate() {
                    let (even, odd) = rows.split_at_mut(page_len);
                    let scales = &key_scales[2 * i / KEY_GROUP * page_len..];
                    for (((even, odd), pair), scale) in
                        even.iter_mut().zip(odd).zip(pairs).zip(scales)
                    {
                        let scale = f16::from_bits(*scale).to_f32();
                        *even = f32::from(pair[0]) * scale;
                        *odd = f32::from(pair[1]) * scale;
                    }
                }
            }
            Self::Int4 { keys, key_steps, key_middles, .. } => {
                assert_eq!(2 * keys.len(), out.len(), "a float a key and dimension");
                let channel = |dim: usize| [key_steps[dim], key_middles[dim]].map(widened);
                let rows = out.chunks_exact_mut(2 * page_len).zip(keys.chunks_exact(page_len));
                for (pair, (rows, bytes)) in rows.enumerate() {
                    let (even, odd) = rows.split_at_mut(page_len);
                    let ([step, middle], [odd_step, odd_middle]) =
                        (channel(2 * pair), channel(2 * pair + 1));
                    for ((even, odd), byte) in even.iter_mut().zip(odd).zip(bytes) {
                        *even = middle + step * whole(byte & 15);
                        *odd = odd_middle + odd_step * whole(byte >> 4);
                    }
                }
            }
        }
    }

    /// The values as `[page_len][head_dim]`.
    ///
    /// # Panics
    /// When `out` is not as long as the values.
    pub fn read_values(&self, head_dim: usize, out: &mut [f32]) {
        match self {
            Self::F16 { values, .. } => {
                assert_eq!(values.len(), out.len(), "a float a value and dimension");
                out.iter_mut().zip(*values).for_each(|(x, value)| *x = widened(*value));
            }
            Self::Int8 { values, value_scales, .. } => {
                assert_eq!(values.len(), out.len(), "a float a value and dimension");
                for (i, x) in out.iter_mut().enumerate() {
                    let (token, dim) = (i / head_dim, i % head_dim);
                    let at = (token / 2 * head_dim + dim) * 2 + token % 2;
                    *x = f32::from(values[at]) * value_scales[token];
                }
            }
            Self::Int4 { values, value_steps, .. } => {
                assert_eq!(2 * values.len(), out.len(), "a float a value and dimension");
                for (i, x) in out.iter_mut().enumerate() {
                    let (token, dim) = (i / head_dim, i % head_dim);
                    let byte = values[token / 2 * head_dim + dim];
                    let nibble = if token % 2 == 0 { byte & 15 } else { byte >> 4 };
                    *x = whole(nibble) * value_steps[token];
                }
            }
        }
    }
}

/// In rows of `page_len` groups of `size`, repeats the last of the first `n` groups.
fn repeat_column<T: Copy>(rows: &mut [T], page_len: usize, n: usize, size: usize) {
    for row in rows.chunks_exact_mut(page_len * size) {
        for slot in n..page_len {
            row.copy_within((n - 1) * size..n * size, slot * size);
        }
    }
}

/// Repeats the last of the first `n` rows of `width`.
fn repeat_row<T: Copy>(rows: &mut [T], width: usize, n: usize) {
    for row in n..rows.len() / width {
        rows.copy_within((n - 1) * width..n * width, row * width);
    }
}

fn widened(half: u16) -> f32 {
    f16::from_bits(half).to_f32()
}

/// What a nibble stands for, in steps: odd numbers from -15 to 15.
fn whole(nibble: u8) -> f32 {
    2.0 * f32::from(nibble) - 15.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_key_of_a_short_page_is_found_in_all_slots_after_it() {
        let heads = HeadShape { n_heads: 2, n_kv_heads: 2, head_dim: 32, n_pairs: 16 };
        for kv_type in [KvType::F16, KvType::Int8] {
            let layout = PageLayout { heads, n_layers: 2, page_len: 16, kv_type };
            // Bytes that are small numbers as halves, bytes and floats alike.
            let bytes = |i: usize| [0x11 + (i % 7) as u8, 0x3c - (i % 5) as u8][i % 2];
            let mut words = vec![0u32; layout.page_bytes() / 4];
            let page: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
            page.iter_mut().enumerate().for_each(|(i, byte)| *byte = bytes(i));
            let read = |page: &[u8], head: usize| {
                let (mut keys, mut values) = (vec![0.0; 512], vec![0.0; 512]);
                let view = layout.view(page, head / 2, head % 2);
                view.read_keys(16, &mut keys);
                view.read_values(32, &mut values);
                let key = |slot: usize| keys.chunks(16).map(|column| column[slot]).collect();
                let rows = (0..16).map(|slot| (key(slot), values[slot * 32..][..32].to_vec()));
                rows.collect::<Vec<(Vec<f32>, Vec<f32>)>>()
            };
            let before: Vec<_> = (0..4).map(|head| read(page, head)).collect();
            layout.repeat_last(page, 13);
            for (head, before) in before.iter().enumerate() {
                let after = read(page, head);
                assert_eq!(after[..13], before[..13], "{kv_type:?}");
                assert!(after[13..].iter().all(|row| *row == before[12]), "{kv_type:?}");
                assert!(before[13..].iter().all(|row| *row != before[12]), "{kv_type:?}");
            }
        }
    }
}
