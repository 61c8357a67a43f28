//! What stands for units? The means of their segments, or their bounds, as bytes: blocks of sixteen
//! units side by side, of all layers (see `backend::BlocksView`). A block is a record of a store.

use super::mass::most_attended;
use crate::backend::{PageLayout, Representatives};

/// Units side by side in a block.
pub(super) const UNITS: usize = 16;

/// How blocks are laid out: `[layer][kv_head]`, and for each of them means
/// `[segment][width / 4][UNITS][4]`, value / scale + 128, then scales `[segment][UNITS]` f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    /// What stands for a segment.
    pub kind: Representatives,
    /// Layers.
    pub n_layers: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Representatives of a unit.
    pub n_segments: usize,
}

/// The keys that something is to stand for.
#[derive(Clone, Copy, Debug)]
pub struct Represented<'a> {
    /// `[head_dim][page_len]`, not rotated.
    pub keys: &'a [f32],
    /// Keys that there are, from the first on.
    pub n_keys: usize,
    /// What each received of attention, where that decides.
    pub masses: Option<&'a [f32]>,
}

impl BlockLayout {
    /// For units of pages laid out as `pages`.
    pub fn new(pages: PageLayout, kind: Representatives, n_segments: usize) -> Self {
        let heads = pages.heads;
        let (n_layers, n_kv_heads, head_dim) = (pages.n_layers, heads.n_kv_heads, heads.head_dim);
        Self { kind, n_layers, n_kv_heads, head_dim, n_segments }
    }

    /// Elements of a representative.
    pub fn width(self) -> usize {
        self.kind.width(self.head_dim)
    }

    /// Bytes of a block's means of one layer and KV head.
    fn mean_bytes(self) -> usize {
        self.n_segments * UNITS * self.width()
    }

    /// Bytes of a block of one layer and KV head.
    pub fn head_bytes(self) -> usize {
        self.mean_bytes() + self.n_segments * UNITS * size_of::<f32>()
    }

    /// Bytes of a block of one layer.
    pub fn layer_bytes(self) -> usize {
        self.n_kv_heads * self.head_bytes()
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.n_layers * self.layer_bytes()
    }

    /// Makes `block` one without units: a lane without a unit scores nothing.
    pub fn clear(self, block: &mut [u8]) {
        for head in block.chunks_exact_mut(self.head_bytes()) {
            let (means, scales) = head.split_at_mut(self.mean_bytes());
            means.fill(128); // zero
            scales.fill(0);
        }
    }

    /// Writes what stands for a unit's keys to lane `lane` of a block of one layer and KV head.
    pub fn write(self, head: &mut [u8], lane: usize, unit: Represented<'_>) {
        let mut row = vec![0.0; self.width()];
        match unit.masses {
            Some(masses) => {
                mean_of_attended(unit.keys, &masses[..unit.n_keys], &mut row);
                self.write_row(head, (0, lane), &row);
            }
            None => self.write_segments(head, lane, unit, &mut row),
        }
    }

    fn write_segments(
        self,
        head: &mut [u8],
        lane: usize,
        Represented { keys, n_keys, .. }: Represented<'_>,
        row: &mut [f32],
    ) {
        let page_len = keys.len() / self.head_dim;
        let segment_len = page_len / self.n_segments;
        for segment in 0..self.n_segments {
            let there =
                (segment * segment_len).min(n_keys)..((segment + 1) * segment_len).min(n_keys);
            if there.is_empty() {
                self.write_row(head, (segment, lane), row); // once more: it wins no more than once
                continue;
            }
            let columns = keys.chunks_exact(page_len).map(|column| &column[there.clone()]);
            match self.kind {
                Representatives::Keys => {
                    for (mean, keys) in row.iter_mut().zip(columns) {
                        *mean = keys.iter().sum::<f32>() / there.len() as f32;
                    }
                }
                Representatives::Bounds => {
                    let (largest, smallest) = row.split_at_mut(self.head_dim);
                    for ((largest, smallest), keys) in largest.iter_mut().zip(smallest).zip(columns)
                    {
                        *largest = keys.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                        *smallest = keys.iter().copied().fold(f32::INFINITY, f32::min);
                    }
                }
            }
            self.write_row(head, (segment, lane), row);
        }
    }

    /// Writes one segment's of lane `lane`.
    pub fn write_row(self, head: &mut [u8], (segment, lane): (usize, usize), row: &[f32]) {
        let largest = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let (means, scales) = head.split_at_mut(self.mean_bytes());
        let at = (segment * UNITS + lane) * size_of::<f32>();
        scales[at..at + size_of::<f32>()].copy_from_slice(&(largest / 127.0).to_le_bytes());
        let means = &mut means[segment * UNITS * row.len()..][..UNITS * row.len()];
        for (dim, x) in row.iter().enumerate() {
            let byte = (x * inverse).round_ties_even() + 128.0;
            means[lane_byte(dim, lane)] = byte as u8;
        }
    }
}

fn mean_of_attended(keys: &[f32], masses: &[f32], row: &mut [f32]) {
    let chosen = most_attended(masses);
    let page_len = keys.len() / row.len();
    for (mean, keys) in row.iter_mut().zip(keys.chunks_exact(page_len)) {
        *mean = chosen.iter().map(|i| keys[*i]).sum::<f32>() / chosen.len() as f32;
    }
}

/// Consecutive blocks of one layer and KV head.
#[derive(Clone, Copy, Debug)]
pub struct HeadBlocks<'a> {
    /// How they are laid out.
    pub layout: BlockLayout,
    /// `[block]`, each of `head_bytes`.
    pub blocks: &'a [&'a [u8]],
}

impl HeadBlocks<'_> {
    /// Units of these blocks, all of which are full.
    pub fn n_units(self) -> usize {
        self.blocks.len() * UNITS
    }

    /// Writes what stands for a segment of a unit, `[width]`.
    pub fn read(self, unit: usize, segment: usize, out: &mut [f32]) {
        let (means, scale) = self.of_segment(unit, segment);
        for (dim, x) in out.iter_mut().enumerate() {
            *x = (f32::from(means[lane_byte(dim, unit % UNITS)]) - 128.0) * scale;
        }
    }

    /// Copies a segment's bytes to lane `lane` of a block of one segment; returns its scale.
    pub fn copy(self, unit: usize, segment: usize, lane: usize, block: &mut [u8]) -> f32 {
        let (means, scale) = self.of_segment(unit, segment);
        for dim in 0..self.layout.width() {
            block[lane_byte(dim, lane)] = means[lane_byte(dim, unit % UNITS)];
        }
        scale
    }

    /// The means of a segment, of all units beside this one, and the scale of this one's.
    fn of_segment(&self, unit: usize, segment: usize) -> (&[u8], f32) {
        let (means, scales) = self.blocks[unit / UNITS].split_at(self.layout.mean_bytes());
        let segment_bytes = UNITS * self.layout.width();
        let at = (segment * UNITS + unit % UNITS) * size_of::<f32>();
        let scale = scales[at..at + size_of::<f32>()].try_into().expect("because it is four bytes");
        (&means[segment * segment_bytes..][..segment_bytes], f32::from_le_bytes(scale))
    }
}

/// Where element `dim` of lane `lane` is in a block of one segment.
fn lane_byte(dim: usize, lane: usize) -> usize {
    (dim / 4 * UNITS + lane) * 4 + dim % 4
}

/// Turns keys `[head_dim][page_len]` back by `angles`: cosines `[pair][page_len]`, then sines.
pub fn turn_back(keys: &mut [f32], angles: &[f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let (low, high) = keys.split_at_mut(cos.len());
    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*low, *high) = (*low * cos + *high * sin, *high * cos - *low * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_comes_back_within_half_a_step_of_its_scale() {
        let (head_dim, page_len, n_segments) = (16, 16, 2);
        let kind = Representatives::Keys;
        let layout = BlockLayout { kind, n_layers: 1, n_kv_heads: 1, head_dim, n_segments };
        let mut block = vec![0; layout.block_bytes()];
        layout.clear(&mut block);
        let key = |unit: usize, dim: usize, i: usize| ((unit * 31 + dim * 7 + i * 3) % 23) as f32;
        for unit in 0..UNITS {
            let keys: Vec<f32> = (0..head_dim * page_len)
                .map(|at| key(unit, at / page_len, at % page_len) - 11.0)
                .collect();
            let unit_keys = Represented { keys: &keys, n_keys: page_len, masses: None };
            layout.write(&mut block, unit, unit_keys);
        }
        let blocks = HeadBlocks { layout, blocks: &[&block] };
        let mut back = vec![0.0; head_dim];
        for unit in 0..UNITS {
            for segment in 0..n_segments {
                blocks.read(unit, segment, &mut back);
                let (_, scale) = blocks.of_segment(unit, segment);
                for (dim, back) in back.iter().enumerate() {
                    let mean: f32 =
                        (0..8).map(|i| key(unit, dim, segment * 8 + i) - 11.0).sum::<f32>() / 8.0;
                    assert!((back - mean).abs() <= 0.501 * scale, "{back} for {mean}");
                }
            }
        }
    }

    #[test]
    fn a_block_without_units_scores_nothing() {
        let kind = Representatives::Bounds;
        let layout = BlockLayout { kind, n_layers: 2, n_kv_heads: 3, head_dim: 16, n_segments: 4 };
        let mut block = vec![7; layout.block_bytes()];
        layout.clear(&mut block);
        let mut row = vec![1.0; layout.width()];
        for head in block.chunks_exact(layout.head_bytes()) {
            for unit in 0..UNITS {
                HeadBlocks { layout, blocks: &[head] }.read(unit, 3, &mut row);
                assert!(row.iter().all(|x| *x == 0.0));
            }
        }
    }
}
