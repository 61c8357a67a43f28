//! How are keys and values laid out in a page, and how are they rounded? One layer and KV head of a
//! page; `cuda/pages.cuh` has the formats.

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageType {
    /// Halves.
    F16,
    /// Bytes; keys with a scale for each token and 16 dimensions, values with one for each token.
    Int8,
    /// Nibbles; keys with a step and a middle for each dimension, values with a step for each
    /// token.
    Int4,
}

/// Sizes of a page of one layer and KV head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFormat {
    /// The type.
    pub kv_type: PageType,
    /// Width of a head: a multiple of 16.
    pub head_dim: usize,
    /// Tokens of a page: an even number.
    pub page_len: usize,
}

const KEY_GROUP: usize = 16;

impl PageFormat {
    /// Bytes of a layer and KV head.
    pub fn head_bytes(self) -> usize {
        let (part, len) = (self.head_dim * self.page_len, self.page_len);
        match self.kv_type {
            PageType::F16 => 4 * part,
            PageType::Int8 => part + part / KEY_GROUP * 2 + part + 4 * len,
            PageType::Int4 => part / 2 + 4 * self.head_dim + part / 2 + 4 * len,
        }
    }

    /// `keys` and `values`, `[slot][head_dim]` each, as bytes; slots after them are left as `fill`.
    ///
    /// # Panics
    /// When there are more than a page has.
    pub fn pack(self, keys: &[f32], values: &[f32], fill: u8) -> Vec<u8> {
        assert!(keys.len() == values.len() && keys.len() <= self.head_dim * self.page_len);
        let mut page = vec![fill; self.head_bytes()];
        match self.kv_type {
            PageType::F16 => self.pack_f16(keys, values, &mut page),
            PageType::Int8 => self.pack_int8(keys, values, &mut page),
            PageType::Int4 => self.pack_int4(keys, values, &mut page),
        }
        page
    }

    /// The first `n_slots` keys and values of a page: `[slot][head_dim]` each.
    pub fn unpack(self, page: &[u8], n_slots: usize) -> (Vec<f32>, Vec<f32>) {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for slot in 0..n_slots {
            for dim in 0..self.head_dim {
                keys.push(self.key(page, slot, dim));
                values.push(self.value(page, slot, dim));
            }
        }
        (keys, values)
    }

    fn key(self, page: &[u8], slot: usize, dim: usize) -> f32 {
        let (len, part) = (self.page_len, self.head_dim * self.page_len);
        match self.kv_type {
            PageType::F16 => half_at(page, dim * len + slot),
            PageType::Int8 => {
                let byte = page[(dim / 2 * len + slot) * 2 + dim % 2] as i8;
                f32::from(byte) * half_at(&page[part..], dim / KEY_GROUP * len + slot)
            }
            PageType::Int4 => {
                let nibble = page[dim / 2 * len + slot] >> (dim % 2 * 4) & 15;
                let channels = &page[part / 2..];
                let (step, middle) =
                    (half_at(channels, dim), half_at(channels, self.head_dim + dim));
                middle + step * (2.0 * f32::from(nibble) - 15.0)
            }
        }
    }

    fn value(self, page: &[u8], slot: usize, dim: usize) -> f32 {
        let width = self.head_dim;
        let (keys, part) = (self.key_bytes(), width * self.page_len);
        match self.kv_type {
            PageType::F16 => half_at(&page[keys..], slot * width + dim),
            PageType::Int8 => {
                let byte = page[keys + (slot / 2 * width + dim) * 2 + slot % 2] as i8;
                f32::from(byte) * float_at(&page[keys + part..], slot)
            }
            PageType::Int4 => {
                let nibble = page[keys + slot / 2 * width + dim] >> (slot % 2 * 4) & 15;
                (2.0 * f32::from(nibble) - 15.0) * float_at(&page[keys + part / 2..], slot)
            }
        }
    }

    fn key_bytes(self) -> usize {
        let part = self.head_dim * self.page_len;
        match self.kv_type {
            PageType::F16 => 2 * part,
            PageType::Int8 => part + part / KEY_GROUP * 2,
            PageType::Int4 => part / 2 + 4 * self.head_dim,
        }
    }

    fn pack_f16(self, keys: &[f32], values: &[f32], page: &mut [u8]) {
        for (i, (key, value)) in keys.iter().zip(values).enumerate() {
            let (slot, dim) = (i / self.head_dim, i % self.head_dim);
            set_half(page, dim * self.page_len + slot, *key);
            set_half(&mut page[self.key_bytes()..], i, *value);
        }
    }

    fn pack_int8(self, keys: &[f32], values: &[f32], page: &mut [u8]) {
        let (len, width) = (self.page_len, self.head_dim);
        let (bytes, part) = (self.key_bytes(), width * len);
        for (slot, key) in keys.chunks_exact(width).enumerate() {
            for (group, elements) in key.chunks_exact(KEY_GROUP).enumerate() {
                let scale = half_up(largest(elements) / 127.0);
                set_half(&mut page[part..], group * len + slot, scale);
                for (i, element) in elements.iter().enumerate() {
                    let dim = group * KEY_GROUP + i;
                    let byte = rounded(*element, scale, 127.0) as i8;
                    page[(dim / 2 * len + slot) * 2 + dim % 2] = byte as u8;
                }
            }
        }
        for (slot, value) in values.chunks_exact(width).enumerate() {
            let scale = largest(value) / 127.0;
            set_float(&mut page[bytes + part..], slot, scale);
            for (dim, element) in value.iter().enumerate() {
                let byte = rounded(*element, scale, 127.0) as i8;
                page[bytes + (slot / 2 * width + dim) * 2 + slot % 2] = byte as u8;
            }
        }
    }

    fn pack_int4(self, keys: &[f32], values: &[f32], page: &mut [u8]) {
        let (len, width) = (self.page_len, self.head_dim);
        let (bytes, part) = (self.key_bytes(), width * len);
        for dim in 0..width {
            let channel: Vec<f32> = keys.iter().skip(dim).step_by(width).copied().collect();
            let most = channel.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let least = channel.iter().copied().fold(f32::INFINITY, f32::min);
            set_half(&mut page[part / 2..], width + dim, (most + least) / 2.0);
            let middle = half_at(&page[part / 2..], width + dim);
            let step = half_up((most - middle).max(middle - least) / 15.0);
            set_half(&mut page[part / 2..], dim, step);
            for (slot, key) in channel.iter().enumerate() {
                let nibble = nibble_of(key - middle, step) << (dim % 2 * 4);
                let byte = &mut page[dim / 2 * len + slot];
                *byte = *byte & !(15 << (dim % 2 * 4)) | nibble;
            }
        }
        for (slot, value) in values.chunks_exact(width).enumerate() {
            let step = largest(value) / 15.0;
            set_float(&mut page[bytes + part / 2..], slot, step);
            for (dim, element) in value.iter().enumerate() {
                let byte = &mut page[bytes + slot / 2 * width + dim];
                let nibble = nibble_of(*element, step) << (slot % 2 * 4);
                *byte = *byte & !(15 << (slot % 2 * 4)) | nibble;
            }
        }
    }
}

fn largest(elements: &[f32]) -> f32 {
    elements.iter().fold(0.0, |most, x| most.max(x.abs()))
}

/// `x` in steps of `scale`, a whole number of up to `most` to either side.
fn rounded(x: f32, scale: f32, most: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { (x / scale).round_ties_even().clamp(-most, most) }
}

fn nibble_of(x: f32, step: f32) -> u8 {
    if step == 0.0 {
        return 8;
    }
    (x / (2.0 * step) + 7.5).round_ties_even().clamp(0.0, 15.0) as u8
}

fn half_at(bytes: &[u8], i: usize) -> f32 {
    half_to_float(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]))
}

fn set_half(bytes: &mut [u8], i: usize, x: f32) {
    bytes[2 * i..][..2].copy_from_slice(&float_to_half(x).to_le_bytes());
}

fn float_at(bytes: &[u8], i: usize) -> f32 {
    f32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

fn set_float(bytes: &mut [u8], i: usize, x: f32) {
    bytes[4 * i..][..4].copy_from_slice(&x.to_le_bytes());
}

/// The least half that is not below `x`, which is not negative.
fn half_up(x: f32) -> f32 {
    let half = float_to_half(x);
    half_to_float(if half_to_float(half) < x { half + 1 } else { half })
}

fn half_to_float(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

fn float_to_half(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_within_half_a_step() {
        let wave =
            |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin() * 3.0).collect::<Vec<_>>();
        for (kv_type, error) in
            [(PageType::F16, 2e-3), (PageType::Int8, 0.013), (PageType::Int4, 0.21)]
        {
            let format = PageFormat { kv_type, head_dim: 32, page_len: 8 };
            for n_slots in [1, 5, 8] {
                let (keys, values) = (wave(32 * n_slots, 0.7), wave(32 * n_slots, 1.3));
                let page = format.pack(&keys, &values, 0xff);
                let (k, v) = format.unpack(&page, n_slots);
                for (a, b) in k.iter().zip(&keys).chain(v.iter().zip(&values)) {
                    assert!((a - b).abs() <= error, "{kv_type:?}: {a} for {b}");
                }
            }
        }
    }
}
