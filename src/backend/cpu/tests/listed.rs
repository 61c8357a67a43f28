//! Votes where not all segments are looked at, against their definition, row by row.

use fastrand::Rng;

use super::{backends, floats};
use crate::backend::cpu::HostBytes;
use crate::backend::{
    Backend, BlocksView, CoarseVotes, HeadShape, List, ListedSegments, LookupQueries, LookupStep,
    Precision, Representatives, Vote,
};

/// Segments side by side in a block.
const UNITS: usize = 16;

/// Segments of a unit.
const N_SEGMENTS: usize = 3;

/// A segment's mean as bytes, and its scale.
#[derive(Clone)]
struct Segment {
    bytes: Vec<u8>,
    scale: f32,
}

/// Some spans of units and some units after them, of which lists hold a part.
struct Case {
    heads: HeadShape,
    span_units: usize,
    segments: Vec<Vec<Vec<Segment>>>, // [unit][kv_head][segment]
    lists: Vec<HostBytes>,            // means, then scales
    owners: Vec<Vec<u32>>,            // of each list
    ends: Vec<usize>,                 // [span][kv_head]
    listed: Vec<Vec<(usize, usize)>>, // [kv_head]: units and segments that lists hold, or that are rest
    rest: Vec<HostBytes>,
    n_rest: usize,
}

impl Case {
    /// Spans of `span_units`, of whose segments lists hold about `percent`, and `n_rest` units besides.
    fn new(
        heads: HeadShape,
        (n_spans, span_units, n_rest): (usize, usize, usize),
        percent: usize,
        rng: &mut Rng,
    ) -> Self {
        let mut segment = || Segment {
            bytes: (0..heads.head_dim).map(|_| rng.u8(1..)).collect(),
            scale: 0.001 + 0.02 * rng.f32(),
        };
        let n_units = n_spans * span_units + n_rest;
        let mut of_head = || (0..N_SEGMENTS).map(|_| segment()).collect::<Vec<_>>();
        let mut unit = || (0..heads.n_kv_heads).map(|_| of_head()).collect::<Vec<_>>();
        let segments: Vec<_> = (0..n_units).map(|_| unit()).collect();
        let mut case = Self {
            heads,
            span_units,
            segments,
            lists: Vec::new(),
            owners: Vec::new(),
            ends: Vec::new(),
            listed: vec![Vec::new(); heads.n_kv_heads],
            rest: Vec::new(),
            n_rest,
        };
        for span in 0..n_spans {
            for kv_head in 0..heads.n_kv_heads {
                case.add_lists((span, kv_head), percent, rng);
            }
        }
        case.add_rest(n_spans * span_units);
        case
    }

    /// Puts some segments of a span into lists of any lengths, in any order.
    fn add_lists(&mut self, (span, kv_head): (usize, usize), percent: usize, rng: &mut Rng) {
        let first = span * self.span_units;
        let all =
            (first..first + self.span_units).flat_map(|u| (0..N_SEGMENTS).map(move |s| (u, s)));
        let mut chosen: Vec<_> = all.filter(|_| rng.usize(..100) < percent).collect();
        rng.shuffle(&mut chosen);
        let mut chosen = &chosen[..];
        while !chosen.is_empty() {
            let (list, later) = chosen.split_at(rng.usize(1..=chosen.len().min(40)));
            chosen = later;
            self.listed[kv_head].extend_from_slice(list);
            let padded = list.len().next_multiple_of(UNITS);
            // What fills up the last block is another of it once more.
            let at = |i: usize| list[i.min(list.len() - 1)];
            let of = |i: usize| &self.segments[at(i).0][kv_head][at(i).1];
            let blocks = (0..padded).step_by(UNITS).map(|i| self.block(&|lane| Some(of(i + lane))));
            let (means, scales): (Vec<_>, Vec<_>) = blocks.unzip();
            let bytes = [means.concat(), bytemuck::cast_slice(&scales.concat()).to_vec()].concat();
            let mut list = HostBytes::zeroed(bytes.len()).unwrap();
            list.copy_from_slice(&bytes);
            self.owners.push((0..padded).map(|i| (at(i).0 - first) as u32).collect());
            self.lists.push(list);
        }
        self.ends.push(self.lists.len());
    }

    /// Puts the units from `first` on into blocks as of an index that is scanned whole.
    fn add_rest(&mut self, first: usize) {
        for block in (0..self.n_rest).step_by(UNITS) {
            let mut bytes: Vec<u8> = Vec::new();
            for kv_head in 0..self.heads.n_kv_heads {
                let of_segment = (0..N_SEGMENTS).map(|segment| {
                    self.block(&|lane| {
                        let unit = (block + lane < self.n_rest).then_some(first + block + lane);
                        unit.map(|unit| &self.segments[unit][kv_head][segment])
                    })
                });
                let (means, scales): (Vec<_>, Vec<_>) = of_segment.unzip();
                bytes.extend(means.concat());
                bytes.extend(bytemuck::cast_slice::<f32, u8>(&scales.concat()));
            }
            let mut block = HostBytes::zeroed(bytes.len()).unwrap();
            block.copy_from_slice(&bytes);
            self.rest.push(block);
        }
        for unit in first..first + self.n_rest {
            let segments = (0..N_SEGMENTS).map(|segment| (unit, segment));
            self.listed.iter_mut().for_each(|listed| listed.extend(segments.clone()));
        }
    }

    /// `[width / 4][UNITS][4]` and `[UNITS]`; a lane without a segment scores nothing.
    fn block<'a>(&self, of: &dyn Fn(usize) -> Option<&'a Segment>) -> (Vec<u8>, Vec<f32>) {
        let (mut means, mut scales) = (vec![128; UNITS * self.heads.head_dim], vec![0.0; UNITS]);
        for lane in 0..UNITS {
            let Some(segment) = of(lane) else { continue };
            scales[lane] = segment.scale;
            for (dim, byte) in segment.bytes.iter().enumerate() {
                means[(dim / 4 * UNITS + lane) * 4 + dim % 4] = *byte;
            }
        }
        (means, scales)
    }

    fn run<B: Backend<Buffer = Vec<f32>>>(
        &self,
        backend: &B,
        queries: &LookupQueries,
    ) -> CoarseVotes {
        let lists = self.lists.iter().zip(&self.owners).map(|(list, owners)| {
            let (means, scales) = list.split_at(owners.len() * self.heads.head_dim);
            List { means, scales: bytemuck::cast_slice(scales), owners }
        });
        let lists: Vec<List<'_>> = lists.collect();
        let rest: Vec<&[u8]> = self.rest.iter().map(|block| &block[..]).collect();
        let mut votes = CoarseVotes { units: vec![7], votes: vec![f32::NAN; 9] };
        let listed = ListedSegments {
            lists: &lists,
            ends: &self.ends,
            span_units: self.span_units,
            rest: BlocksView { n_segments: N_SEGMENTS, blocks: &rest },
            n_rest: self.n_rest,
        };
        backend.vote_by_lists(queries, listed, &mut votes);
        votes
    }

    /// The score of a unit by those of its segments that are looked at, if any are.
    fn score(
        &self,
        queries: &LookupQueries,
        (kv_head, row, unit): (usize, usize, usize),
    ) -> Option<f64> {
        let width = self.heads.head_dim;
        let row = kv_head * queries.n_rows + row;
        let q = &queries.bytes[row * width..][..width];
        let listed = self.listed[kv_head].iter().filter(|(listed, _)| *listed == unit);
        let score = |segment: &Segment| {
            let products =
                segment.bytes.iter().zip(q).map(|(m, q)| (i32::from(*m) - 128) * i32::from(*q));
            f64::from(products.sum::<i32>())
                * f64::from(segment.scale)
                * f64::from(queries.scales[row])
        };
        listed.map(|(_, segment)| score(&self.segments[unit][kv_head][*segment])).reduce(f64::max)
    }

    /// The definition: units that are named, and the votes of each set.
    fn expected(&self, queries: &LookupQueries) -> (Vec<u32>, Vec<f64>) {
        let HeadShape { n_kv_heads, .. } = self.heads;
        let group = queries.n_rows / queries.n_token_groups;
        let n_units = self.segments.len();
        let is_named =
            |unit: &usize| self.listed.iter().flatten().any(|(listed, _)| listed == unit);
        let named: Vec<usize> = (0..n_units).filter(is_named).collect();
        let mut votes = vec![0.0; queries.n_sets * named.len()];
        for head in 0..n_kv_heads * group {
            let kv_head = head / group;
            let mut best = vec![f64::NEG_INFINITY; named.len()];
            for token in 0..queries.n_token_groups {
                let row = token * group + head % group;
                let scores = named.iter().map(|unit| self.score(queries, (kv_head, row, *unit)));
                let scores: Vec<f64> = scores.map(|s| s.unwrap_or(f64::NEG_INFINITY)).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                for (best, score) in best.iter_mut().zip(&scores) {
                    let share = match queries.vote {
                        Vote::Soft => (score - most).exp() / sum,
                        Vote::Raw => *score,
                    };
                    *best = best.max(share);
                }
            }
            let set = if queries.n_sets == 1 { 0 } else { kv_head };
            let votes = &mut votes[set * named.len()..][..named.len()];
            votes.iter_mut().zip(&best).for_each(|(vote, best)| *vote += best);
        }
        (named.iter().map(|unit| *unit as u32).collect(), votes)
    }
}

#[test]
fn the_vote_by_lists_is_its_definition() {
    let mut rng = Rng::with_seed(7);
    let heads = |n_heads, n_kv_heads, head_dim| HeadShape {
        n_heads,
        n_kv_heads,
        head_dim,
        n_pairs: head_dim / 2,
    };
    // Few units named, all of them; no list at all, or nothing but lists; more rows than lanes.
    for (heads, spans, percent, n_tokens) in [
        (heads(6, 2, 64), (3, 48, 21), 10, 4),
        (heads(3, 1, 16), (1, 32, 300), 100, 1),
        (heads(4, 2, 80), (0, 16, 33), 0, 9),
        (heads(9, 3, 64), (2, 512, 0), 5, 4),
        (heads(8, 1, 32), (2, 16, 1), 50, 5),
    ] {
        let case = Case::new(heads, spans, percent, &mut rng);
        let queries = floats(n_tokens * heads.n_heads * heads.head_dim, &mut rng);
        let angles = [vec![1.0; heads.n_pairs], vec![0.0; heads.n_pairs]].concat();
        for (vote, n_sets) in [(Vote::Soft, 1), (Vote::Raw, 1), (Vote::Soft, heads.n_kv_heads)] {
            for backend in backends(Precision::Int16) {
                let step = LookupStep {
                    heads,
                    n_tokens,
                    first_row: 0,
                    group_len: 1,
                    segment_angles: &angles,
                    key_angles: &angles,
                    scale: 0.3,
                    sharpness: 1.0,
                    vote,
                    n_sets,
                    representatives: Representatives::Keys,
                };
                let mut prepared = LookupQueries::default();
                backend.prepare_lookup(step, &queries, &mut prepared);
                let found = case.run(&backend, &prepared);
                let (units, votes) = case.expected(&prepared);
                assert_eq!(found.units, units);
                assert_eq!(found.votes.len(), votes.len());
                for (found, expected) in found.votes.iter().zip(&votes) {
                    let error = (f64::from(*found) - expected).abs();
                    let is_same = f64::from(*found) == *expected; // as minus infinity is
                    let close = is_same || error <= 1e-4 * expected.abs() + 1e-7;
                    assert!(close, "{vote:?}, {n_sets} sets: {found}, not {expected}");
                }
            }
        }
    }
}
