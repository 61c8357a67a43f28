//! What stands for a unit? The means of its segments, or their bounds, as bytes, sixteen units side
//! by side (see `backend::SegmentsView`): the exact index, scanned whole by every coarse lookup. It
//! can always be made again from the units.

use super::config::MemoryConfig;
use super::mass::most_attended;
use crate::backend::{PageLayout, Representatives, SegmentsView};

/// Units side by side in a block.
const UNITS: usize = 16;

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

    /// Adds the next unit, whose keys are `[head_dim][page_len]`, rotated by their offsets;
    /// `angles` are those of the offsets: cosines `[pair][page_len]`, then sines. (Means of
    /// rotated keys would smear: they are turned back first, where they are.)
    pub fn push(&mut self, keys: &mut [f32], angles: &[f32]) {
        let page_len = keys.len() / self.head_dim;
        let segment_len = page_len / self.n_segments;
        let mut row = self.begin_unit(keys, angles);
        for segment in 0..self.n_segments {
            let columns = keys
                .chunks_exact(page_len)
                .map(|column| &column[segment * segment_len..][..segment_len]);
            match self.kind {
                Representatives::Keys => {
                    for (mean, keys) in row.iter_mut().zip(columns) {
                        *mean = keys.iter().sum::<f32>() / segment_len as f32;
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
    pub fn push_attended(&mut self, keys: &mut [f32], masses: &[f32], angles: &[f32]) {
        let mut row = self.begin_unit(keys, angles);
        let chosen = most_attended(masses);
        for (mean, keys) in row.iter_mut().zip(keys.chunks_exact(masses.len())) {
            *mean = chosen.iter().map(|i| keys[*i]).sum::<f32>() / chosen.len() as f32;
        }
        self.write(0, &row);
        self.n_units += 1;
    }

    /// Turns a unit's keys back, makes room for it, and returns room for a representative.
    fn begin_unit(&mut self, keys: &mut [f32], angles: &[f32]) -> Vec<f32> {
        turn_back(keys, angles);
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
            means[(dim / 4 * UNITS + lane) * 4 + dim % 4] = byte as u8;
        }
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

/// One empty index a layer and KV head, `[layer][kv_head]`.
pub fn indexes(layout: PageLayout, config: &MemoryConfig) -> Vec<SegmentIndex> {
    let n_segments = config.representatives_per_unit();
    let index = SegmentIndex::new(config.representatives(), layout.heads.head_dim, n_segments);
    vec![index; layout.n_layers * layout.heads.n_kv_heads]
}

/// Adds a unit to the indexes `[layer][kv_head]`: by the masses of its keys,
/// `[layer][kv_head][page_len]`, where there are any. `angles` are those of the offsets in a page;
/// `keys` is scratch, `[head_dim][page_len]`.
pub fn push(
    indexes: &mut [SegmentIndex],
    layout: PageLayout,
    (page, masses): (&[u8], Option<&[f32]>),
    (angles, keys): (&[f32], &mut [f32]),
) {
    let n_kv_heads = layout.heads.n_kv_heads;
    for (i, index) in indexes.iter_mut().enumerate() {
        let view = layout.view(page, i / n_kv_heads, i % n_kv_heads);
        view.read_keys(layout.page_len, keys);
        match masses {
            Some(masses) => {
                let masses = &masses[i * layout.page_len..][..layout.page_len];
                index.push_attended(keys, masses, angles);
            }
            None => index.push(keys, angles),
        }
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
