//! A layer retrieves the units that the definition of the two stages names
//! (`kernels::naive::look_up`), with segment means and queries rounded to bytes as the index
//! keeps them.

use kernels::naive::{self, Ballot, Count, Rotary, Rows};
use mneme::attention::{Attention, AttentionError, Qkv};
use mneme::backend::cpu::{CpuBackend, HostBytes};
use mneme::backend::{AttendStep, PageTarget, StepDone, Vote};
use mneme::ids::LayerIdx;
use mneme::memory::{LookupPolicy, Memory, MemoryConfig, Phase, Positions, Sets};

use super::definition::{ChunkRecord, sees};
use super::{page_starts, random_config, tiny_model, window_start};
use crate::fixtures::{Random, Runner, TinyModel, chunk_tokens, random_tokens};

/// Votes closer than this, relatively, may be told apart either way.
const TIE: f64 = 2e-3;
/// The same where few heads vote: what one of them rounds the other way counts for more.
const HEAD_TIE: f64 = 1e-2;
/// The same for keys' masses, which are computed in floats.
const MASS_TIE: f64 = 1e-5;

/// A layer and a KV head of it.
type LayerHead = (LayerIdx, usize);

/// A memory that keeps what it is given, and checks each lookup.
struct Witness<'a> {
    memory: Memory<CpuBackend>,
    tiny: &'a TinyModel,
    frequencies: Vec<f64>,
    keys: Vec<Vec<f32>>,   // [layer], each [token][kv_head][head_dim]
    masses: Vec<Vec<f64>>, // [layer][kv_head], each [token]: attention received in the window
    phase: Phase,
    outcomes: Outcomes,
}

/// How lookups went.
#[derive(Debug, Default)]
struct Outcomes {
    n_equal: usize,
    /// Where votes were too close to call.
    n_ties: usize,
}

impl Attention<CpuBackend> for Witness<'_> {
    fn targets<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        out: &mut Vec<PageTarget<'a, HostBytes>>,
    ) {
        self.memory.targets(layer, chunk, out);
    }

    fn begin_layer<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        out: &mut Vec<f32>,
    ) -> Result<Option<AttendStep<'a, HostBytes>>, AttentionError> {
        let width = self.tiny.n_kv_heads * self.tiny.head_dim;
        self.keys[layer.0].extend(&chunk.keys[..chunk.n_tokens() * width]);
        self.memory.begin_layer(layer, chunk, out)
    }

    fn end_layer(
        &mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        done: Option<StepDone<HostBytes>>,
    ) -> Result<(), AttentionError> {
        let (n_tokens, queries) = (chunk.n_tokens(), chunk.queries.clone());
        self.memory.end_layer(layer, chunk, done)?;
        if self.memory.config().lookup == LookupPolicy::AttentionMass {
            self.tally(layer, n_tokens, &queries);
        }
        let config = self.memory.config();
        let n_units = self.memory.n_units();
        let looks_up = config.retrieves(self.phase) > 0
            && n_units > config.units_of(config.lookup_layer(layer.0));
        if looks_up && config.lookup_layer(layer.0) == layer.0 {
            let width = self.tiny.n_heads * self.tiny.head_dim;
            self.check_lookup(layer, &queries[..n_tokens * width]);
        }
        Ok(())
    }
}

/// `x` rounded to 127 steps of its largest element.
fn as_bytes(x: &[f32]) -> Vec<f32> {
    let scale = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) / 127.0;
    x.iter().map(|x| (x / scale).round_ties_even() * scale).collect()
}

fn halved(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| half::f16::from_f32(*x).to_f32()).collect()
}

impl Witness<'_> {
    fn shape(&self) -> naive::HeadShape {
        let TinyModel { n_heads, n_kv_heads, head_dim, .. } = *self.tiny;
        naive::HeadShape { n_heads, n_kv_heads, head_dim }
    }

    /// Heads of `head_dim`, each turned to `position`.
    fn turned(&self, heads: &[f32], position: usize) -> Vec<f32> {
        let layout = naive::PairLayout::Half;
        let rotary = Rotary { inverse_frequencies: &self.frequencies, magnitude: 1.0, layout };
        let heads = heads.chunks_exact(self.tiny.head_dim);
        heads.flat_map(|head| rotary.rotate(head, position)).collect()
    }

    /// Adds the attention that keys of the window receive from a chunk's queries.
    fn tally(&mut self, layer: LayerIdx, n_tokens: usize, queries: &[f32]) {
        let (config, first) = (self.memory.config().clone(), self.memory.n_tokens());
        let TinyModel { n_heads, n_kv_heads, head_dim, .. } = *self.tiny;
        let n_slots = config.retrieves(self.phase).min(self.memory.n_units());
        let units = (0..n_kv_heads).map(|kv_head| {
            let units = self.memory.retrieved(layer, kv_head).iter().take(n_slots);
            units.map(|unit| self.memory.unit_tokens(*unit as usize).start).collect()
        });
        let starts = page_starts(&config, &[], first);
        let mut record = ChunkRecord {
            first,
            end: first + n_tokens,
            units: vec![],
            starts,
            n_slots,
            question: None,
        };
        record.units = vec![units.collect()];
        for (row, query) in queries.chunks_exact(head_dim).take(n_tokens * n_heads).enumerate() {
            let (token, kv_head) = (row / n_heads, row % n_heads / (n_heads / n_kv_heads));
            let seen = sees(&config, &record, (0, kv_head), first + token);
            let scores = seen.iter().map(|seen| {
                let at = (seen.index * n_kv_heads + kv_head) * head_dim;
                // As kept: turned by the key's place in its page, the rest taken from the query.
                let slot = seen.slot.expect("because every key is in a page");
                let key = halved(&self.turned(&self.keys[layer.0][at..][..head_dim], slot));
                let query = self.turned(query, seen.query_position + slot - seen.key_position);
                naive::dot(&query, &key) / (head_dim as f64).sqrt()
            });
            let shares = naive::softmax(&scores.collect::<Vec<_>>());
            let masses = &mut self.masses[layer.0 * n_kv_heads + kv_head];
            masses.resize(record.end, 0.0);
            for (seen, share) in seen.iter().zip(shares) {
                if seen.index >= window_start(&config, &record.starts, first) {
                    masses[seen.index] += share;
                }
            }
        }
    }

    /// The mean of the four keys of a unit that received the most, `[kv_head][head_dim]`; `None`
    /// where it is too close to call which they are.
    fn mean_of_attended(&self, layer: LayerIdx, unit: usize) -> Option<Vec<f32>> {
        let TinyModel { n_kv_heads, head_dim, .. } = *self.tiny;
        let keys = self.keys_of(layer, unit);
        let of_head = |kv_head: usize| {
            let masses = &self.masses[layer.0 * n_kv_heads + kv_head];
            let best = clear_best(&masses[self.memory.unit_tokens(unit)], 4, MASS_TIE)?;
            let mean = |dim: usize| {
                let of_key = |key: &usize| keys[(key * n_kv_heads + kv_head) * head_dim + dim];
                best.iter().map(of_key).sum::<f32>() / 4.0
            };
            Some((0..head_dim).map(mean).collect::<Vec<f32>>())
        };
        let heads: Option<Vec<Vec<f32>>> = (0..n_kv_heads).map(of_head).collect();
        heads.map(|heads| heads.concat())
    }

    /// Mean queries of groups of tokens while a document is read; all queries otherwise.
    fn grouped(&self, queries: &[f32]) -> Vec<f32> {
        let group = match self.phase {
            Phase::Reading => self.memory.config().read_query_tokens,
            Phase::Asking | Phase::Answering => self.memory.config().ask_query_tokens,
        };
        let shape = naive::HeadShape { n_kv_heads: self.tiny.n_heads, ..self.shape() };
        naive::segment_means(queries, shape, group)
    }

    fn check_lookup(&mut self, layer: LayerIdx, queries: &[f32]) {
        let queries = self.grouped(queries);
        for kv_head in 0..self.tiny.n_kv_heads {
            let Some(expected) = self.expected((layer, kv_head), &queries) else {
                self.outcomes.n_ties += 1;
                continue;
            };
            let expected: Vec<u32> = expected.into_iter().map(|unit| unit as u32).collect();
            // Every layer of the group has what the first of them has found.
            let group = layer.0..layer.0 + self.memory.config().lookup_layers;
            for layer in group.filter(|layer| *layer < self.tiny.n_layers) {
                assert_eq!(self.memory.retrieved(LayerIdx(layer), kv_head), expected);
            }
            self.outcomes.n_equal += 1;
        }
    }

    /// The units that the definition names; `None` where votes are too close to call.
    fn expected(&self, at: LayerHead, queries: &[f32]) -> Option<Vec<usize>> {
        let config = self.memory.config();
        let all = (0..self.memory.n_units()).collect::<Vec<_>>();
        let (votes, units) = match config.lookup {
            LookupPolicy::TwoStage => {
                let n_candidates = config.units_of(at.0.0) * config.candidates_per_unit;
                let votes = self.votes_of_segments(at, queries)?;
                let candidates = clear_best(&votes, n_candidates, self.tie())?;
                (self.votes_of_keys(at, queries, &candidates), candidates)
            }
            LookupPolicy::Segments | LookupPolicy::AttentionMass | LookupPolicy::Bound => {
                (self.votes_of_segments(at, queries)?, all)
            }
            LookupPolicy::Exact => (self.votes_of_keys(at, queries, &all), all),
            LookupPolicy::None => return Some(Vec::new()),
        };
        self.chosen(at.0, &votes, &units)
    }

    fn tie(&self) -> f64 {
        match self.memory.config().sets {
            Sets::KvHead => HEAD_TIE,
            Sets::Layer => TIE,
        }
    }

    /// The units that the votes of `units` choose.
    fn chosen(&self, layer: LayerIdx, votes: &[f64], units: &[usize]) -> Option<Vec<usize>> {
        let MemoryConfig { neighbour_units, vote_permille, .. } = *self.memory.config();
        let budget = self.memory.config().units_of(layer.0);
        if neighbour_units == 0 && vote_permille == 1000 {
            let best = clear_best(votes, budget, self.tie())?;
            return Some(best.into_iter().map(|i| units[i]).collect());
        }
        let order = naive::best_units(votes, votes.len());
        let total: f64 = votes.iter().sum();
        let (mut chosen, mut share) = (Vec::new(), 0.0);
        for (i, hit) in order.iter().enumerate() {
            let is_enough = share >= total * vote_permille as f64 / 1000.0;
            if chosen.len() >= budget || (vote_permille < 1000 && is_enough) {
                break;
            }
            if order.get(i + 1).is_some_and(|next| hit.vote - next.vote < TIE * hit.vote.abs()) {
                return None;
            }
            share += hit.vote;
            if (share - total * vote_permille as f64 / 1000.0).abs() < TIE * total {
                return None;
            }
            let hit = units[hit.unit] as isize;
            let beside = (1..=neighbour_units as isize).flat_map(|d| [hit + d, hit - d]);
            for unit in std::iter::once(hit).chain(beside) {
                let is_there = (0..self.memory.n_units() as isize).contains(&unit);
                if is_there && chosen.len() < budget && !chosen.contains(&(unit as usize)) {
                    chosen.push(unit as usize);
                }
            }
        }
        chosen.sort_unstable();
        Some(chosen)
    }

    /// The keys of a unit, `[token][kv_head][head_dim]`.
    fn keys_of(&self, layer: LayerIdx, unit: usize) -> &[f32] {
        let width = self.tiny.n_kv_heads * self.tiny.head_dim;
        let tokens = self.memory.unit_tokens(unit);
        &self.keys[layer.0][tokens.start * width..tokens.end * width]
    }

    /// Coarse: representatives of keys as they are, queries at the far distance, both as bytes.
    fn votes_of_segments(&self, (layer, kv_head): LayerHead, queries: &[f32]) -> Option<Vec<f64>> {
        let config = self.memory.config();
        let (head_dim, segment_tokens) = (self.tiny.head_dim, config.segment_tokens);
        let bytes = |x: Vec<f32>, width| x.chunks_exact(width).flat_map(as_bytes).collect();
        let units = (0..self.memory.n_units()).map(|unit| {
            let keys = self.keys_of(layer, unit);
            Some(match config.lookup {
                LookupPolicy::Bound => {
                    bytes(bounds(keys, self.shape(), segment_tokens), 2 * head_dim)
                }
                LookupPolicy::AttentionMass => bytes(self.mean_of_attended(layer, unit)?, head_dim),
                _ => bytes(naive::segment_means(keys, self.shape(), segment_tokens), head_dim),
            })
        });
        let units = units.collect::<Option<Vec<Vec<f32>>>>()?;
        let rows = match config.lookup {
            LookupPolicy::Bound => Rows::Bounds,
            _ => Rows::Keys,
        };
        let mut far: Vec<f32> = bytes(self.turned(queries, config.window_tokens), head_dim);
        far.iter_mut().for_each(|x| *x *= config.coarse_sharpness as f32);
        Some(self.vote((rows, kv_head), &far, &units))
    }

    /// Fine: candidates' own keys in their places, seen from half a unit beyond.
    fn votes_of_keys(
        &self,
        (layer, kv_head): LayerHead,
        queries: &[f32],
        candidates: &[usize],
    ) -> Vec<f64> {
        let config = self.memory.config();
        let width = self.tiny.n_kv_heads * self.tiny.head_dim;
        let keys = candidates.iter().map(|unit| {
            let keys = self.keys_of(layer, *unit).chunks_exact(width).enumerate();
            keys.flat_map(|(offset, key)| halved(&self.turned(key, offset))).collect::<Vec<_>>()
        });
        let from = config.window_tokens + config.unit_tokens / 2;
        let near = self.turned(queries, from);
        self.vote((Rows::Keys, kv_head), &near, &keys.collect::<Vec<_>>())
    }

    /// Votes of all heads, or of those of one KV head where each retrieves for itself.
    fn vote(
        &self,
        (rows, kv_head): (Rows, usize),
        queries: &[f32],
        units: &[Vec<f32>],
    ) -> Vec<f64> {
        let count = match self.memory.config().vote {
            Vote::Soft => Count::Shares,
            Vote::Raw => Count::Scores,
        };
        let ballot = Ballot { count, rows };
        let naive::HeadShape { n_heads, n_kv_heads, head_dim } = self.shape();
        if self.memory.config().sets == Sets::Layer {
            let units: Vec<&[f32]> = units.iter().map(Vec::as_slice).collect();
            return naive::vote_by(ballot, self.shape(), queries, &units);
        }
        let group = n_heads / n_kv_heads;
        let width = if rows == Rows::Bounds { 2 * head_dim } else { head_dim };
        let part = |x: &[f32], n_parts: usize, width: usize| -> Vec<f32> {
            let rows = x.chunks_exact(n_parts * width);
            rows.flat_map(|row| row[kv_head * width..][..width].to_vec()).collect()
        };
        let units: Vec<Vec<f32>> = units.iter().map(|unit| part(unit, n_kv_heads, width)).collect();
        let units: Vec<&[f32]> = units.iter().map(Vec::as_slice).collect();
        let queries = part(queries, n_kv_heads, group * head_dim);
        let shape = naive::HeadShape { n_heads: group, n_kv_heads: 1, head_dim };
        naive::vote_by(ballot, shape, &queries, &units)
    }
}

/// `[segment][kv_head][2][head_dim]`: the largest, then the smallest elements of a segment's keys.
fn bounds(keys: &[f32], shape: naive::HeadShape, segment_tokens: usize) -> Vec<f32> {
    let width = shape.n_kv_heads * shape.head_dim;
    let of_head = |segment: &[f32], head: usize| {
        let over = |start: f32, pick: fn(f32, f32) -> f32| {
            (0..shape.head_dim).map(move |dim| (dim, start, pick)).collect::<Vec<_>>()
        };
        let rows = [over(f32::NEG_INFINITY, f32::max), over(f32::INFINITY, f32::min)].concat();
        let fold = |(dim, start, pick): (usize, f32, fn(f32, f32) -> f32)| {
            let column = segment.iter().skip(head * shape.head_dim + dim).step_by(width);
            column.copied().fold(start, pick)
        };
        rows.into_iter().map(fold).collect::<Vec<f32>>()
    };
    let segments = keys.chunks_exact(segment_tokens * width);
    let heads = segments.flat_map(|segment| (0..shape.n_kv_heads).map(move |head| (segment, head)));
    heads.flat_map(|(segment, head)| of_head(segment, head)).collect()
}

/// The `n` with the most votes, in order of their place; `None` when the last of them and the
/// first that failed are too close to call.
fn clear_best(votes: &[f64], n: usize, tie: f64) -> Option<Vec<usize>> {
    let order = naive::best_units(votes, votes.len());
    if let (Some(last), Some(failed)) = (order.get(n.wrapping_sub(1)), order.get(n))
        && last.vote - failed.vote < tie * last.vote.abs()
    {
        return None;
    }
    let mut best: Vec<usize> = order.iter().take(n).map(|unit| unit.unit).collect();
    best.sort_unstable();
    Some(best)
}

fn check(config: &MemoryConfig, runner: &mut Runner, seed: u64) -> Outcomes {
    let tiny = tiny_model();
    let mut witness = Witness {
        memory: runner.memory(config),
        tiny: &tiny,
        frequencies: runner.transformer.config().rope.inverse_frequencies.clone(),
        keys: vec![Vec::new(); tiny.n_layers],
        masses: vec![Vec::new(); tiny.n_layers * tiny.n_kv_heads],
        phase: Phase::Reading,
        outcomes: Outcomes::default(),
    };
    let tokens = random_tokens(620, tiny.vocab_size, seed);
    for (part, phase) in [
        (&tokens[..600], Phase::Reading),
        (&tokens[600..610], Phase::Asking),
        (&tokens[610..], Phase::Answering),
    ] {
        witness.phase = phase;
        let length = chunk_tokens(config, phase);

        for chunk in part.chunks(length) {
            witness.memory.begin_chunk(chunk.len(), phase).unwrap();
            runner.chunk(chunk, &mut witness);
            witness.memory.end_chunk().unwrap();
        }
    }
    witness.outcomes
}

fn check_seeds(seeds: std::ops::Range<u64>, change: impl Fn(&mut MemoryConfig)) {
    let mut runner = Runner::of_tiny(&tiny_model());
    let mut total = Outcomes::default();
    for seed in seeds {
        let mut random = Random(seed);
        let retrieved_units = 1 + random.below(4);
        let mut config = random_config(&mut random, retrieved_units);
        config.positions = Positions::Contiguous;
        change(&mut config);
        println!("seed {seed}: {config:?}");
        let Outcomes { n_equal, n_ties } = check(&config, &mut runner, seed);
        total.n_equal += n_equal;
        total.n_ties += n_ties;
    }
    println!("{total:?}");
    assert!(total.n_equal > 60, "enough lookups to speak of: {total:?}");
    assert!(total.n_ties < total.n_equal, "most are clear: {total:?}");
}

#[test]
fn layers_retrieve_the_units_that_the_definition_of_two_stages_names() {
    check_seeds(0..12, |_| {});
}

#[test]
fn layers_retrieve_the_units_that_segments_alone_name() {
    check_seeds(20..26, |config| config.lookup = LookupPolicy::Segments);
}

#[test]
fn layers_retrieve_the_units_whose_bounds_are_largest() {
    check_seeds(30..36, |config| config.lookup = LookupPolicy::Bound);
}

#[test]
fn layers_retrieve_the_units_with_the_best_of_all_keys() {
    check_seeds(40..46, |config| config.lookup = LookupPolicy::Exact);
}

#[test]
fn layers_retrieve_the_units_whose_most_attended_keys_match() {
    check_seeds(120..126, |config| config.lookup = LookupPolicy::AttentionMass);
    check_seeds(126..128, |config| {
        (config.lookup, config.positions) = (LookupPolicy::AttentionMass, Positions::Fixed);
        (config.vote, config.ask_query_tokens) = (Vote::Raw, 6);
        config.read_query_tokens = 64;
    });
}

#[test]
fn raw_votes_and_mean_queries_count_as_defined() {
    check_seeds(50..56, |config| config.vote = Vote::Raw);
    check_seeds(60..66, |config| config.ask_query_tokens = 3);
}

#[test]
fn kv_heads_that_retrieve_for_themselves_are_the_only_ones_to_vote() {
    check_seeds(70..76, |config| config.sets = Sets::KvHead);
    check_seeds(74..78, |config| {
        (config.sets, config.lookup) = (Sets::KvHead, LookupPolicy::Bound);
        config.coarse_sharpness = 1; // or what is rounded the other way counts four times
    });
    check_seeds(78..80, |config| {
        (config.sets, config.lookup) = (Sets::KvHead, LookupPolicy::Exact);
    });
}

#[test]
fn a_hit_brings_its_neighbours() {
    check_seeds(80..84, |config| config.neighbour_units = 1);
    check_seeds(84..86, |config| {
        (config.neighbour_units, config.lookup) = (2, LookupPolicy::Segments);
    });
}

#[test]
fn no_more_is_retrieved_than_has_enough_of_the_votes() {
    check_seeds(90..96, |config| (config.vote_permille, config.retrieved_units) = (600, 6));
}

#[test]
fn first_layers_have_their_own_budget_and_layers_may_share_a_lookup() {
    check_seeds(100..104, |config| (config.first_layers, config.first_layer_units) = (1, 5));
    check_seeds(104..112, |config| config.lookup_layers = 2);
}
