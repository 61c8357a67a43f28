//! While everything fits, the memory is invisible: it equals full attention, at every length and
//! in any chunks.

use mneme::backend::{KvType, Precision};
use mneme::ids::TokenId;
use mneme::memory::{AttentionMode, MemoryConfig, Phase};
use mneme::tensor::DType;

use super::{random_config, tiny_model};
use crate::fixtures::{
    Random, Runner, TinyModel, gguf_model, largest_difference, random_tokens, typical_difference,
};

/// Largest difference of a logit.
const TOLERANCE: f64 = 1e-3;
/// Typical difference to an oracle that keeps keys and values as f32, not as f16.
const TYPICAL_TO_ORACLE: f64 = 4e-4;
/// Typical difference between memories: sums in another order, and what that does to the rounding
/// of a few keys.
const TYPICAL: f64 = 1e-5;
const ANSWER_TOKENS: usize = 3;

/// A text, and its logits under full attention.
struct Truth {
    tokens: Vec<TokenId>,
    logits: Vec<f32>, // [token][vocab]
    tolerance: f64,
    typical: f64,
}

impl Truth {
    /// By the oracle.
    fn oracle(runner: &mut Runner, n_tokens: usize, seed: u64) -> Self {
        let tokens = random_tokens(n_tokens, runner.transformer.config().vocab_size, seed);
        let logits = runner.full(&tokens, &[]);
        Self { tokens, logits, tolerance: TOLERANCE, typical: TYPICAL_TO_ORACLE }
    }

    /// By a memory that keeps everything in its window.
    fn full_mode(runner: &mut Runner, config: &MemoryConfig, n_tokens: usize, seed: u64) -> Self {
        let tokens = random_tokens(n_tokens, runner.transformer.config().vocab_size, seed);
        let config = MemoryConfig { attention: AttentionMode::Full, ..config.clone() };
        let mut memory = runner.memory(&config);
        let logits = runner.read(&mut memory, &tokens, Phase::Reading);
        Self { tokens, logits, tolerance: TOLERANCE, typical: TYPICAL }
    }

    /// Reads the first `n_tokens` tokens and answers with the next few.
    #[track_caller]
    fn check(&self, runner: &mut Runner, config: &MemoryConfig, n_tokens: usize) {
        let mut memory = runner.memory(config);
        let (text, answer) = self.tokens[..n_tokens + ANSWER_TOKENS].split_at(n_tokens);
        let mut logits = runner.read(&mut memory, text, Phase::Reading);
        logits.extend(runner.read(&mut memory, answer, Phase::Answering));
        assert!(!logits.is_empty());
        let difference = largest_difference(&logits, &self.logits[..logits.len()]);
        let n_units = memory.n_units();
        assert!(difference < self.tolerance, "{n_tokens} tokens, {n_units} units: {difference:e}");
        let difference = typical_difference(&logits, &self.logits[..logits.len()]);
        assert!(difference < self.typical, "{n_tokens} tokens, {n_units} units: {difference:e}");
    }
}

/// A model with soft heads, for the oracle, and one with sharp heads, for the full mode.
fn runners() -> [Runner; 2] {
    let soft = TinyModel { trained_tokens: 4096, seed: 22, ..TinyModel::default() };
    [Runner::of_tiny(&soft), Runner::of_tiny(&tiny_model())]
}

/// `[sinks, window, unit, chunk]`
const SIZES: [[usize; 4]; 5] =
    [[4, 32, 16, 16], [16, 48, 16, 32], [0, 16, 16, 64], [20, 40, 32, 64], [1, 5, 16, 16]];

/// All lengths up to three units past the window: so all borders of sinks, window, units, chunks.
#[test]
fn retrieval_equals_full_attention_at_every_length_while_everything_is_retrieved() {
    let [mut soft, mut sharp] = runners();
    let oracle = Truth::oracle(&mut soft, 210, 1);
    for [sink_tokens, window_tokens, unit_tokens, chunk_tokens] in SIZES {
        let config = MemoryConfig {
            sink_tokens,
            window_tokens,
            unit_tokens,
            chunk_tokens,
            ask_chunk_tokens: 2,
            answer_chunk_tokens: 2,
            retrieved_units: 20,
            kv_type: KvType::F16,
            ..MemoryConfig::default()
        };
        let full = Truth::full_mode(&mut sharp, &config, 210, 1);
        for n_tokens in 1..=sink_tokens + window_tokens + 3 * unit_tokens + 2 {
            oracle.check(&mut soft, &config, n_tokens);
            full.check(&mut sharp, &config, n_tokens);
        }
    }
}

#[test]
fn every_mode_equals_full_attention_until_the_first_unit_leaves_the_window() {
    let [mut soft, mut sharp] = runners();
    let oracle = Truth::oracle(&mut soft, 210, 2);
    for attention in [AttentionMode::Retrieval, AttentionMode::Window, AttentionMode::Full] {
        for [sink_tokens, window_tokens, unit_tokens, chunk_tokens] in SIZES {
            let config = MemoryConfig {
                attention,
                sink_tokens,
                window_tokens,
                unit_tokens,
                chunk_tokens,
                ask_chunk_tokens: 1,
                answer_chunk_tokens: 1,
                retrieved_units: 0,
                kv_type: KvType::F16,
                ..MemoryConfig::default()
            };
            let full = Truth::full_mode(&mut sharp, &config, 210, 2);
            let last = sink_tokens + window_tokens + unit_tokens - ANSWER_TOKENS;
            for n_tokens in [1, sink_tokens.max(1), window_tokens, last - 1, last] {
                oracle.check(&mut soft, &config, n_tokens);
                full.check(&mut sharp, &config, n_tokens);
            }
            if attention == AttentionMode::Full {
                oracle.check(&mut soft, &config, 200);
            }
        }
    }
}

#[test]
fn random_sizes_and_chunks_change_nothing_while_everything_is_retrieved() {
    let [mut soft, mut sharp] = runners();
    let oracle = Truth::oracle(&mut soft, 260, 3);
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut config = random_config(&mut random, 20);
        config.read_query_tokens = config.read_query_tokens.max(1); // or nothing is looked up
        println!("seed {seed}: {config:?}");
        let n_tokens = 1 + random.below(256);
        oracle.check(&mut soft, &config, n_tokens);
        let mut full = Truth::full_mode(&mut sharp, &config, 260, seed);
        full.typical = 1e-4; // in a text of a few tokens one key rounded the other way weighs more
        full.check(&mut sharp, &config, n_tokens);
    }
}

/// Keys and values that are bytes are rounded when they come, so what is kept of a text does not
/// depend on chunks either; a sum in another order may round a few of them the other way.
#[test]
fn bytes_are_kept_alike_whatever_the_chunks_and_the_mode() {
    let [_, mut sharp] = runners();
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut config = random_config(&mut random, 20);
        config.read_query_tokens = config.read_query_tokens.max(1);
        config.kv_type = KvType::Int8;
        println!("seed {seed}: {config:?}");
        let mut full = Truth::full_mode(&mut sharp, &config, 260, seed);
        full.typical = 1e-3;
        full.tolerance = 0.1;
        full.check(&mut sharp, &config, 1 + random.below(256));
    }
}

/// Bit for bit, beyond what fits as well.
#[test]
fn answers_are_the_same_whatever_the_number_of_threads() {
    let mut tiny = tiny_model();
    for dtype in [DType::F32, DType::Q4_1] {
        tiny.dtype = dtype;
        let model = gguf_model(&tiny);
        for (precision, kv_type) in [
            (Precision::F32, KvType::F16),
            (Precision::F32, KvType::Int8),
            (Precision::Int16, KvType::F16),
            (Precision::Int16, KvType::Int8),
            (Precision::Int8, KvType::Int8),
        ] {
            let bits = |n_threads: usize| {
                let mut runner = Runner::new(&model, n_threads, precision);
                let config = MemoryConfig {
                    sink_tokens: 16,
                    window_tokens: 48,
                    unit_tokens: 16,
                    chunk_tokens: 64,
                    retrieved_units: 3,
                    candidates_per_unit: 2,
                    kv_type,
                    ..MemoryConfig::default()
                };
                let mut memory = runner.memory(&config);
                let tokens = random_tokens(420, tiny.vocab_size, 4);
                let mut logits = runner.read(&mut memory, &tokens[..400], Phase::Reading);
                logits.extend(runner.read(&mut memory, &tokens[400..410], Phase::Asking));
                logits.extend(runner.read(&mut memory, &tokens[410..], Phase::Answering));
                logits.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let alone = bits(1);
            for n_threads in [2, 3, 5] {
                assert!(bits(n_threads) == alone, "{n_threads} threads, {dtype}, {precision:?}");
            }
        }
    }
}
