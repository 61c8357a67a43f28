//! A memory that was suspended goes on as if nothing had happened; one that goes back is as if what
//! came later had never been read.

use mneme::backend::KvType;
use mneme::memory::{AttentionMode, LookupPolicy, MemoryConfig, MemoryError, Phase, UnitCuts};

use super::{random_config, tiny_model};
use crate::fixtures::{Random, Runner, random_tokens};

fn config(random: &mut Random) -> MemoryConfig {
    let retrieved_units = 1 + random.below(4);
    MemoryConfig {
        kv_type: KvType::ALL[random.below(3)],
        answer_chunk_tokens: 1 + random.below(3),
        ..random_config(random, retrieved_units)
    }
}

#[test]
fn a_memory_taken_up_again_goes_on_as_if_nothing_had_happened() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    let (mut n_cut, mut n_ahead) = (0, 0);
    for seed in 0..24 {
        let mut random = Random(seed);
        let cuts = [UnitCuts::Fixed, UnitCuts::Sentence][random.below(2)];
        let config = MemoryConfig { unit_cuts: cuts, ..config(&mut random) };
        let config = match config.lookup {
            LookupPolicy::AttentionMass => MemoryConfig { unit_cuts: UnitCuts::Fixed, ..config },
            _ => config,
        };
        n_cut += usize::from(config.unit_cuts != UnitCuts::Fixed);
        let document = random_tokens(random.below(400), tiny.vocab_size, seed);
        let answer = random_tokens(40, tiny.vocab_size, seed + 100);
        let mut memory = runner.memory(&config);
        runner.read(&mut memory, &document, Phase::Reading);
        let begun = random.below(answer.len());
        runner.read(&mut memory, &answer[..begun], Phase::Answering);
        // Suspended twice, since the first time stores pages ahead.
        memory.suspend().unwrap();
        let suspended = memory.suspend().unwrap();
        n_ahead += suspended.n_units - memory.n_units();
        let stores = memory.share_stores().unwrap();
        assert_eq!(
            (stores.units.len(), stores.blocks.len()),
            (suspended.n_units, suspended.n_blocks)
        );
        let mut again = runner.resume(&config, stores, &suspended.state).unwrap();
        assert_eq!(again.n_tokens(), memory.n_tokens());
        assert_eq!(again.n_units(), memory.n_units());
        for (phase, n) in [(Phase::Answering, 20), (Phase::Reading, 150), (Phase::Asking, 30)] {
            let tokens = random_tokens(n, tiny.vocab_size, seed + n as u64);
            let expected = runner.read(&mut memory, &tokens, phase);
            assert!(runner.read(&mut again, &tokens, phase) == expected, "seed {seed}: {config:?}");
        }
    }
    assert!(n_cut > 3 && n_ahead > 10, "{n_cut} {n_ahead}");
}

#[test]
fn a_memory_that_goes_back_is_as_if_what_came_later_had_never_been_read() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    for seed in 0..16 {
        let mut random = Random(seed);
        let config = MemoryConfig {
            attention: AttentionMode::Retrieval,
            kv_type: [KvType::F16, KvType::Int8][random.below(2)],
            unit_cuts: UnitCuts::Fixed,
            ..config(&mut random)
        };
        if config.lookup == LookupPolicy::AttentionMass {
            continue;
        }
        // What is read in chunks is read again in the same ones: lookups are a chunk's.
        let n_kept = random.below(8) * config.chunk_tokens;
        let n_more = random.below(8) * config.chunk_tokens + random.below(30);
        let tokens = random_tokens(n_kept + n_more, tiny.vocab_size, seed);
        let rest = random_tokens(200, tiny.vocab_size, seed + 100);
        let mut fresh = runner.memory(&config);
        runner.read(&mut fresh, &tokens[..n_kept], Phase::Reading);
        let expected = runner.read(&mut fresh, &rest, Phase::Asking);
        let mut memory = runner.memory(&config);
        runner.read(&mut memory, &tokens[..n_kept], Phase::Reading);
        runner.read(&mut memory, &tokens[n_kept..], Phase::Reading);
        memory.rewind(n_kept).unwrap();
        assert_eq!(memory.n_tokens(), n_kept);
        assert!(runner.read(&mut memory, &rest, Phase::Asking) == expected, "seed {seed}");
        assert_eq!(memory.n_units(), fresh.n_units());
        assert_eq!(memory.index_bytes(), fresh.index_bytes());
    }
}

#[test]
fn a_memory_does_not_go_back_to_what_it_does_not_keep() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    let mut random = Random(3);
    let base = MemoryConfig { kv_type: KvType::Int8, ..random_config(&mut random, 2) };
    for config in [
        MemoryConfig { kv_type: KvType::Int4, ..base.clone() },
        MemoryConfig { attention: AttentionMode::Window, ..base.clone() },
        MemoryConfig { unit_cuts: UnitCuts::Sentence, lookup: LookupPolicy::Exact, ..base.clone() },
    ] {
        let mut memory = runner.memory(&config);
        runner.read(&mut memory, &random_tokens(300, tiny.vocab_size, 5), Phase::Reading);
        assert!(memory.rewind(301).is_err(), "not that long");
        let error = memory.rewind(200).unwrap_err();
        assert!(matches!(error, MemoryError::Rewind { n_tokens: 200, .. }), "{error}");
        assert_eq!(memory.n_tokens(), 300, "nothing has changed");
        assert_eq!(memory.rewind(300), Ok(()));
    }
}

/// Bytes that are not what was written are refused; they never make a memory that panics.
#[test]
fn a_state_that_is_cut_off_or_changed_is_refused_or_harmless() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    let mut random = Random(4);
    let config = MemoryConfig { kv_type: KvType::Int8, ..random_config(&mut random, 2) };
    let mut memory = runner.memory(&config);
    runner.read(&mut memory, &random_tokens(333, tiny.vocab_size, 5), Phase::Reading);
    let suspended = memory.suspend().unwrap();
    let state = &suspended.state;
    for n in (0..state.len()).step_by(97).chain(state.len() - 40..state.len()) {
        let stores = memory.share_stores().unwrap();
        assert!(runner.resume(&config, stores, &state[..n]).is_err(), "{n} bytes");
    }
    let mut n_refused = 0;
    for at in (0..state.len().min(200)).chain((200..state.len()).step_by(1009)) {
        let mut changed = state.clone();
        changed[at] ^= 0x55;
        let stores = memory.share_stores().unwrap();
        n_refused += usize::from(runner.resume(&config, stores, &changed).is_err());
    }
    assert!(n_refused > 20, "{n_refused}");
}
