//! Whatever sizes are valid work: no panic, no number that is not one.

use mneme::backend::{KvType, Precision, Vote};
use mneme::memory::{AttentionMode, MemoryConfig, Phase, PinSides, Positions, Sets, UnitCuts};
use mneme::model::Architecture;

use super::LOOKUPS;
use crate::fixtures::{Random, Runner, TinyModel, gguf_model, random_tokens};

/// Sizes without regard for whether they fit together.
fn any_config(random: &mut Random) -> MemoryConfig {
    let unit_tokens = 8 * (1 + random.below(10));
    MemoryConfig {
        attention: [
            AttentionMode::Retrieval,
            AttentionMode::Window,
            AttentionMode::Full,
            AttentionMode::Clipped,
        ][random.below(9).saturating_sub(5)],
        sink_tokens: random.below(100),
        window_tokens: random.below(200),
        unit_tokens,
        segment_tokens: 1 + random.below(unit_tokens),
        retrieved_units: random.below(12),
        candidates_per_unit: random.below(8),
        coarse_sharpness: random.below(6),
        unit_cuts: [UnitCuts::Fixed, UnitCuts::Sentence, UnitCuts::Surprise][random.below(3)],
        sets: [Sets::Layer, Sets::KvHead][random.below(2)],
        neighbour_units: random.below(4).saturating_sub(1),
        pinned_percent: random.below(120),
        pin_share_percent: random.below(110),
        pin_words_percent: random.below(300),
        pin_spread_percent: random.below(110),
        pin_neighbour_units: random.below(4).saturating_sub(1),
        pin_sides: [PinSides::Both, PinSides::Words][random.below(2)],
        pin_contrast: random.below(2) == 0,
        unpinned_units: random.below(3),
        pin_candidates: random.below(40),
        read_again_passages: random.below(4),
        passage_share_percent: random.below(110),
        passage_tokens: 8 + random.below(80),
        vote_permille: [1000, 1000, 900, 400][random.below(4)],
        first_layers: random.below(5).saturating_sub(2),
        first_layer_units: random.below(12),
        lookup_layers: 1 + random.below(5).saturating_sub(2),
        chunk_tokens: unit_tokens * random.below(5),
        ask_chunk_tokens: random.below(20),
        answer_chunk_tokens: random.below(20),
        read_query_tokens: random.below(40),
        ask_query_tokens: random.below(5),
        lookup: LOOKUPS[random.below(6)],
        vote: [Vote::Soft, Vote::Raw][random.below(2)],
        cluster_from_tokens: [0, 1, 300][random.below(3)],
        cluster_span_units: 16 * (random.below(3) + random.below(2)).min(2),
        cluster_bytes: [0, 1 << 14, usize::MAX][random.below(3)],
        list_segments: 1 + random.below(40),
        probed_lists: 1 + random.below(5),
        graph_from_lists: 1 + random.below(20),
        clip_tokens: random.below(600),
        positions: Positions::ALL[random.below(4)],
        kv_type: KvType::ALL[random.below(3)],
    }
}

#[test]
fn any_valid_sizes_run_to_the_end_with_finite_logits() {
    let trained_tokens = 512;
    let models = [
        TinyModel { trained_tokens, ..TinyModel::new(Architecture::Llama) },
        TinyModel { trained_tokens, n_kv_heads: 1, ..TinyModel::new(Architecture::Qwen2) },
        TinyModel { trained_tokens, n_kv_heads: 4, ..TinyModel::new(Architecture::Qwen3) },
    ];
    let mut runners = models.map(|tiny| Runner::new(&gguf_model(&tiny), 2, Precision::default()));
    let mut n_run = 0;
    for seed in 0..4000 {
        let mut random = Random(seed);
        let config = any_config(&mut random);
        if config.validate(trained_tokens).is_err() {
            continue;
        }
        println!("seed {seed}: {config:?}");
        let runner = &mut runners[random.below(3)];
        let mut memory = runner.memory(&config);
        let mut n_tokens = 0;
        for _ in 0..1 + random.below(6) {
            let phase = [Phase::Reading, Phase::Asking, Phase::Answering][random.below(3)];
            let most = if phase == Phase::Reading { 400 } else { 30 };
            let tokens = random_tokens(random.below(most), 288, random.bits());
            if phase == Phase::Asking {
                memory.make_way(random.below(2 * tokens.len() + 60)).unwrap();
            }
            let logits = runner.read(&mut memory, &tokens, phase);
            assert!(logits.iter().all(|x| x.is_finite()), "seed {seed}");
            n_tokens += tokens.len();
            assert_eq!(memory.n_tokens(), n_tokens);
            let limit = config.max_attended_tokens().unwrap_or(n_tokens);
            assert!(memory.max_attended_tokens() <= limit, "seed {seed}: {limit}");
        }
        let evidence = memory.take_evidence();
        assert!(evidence.iter().all(|unit| unit.mass > 0.0 && unit.mass.is_finite()));
        assert!(evidence.iter().all(|unit| (unit.unit as usize) < memory.n_units()));
        n_run += 1;
    }
    assert!(n_run > 40, "{n_run} of the sizes were valid");
}
