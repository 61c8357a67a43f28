//! The lookup: both stages, against votes by definition.

use kernels::naive::{self, Ballot, Count, HeadShape, PageFormat, PageType};
use kernels::{
    Array, Ask, AttentionSizes, BlockRef, Device, LookUp, LookupKernels, PageRef, SegmentIndex,
    UnitTable, VoteKind,
};

use crate::devices::{numbers, on_devices};

struct Case {
    heads: HeadShape,
    kv_type: PageType,
    n_units: usize,
    n_tokens: usize,
    group_len: usize,
    n_sets: usize,
    vote: VoteKind,
    n_candidates: usize,
    n_wanted: usize,
}

const PAGE_LEN: usize = 64;
const SEGMENTS: usize = 4;

/// A unit's bytes, its keys and its segments' means, `[slot or segment][kv_head][head_dim]`.
struct Unit {
    bytes: Vec<u8>,
    keys: Vec<f32>,
    means: Vec<f32>,
}

impl Case {
    fn unit(&self, number: usize) -> Unit {
        let HeadShape { n_kv_heads, head_dim, .. } = self.heads;
        let format = PageFormat { kv_type: self.kv_type, head_dim, page_len: PAGE_LEN };
        let n_keys = if number + 1 == self.n_units { 37 } else { PAGE_LEN };
        let mut unit = Unit {
            bytes: Vec::new(),
            keys: vec![0.0; n_keys * n_kv_heads * head_dim],
            means: Vec::new(),
        };
        for kv_head in 0..n_kv_heads {
            let seed = (number * 8 + kv_head + 1) as u64;
            // Keys of a unit are like one another, so that some units are liked more than others.
            let common = numbers(seed ^ 0xabcd, head_dim);
            let noise = numbers(seed, n_keys * head_dim);
            let keys: Vec<f32> =
                noise.iter().enumerate().map(|(i, x)| x * 0.4 + common[i % head_dim]).collect();
            let bytes = format.pack(&keys, &keys, 0xff);
            let (keys, _) = format.unpack(&bytes, n_keys);
            unit.bytes.extend(bytes);
            for (slot, key) in keys.chunks(head_dim).enumerate() {
                let at = (slot * n_kv_heads + kv_head) * head_dim;
                unit.keys[at..at + head_dim].copy_from_slice(key);
            }
        }
        unit.means = naive::segment_means(&unit.keys, self.heads, PAGE_LEN / SEGMENTS);
        unit
    }

    /// The index's bytes; `units` get the means that these stand for.
    fn index(&self, units: &mut [Unit]) -> Vec<u8> {
        let HeadShape { n_kv_heads, head_dim, .. } = self.heads;
        let means_len = SEGMENTS * 16 * head_dim;
        let head_len = means_len + SEGMENTS * 16 * 4;
        let mut index = vec![0xff; units.len().div_ceil(16) * n_kv_heads * head_len];
        for (number, unit) in units.iter_mut().enumerate() {
            let n_there = unit.means.len() / (n_kv_heads * head_dim);
            for kv_head in 0..n_kv_heads {
                let at = (number / 16 * n_kv_heads + kv_head) * head_len;
                let head = &mut index[at..at + head_len];
                for segment in 0..SEGMENTS {
                    let from = (segment.min(n_there - 1) * n_kv_heads + kv_head) * head_dim;
                    let mean = &mut unit.means[from..from + head_dim];
                    let largest = mean.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                    let scale = largest / 127.0;
                    let lane = segment * 16 + number % 16;
                    head[means_len + 4 * lane..][..4].copy_from_slice(&scale.to_le_bytes());
                    for (dim, x) in mean.iter_mut().enumerate() {
                        let byte = (*x / scale).round();
                        *x = byte * scale;
                        let word = segment * head_dim / 4 + dim / 4;
                        head[(word * 16 + number % 16) * 4 + dim % 4] = (byte + 128.0) as u8;
                    }
                }
            }
        }
        index
    }

    /// `[group][head][head_dim]`: means of the groups' queries.
    fn mean_queries(&self, queries: &[f32]) -> Vec<f32> {
        let width = self.heads.n_heads * self.heads.head_dim;
        let mean = |group: &[f32]| {
            let n = group.len() / width;
            let sum = move |i: usize| group[i..].iter().step_by(width).sum::<f32>() / n as f32;
            (0..width).map(sum).collect::<Vec<_>>()
        };
        queries.chunks(self.group_len * width).flat_map(mean).collect()
    }

    /// Votes by definition for `units`, of KV head `kv_head` alone or of all.
    fn votes(&self, queries: &[f32], rows: &[&[f32]], kv_head: Option<usize>) -> Vec<f64> {
        let HeadShape { n_heads, n_kv_heads, head_dim } = self.heads;
        let count = match self.vote {
            VoteKind::Shares => Count::Shares,
            VoteKind::Scores => Count::Scores,
        };
        let ballot = Ballot { count, ..Ballot::default() };
        let Some(kv_head) = kv_head else {
            return naive::vote_by(ballot, self.heads, queries, rows);
        };
        let group = n_heads / n_kv_heads;
        let shape = HeadShape { n_heads: group, n_kv_heads: 1, head_dim };
        let part = |rows: &[f32], n: usize, from: usize, len: usize| -> Vec<f32> {
            let heads = rows.chunks(n * head_dim);
            heads.flat_map(|row| row[from * head_dim..][..len * head_dim].to_vec()).collect()
        };
        let queries = part(queries, n_heads, kv_head * group, group);
        let rows: Vec<Vec<f32>> =
            rows.iter().map(|unit| part(unit, n_kv_heads, kv_head, 1)).collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        naive::vote_by(ballot, shape, &queries, &rows)
    }

    fn check(&self) {
        let HeadShape { n_heads, n_kv_heads, head_dim } = self.heads;
        let mut units: Vec<Unit> = (0..self.n_units).map(|i| self.unit(i)).collect();
        let index = self.index(&mut units);
        let queries: Vec<f32> =
            numbers(77, (self.n_tokens + 1) * n_heads * head_dim).iter().map(|x| x * 2.0).collect();
        let (chosen, votes, candidates) =
            on_devices(|device| self.run(device, &queries, (&index, &units)));
        let n_candidates = self.n_candidates.min(self.n_units);
        let n_wanted = self.n_wanted.min(n_candidates);
        assert_eq!(chosen.len(), self.n_sets * n_wanted);
        let means = self.mean_queries(&queries[n_heads * head_dim..]);
        for set in 0..self.n_sets {
            let kv_head = (self.n_sets > 1).then_some(set);
            assert!(self.n_sets == 1 || self.n_sets == n_kv_heads);
            let here = &candidates[set * n_candidates..][..n_candidates];
            // No candidate is worse than one left out by more than what rounding queries does.
            let rows: Vec<&[f32]> = units.iter().map(|unit| &unit.means[..]).collect();
            let coarse = self.votes(&means, &rows, kv_head);
            self.check_choice(&coarse, &(0..self.n_units as u32).collect::<Vec<_>>(), here);
            // The fine votes are those of the definition, and the choice is theirs, exactly.
            let rows: Vec<&[f32]> =
                here.iter().map(|unit| &units[*unit as usize].keys[..]).collect();
            let fine = self.votes(&means, &rows, kv_head);
            let votes = &votes[set * n_candidates..][..n_candidates];
            let unit = match self.vote {
                VoteKind::Shares => 1.0,
                VoteKind::Scores => std::f64::consts::LOG2_E, // no softmax takes it out
            };
            for (vote, expected) in votes.iter().zip(&fine) {
                let bound = 2e-2 * (1.0 + expected.abs());
                assert!(
                    (f64::from(*vote) / unit - expected).abs() < bound,
                    "{vote} for {expected}"
                );
            }
            let votes: Vec<f64> = votes.iter().map(|vote| f64::from(*vote)).collect();
            let best = naive::best_units(&votes, n_wanted);
            let mut best: Vec<u32> = best.iter().map(|vote| here[vote.unit]).collect();
            best.sort_unstable();
            assert_eq!(chosen[set * n_wanted..][..n_wanted], best);
        }
    }

    fn check_choice(&self, votes: &[f64], from: &[u32], chosen: &[u32]) {
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "in the order of the text");
        let worst = chosen.iter().map(|unit| votes[*unit as usize]).fold(f64::INFINITY, f64::min);
        for unit in from.iter().filter(|unit| !chosen.contains(unit)) {
            let vote = votes[*unit as usize];
            assert!(vote <= worst + 2e-2 * (1.0 + worst.abs()), "{unit}: {vote} over {worst}");
        }
    }

    fn run<D: Device>(
        &self,
        device: &D,
        queries: &[f32],
        (index, units): (&[u8], &[Unit]),
    ) -> (Vec<u32>, Vec<f32>, Vec<u32>) {
        let sizes = AttentionSizes {
            heads: self.heads,
            n_pairs: self.heads.head_dim / 2,
            page_len: PAGE_LEN,
            kv_types: vec![self.kv_type],
        };
        let mut kernels = LookupKernels::new(device, sizes.clone()).unwrap();
        let upload = |bytes: &[u8]| {
            let mut buffer = device.allocate(bytes.len()).unwrap();
            device.write(&mut buffer, 0, bytes).unwrap();
            buffer
        };
        let pages: Vec<D::Buffer> = units.iter().map(|unit| upload(&unit.bytes)).collect();
        let refs: Vec<PageRef<'_, D>> = pages
            .iter()
            .enumerate()
            .map(|(i, buffer)| PageRef {
                buffer,
                offset: 0,
                n_keys: units[i].keys.len() / (self.heads.n_kv_heads * self.heads.head_dim),
                first_index: 0,
                placement: 0,
                kv_type: self.kv_type,
            })
            .collect();
        let table = UnitTable::new(device, &sizes, &refs).unwrap();
        // Blocks are anywhere, here the later ones before the earlier.
        let head_len = SEGMENTS * 16 * (self.heads.head_dim + 4);
        let block_len = self.heads.n_kv_heads * head_len;
        let reversed: Vec<u8> = index.chunks(block_len).rev().flatten().copied().collect();
        let index = upload(&reversed);
        let n_blocks = reversed.len() / block_len;
        let blocks: Vec<BlockRef<'_, D>> = (0..n_blocks)
            .rev()
            .map(|block| BlockRef { buffer: &index, offset: block * block_len })
            .collect();
        // No rotation: that of queries is tested with attention's.
        let n_pairs = self.heads.head_dim / 2;
        let angles: Vec<f32> = (0..2 * n_pairs).map(|i| f32::from(u8::from(i < n_pairs))).collect();
        let angles = Array::of(device, &angles).unwrap();
        let mut chosen = Array::of(device, &vec![u32::MAX; self.n_sets * self.n_wanted]).unwrap();
        let queries = Array::of(device, queries).unwrap();
        let ask = Ask {
            queries: &queries,
            first_row: 1,
            n_tokens: self.n_tokens,
            group_len: self.group_len,
            segment_angles: &angles,
            key_angles: &angles,
            scale: 1.0 / (self.heads.head_dim as f32).sqrt(),
            sharpness: 1.0,
            vote: self.vote,
            n_sets: self.n_sets,
            index: SegmentIndex { blocks: &blocks, n_units: units.len(), n_segments: SEGMENTS },
            n_candidates: self.n_candidates,
        };
        // In two steps, between which the candidates may be brought to the device.
        let named = kernels.name_candidates(device, &ask).unwrap();
        let brought: Vec<PageRef<'_, D>> =
            named.iter().map(|unit| PageRef { ..refs[*unit as usize] }).collect();
        let stepwise = kernels.vote_by_keys(device, &brought).unwrap();
        let step = LookUp { ask, units: &table, n_wanted: self.n_wanted };
        let n = kernels.look_up(device, &step, &mut chosen).unwrap();
        let (votes, candidates) = kernels.last_votes(device).unwrap();
        assert_eq!((named, stepwise), (candidates.clone(), votes.clone()));
        let mut chosen = chosen.to_vec(device).unwrap();
        chosen.truncate(self.n_sets * n);
        (chosen, votes, candidates)
    }
}

const SMALL: Case = Case {
    heads: HeadShape { n_heads: 6, n_kv_heads: 2, head_dim: 64 },
    kv_type: PageType::Int8,
    n_units: 45,
    n_tokens: 3,
    group_len: 1,
    n_sets: 1,
    vote: VoteKind::Shares,
    n_candidates: 12,
    n_wanted: 3,
};

#[test]
fn both_stages_choose_what_the_votes_by_definition_say() {
    for kv_type in [PageType::Int8, PageType::F16, PageType::Int4] {
        Case { kv_type, ..SMALL }.check();
    }
}

#[test]
fn units_may_be_chosen_by_each_kv_head_by_means_of_queries_and_by_raw_scores() {
    Case { n_sets: 2, n_tokens: 11, group_len: 4, ..SMALL }.check();
    Case { vote: VoteKind::Scores, n_tokens: 1, ..SMALL }.check();
    let heads = HeadShape { n_heads: 20, n_kv_heads: 1, head_dim: 80 };
    Case { heads, n_tokens: 2, ..SMALL }.check();
}

#[test]
fn more_may_be_wanted_than_there_are() {
    Case { n_units: 7, n_candidates: 12, n_wanted: 12, ..SMALL }.check();
    Case { n_units: 1, ..SMALL }.check();
}
