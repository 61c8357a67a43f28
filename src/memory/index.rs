//! What stands for a unit? The means of its segments, as bytes, sixteen units side by side (see
//! `backend::SegmentsView`): the exact index, scanned whole by every coarse lookup.

use crate::backend::{PageLayout, SegmentsView};

/// Units side by side in a block.
const UNITS: usize = 16;

/// Segment means of all sealed units of one layer and KV head.
#[derive(Debug)]
pub struct SegmentIndex {
    head_dim: usize,
    n_segments: usize,
    n_units: usize,
    means: Vec<u8>,   // [block][segment][head_dim / 4][UNITS][4], value / scale + 128
    scales: Vec<f32>, // [block][segment][UNITS]
}

impl SegmentIndex {
    /// An empty index of units of `n_segments` segments.
    pub fn new(head_dim: usize, n_segments: usize) -> Self {
        Self { head_dim, n_segments, n_units: 0, means: Vec::new(), scales: Vec::new() }
    }

    /// Adds the next unit, whose keys are `[head_dim][page_len]`, rotated by their offsets;
    /// `angles` are those of the offsets: cosines `[pair][page_len]`, then sines. (Means of
    /// rotated keys would smear: they are turned back first, where they are.)
    pub fn push(&mut self, keys: &mut [f32], angles: &[f32]) {
        let lane = self.n_units % UNITS;
        let block_segments = self.n_segments * UNITS;
        if lane == 0 {
            // 128 is zero: a lane without a unit scores nothing.
            self.means.resize(self.means.len() + block_segments * self.head_dim, 128);
            self.scales.resize(self.scales.len() + block_segments, 0.0);
        }
        let first_segment = self.n_units / UNITS * self.n_segments;
        let page_len = keys.len() / self.head_dim;
        let segment_len = page_len / self.n_segments;
        turn_back(keys, angles);
        let mut mean = vec![0.0; self.head_dim];
        for segment in 0..self.n_segments {
            for (mean, column) in mean.iter_mut().zip(keys.chunks_exact(page_len)) {
                let keys = &column[segment * segment_len..][..segment_len];
                *mean = keys.iter().sum::<f32>() / segment_len as f32;
            }
            let largest = mean.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let at = first_segment + segment;
            self.scales[at * UNITS + lane] = largest / 127.0;
            let means = &mut self.means[at * UNITS * self.head_dim..][..UNITS * self.head_dim];
            for (dim, mean) in mean.iter().enumerate() {
                let byte = (mean * inverse).round_ties_even() + 128.0;
                means[(dim / 4 * UNITS + lane) * 4 + dim % 4] = byte as u8;
            }
        }
        self.n_units += 1;
    }

    /// For the backend.
    pub fn view(&self) -> SegmentsView<'_> {
        SegmentsView { n_segments: self.n_segments, means: &self.means, scales: &self.scales }
    }

    /// Bytes of the means and scales.
    pub fn bytes(&self) -> usize {
        self.means.len() + self.scales.len() * size_of::<f32>()
    }
}

/// Turns keys `[head_dim][page_len]` back by `angles`: cosines `[pair][page_len]`, then sines.
fn turn_back(keys: &mut [f32], angles: &[f32]) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let (low, high) = keys.split_at_mut(cos.len());
    for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
        (*low, *high) = (*low * cos + *high * sin, *high * cos - *low * sin);
    }
}

/// One index a layer and KV head, `[layer][kv_head]`.
pub fn indexes(layout: PageLayout, n_segments: usize) -> Vec<SegmentIndex> {
    let n = layout.n_layers * layout.heads.n_kv_heads;
    (0..n).map(|_| SegmentIndex::new(layout.heads.head_dim, n_segments)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_comes_back_within_half_a_step_of_its_scale() {
        let (head_dim, page_len, n_segments) = (16, 16, 2);
        let mut index = SegmentIndex::new(head_dim, n_segments);
        let key = |unit: usize, dim: usize, i: usize| ((unit * 31 + dim * 7 + i * 3) % 23) as f32;
        for unit in 0..19 {
            let mut keys: Vec<f32> = (0..head_dim * page_len)
                .map(|at| key(unit, at / page_len, at % page_len) - 11.0)
                .collect();
            index.push(&mut keys, &[]);
        }
        let view = index.view();
        assert_eq!(view.scales.len(), 2 * n_segments * UNITS, "two blocks for nineteen units");
        for unit in 0..19 {
            for segment in 0..n_segments {
                let at = unit / UNITS * n_segments + segment;
                let scale = view.scales[at * UNITS + unit % UNITS];
                for dim in 0..head_dim {
                    let mean: f32 =
                        (0..8).map(|i| key(unit, dim, segment * 8 + i) - 11.0).sum::<f32>() / 8.0;
                    let byte = view.means
                        [at * UNITS * head_dim + (dim / 4 * UNITS + unit % UNITS) * 4 + dim % 4];
                    let back = (f32::from(byte) - 128.0) * scale;
                    assert!((back - mean).abs() <= 0.501 * scale, "{back} for {mean}");
                }
            }
        }
    }
}
