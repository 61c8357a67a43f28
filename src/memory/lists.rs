//! Which segments are alike? A span's segments, clustered by k-means into lists: what a coarse lookup
//! reads when it cannot read all (RetroInfer, arXiv 2505.02922, clusters keys in such spans).
//! Segments stay the bytes that they were, in another order.

use super::blocks::{BlockLayout, HeadBlocks, UNITS};
use crate::backend::{List, Representatives};

/// Rounds of k-means: later ones hardly move anything.
const ROUNDS: usize = 4;

/// The segments of one layer and KV head in a span, list by list; their bytes lie with those of the
/// span's others. Of each list: means, scales, and the units in the span that they are of, `[block][UNITS]`.
#[derive(Debug)]
pub struct Lists {
    width: usize,
    centroids: Vec<f32>, // [list][width]
    starts: Vec<u32>,    // [list + 1]: its first block
}

/// Lists with their bytes.
#[derive(Clone, Copy, Debug)]
pub struct ListsView<'a> {
    lists: &'a Lists,
    bytes: &'a [u8],
}

impl Lists {
    /// `n_lists` lists of all segments of `span`, whose bytes come first in `bytes`.
    pub fn of(span: HeadBlocks<'_>, n_lists: usize, bytes: &mut [u8]) -> Self {
        let width = span.layout.width();
        let (n_units, n_segments) = (span.n_units(), span.layout.n_segments);
        let mut points = vec![0.0; n_units * n_segments * width];
        for (i, point) in points.chunks_exact_mut(width).enumerate() {
            span.read(i / n_segments, i % n_segments, point);
        }
        let (centroids, nearest) = cluster(&points, width, n_lists);
        let mut lists = Self { width, centroids, starts: vec![0] };
        let mut members = vec![Vec::new(); n_lists];
        (0..).zip(&nearest).for_each(|(i, list): (usize, &u32)| members[*list as usize].push(i));
        share_out(&mut members, &mut lists.centroids);
        for members in members {
            let first = lists.starts.last().copied().unwrap_or(0) as usize;
            let at = first * block_bytes(width);
            let n_blocks = members.len().div_ceil(UNITS);
            write_list(span, &members, &mut bytes[at..][..n_blocks * block_bytes(width)]);
            lists.starts.push((first + n_blocks) as u32);
        }
        lists
    }

    /// Bytes that the lists of so many segments have at most.
    pub fn most_bytes(width: usize, n_segments: usize, n_lists: usize) -> usize {
        let n_blocks = n_segments / UNITS + n_lists; // the last of each may be nearly empty
        n_blocks * block_bytes(width)
    }

    /// Their bytes.
    pub fn n_bytes(&self) -> usize {
        self.starts.last().map_or(0, |end| *end as usize * block_bytes(self.width))
    }

    /// Adds the centroids as bytes, by which lists are chosen: as exact as segments are, and in such blocks,
    /// `[block][width / 4][UNITS][4]` and their scales.
    pub fn add_centroids(&self, means: &mut Vec<u8>, scales: &mut Vec<f32>) {
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
            let (of_block, of_lanes) = block.split_at(UNITS * self.width);
            means.extend_from_slice(of_block);
            let of_lanes = of_lanes.as_chunks::<4>().0.iter();
            scales.extend(of_lanes.map(|scale| f32::from_le_bytes(*scale)));
        }
    }

    /// Mean of each list's segments, `[list][width]`.
    pub fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// With their bytes, which come first in `bytes`.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> ListsView<'a> {
        ListsView { lists: self, bytes: &bytes[..self.n_bytes()] }
    }

    /// Bytes of what is not among those.
    pub fn own_bytes(width: usize, n_lists: usize) -> usize {
        (n_lists * width + n_lists + 1) * size_of::<f32>()
    }
}

impl<'a> ListsView<'a> {
    /// List `list`.
    pub fn list(self, list: usize) -> List<'a> {
        let Lists { width, starts, .. } = self.lists;
        let at = |list: usize| starts[list] as usize * block_bytes(*width);
        let n_segments = (starts[list + 1] - starts[list]) as usize * UNITS;
        let (means, rest) = self.bytes[at(list)..at(list + 1)].split_at(n_segments * width);
        let (scales, owners) = rest.split_at(n_segments * size_of::<f32>());
        let (scales, owners) = (bytemuck::cast_slice(scales), bytemuck::cast_slice(owners));
        List { means, scales, owners }
    }
}

/// Bytes of sixteen segments in a list: a multiple of a cache line.
fn block_bytes(width: usize) -> usize {
    UNITS * (width + size_of::<f32>() + size_of::<u32>())
}

/// Writes a list of segments, numbered through all units.
fn write_list(span: HeadBlocks<'_>, members: &[usize], list: &mut [u8]) {
    let n = members.len().next_multiple_of(UNITS);
    let (means, rest) = list.split_at_mut(n * span.layout.width());
    let (scales, owners) = rest.split_at_mut(n * size_of::<f32>());
    let (scales, owners) = (scales.as_chunks_mut::<4>().0, owners.as_chunks_mut::<4>().0);
    let blocks = means.chunks_exact_mut(UNITS * span.layout.width());
    for (at, means) in (0..).step_by(UNITS).zip(blocks) {
        for lane in 0..UNITS {
            // The last once more where there are fewer: a block's best is then that of a segment.
            let i = members[(at + lane).min(members.len() - 1)];
            let (unit, segment) = (i / span.layout.n_segments, i % span.layout.n_segments);
            scales[at + lane] = span.copy(unit, segment, lane, means).to_ne_bytes();
            owners[at + lane] = (unit as u32).to_ne_bytes();
        }
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
        assert!(seen_in_lists(&mut || rng.f32() - 0.3).iter().all(|n| *n == N_SEGMENTS));
        // The same over and over, as in a text that repeats itself: no list is empty.
        assert!(seen_in_lists(&mut || 0.5).iter().all(|n| *n > 0));
    }

    const N_SEGMENTS: usize = 2;

    /// How often each unit is in lists, but for what fills their last blocks.
    fn seen_in_lists(element: &mut dyn FnMut() -> f32) -> Vec<usize> {
        let (width, n_segments, n_units, n_lists) = (16, N_SEGMENTS, 48, 5);
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
        let mut bytes = vec![7u32; Lists::most_bytes(width, n_units * n_segments, n_lists) / 4];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut bytes[..]);
        let lists = Lists::of(span, n_lists, bytes);
        let mut seen = vec![0; n_units];
        for i in 0..n_lists {
            let list = lists.view(bytes).list(i);
            assert!(!list.scales.is_empty(), "list {i}");
            let mut before = None;
            for (at, unit) in list.owners.iter().enumerate() {
                let byte = |dim: usize| {
                    list.means
                        [(at / UNITS * width / 4 + dim / 4) * UNITS * 4 + at % UNITS * 4 + dim % 4]
                };
                let found: Vec<f32> =
                    (0..width).map(|d| (f32::from(byte(d)) - 128.0) * list.scales[at]).collect();
                let mut expected = vec![0.0; width];
                let mut is_it = |segment: &usize| {
                    span.read(*unit as usize, *segment, &mut expected);
                    found == expected
                };
                assert!((0..n_segments).any(|segment| is_it(&segment)));
                let fills_up =
                    at >= list.owners.len() - UNITS && before == Some((*unit, found.clone()));
                seen[*unit as usize] += usize::from(!fills_up);
                let distance = |list: usize| -> f32 {
                    let centroid = &lists.centroids()[list * width..][..width];
                    found.iter().zip(centroid).map(|(x, c)| (x - c) * (x - c)).sum()
                };
                assert!((0..n_lists).all(|other| distance(i) <= distance(other) + 1e-4));
                before = Some((*unit, found));
            }
        }
        seen
    }
}
