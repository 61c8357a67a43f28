//! A fork answers as what it came from would have, and neither notices what the other does.

use mneme::ids::{LayerIdx, TokenId};
use mneme::memory::{
    AttentionMode, LookupPolicy, MemoryConfig, MemoryError, Phase, Positions, Sets,
};

use super::{LOOKUPS, random_config, tiny_model};
use crate::fixtures::{Random, Runner, random_tokens};

const TRAINED: usize = 4096;

fn config(seed: u64) -> MemoryConfig {
    let mut random = Random(seed);
    let retrieved_units = 1 + random.below(4);
    random_config(&mut random, retrieved_units)
}

fn tokens(n: usize, seed: u64) -> Vec<TokenId> {
    random_tokens(n, tiny_model().vocab_size, seed)
}

#[test]
fn a_fork_and_its_original_each_go_on_as_if_alone() {
    let mut runner = Runner::of_tiny(&tiny_model());
    for seed in 0..8 {
        let config = config(seed);
        // Forked within an answer, whose next token may share a lookup with the last.
        let begun = tokens(1, seed + 7);
        let (document, left, right) = (tokens(300, seed), tokens(90, seed + 50), tokens(90, 99));
        let mut alone = |rest: &[TokenId]| -> Vec<f32> {
            let mut memory = runner.memory(&config);
            runner.read(&mut memory, &document, Phase::Reading);
            runner.read(&mut memory, &begun, Phase::Answering);
            let parts = rest.chunks(10);
            parts.flat_map(|part| runner.read(&mut memory, part, Phase::Answering)).collect()
        };
        let expected = (alone(&left), alone(&right));
        let mut memory = runner.memory(&config);
        runner.read(&mut memory, &document, Phase::Reading);
        runner.read(&mut memory, &begun, Phase::Answering);
        let mut fork = memory.fork(config.clone(), TRAINED).unwrap();
        assert_eq!(fork.max_attended_tokens(), memory.max_attended_tokens());
        let mut found = (Vec::new(), Vec::new());
        for (left, right) in left.chunks(10).zip(right.chunks(10)) {
            found.0.extend(runner.read(&mut memory, left, Phase::Answering));
            found.1.extend(runner.read(&mut fork, right, Phase::Answering));
        }
        assert!(found == expected, "seed {seed}: {config:?}");
        let (evidence, forked) = (memory.take_evidence(), fork.take_evidence());
        assert!(config.attention != AttentionMode::Retrieval || !evidence.is_empty());
        assert_ne!(evidence, forked, "each has its own answer's");
    }
}

#[test]
fn a_fork_with_another_policy_answers_as_if_the_text_had_been_read_for_it() {
    let mut runner = Runner::of_tiny(&tiny_model());
    for seed in 0..8 {
        let read_with = MemoryConfig { read_query_tokens: 0, ..config(seed) };
        // Which keys were attended to cannot be known afterwards.
        for lookup in LOOKUPS.into_iter().filter(|it| *it != LookupPolicy::AttentionMass) {
            let other = MemoryConfig {
                lookup,
                segment_tokens: read_with.unit_tokens,
                positions: Positions::Edge,
                sets: [Sets::Layer, Sets::KvHead][seed as usize % 2],
                ..read_with.clone()
            };
            let (document, answer) = (tokens(300, seed), tokens(20, seed + 50));
            let mut memory = runner.memory(&other);
            runner.read(&mut memory, &document, Phase::Reading);
            let expected = runner.read(&mut memory, &answer, Phase::Asking);

            let mut original = runner.memory(&read_with);
            runner.read(&mut original, &document, Phase::Reading);
            let mut fork = original.fork(other.clone(), TRAINED).unwrap();
            let found = runner.read(&mut fork, &answer, Phase::Asking);
            assert_eq!(fork.retrieved(LayerIdx(1), 0), memory.retrieved(LayerIdx(1), 0));
            assert!(found == expected, "seed {seed}: {other:?}");
        }
    }
}

#[test]
fn what_has_shaped_the_memory_cannot_be_changed_by_a_fork() {
    let config = config(0);
    let memory = Runner::of_tiny(&tiny_model()).memory(&config);
    let unit_tokens = config.unit_tokens + 16;
    let chunk_tokens = 2 * unit_tokens;
    let changed = [
        (
            "unit-tokens",
            MemoryConfig { unit_tokens, chunk_tokens, segment_tokens: 1, ..config.clone() },
        ),
        (
            "window-tokens",
            MemoryConfig { window_tokens: 7 + config.window_tokens, ..config.clone() },
        ),
        ("lookup", MemoryConfig { lookup: LookupPolicy::AttentionMass, ..config.clone() }),
        ("sink-tokens", MemoryConfig { sink_tokens: 7 + config.sink_tokens, ..config.clone() }),
    ];
    for (name, changed) in changed {
        let Err(error) = memory.fork(changed, TRAINED) else { panic!("{name} was changed") };
        assert_eq!(error, MemoryError::Differs { name });
        assert!(error.to_string().contains(name), "{error}");
    }
    let invalid = MemoryConfig { segment_tokens: 0, lookup: LookupPolicy::Exact, ..config };
    assert!(matches!(memory.fork(invalid, TRAINED), Err(MemoryError::Config(_))));
}
