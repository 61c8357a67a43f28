//! A clustered index whose every list is scanned chooses what the exact one chooses; one of which few
//! are scanned chooses among what it reads.

use mneme::memory::{LookupPolicy, MemoryConfig, Phase};

use super::{random_config, tiny_model};
use crate::fixtures::{Random, Runner, random_tokens};

const TRAINED: usize = 4096;
const N_DOCUMENT: usize = 1500;

fn clustered(config: &MemoryConfig, probed_lists: usize, graph_from_lists: usize) -> MemoryConfig {
    MemoryConfig {
        cluster_from_tokens: 1,
        cluster_span_units: 16,
        list_segments: 5,
        probed_lists,
        graph_from_lists,
        ..config.clone()
    }
}

/// Settings whose lookups scan all units; chunks are of `chunk_tokens`.
fn scanned(chunk_tokens: usize) -> MemoryConfig {
    MemoryConfig {
        lookup: LookupPolicy::TwoStage,
        unit_tokens: 16,
        segment_tokens: 4,
        chunk_tokens,
        read_query_tokens: 0,
        candidates_per_unit: 1,
        ..random_config(&mut Random(5), 3)
    }
}

#[test]
fn all_lists_together_are_the_exact_index() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    for seed in 0..4 {
        let mut random = Random(seed);
        let lookup = [LookupPolicy::TwoStage, LookupPolicy::Segments][random.below(2)];
        let base = MemoryConfig { lookup, unit_tokens: 16, ..random_config(&mut random, 3) };
        let base = MemoryConfig {
            segment_tokens: [2, 4, 8][random.below(3)],
            chunk_tokens: 48,
            read_query_tokens: 0,
            cluster_from_tokens: 0,
            ..base
        };
        let tokens = random_tokens(N_DOCUMENT + 6, tiny.vocab_size, seed);
        let mut memory = runner.memory(&base);
        runner.read(&mut memory, &tokens[..N_DOCUMENT], Phase::Reading);
        let n_spans = memory.n_units() / 16;
        assert!(n_spans > 3, "{n_spans}");
        let configs = [
            base.clone(),
            clustered(&base, usize::MAX, usize::MAX),
            clustered(&base, 4000, 1),
            clustered(&base, 2, usize::MAX),
        ];
        let mut trials = configs.map(|config| memory.trial(config, TRAINED).unwrap());
        let mut audit = memory.audit(&mut trials, (&base, TRAINED)).unwrap();
        for (n_tokens, phase) in [(3, Phase::Asking), (1, Phase::Answering), (2, Phase::Answering)]
        {
            let at = audit.oracle().n_tokens();
            audit.begin_chunk(n_tokens, phase).unwrap();
            runner.chunk(&tokens[at..at + n_tokens], &mut audit);
            audit.end_chunk().unwrap();
        }
        let [exact, all, by_graph, few] = trials.map(|trial| trial.recall());
        let found = |recall: mneme::memory::Recall| (recall.overlap, recall.mass);
        assert_eq!(found(all), found(exact), "seed {seed}");
        assert_eq!(found(by_graph), found(exact), "seed {seed}");
        assert!(few.mass > 0.0 && found(few) != found(exact), "seed {seed}: {few:?} {exact:?}");
    }
}

/// Once all units were clustered, just as many as spans hold, there was nothing left to scan whole, and
/// the lookup divided by zero.
#[test]
fn units_may_all_be_in_lists() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    let base = scanned(16);
    let tokens = random_tokens(N_DOCUMENT, tiny.vocab_size, 5);
    let mut memory = runner.memory(&base);
    let mut chunks = tokens.chunks(16);
    while memory.n_units() < 32 {
        runner.read(&mut memory, chunks.next().unwrap(), Phase::Reading);
    }
    assert_eq!(memory.n_units(), 32, "two spans of sixteen");
    let configs = [base.clone(), clustered(&base, usize::MAX, usize::MAX)];
    let mut trials = configs.map(|config| memory.trial(config, TRAINED).unwrap());
    let mut audit = memory.audit(&mut trials, (&base, TRAINED)).unwrap();
    audit.begin_chunk(3, Phase::Asking).unwrap();
    runner.chunk(&random_tokens(3, tiny.vocab_size, 6), &mut audit);
    audit.end_chunk().unwrap();
    let [exact, all] = trials.map(|trial| trial.recall());
    assert_eq!((all.overlap, all.mass), (exact.overlap, exact.mass));
    assert!(all.mass > 0.0);
}

/// A memory whose index is clustered while it reads goes on as a fork of it does, each with units of
/// its own.
#[test]
fn forks_share_what_is_clustered_and_go_their_own_ways() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    let mut random = Random(9);
    let base = MemoryConfig {
        unit_tokens: 16,
        segment_tokens: 4,
        chunk_tokens: 48,
        read_query_tokens: 16,
        ..random_config(&mut random, 3)
    };
    let config = clustered(&base, usize::MAX, 1);
    let tokens = random_tokens(N_DOCUMENT, tiny.vocab_size, 9);
    let other = random_tokens(N_DOCUMENT, tiny.vocab_size, 10);
    let mut memory = runner.memory(&config);
    runner.read(&mut memory, &tokens[..N_DOCUMENT / 2], Phase::Reading);
    let mut fork = memory.fork(config, TRAINED).unwrap();
    let expected = runner.read(&mut memory, &tokens[N_DOCUMENT / 2..], Phase::Reading);
    runner.read(&mut fork.fork(base, TRAINED).unwrap(), &other, Phase::Reading);
    let found = runner.read(&mut fork, &tokens[N_DOCUMENT / 2..], Phase::Reading);
    assert_eq!(found, expected, "all lists are scanned, whenever they were made");
}

/// What no memory is left for is scanned whole, and found as well.
#[test]
fn lists_take_no_more_memory_than_they_may() {
    let tiny = tiny_model();
    let mut runner = Runner::of_tiny(&tiny);
    let base = scanned(48);
    let tokens = random_tokens(N_DOCUMENT + 3, tiny.vocab_size, 5);
    let mut memory = runner.memory(&base);
    runner.read(&mut memory, &tokens[..N_DOCUMENT], Phase::Reading);
    let within = |cluster_bytes| MemoryConfig { cluster_bytes, ..clustered(&base, usize::MAX, 1) };
    let trial = |config| memory.trial(config, TRAINED).unwrap();
    let [nothing, all] = [0, usize::MAX].map(|bytes| trial(within(bytes)).index_bytes());
    let half = (all - nothing) / 2;
    let mut trials = [base.clone(), within(0), within(half), within(usize::MAX)].map(trial);
    let bytes = trials.each_ref().map(|trial| trial.index_bytes());
    assert_eq!(bytes[1], bytes[0], "no lists");
    assert!(bytes[2] > bytes[1] && bytes[2] <= bytes[1] + half, "{bytes:?}");
    assert!(bytes[3] > bytes[2], "{bytes:?}");
    let mut audit = memory.audit(&mut trials, (&base, TRAINED)).unwrap();
    audit.begin_chunk(3, Phase::Asking).unwrap();
    runner.chunk(&tokens[N_DOCUMENT..], &mut audit);
    audit.end_chunk().unwrap();
    let recalls = trials.map(|trial| (trial.recall().overlap, trial.recall().mass));
    assert!(recalls.iter().all(|found| *found == recalls[0]), "{recalls:?}");
}
