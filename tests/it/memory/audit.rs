//! What an audit says of lookups is what plain loops over all keys say.

use kernels::naive::{self, Rotary};
use mneme::attention::{Attention, AttentionError, Qkv};
use mneme::backend::cpu::{CpuBackend, HostBytes};
use mneme::backend::{AttendStep, PageTarget, StepDone};
use mneme::ids::LayerIdx;
use mneme::memory::{Audit, LookupPolicy, MemoryConfig, Phase};

use super::{random_config, tiny_model};
use crate::fixtures::{Random, Runner, TinyModel, random_tokens};

const TRAINED: usize = 4096;
const N_DOCUMENT: usize = 400;

/// Keeps the document's keys as they come.
struct Keys<'a>(&'a mut dyn Attention<CpuBackend>, Vec<Vec<f32>>);

impl Attention<CpuBackend> for Keys<'_> {
    fn targets<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        out: &mut Vec<PageTarget<'a, HostBytes>>,
    ) {
        self.0.targets(layer, chunk, out);
    }

    fn begin_layer<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        out: &mut Vec<f32>,
    ) -> Result<Option<AttendStep<'a, HostBytes>>, AttentionError> {
        let TinyModel { n_kv_heads, head_dim, .. } = tiny_model();
        self.1[layer.0].extend(&chunk.keys[..chunk.n_tokens() * n_kv_heads * head_dim]);
        self.0.begin_layer(layer, chunk, out)
    }

    fn end_layer(
        &mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        done: Option<StepDone<HostBytes>>,
    ) -> Result<(), AttentionError> {
        self.0.end_layer(layer, chunk, done)
    }
}

/// Adds up, for each lookup, the attention that the oracle's units have.
struct Naive<'a, 'b> {
    audit: &'a mut Audit<'b, CpuBackend>,
    keys: &'a [Vec<f32>], // [layer], each [token][kv_head][head_dim]
    frequencies: Vec<f64>,
    oracle_mass: f64,
}

impl Attention<CpuBackend> for Naive<'_, '_> {
    fn targets<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        out: &mut Vec<PageTarget<'a, HostBytes>>,
    ) {
        self.audit.targets(layer, chunk, out);
    }

    fn begin_layer<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        out: &mut Vec<f32>,
    ) -> Result<Option<AttendStep<'a, HostBytes>>, AttentionError> {
        self.audit.begin_layer(layer, chunk, out)
    }

    fn end_layer(
        &mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, CpuBackend>,
        done: Option<StepDone<HostBytes>>,
    ) -> Result<(), AttentionError> {
        let TinyModel { n_heads, n_kv_heads, head_dim, .. } = tiny_model();
        let (queries, n_tokens) = (chunk.queries.clone(), chunk.n_tokens());
        self.audit.end_layer(layer, chunk, done)?;
        let oracle = self.audit.oracle();
        let layout = naive::PairLayout::Half;
        let rotary = Rotary { inverse_frequencies: &self.frequencies, magnitude: 1.0, layout };
        let first = oracle.unit_tokens(0).start;
        let last = oracle.unit_tokens(oracle.n_units() - 1).end;
        for row in 0..n_tokens * n_heads {
            let kv_head = row % n_heads / (n_heads / n_kv_heads);
            let query = &queries[row * head_dim..][..head_dim];
            let query = rotary.rotate(query, oracle.config().window_tokens);
            let scores = (first..last).map(|token| {
                let at = (token * n_kv_heads + kv_head) * head_dim;
                naive::dot(&query, &self.keys[layer.0][at..][..head_dim]) / (head_dim as f64).sqrt()
            });
            let shares = naive::softmax(&scores.collect::<Vec<_>>());
            let mass = oracle.retrieved(layer, kv_head).iter().map(|unit| {
                let tokens = oracle.unit_tokens(*unit as usize);
                shares[tokens.start - first..tokens.end - first].iter().sum::<f64>()
            });
            self.oracle_mass += mass.sum::<f64>() / (n_tokens * n_heads) as f64;
        }
        Ok(())
    }
}

#[test]
fn masses_and_overlaps_are_what_loops_over_all_keys_say() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    for seed in 0..6 {
        let mut random = Random(seed);
        let config = MemoryConfig { read_query_tokens: 0, ..random_config(&mut random, 3) };
        let tokens = random_tokens(N_DOCUMENT + 6, tiny.vocab_size, seed);
        let mut memory = runner.memory(&config);
        let mut keys = vec![Vec::new(); tiny.n_layers];
        for chunk in tokens[..N_DOCUMENT].chunks(config.chunk_tokens) {
            memory.begin_chunk(chunk.len(), Phase::Reading).unwrap();
            let mut keeping = Keys(&mut memory, std::mem::take(&mut keys));
            runner.chunk(chunk, &mut keeping);
            keys = keeping.1;
            memory.end_chunk().unwrap();
        }
        let n_units = memory.n_units();
        let trial = |lookup, retrieved_units| {
            let config = MemoryConfig { lookup, retrieved_units, ..config.clone() };
            memory.trial(config, TRAINED).unwrap()
        };
        let mut trials = [
            trial(LookupPolicy::Exact, 3),
            trial(LookupPolicy::Segments, 3),
            trial(LookupPolicy::Exact, n_units + 6), // some may be sealed meanwhile
            trial(LookupPolicy::None, 3),
        ];
        let mut audit = memory.audit(&mut trials, (&config, TRAINED)).unwrap();
        let frequencies = runner.transformer.config().rope.inverse_frequencies.clone();
        let mut naive = Naive { audit: &mut audit, keys: &keys, frequencies, oracle_mass: 0.0 };
        for (chunk, phase) in [(3, Phase::Asking), (1, Phase::Answering), (2, Phase::Answering)] {
            let at = naive.audit.oracle().n_tokens();
            naive.audit.begin_chunk(chunk, phase).unwrap();
            runner.chunk(&tokens[at..at + chunk], &mut naive);
            naive.audit.end_chunk().unwrap();
        }
        let expected = naive.oracle_mass;
        let [exact, segments, all, none] = trials.map(|trial| trial.recall());
        let n = (3 * tiny.n_layers) as f64;
        assert_eq!((exact.n_lookups, exact.overlap), (3 * tiny.n_layers, n));
        assert!((exact.mass - expected).abs() < 1e-3 * n, "{exact:?} {expected}");
        assert_eq!((exact.mass, segments.oracle_mass), (exact.oracle_mass, exact.oracle_mass));
        assert!(segments.overlap < 0.95 * n && segments.overlap > 0.05 * n, "{segments:?}");
        assert!(segments.mass > 0.0 && segments.mass < n, "{segments:?}");
        assert!(segments.bytes < exact.bytes, "{segments:?}");
        assert!((all.mass - n).abs() < 1e-3 * n && all.overlap == n, "{all:?}");
        assert_eq!((none.mass, none.overlap, none.bytes), (0.0, 0.0, 0));
    }
}
