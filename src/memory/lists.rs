//! Which segments are alike? A span's segments, clustered by k-means into lists: what a coarse lookup
//! reads when it cannot read all (RetroInfer, arXiv 2505.02922, clusters keys in such spans).
//! Segments stay the bytes that they were, in another order.

use super::blocks::{BlockLayout, HeadBlocks, UNITS};
use crate::backend::Representatives;

/// Rounds of k-means: later ones hardly move anything.
const ROUNDS: usize = 4;

/// Marks a place of a list's last block that no segment has.
const NOBODY: u16 = u16::MAX;

/// The segments of one layer and KV head in a span, list by list.
#[derive(Debug)]
pub struct Lists {
    width: usize,
    centroids: Vec<f32>,       // [list][width]
    centroid_means: Vec<u8>,   // the same as bytes, `[block][width / 4][UNITS][4]`
    centroid_scales: Vec<f32>, // [block][UNITS]
    starts: Vec<u32>,          // [list + 1]: its first block
    means: Vec<u8>,            // [block][width / 4][UNITS][4], as in a block of a single segment
    scales: Vec<f32>,          // [block][UNITS]
    owners: Vec<u16>,          // [block][UNITS]: the unit in the span
}

/// One list's segments.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// `[block][width / 4][UNITS][4]`
    pub means: &'a [u8],
    /// `[block][UNITS]`
    pub scales: &'a [f32],
    owners: &'a [u16],
}

impl Lists {
    /// `n_lists` lists of all segments of `span`.
    pub fn of(span: HeadBlocks<'_>, n_lists: usize) -> Self {
        let width = span.layout.width();
        let (n_units, n_segments) = (span.n_units(), span.layout.n_segments);
        let mut points = vec![0.0; n_units * n_segments * width];
        for (i, point) in points.chunks_exact_mut(width).enumerate() {
            span.read(i / n_segments, i % n_segments, point);
        }
        let (centroids, nearest) = cluster(&points, width, n_lists);
        let mut lists = Self {
            width,
            centroids,
            centroid_means: Vec::new(),
            centroid_scales: Vec::new(),
            starts: vec![0],
            means: Vec::new(),
            scales: Vec::new(),
            owners: Vec::new(),
        };
        let mut members = vec![Vec::new(); n_lists];
        (0..).zip(&nearest).for_each(|(i, list): (usize, &u32)| members[*list as usize].push(i));
        share_out(&mut members, &mut lists.centroids);
        for members in members {
            lists.add(span, &members);
        }
        lists.round_centroids();
        lists
    }

    /// Makes bytes of the centroids, by which lists are chosen: as exact as segments are.
    fn round_centroids(&mut self) {
        let (n_layers, n_kv_heads, n_segments) = (1, 1, 1);
        let (kind, head_dim) = (Representatives::Keys, self.width);
        let layout = BlockLayout { kind, n_layers, n_kv_heads, head_dim, n_segments };
        let mut block = vec![0; layout.block_bytes()];
        for centroids in self.centroids.chunks(UNITS * self.width) {
            let n = centroids.len() / self.width;
            for lane in 0..UNITS {
                let centroid = &centroids[lane.min(n - 1) * self.width..][..self.width];
                layout.write_row(&mut block, (0, lane), centroid);
            }
            let (means, scales) = block.split_at(UNITS * self.width);
            self.centroid_means.extend_from_slice(means);
            let scales = scales.as_chunks::<4>().0.iter().map(|scale| f32::from_le_bytes(*scale));
            self.centroid_scales.extend(scales);
        }
    }

    /// Adds a list of segments, numbered through all units.
    fn add(&mut self, span: HeadBlocks<'_>, members: &[usize]) {
        for block in members.chunks(UNITS) {
            let means = self.means.len();
            self.means.resize(means + UNITS * self.width, 128);
            for lane in 0..UNITS {
                // The last once more where there are fewer: a block's best is then that of a segment.
                let i = block[lane.min(block.len() - 1)];
                let (unit, segment) = (i / span.layout.n_segments, i % span.layout.n_segments);
                self.scales.push(span.copy(unit, segment, lane, &mut self.means[means..]));
                self.owners.push(if lane < block.len() { unit as u16 } else { NOBODY });
            }
        }
        self.starts.push((self.owners.len() / UNITS) as u32);
    }

    /// Mean of each list's segments, `[list][width]`.
    pub fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// The same as bytes, in blocks of `UNITS`: `[block][width / 4][UNITS][4]` and their scales.
    pub fn centroid_blocks(&self) -> (&[u8], &[f32]) {
        (&self.centroid_means, &self.centroid_scales)
    }

    /// List `list`.
    pub fn list(&self, list: usize) -> List<'_> {
        let blocks = self.starts[list] as usize * UNITS..self.starts[list + 1] as usize * UNITS;
        List {
            means: &self.means[blocks.start * self.width..blocks.end * self.width],
            scales: &self.scales[blocks.clone()],
            owners: &self.owners[blocks],
        }
    }

    /// Bytes of it all.
    pub fn bytes(&self) -> usize {
        self.means.len()
            + size_of_val(&*self.scales)
            + size_of_val(&*self.owners)
            + size_of_val(&*self.starts)
            + size_of_val(&*self.centroids)
            + self.centroid_means.len()
            + size_of_val(&*self.centroid_scales)
    }
}

impl<'a> List<'a> {
    /// `[block][UNITS]`: the unit in the span that each segment is of, `None` where none is.
    pub fn owners(self) -> impl Iterator<Item = Option<u32>> + 'a {
        self.owners.iter().map(|unit| (*unit != NOBODY).then_some(u32::from(*unit)))
    }
}

/// Centroids `[list][width]`, and the nearest to each point. Starts from points spread evenly over
/// the text, so that the result never depends on chance.
fn cluster(points: &[f32], width: usize, n_lists: usize) -> (Vec<f32>, Vec<u32>) {
    let n_points = points.len() / width;
    let mut centroids: Vec<f32> = (0..n_lists)
        .flat_map(|list| &points[(2 * list + 1) * n_points / (2 * n_lists) * width..][..width])
        .copied()
        .collect();
    let mut nearest = vec![0; n_points];
    for round in 0..=ROUNDS {
        let halves: Vec<f32> = centroids.chunks_exact(width).map(|c| 0.5 * dot(c, c)).collect();
        for (point, nearest) in points.chunks_exact(width).zip(&mut nearest) {
            // The nearest has the largest product less half its own square.
            let scores = centroids.chunks_exact(width).zip(&halves).map(|(c, h)| dot(point, c) - h);
            *nearest = best_of(scores);
        }
        if round < ROUNDS {
            move_to_means((points, &nearest), &mut centroids, width);
        }
    }
    (centroids, nearest)
}

/// Gives each list without any members half of the largest, and its centroid: where many points are
/// the same, lists that none is nearest to would be found instead of that which has them.
fn share_out(members: &mut [Vec<usize>], centroids: &mut [f32]) {
    let width = centroids.len() / members.len();
    while let Some(empty) = members.iter().position(Vec::is_empty) {
        let largest = (0..members.len()).rev().max_by_key(|list| members[*list].len());
        let largest = largest.expect("because there are lists");
        if members[largest].len() < 2 {
            return; // fewer points than lists
        }
        let half = members[largest].len() / 2;
        members[empty] = members[largest].split_off(half);
        centroids.copy_within(largest * width..(largest + 1) * width, empty * width);
    }
}

/// Moves each centroid to the mean of its points; one without any stays.
fn move_to_means((points, nearest): (&[f32], &[u32]), centroids: &mut [f32], width: usize) {
    let mut sums = vec![0.0; centroids.len()];
    let mut counts = vec![0u32; centroids.len() / width];
    for (point, list) in points.chunks_exact(width).zip(nearest) {
        counts[*list as usize] += 1;
        let sum = &mut sums[*list as usize * width..][..width];
        sum.iter_mut().zip(point).for_each(|(sum, x)| *sum += x);
    }
    let rows = centroids.chunks_exact_mut(width).zip(sums.chunks_exact(width));
    for ((centroid, sum), count) in rows.zip(counts).filter(|(_, count)| *count > 0) {
        centroid.iter_mut().zip(sum).for_each(|(c, sum)| *c = sum / count as f32);
    }
}

/// The index of the largest.
fn best_of(scores: impl Iterator<Item = f32>) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, score) in (0..).zip(scores) {
        if score > best.1 {
            best = (i, score);
        }
    }
    best.0
}

/// The product of two vectors of equal length, in eight running sums: compilers keep the order of
/// additions, so that one sum would be added up one by one.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Representatives;
    use crate::memory::blocks::{BlockLayout, Represented};

    /// Every segment is in one list, with the bytes and the scale that it had; each is nearer to its
    /// list's centroid than to any other.
    #[test]
    fn lists_hold_every_segment_once_and_as_it_was() {
        let mut rng = fastrand::Rng::with_seed(3);
        check_lists(&mut || rng.f32() - 0.3);
        // The same over and over, as in a text that repeats itself: no list is empty.
        check_lists(&mut || 0.5);
    }

    fn check_lists(element: &mut dyn FnMut() -> f32) {
        let (width, n_segments, n_units, n_lists) = (16, 2, 48, 5);
        let kind = Representatives::Keys;
        let layout = BlockLayout { kind, n_layers: 1, n_kv_heads: 1, head_dim: width, n_segments };
        let mut blocks = vec![vec![0; layout.block_bytes()]; n_units / UNITS];
        for unit in 0..n_units {
            let keys: Vec<f32> = (0..width * 16).map(|_| element()).collect();
            let represented = Represented { keys: &keys, n_keys: 16, masses: None };
            layout.write(&mut blocks[unit / UNITS], unit % UNITS, represented);
        }
        let blocks: Vec<&[u8]> = blocks.iter().map(Vec::as_slice).collect();
        let span = HeadBlocks { layout, blocks: &blocks };
        let lists = Lists::of(span, n_lists);
        let mut seen = vec![0; n_units];
        for i in 0..n_lists {
            let list = lists.list(i);
            assert!(!list.scales.is_empty(), "list {i}");
            for (at, owner) in list.owners().enumerate() {
                let Some(unit) = owner else { continue };
                let byte = |dim: usize| {
                    list.means
                        [(at / UNITS * width / 4 + dim / 4) * UNITS * 4 + at % UNITS * 4 + dim % 4]
                };
                let found: Vec<f32> =
                    (0..width).map(|d| (f32::from(byte(d)) - 128.0) * list.scales[at]).collect();
                let mut expected = vec![0.0; width];
                let mut is_it = |segment: &usize| {
                    span.read(unit as usize, *segment, &mut expected);
                    found == expected
                };
                assert!((0..n_segments).any(|segment| is_it(&segment)));
                seen[unit as usize] += 1;
                let distance = |list: usize| -> f32 {
                    let centroid = &lists.centroids()[list * width..][..width];
                    found.iter().zip(centroid).map(|(x, c)| (x - c) * (x - c)).sum()
                };
                assert!((0..n_lists).all(|other| distance(i) <= distance(other) + 1e-4));
            }
        }
        assert!(seen.iter().all(|n| *n == n_segments), "{seen:?}");
    }
}
