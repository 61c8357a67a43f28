//! A step of decoding allocates nothing once it is warm.

use mneme::backend::Precision;
use mneme::memory::{MemoryConfig, Phase, Positions};
use mneme::tensor::DType;

use super::tiny_model;
use crate::allocation::peak_bytes;
use crate::fixtures::{Runner, TinyModel, gguf_model, random_tokens};

/// Steps that seal a unit may allocate (the unit itself, its index), and the step after may make
/// room for one more unit's votes.
#[test]
fn a_warm_decode_step_allocates_nothing_unless_a_unit_was_sealed() {
    for positions in Positions::ALL {
        for precision in [Precision::F32, Precision::Int16, Precision::Int8] {
            let tiny = TinyModel { dtype: DType::Q4_1, ..tiny_model() };
            let mut runner = Runner::new(&gguf_model(&tiny), 1, precision);
            let config = MemoryConfig {
                sink_tokens: 8,
                window_tokens: 40,
                unit_tokens: 16,
                chunk_tokens: 64,
                retrieved_units: 3,
                candidates_per_unit: 2,
                positions,
                ..MemoryConfig::default()
            };
            let mut memory = runner.memory(&config);
            let tokens = random_tokens(500, tiny.vocab_size, 1);
            runner.read(&mut memory, &tokens[..400], Phase::Reading);
            runner.read(&mut memory, &tokens[400..440], Phase::Answering);
            let mut logits = vec![0.0; tiny.vocab_size];
            let (mut n_quiet, mut n_units) = (0, memory.n_units());
            for token in tokens[440..].chunks(1) {
                let ((), peak) = peak_bytes(|| {
                    memory.begin_chunk(1, Phase::Answering).unwrap();
                    runner.step(token, &mut memory, &mut logits);
                    memory.end_chunk().unwrap();
                });
                let was_quiet = memory.n_units() == n_units;
                if was_quiet && n_quiet > 0 {
                    assert_eq!(peak, 0, "after {} tokens, {precision:?}", memory.n_tokens());
                }
                n_quiet = if was_quiet { n_quiet + 1 } else { 0 };
                n_units = memory.n_units();
            }
            assert!(n_units >= 26, "{n_units} units");
        }
    }
}
