//! Does the memory keep its promises? Tiny random models and made-up attention layers, against
//! oracles that know only the definition (DESIGN.md, sections 1 to 3). Sizes are drawn from seeds;
//! a failure names its seed.

mod any_sizes;
mod audit;
mod clusters;
mod definition;
mod equality;
mod fork;
mod lookup;
mod once_only;
mod steps;
mod suspend;

use mneme::backend::KvType;
use mneme::memory::{AttentionMode, LookupPolicy, MemoryConfig, UnitCuts};
use mneme::model::Architecture;

use crate::fixtures::{Random, TinyModel};

/// Every way to choose units.
const LOOKUPS: [LookupPolicy; 6] = [
    LookupPolicy::TwoStage,
    LookupPolicy::Segments,
    LookupPolicy::AttentionMass,
    LookupPolicy::Bound,
    LookupPolicy::Exact,
    LookupPolicy::None,
];

/// A model whose heads attend sharply (Qwen 3 normalises queries and keys), trained far enough for
/// any memory here.
fn tiny_model() -> TinyModel {
    TinyModel { trained_tokens: 4096, seed: 21, ..TinyModel::new(Architecture::Qwen3) }
}

/// Random sizes with units of 16, 32 or 48 tokens, of which `retrieved_units` are retrieved.
fn random_config(random: &mut Random, retrieved_units: usize) -> MemoryConfig {
    let unit_tokens = 16 * (1 + random.below(3));
    let chunk_tokens = unit_tokens * (1 + random.below(3));
    let segments = [1, 2, 4, 8, 16, unit_tokens];
    MemoryConfig {
        attention: AttentionMode::Retrieval,
        sink_tokens: random.below(3 * unit_tokens),
        window_tokens: 1 + random.below(4 * unit_tokens),
        unit_tokens,
        segment_tokens: segments[random.below(segments.len())],
        retrieved_units,
        candidates_per_unit: 1 + random.below(4),
        coarse_sharpness: 1 + random.below(4),
        neighbour_units: 0,
        pin_neighbour_units: 0,
        chunk_tokens,
        ask_chunk_tokens: 1 + random.below(chunk_tokens.min(6)),
        answer_chunk_tokens: 1 + random.below(chunk_tokens.min(6)),
        read_query_tokens: [0, 1, 5, 16][random.below(4)],
        kv_type: KvType::F16, // the oracles keep keys and values as f32
        ..MemoryConfig::default()
    }
}

/// First tokens of the pages after the sinks when `n_tokens` are known, the last of them still open: a
/// page ends before the strongest of `borders` (one before each token) in its last quarter, where it
/// may be cut, as soon as the token after its longest is known.
fn page_starts(config: &MemoryConfig, borders: &[f32], n_tokens: usize) -> Vec<usize> {
    let unit = config.unit_tokens;
    let mut starts = vec![config.sink_tokens];
    while let Some(start) = starts.last().copied().filter(|start| n_tokens > start + unit) {
        let mut end = start + unit;
        if config.unit_cuts != UnitCuts::Fixed {
            for earlier in (start + unit - unit / 4..end).rev() {
                if borders[earlier] > borders[end] {
                    end = earlier;
                }
            }
        }
        starts.push(end);
    }
    starts
}

/// Where the window begins when a chunk begins after `n_tokens` tokens: a unit leaves it as soon
/// as the window and a whole unit remain.
fn window_start(config: &MemoryConfig, starts: &[usize], n_tokens: usize) -> usize {
    let stays = match config.attention {
        AttentionMode::Full | AttentionMode::Clipped => return config.sink_tokens,
        _ => config.window_tokens + config.unit_tokens,
    };
    *starts.iter().find(|start| n_tokens < *start + stays).expect("because the last one is open")
}
