//! Every past token is in exactly one of sinks, units and window, and is attended at most once.
//!
//! The oracle reads what was attended off the outputs. Scores are so small that weights are almost
//! equal; each token's value is one-hot, at a place of its own for each layer and KV head; so
//! element `i` of an output, times the number of keys attended, is how often token `i` was.

use std::collections::BTreeSet;
use std::sync::Arc;

use mneme::attention::{Qkv, Rotary, attend};
use mneme::backend::cpu::CpuBackend;
use mneme::backend::{HeadShape, KvType, PageLayout, Precision};
use mneme::ids::LayerIdx;
use mneme::memory::{AttentionMode, Memory, MemoryConfig, Phase, Positions, Stores, UnitMass};

use super::{page_starts, random_config, window_start};
use crate::fixtures::Random;

/// Longest text: one place of a head a token.
const MAX_TOKENS: usize = 256;
const HEADS: HeadShape = HeadShape { n_heads: 6, n_kv_heads: 2, head_dim: 256, n_pairs: 128 };
const N_LAYERS: usize = 2;

/// The element that is one in the value of token `index`: an odd step is a permutation.
fn place_of(index: usize, layer: usize, kv_head: usize) -> usize {
    (index * 75 + layer * 31 + kv_head * 100) % MAX_TOKENS
}

fn new_memory(config: &MemoryConfig) -> (Arc<CpuBackend>, Memory<CpuBackend>) {
    // Each type of keys and values with the arithmetic it is for; a one-hot value is exact in both.
    let precision = match config.kv_type {
        KvType::F16 => Precision::F32,
        KvType::Int8 => Precision::Int16,
        KvType::Int4 => unreachable!("nibbles have no exact zero"),
    };
    let backend = Arc::new(CpuBackend::new(1, precision));
    let layout = PageLayout {
        heads: HEADS,
        n_layers: N_LAYERS,
        page_len: config.unit_tokens,
        kv_type: config.kv_type,
    };
    let frequencies: Vec<f64> = (0..HEADS.n_pairs).map(|i| 0.95f64.powi(i as i32)).collect();
    let stores = Stores::in_memory(layout, config).unwrap();
    let rotary = (Rotary::new(&frequencies, 1.0), 1 << 20);
    let memory = Memory::new(Arc::clone(&backend), config.clone(), layout, rotary, stores);
    (backend, memory.unwrap())
}

/// A text that passes through a memory.
struct Text<'a> {
    config: &'a MemoryConfig,
    backend: Arc<CpuBackend>,
    memory: Memory<CpuBackend>,
    random: Random,
    /// How long the text will be for which way was made.
    way_end: usize,
    /// Attention weights of each answer token, layer and head: `[row][token]`.
    answer_rows: Vec<Vec<f32>>,
}

impl Text<'_> {
    /// Numbers so small that scores stay below some hundredths.
    fn small(&mut self, n_tokens: usize, n_heads: usize) -> Vec<f32> {
        let len = n_tokens * n_heads * HEADS.head_dim;
        (0..len).map(|_| self.random.within(100) as f32 / 100.0 * 0.05).collect()
    }

    /// Seals what `n_tokens` more tokens would push out of the window.
    fn make_way(&mut self, n_tokens: usize) {
        self.memory.make_way(n_tokens).unwrap();
        if self.config.attention == AttentionMode::Retrieval {
            self.way_end = self.memory.n_tokens() + n_tokens;
        }
        self.check_partition();
    }

    /// Where the window begins when `n_tokens` have passed.
    fn window_start(&self, n_tokens: usize) -> usize {
        let end = n_tokens.max(self.way_end);
        window_start(self.config, &page_starts(self.config, &[], end), end)
    }

    fn chunk(&mut self, n_tokens: usize, phase: Phase) {
        let first = self.memory.n_tokens();
        let window_start = self.window_start(first);
        self.memory.begin_chunk(n_tokens, phase).unwrap();
        for layer in 0..N_LAYERS {
            let queries = self.small(n_tokens, HEADS.n_heads);
            let keys = self.small(n_tokens, HEADS.n_kv_heads);
            let mut values = vec![0.0; keys.len()];
            for (row, value) in values.chunks_exact_mut(HEADS.head_dim).enumerate() {
                let (index, kv_head) = (first + row / HEADS.n_kv_heads, row % HEADS.n_kv_heads);
                value[place_of(index, layer, kv_head)] = 1.0;
            }
            let qkv = Qkv { queries: &queries, keys: &keys, values: &values, rows: 0..n_tokens };
            let mut out = vec![f32::NAN; queries.len()];
            attend(&*self.backend, &mut self.memory, LayerIdx(layer), &qkv, &mut out).unwrap();
            let far = self.retrieved_tokens(layer, phase);
            for (row, out) in out.chunks_exact(HEADS.head_dim).enumerate() {
                let (index, head) = (first + row / HEADS.n_heads, row % HEADS.n_heads);
                let kv_head = head / HEADS.group();
                let weights: Vec<f32> =
                    (0..=index).map(|i| out[place_of(i, layer, kv_head)]).collect();
                let near =
                    (0..=index).filter(|i| *i < self.config.sink_tokens || *i >= window_start);
                let expected: BTreeSet<usize> = near.chain(far.iter().copied()).collect();
                check_weights(out, &weights, &expected);
                if phase == Phase::Answering {
                    self.answer_rows.push(weights);
                }
            }
        }
        self.memory.end_chunk().unwrap();
        self.check_partition();
    }

    /// The tokens of the units that the layer has retrieved for the chunk at hand.
    fn retrieved_tokens(&self, layer: usize, phase: Phase) -> BTreeSet<usize> {
        let looks_up = phase != Phase::Reading || self.config.read_query_tokens > 0;
        if self.config.attention != AttentionMode::Retrieval || !looks_up {
            return BTreeSet::new();
        }
        let n_units = self.memory.n_units();
        if n_units == 0 || self.config.retrieved_units == 0 {
            return BTreeSet::new();
        }
        let units = self.memory.retrieved(LayerIdx(layer), 0);
        assert_eq!(units.len(), self.config.retrieved_units.min(n_units));
        assert!(units.is_sorted_by(|a, b| a < b), "in document order, each once: {units:?}");
        let of_unit = |unit: &u32| self.memory.unit_tokens(*unit as usize);
        units.iter().flat_map(of_unit).collect()
    }

    /// Sinks, units and window are the text, without gaps and overlaps; the window has its length.
    fn check_partition(&self) {
        let n_tokens = self.memory.n_tokens();
        let MemoryConfig { sink_tokens, window_tokens, unit_tokens, .. } = *self.config;
        let start = self.window_start(n_tokens);
        match self.config.attention {
            AttentionMode::Retrieval => {
                let mut end = sink_tokens;
                for unit in 0..self.memory.n_units() {
                    let tokens = self.memory.unit_tokens(unit);
                    assert_eq!((tokens.start, tokens.len()), (end, unit_tokens));
                    end = tokens.end;
                }
                assert_eq!(end, start, "units end where the window begins");
            }
            _ => assert_eq!(self.memory.n_units(), 0),
        }
        if start > sink_tokens {
            let length = n_tokens.max(self.way_end) - start;
            assert!((window_tokens..window_tokens + unit_tokens).contains(&length), "{length}");
        }
    }

    /// Evidence is the squares of the shares that answers gave to the tokens of each unit.
    fn check_evidence(&mut self) {
        let evidence = self.memory.take_evidence();
        assert!(evidence.is_sorted_by(|a, b| a.mass >= b.mass), "heaviest first");
        for unit in 0..self.memory.n_units() {
            let tokens = self.memory.unit_tokens(unit);
            let retrieved = evidence.iter().find(|mass| mass.unit as usize == unit);
            // What was still in the window for some answer tokens counts for those as window.
            let share = |row: &Vec<f32>| -> f64 {
                let end = row.len().min(tokens.end);
                row[tokens.start.min(end)..end].iter().map(|weight| f64::from(*weight)).sum()
            };
            let most: f64 = self.answer_rows.iter().map(|row| share(row).powi(2)).sum();
            let mass = retrieved.map_or(0.0, |UnitMass { mass, .. }| f64::from(*mass));
            assert!(mass <= most * 1.001 + 1e-7, "unit {unit}: {mass} of {most}");
            let was_always_a_unit = unit < self.n_units_before_answers();
            assert!(!was_always_a_unit || mass >= most * 0.999 - 1e-7, "{unit}: {mass} {most}");
        }
        assert!(self.memory.take_evidence().is_empty(), "taken once");
    }

    /// Units that left the window before the last `ANSWER_TOKENS` tokens came.
    fn n_units_before_answers(&self) -> usize {
        let before = self.memory.n_tokens() - ANSWER_TOKENS;
        let start = self.window_start(before);
        (start - self.config.sink_tokens) / self.config.unit_tokens
    }
}

/// Each expected token's weight is about its share, and nothing else has any.
fn check_weights(out: &[f32], weights: &[f32], expected: &BTreeSet<usize>) {
    let share = 1.0 / expected.len() as f32;
    for (index, weight) in weights.iter().enumerate() {
        let times = weight / share;
        let attended = expected.contains(&index);
        let range = if attended { 0.8..1.25 } else { -1e-6..1e-6 };
        assert!(range.contains(&times), "token {index} is attended {times} times ({attended})");
    }
    let total: f32 = out.iter().sum();
    assert!((total - 1.0).abs() < 1e-3, "weights sum to {total}");
}

const ANSWER_TOKENS: usize = 20;

/// A document of random length, a question and an answer.
fn check(config: &MemoryConfig, seed: u64) {
    let random = Random(seed);
    let (backend, memory) = new_memory(config);
    let mut text = Text { config, backend, memory, random, way_end: 0, answer_rows: Vec::new() };
    let n_document = 1 + text.random.below(MAX_TOKENS - ANSWER_TOKENS - 10);
    let mut left = n_document;
    while left > 0 {
        // Whole chunks as a rule, now and then a piece, as when text comes piece by piece.
        let whole = text.random.below(3) > 0;
        let most = config.chunk_tokens.min(left);
        let n_tokens = if whole { most } else { 1 + text.random.below(most) };
        text.chunk(n_tokens, Phase::Reading);
        left -= n_tokens;
    }
    if seed.is_multiple_of(2) {
        let n_tokens = text.random.below(config.window_tokens + 1);
        text.make_way(n_tokens);
    }
    text.chunk(config.ask_chunk_tokens.min(10), Phase::Asking);
    for _ in 0..ANSWER_TOKENS {
        text.chunk(1, Phase::Answering);
    }
    if config.attention == AttentionMode::Retrieval {
        text.check_evidence();
    }
}

fn check_seeds(seeds: std::ops::Range<u64>, change: impl Fn(&mut MemoryConfig)) {
    for seed in seeds {
        let mut random = Random(seed);
        let retrieved_units = random.below(5);
        let mut config = random_config(&mut random, retrieved_units);
        change(&mut config);
        for kv_type in [KvType::F16, KvType::Int8] {
            config.kv_type = kv_type;
            println!("seed {seed}: {config:?}");
            check(&config, seed);
        }
    }
}

#[test]
fn every_past_token_is_attended_exactly_once_or_lies_in_a_unit_not_retrieved() {
    for positions in Positions::ALL {
        check_seeds(0..12, |config| config.positions = positions);
    }
}

#[test]
fn every_past_token_is_attended_exactly_once_when_all_units_are_retrieved() {
    for positions in Positions::ALL {
        check_seeds(100..106, |config| {
            (config.positions, config.retrieved_units) = (positions, 16);
        });
    }
}

#[test]
fn a_window_alone_attends_to_sinks_and_window_exactly_once() {
    check_seeds(200..212, |config| config.attention = AttentionMode::Window);
}

#[test]
fn full_attention_attends_to_every_past_token_exactly_once() {
    check_seeds(300..308, |config| config.attention = AttentionMode::Full);
}
