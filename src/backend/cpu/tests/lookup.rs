//! Votes for units, against their definition (`kernels::naive::vote`).

use fastrand::Rng;
use half::f16;
use kernels::naive;

use super::{backends, floats};
use crate::backend::cpu::HostBytes;
use crate::backend::{
    Backend, BlocksView, Candidates, HeadPageMut, HeadShape, KvType, LookupQueries, LookupStep,
    PageLayout, Precision, Representatives, Vote,
};

/// Units side by side in an index, as `BlocksView` says.
const UNITS: usize = 16;

/// Rows of one unit, segment means or keys: `[row][kv_head][head_dim]`.
type UnitRows = Vec<f32>;

/// Segment means as bytes, in blocks laid out as `BlocksView` says.
fn blocks(units: &[UnitRows], heads: HeadShape, n_segments: usize) -> Vec<HostBytes> {
    let HeadShape { n_kv_heads, head_dim, .. } = heads;
    let mean_bytes = n_segments * UNITS * head_dim;
    let head_bytes = mean_bytes + n_segments * UNITS * 4;
    let block = |units: &[UnitRows]| {
        let mut block = HostBytes::zeroed(n_kv_heads * head_bytes).unwrap();
        for (kv_head, head) in block.chunks_exact_mut(head_bytes).enumerate() {
            let (means, scales) = head.split_at_mut(mean_bytes);
            means.fill(128);
            let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
            for (unit, rows) in units.iter().enumerate() {
                for segment in 0..n_segments {
                    let mean = &rows[(segment * n_kv_heads + kv_head) * head_dim..][..head_dim];
                    let scale = largest(mean) / 127.0;
                    scales[segment * UNITS + unit] = scale;
                    for (dim, x) in mean.iter().enumerate() {
                        let lane = (dim / 4 * UNITS + unit) * 4 + dim % 4;
                        let byte = (x / scale).round_ties_even() + 128.0;
                        means[segment * UNITS * head_dim + lane] = byte as u8;
                    }
                }
            }
        }
        block
    };
    units.chunks(UNITS).map(block).collect()
}

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| max.max(x.abs()))
}

/// Rows of whole numbers up to 127, with 127 among them, in steps of `step`: exact as bytes.
fn whole_rows(n_rows: usize, head_dim: usize, step: f32, rng: &mut Rng) -> Vec<f32> {
    let mut rows: Vec<f32> =
        (0..n_rows * head_dim).map(|_| f32::from(rng.i8(-127..=127)) * step).collect();
    for row in rows.chunks_exact_mut(head_dim) {
        row[rng.usize(..head_dim)] = 127.0 * step;
    }
    rows
}

fn heads(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> HeadShape {
    HeadShape { n_heads, n_kv_heads, head_dim, n_pairs: head_dim / 2 }
}

fn naive_heads(heads: HeadShape) -> naive::HeadShape {
    let HeadShape { n_heads, n_kv_heads, head_dim, .. } = heads;
    naive::HeadShape { n_heads, n_kv_heads, head_dim }
}

/// Factor on scores.
fn scale(heads: HeadShape) -> f32 {
    1.0 / (heads.head_dim as f32).sqrt()
}

/// Cosines and sines of a distance.
fn angles(heads: HeadShape, angle: f64) -> Vec<f32> {
    let angles = (0..heads.n_pairs).map(|pair| angle * 0.7f64.powi(pair as i32));
    let (sin, cos): (Vec<f32>, Vec<f32>) =
        angles.map(|angle| (angle.sin() as f32, angle.cos() as f32)).unzip();
    [cos, sin].concat()
}

/// Queries turned by the angle, and averaged over groups of tokens: what the definition votes by.
fn turned(queries: &[f32], heads: HeadShape, group_len: usize, angle: f64) -> Vec<f32> {
    let frequencies: Vec<f64> = (0..heads.n_pairs).map(|i| angle * 0.7f64.powi(i as i32)).collect();
    let rotary = naive::Rotary {
        inverse_frequencies: &frequencies,
        magnitude: 1.0,
        layout: naive::PairLayout::Half,
    };
    let row = heads.n_heads * heads.head_dim;
    let mean_of = |tokens: &[f32]| {
        let n = (tokens.len() / row) as f64;
        let sum = |i: usize| tokens.iter().skip(i).step_by(row).map(|x| f64::from(*x)).sum::<f64>();
        (0..row).map(move |i| (sum(i) / n) as f32).collect::<Vec<_>>()
    };
    let means: Vec<f32> = queries.chunks(group_len * row).flat_map(mean_of).collect();
    means.chunks_exact(heads.head_dim).flat_map(|head| rotary.rotate(head, 1)).collect()
}

fn vote(heads: HeadShape, queries: &[f32], units: &[UnitRows]) -> Vec<f64> {
    let units: Vec<&[f32]> = units.iter().map(Vec::as_slice).collect();
    naive::vote(naive_heads(heads), queries, &units)
}

/// Votes may be off by a factor `e^(2 error)`, where `error` is that of a score.
#[track_caller]
fn assert_votes(found: &[f32], expected: &[f64], score_error: f64, case: &str) {
    assert_eq!(found.len(), expected.len(), "{case}");
    for (unit, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = ((2.0 * score_error).exp() - 1.0 + 3e-6) * expected + 1e-30;
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= bound, "{case}, unit {unit}: {found} {expected}, bound {bound:e}");
    }
}

/// One case of the coarse stage.
struct Coarse {
    heads: HeadShape,
    n_tokens: usize,
    group_len: usize,
    n_segments: usize,
    n_units: usize,
    angle: f64,
}

impl Coarse {
    fn run<B: Backend<Buffer = Vec<f32>>>(
        &self,
        backend: &B,
        queries: &[f32],
        units: &[UnitRows],
    ) -> Vec<f32> {
        let blocks = blocks(units, self.heads, self.n_segments);
        let blocks: Vec<&[u8]> = blocks.iter().map(|block| &block[..]).collect();
        let index = BlocksView { n_segments: self.n_segments, blocks: &blocks };
        let step = LookupStep {
            heads: self.heads,
            n_tokens: self.n_tokens,
            first_row: 0,
            group_len: self.group_len,
            segment_angles: &angles(self.heads, self.angle),
            key_angles: &angles(self.heads, -self.angle),
            scale: scale(self.heads),
            sharpness: 1.0,
            vote: Vote::Soft,
            n_sets: 1,
            representatives: Representatives::Keys,
        };
        let mut prepared = LookupQueries::default();
        backend.prepare_lookup(step, &queries.to_vec(), &mut prepared);
        let mut votes = vec![f32::NAN; self.n_units];
        backend.vote_by_segments(&prepared, index, &mut votes);
        votes
    }

    fn case(&self) -> String {
        format!("{} tokens by {}, {} units", self.n_tokens, self.group_len, self.n_units)
    }
}

#[test]
fn the_coarse_vote_of_whole_numbers_is_its_definition() {
    let mut rng = Rng::with_seed(1);
    for (heads, n_segments) in
        [(heads(6, 2, 64), 8), (heads(3, 1, 16), 1), (heads(2, 2, 80), 3), (heads(4, 1, 128), 2)]
    {
        for n_tokens in [1, 4, 5, 16] {
            for n_units in [1, 15, 16, 33, 300] {
                let coarse =
                    Coarse { heads, n_tokens, group_len: 1, n_segments, n_units, angle: 0.0 };
                let n_rows = n_tokens * heads.n_heads;
                let queries = whole_rows(n_rows, heads.head_dim, 1.0 / 128.0, &mut rng);
                let unit_rows = n_segments * heads.n_kv_heads;
                let units: Vec<UnitRows> = (0..n_units)
                    .map(|_| whole_rows(unit_rows, heads.head_dim, 1.0 / 64.0, &mut rng))
                    .collect();
                let expected = vote(heads, &queries, &units);
                for backend in backends(Precision::F32) {
                    let votes = coarse.run(&backend, &queries, &units);
                    // Scores are a few units large and go through a handful of roundings.
                    assert_votes(&votes, &expected, 3e-6, &coarse.case());
                }
            }
        }
    }
}

#[test]
fn the_coarse_vote_of_any_numbers_is_its_definition_within_what_bytes_can_hold() {
    let mut rng = Rng::with_seed(2);
    let heads = heads(6, 2, 64);
    for (n_tokens, group_len) in [(1, 1), (4, 1), (70, 16), (33, 8)] {
        let coarse = Coarse { heads, n_tokens, group_len, n_segments: 4, n_units: 40, angle: 2.5 };
        let queries = floats(n_tokens * heads.n_heads * heads.head_dim, &mut rng);
        let unit_len = coarse.n_segments * heads.n_kv_heads * heads.head_dim;
        let units: Vec<UnitRows> =
            (0..coarse.n_units).map(|_| floats(unit_len, &mut rng)).collect();
        let turned = turned(&queries, heads, group_len, coarse.angle);
        let expected = vote(heads, &turned, &units);
        // |q^ k^ - q k| <= (|q| |k^ - k| + |k^| |q^ - q|) with errors of half a step of 1/127.
        let query_size = turned.chunks_exact(heads.head_dim).map(largest).fold(0.0, f32::max);
        let step_error = 0.5 / 127.0 * f64::from(query_size) * 2.01;
        let score_error = step_error * heads.head_dim as f64 / (heads.head_dim as f64).sqrt();
        for backend in backends(Precision::F32) {
            let votes = coarse.run(&backend, &queries, &units);
            assert_votes(&votes, &expected, score_error, &coarse.case());
        }
    }
}

#[test]
fn the_fine_vote_is_its_definition() {
    let mut rng = Rng::with_seed(3);
    for (heads, page_len) in [
        (heads(6, 2, 64), 64),
        (heads(9, 3, 16), 16),
        (heads(2, 2, 80), 32),
        (heads(5, 1, 256), 48),
    ] {
        for (n_tokens, group_len) in [(1, 1), (3, 1), (4, 1), (20, 16), (64, 1)] {
            for n_candidates in [1, 2, 33] {
                check_fine(heads, page_len, (n_tokens, group_len), n_candidates, &mut rng);
            }
        }
    }
}

fn check_fine(
    heads: HeadShape,
    page_len: usize,
    (n_tokens, group_len): (usize, usize),
    n_candidates: usize,
    rng: &mut Rng,
) {
    for (kv_type, precision, tolerance) in [
        (KvType::F16, Precision::F32, 1e-5),
        (KvType::F16, Precision::Int16, 1e-5),
        (KvType::Int8, Precision::F32, 1e-5),
        (KvType::Int8, Precision::Int16, 1e-3),
        (KvType::Int4, Precision::F32, 1e-5),
        (KvType::Int4, Precision::Int16, 1e-3),
    ] {
        let layout = PageLayout { heads, n_layers: 2, page_len, kv_type };
        let case = FineCase { layout, n_tokens, group_len, n_candidates };
        case.check(precision, tolerance, rng);
    }
}

/// The layer looked at.
const LAYER: usize = 1;

/// A fine vote over random pages.
struct FineCase {
    layout: PageLayout,
    n_tokens: usize,
    group_len: usize,
    n_candidates: usize,
}

impl FineCase {
    /// Pages of random bytes are random keys, where the scales among them are finite.
    fn pages(&self, rng: &mut Rng) -> Vec<HostBytes> {
        let page = |_| {
            let mut page = HostBytes::zeroed(self.layout.page_bytes()).unwrap();
            for kv_head in 0..self.layout.heads.n_kv_heads {
                let half = |rng: &mut Rng, size: f32| {
                    f16::from_f32((rng.f32() * 2.0 - 1.0) * size).to_bits()
                };
                match self.layout.view_mut(&mut page, LAYER, kv_head) {
                    HeadPageMut::F16 { keys, .. } => keys.fill_with(|| half(rng, 1.0)),
                    HeadPageMut::Int8 { keys, key_scales, .. } => {
                        keys.fill_with(|| rng.i8(-127..=127));
                        key_scales.fill_with(|| half(rng, 1.0 / 127.0));
                    }
                    HeadPageMut::Int4 { keys, key_steps, key_middles, .. } => {
                        keys.fill_with(|| rng.u8(..));
                        key_steps.fill_with(|| half(rng, 1.0 / 15.0));
                        key_middles.fill_with(|| half(rng, 0.5));
                    }
                }
            }
            page
        };
        (0..self.n_candidates).map(page).collect()
    }

    /// `[key][kv_head][head_dim]`
    fn unit_of(&self, page: &[u8]) -> UnitRows {
        let HeadShape { n_kv_heads, head_dim, .. } = self.layout.heads;
        let page_len = self.layout.page_len;
        let mut rows = vec![0.0; page_len * n_kv_heads * head_dim];
        for kv_head in 0..n_kv_heads {
            let mut keys = vec![0.0; head_dim * page_len];
            self.layout.view(page, LAYER, kv_head).read_keys(page_len, &mut keys);
            for (i, x) in keys.into_iter().enumerate() {
                rows[(i % page_len * n_kv_heads + kv_head) * head_dim + i / page_len] = x;
            }
        }
        rows
    }

    fn check(&self, precision: Precision, tolerance: f64, rng: &mut Rng) {
        let Self { layout, n_tokens, group_len, n_candidates } = *self;
        let heads = layout.heads;
        let pages = self.pages(rng);
        let units: Vec<UnitRows> = pages.iter().map(|page| self.unit_of(page)).collect();
        let queries: Vec<f32> = floats(n_tokens * heads.n_heads * heads.head_dim, rng)
            .iter()
            .map(|x| 3.0 * x)
            .collect();
        let expected = vote(heads, &turned(&queries, heads, group_len, 2.5), &units);
        let candidates: Vec<&[u8]> = pages.iter().map(|page| &page[..]).collect();
        for backend in backends(precision) {
            let (segment_angles, key_angles) = (&angles(heads, -1.0), &angles(heads, 2.5));
            let scale = scale(heads);
            let step = LookupStep {
                heads,
                n_tokens,
                first_row: 0,
                group_len,
                segment_angles,
                key_angles,
                scale,
                sharpness: 1.0,
                vote: Vote::Soft,
                n_sets: 1,
                representatives: Representatives::Keys,
            };
            let mut prepared = LookupQueries::default();
            backend.prepare_lookup(step, &queries, &mut prepared);
            let mut votes = vec![f32::NAN; n_candidates];
            let candidates = Candidates { layout, layer: LAYER, pages: &candidates, units: &[] };
            backend.vote_by_keys(&prepared, candidates, &mut votes);
            let case = format!(
                "{layout:?}, {n_tokens} tokens, {n_candidates} units, {precision:?}, {backend:?}"
            );
            assert_votes(&votes, &expected, tolerance, &case);
        }
    }
}
