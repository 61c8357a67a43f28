//! A layer retrieves the units that the definition of the two stages names
//! (`kernels::naive::look_up`), with segment means and queries rounded to bytes as the index
//! keeps them.

use kernels::naive::{self, Rotary};
use mneme::attention::{Attention, AttentionError, Qkv};
use mneme::backend::cpu::CpuBackend;
use mneme::ids::LayerIdx;
use mneme::memory::{Memory, MemoryConfig, Phase};

use super::{random_config, tiny_model};
use crate::fixtures::{Random, Runner, TinyModel, random_tokens};

/// Votes closer than this, relatively, may be told apart either way.
const TIE: f64 = 2e-3;

/// A memory that keeps what it is given, and checks each lookup.
struct Witness<'a> {
    memory: Memory<CpuBackend>,
    tiny: &'a TinyModel,
    frequencies: Vec<f64>,
    keys: Vec<Vec<f32>>, // [layer], each [token][kv_head][head_dim]
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
    fn attend(
        &mut self,
        layer: LayerIdx,
        chunk: Qkv<'_, CpuBackend>,
        out: &mut Vec<f32>,
    ) -> Result<(), AttentionError> {
        let (n_tokens, queries) = (chunk.n_tokens, chunk.queries.clone());
        let width = self.tiny.n_kv_heads * self.tiny.head_dim;
        self.keys[layer.0].extend(&chunk.keys[..n_tokens * width]);
        self.memory.attend(layer, chunk, out)?;
        let config = self.memory.config();
        let looks_up = self.phase != Phase::Reading || config.read_query_tokens > 0;
        if looks_up && self.memory.n_units() > config.retrieved_units {
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

    /// Mean queries of groups of tokens while a document is read; all queries otherwise.
    fn grouped(&self, queries: &[f32]) -> Vec<f32> {
        let group = match self.phase {
            Phase::Reading => self.memory.config().read_query_tokens,
            Phase::Asking | Phase::Answering => 1,
        };
        let shape = naive::HeadShape { n_kv_heads: self.tiny.n_heads, ..self.shape() };
        naive::segment_means(queries, shape, group)
    }

    fn check_lookup(&mut self, layer: LayerIdx, queries: &[f32]) {
        let config = self.memory.config();
        let queries = self.grouped(queries);
        // Coarse: means of keys as they are, queries at the far distance, both as bytes.
        let n_units = self.memory.n_units();
        let width = self.tiny.n_kv_heads * self.tiny.head_dim;
        let keys_of = |unit: usize| {
            let tokens = self.memory.unit_tokens(unit);
            &self.keys[layer.0][tokens.start * width..tokens.end * width]
        };
        let head_dim = self.tiny.head_dim;
        let bytes = |x: Vec<f32>| x.chunks_exact(head_dim).flat_map(as_bytes).collect::<Vec<_>>();
        let means = (0..n_units)
            .map(|unit| naive::segment_means(keys_of(unit), self.shape(), config.segment_tokens))
            .map(bytes);
        let far = bytes(self.turned(&queries, config.window_tokens));
        let coarse = vote(self.shape(), &far, &means.collect::<Vec<_>>());
        let n_candidates = config.retrieved_units * config.candidates_per_unit;
        let Some(candidates) = clear_best(&coarse, n_candidates) else {
            self.outcomes.n_ties += 1;
            return;
        };
        // Fine: the candidates' own keys in their places, seen from half a unit beyond.
        let keys = candidates.iter().map(|unit| {
            let keys = keys_of(*unit).chunks_exact(width).enumerate();
            keys.flat_map(|(offset, key)| halved(&self.turned(key, offset))).collect::<Vec<_>>()
        });
        let from = config.window_tokens + config.unit_tokens / 2;
        let near = self.turned(&queries, from);
        let fine = vote(self.shape(), &near, &keys.collect::<Vec<_>>());
        let Some(best) = clear_best(&fine, config.retrieved_units) else {
            self.outcomes.n_ties += 1;
            return;
        };
        let expected: Vec<u32> = best.into_iter().map(|i| candidates[i] as u32).collect();
        assert_eq!(self.memory.retrieved(layer), expected, "{coarse:?} {fine:?}");
        self.outcomes.n_equal += 1;
    }
}

fn vote(shape: naive::HeadShape, queries: &[f32], units: &[Vec<f32>]) -> Vec<f64> {
    let units: Vec<&[f32]> = units.iter().map(Vec::as_slice).collect();
    naive::vote(shape, queries, &units)
}

/// The `n` with the most votes, in order of their place; `None` when the last of them and the
/// first that failed are too close to call.
fn clear_best(votes: &[f64], n: usize) -> Option<Vec<usize>> {
    let order = naive::best_units(votes, votes.len());
    if let (Some(last), Some(failed)) = (order.get(n.wrapping_sub(1)), order.get(n))
        && failed.vote > last.vote * (1.0 - TIE)
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
        let is_reading = phase == Phase::Reading;
        let length = if is_reading { config.chunk_tokens } else { config.answer_chunk_tokens };
        for chunk in part.chunks(length) {
            witness.memory.begin_chunk(chunk.len(), phase).unwrap();
            runner.chunk(chunk, &mut witness);
            witness.memory.end_chunk().unwrap();
        }
    }
    witness.outcomes
}

#[test]
fn layers_retrieve_the_units_that_the_definition_names() {
    let mut runner = Runner::of_tiny(&tiny_model());
    let mut total = Outcomes::default();
    for seed in 0..12 {
        let mut random = Random(seed);
        let retrieved_units = 1 + random.below(4);
        let config = random_config(&mut random, retrieved_units);
        println!("seed {seed}: {config:?}");
        let Outcomes { n_equal, n_ties } = check(&config, &mut runner, seed);
        total.n_equal += n_equal;
        total.n_ties += n_ties;
    }
    println!("{total:?}");
    assert!(total.n_equal > 300, "enough lookups to speak of: {total:?}");
    assert!(total.n_ties < total.n_equal / 4, "most are clear: {total:?}");
}
