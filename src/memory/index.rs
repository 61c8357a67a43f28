//! What stands for a unit? The means of its segments, or their bounds, as bytes, sixteen units side
//! by side (see `backend::SegmentsView`).

use super::mass::most_attended;
use crate::backend::{Representatives, SegmentsView};

/// Units side by side in a block.
pub(super) const UNITS: usize = 16;

/// What stands for all sealed units of one layer and KV head, a few representatives each.
#[derive(Clone, Debug)]
pub struct SegmentIndex {
    kind: Representatives,
    head_dim: usize,
    n_segments: usize,
    n_units: usize,
    means: Vec<u8>,   // [block][segment][width / 4][UNITS][4], value / scale + 128
    scales: Vec<f32>, // [block][segment][UNITS]
}

impl SegmentIndex {
    /// An empty index of units of `n_segments` segments.
    pub fn new(kind: Representatives, head_dim: usize, n_segments: usize) -> Self {
        Self { kind, head_dim, n_segments, n_units: 0, means: Vec::new(), scales: Vec::new() }
    }

    /// Adds the next unit, whose keys are the first `n_keys` of `[head_dim][page_len]`, not rotated.
    pub fn push(&mut self, keys: &[f32], n_keys: usize) {
        let page_len = keys.len() / self.head_dim;
        let segment_len = page_len / self.n_segments;
        let mut row = self.begin_unit();
        for segment in 0..self.n_segments {
            let there =
                (segment * segment_len).min(n_keys)..((segment + 1) * segment_len).min(n_keys);
            if there.is_empty() {
                self.write(segment, &row); // the same once more: it wins no more than once
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
            self.write(segment, &row);
        }
        self.n_units += 1;
    }

    /// Adds the next unit as the mean of those of its keys that received the largest `masses`, one a
    /// key; else as [`push`](Self::push).
    pub fn push_attended(&mut self, keys: &[f32], masses: &[f32]) {
        let mut row = self.begin_unit();
        let chosen = most_attended(masses);
        let page_len = keys.len() / self.head_dim;
        for (mean, keys) in row.iter_mut().zip(keys.chunks_exact(page_len)) {
            *mean = chosen.iter().map(|i| keys[*i]).sum::<f32>() / chosen.len() as f32;
        }
        self.write(0, &row);
        self.n_units += 1;
    }

    /// Makes room for a unit, and returns room for a representative.
    fn begin_unit(&mut self) -> Vec<f32> {
        let row = vec![0.0; self.kind.width(self.head_dim)];
        if self.n_units.is_multiple_of(UNITS) {
            self.add_block(row.len());
        }
        row
    }

    fn add_block(&mut self, width: usize) {
        let n_segments = self.n_segments * UNITS;
        // 128 is zero: a lane without a unit scores nothing.
        self.means.resize(self.means.len() + n_segments * width, 128);
        self.scales.resize(self.scales.len() + n_segments, 0.0);
    }

    /// Writes a representative of the unit that is being added.
    fn write(&mut self, segment: usize, row: &[f32]) {
        let lane = self.n_units % UNITS;
        let largest = row.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        let at = self.n_units / UNITS * self.n_segments + segment;
        self.scales[at * UNITS + lane] = largest / 127.0;
        let means = &mut self.means[at * UNITS * row.len()..][..UNITS * row.len()];
        for (dim, x) in row.iter().enumerate() {
            let byte = (x * inverse).round_ties_even() + 128.0;
            means[lane_byte(dim, lane)] = byte as u8;
        }
    }

    /// Units that it has.
    pub fn n_units(&self) -> usize {
        self.n_units
    }

    /// Representatives of a unit.
    pub fn n_segments(&self) -> usize {
        self.n_segments
    }

    /// Elements of a representative.
    pub fn width(&self) -> usize {
        self.kind.width(self.head_dim)
    }

    /// Writes what stands for a segment of a unit, `[width]`.
    pub fn read(&self, unit: usize, segment: usize, out: &mut [f32]) {
        let (means, scale) = self.block_of(unit, segment);
        for (dim, x) in out.iter_mut().enumerate() {
            *x = (f32::from(means[lane_byte(dim, unit % UNITS)]) - 128.0) * scale;
        }
    }

    /// Copies a segment's bytes to lane `lane` of a block of one segment; returns its scale.
    pub fn copy(&self, unit: usize, segment: usize, lane: usize, block: &mut [u8]) -> f32 {
        let (means, scale) = self.block_of(unit, segment);
        for dim in 0..self.width() {
            block[lane_byte(dim, lane)] = means[lane_byte(dim, unit % UNITS)];
        }
        scale
    }

    fn block_of(&self, unit: usize, segment: usize) -> (&[u8], f32) {
        let at = unit / UNITS * self.n_segments + segment;
        let block_bytes = UNITS * self.width();
        (&self.means[at * block_bytes..][..block_bytes], self.scales[at * UNITS + unit % UNITS])
    }

    /// A copy of the first `n_units` units: whole blocks of them.
    pub fn first(&self, n_units: usize) -> Self {
        let n_segments = n_units * self.n_segments;
        Self {
            n_units,
            means: self.means[..n_segments * self.width()].to_vec(),
            scales: self.scales[..n_segments].to_vec(),
            ..*self
        }
    }

    /// Forgets the first `n_units` units: whole blocks of them.
    pub fn drop_first(&mut self, n_units: usize) {
        let n_segments = n_units * self.n_segments;
        self.means.drain(..n_segments * self.width());
        self.scales.drain(..n_segments);
        self.n_units -= n_units;
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
        let mut index = SegmentIndex::new(Representatives::Keys, head_dim, n_segments);
        let key = |unit: usize, dim: usize, i: usize| ((unit * 31 + dim * 7 + i * 3) % 23) as f32;
        for unit in 0..19 {
            let keys: Vec<f32> = (0..head_dim * page_len)
                .map(|at| key(unit, at / page_len, at % page_len) - 11.0)
                .collect();
            index.push(&keys, page_len);
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
