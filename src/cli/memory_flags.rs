//! Flags for the memory's sizes and policies.

use crate::backend::{KvType, Vote};
use crate::memory::{
    AttentionMode, LookupPolicy, MemoryConfig, PinSides, Positions, Sets, UnitCuts,
};

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Memory")]
pub(super) struct MemoryFlags {
    /// What is attended to
    #[arg(long, value_name = "MODE")]
    attention: Option<AttentionMode>,
    /// First tokens, always attended
    #[arg(long, value_name = "N")]
    sink_tokens: Option<usize>,
    /// Recent tokens, always attended
    #[arg(long, value_name = "N")]
    window_tokens: Option<usize>,
    /// Tokens of a unit of distant text; a multiple of 16
    #[arg(long, value_name = "N")]
    unit_tokens: Option<usize>,
    /// Tokens that one key in the index stands for; divides unit-tokens
    #[arg(long, value_name = "N")]
    segment_tokens: Option<usize>,
    /// Where units end
    #[arg(long, value_name = "WHERE")]
    unit_cuts: Option<UnitCuts>,
    /// Units that each layer retrieves
    #[arg(long, value_name = "N")]
    retrieved_units: Option<usize>,
    /// Candidates whose keys are compared one by one, for each unit retrieved
    #[arg(long, value_name = "N")]
    candidates_per_unit: Option<usize>,
    /// Factor on segments' scores before they become votes
    #[arg(long, value_name = "N")]
    coarse_sharpness: Option<usize>,
    /// Who retrieves units together
    #[arg(long, value_name = "WHO")]
    sets: Option<Sets>,
    /// Units that come with a hit, on each side of it and within the budget
    #[arg(long, value_name = "N")]
    neighbour_units: Option<usize>,
    /// Percent of the units that a first pass of a question chooses, for the second and the answer
    #[arg(long, value_name = "N")]
    pinned_percent: Option<usize>,
    /// Percent of what the best unit has: the first pass pins no unit with less
    #[arg(long, value_name = "N")]
    pin_share_percent: Option<usize>,
    /// What words in common with the question count for in the first pass, in percent of what
    /// attention does
    #[arg(long, value_name = "N")]
    pin_words_percent: Option<usize>,
    /// Percent of what speaks for a unit that speaks for those beside it
    #[arg(long, value_name = "N")]
    pin_spread_percent: Option<usize>,
    /// Units that come with a pinned one, on each side of it and within the budget
    #[arg(long, value_name = "N")]
    pin_neighbour_units: Option<usize>,
    /// On which side of a pinned unit those come
    #[arg(long, value_name = "SIDES")]
    pin_sides: Option<PinSides>,
    /// Whether what a neutral question attends to as well does not count [true, false]
    #[arg(long, value_name = "BOOL")]
    pin_contrast: Option<bool>,
    /// Units that are looked up besides those pinned
    #[arg(long, value_name = "N")]
    unpinned_units: Option<usize>,
    /// Units whose keys each lookup of that first pass compares, at most
    #[arg(long, value_name = "N")]
    pin_candidates: Option<usize>,
    /// Passages of a document that a first pass compares, to answer from the best of them, read again
    #[arg(long, value_name = "N")]
    read_again_passages: Option<usize>,
    /// Percent of what speaks for the best of them: those for which less does are not compared
    #[arg(long, value_name = "N")]
    passage_share_percent: Option<usize>,
    /// Tokens of such a passage at most
    #[arg(long, value_name = "N")]
    passage_tokens: Option<usize>,
    /// Thousandths of the votes that are enough: no more units are retrieved than have so many
    #[arg(long, value_name = "N")]
    vote_permille: Option<usize>,
    /// Layers, from the first on, that retrieve first-layer-units instead of retrieved-units
    #[arg(long, value_name = "N")]
    first_layers: Option<usize>,
    /// Units that each of the first layers retrieves
    #[arg(long, value_name = "N")]
    first_layer_units: Option<usize>,
    /// Neighbouring layers that share one lookup
    #[arg(long, value_name = "N")]
    lookup_layers: Option<usize>,
    /// Tokens read at once; a multiple of unit-tokens
    #[arg(long, value_name = "N")]
    chunk_tokens: Option<usize>,
    /// Tokens of a question taken in at once; each such chunk looks up units
    #[arg(long, value_name = "N")]
    ask_chunk_tokens: Option<usize>,
    /// Tokens of an answer that share one lookup
    #[arg(long, value_name = "N")]
    answer_chunk_tokens: Option<usize>,
    /// While reading: tokens that look up units together; 0 looks up nothing
    #[arg(long, value_name = "N")]
    read_query_tokens: Option<usize>,
    /// While a question is taken in: tokens that look up units together
    #[arg(long, value_name = "N")]
    ask_query_tokens: Option<usize>,
    /// By what units are chosen
    #[arg(long, value_name = "POLICY")]
    lookup: Option<LookupPolicy>,
    /// What the scores of a head count for
    #[arg(long, value_name = "VOTE")]
    vote: Option<Vote>,
    /// Tokens in units from which on the index is clustered; 0 never clusters
    #[arg(long, value_name = "N")]
    cluster_from_tokens: Option<usize>,
    /// Units that are clustered together
    #[arg(long, value_name = "N")]
    cluster_span_units: Option<usize>,
    /// Bytes of memory for lists and graphs; units for which there is no more are scanned
    #[arg(long, value_name = "N")]
    cluster_bytes: Option<usize>,
    /// Segments of a list, on average
    #[arg(long, value_name = "N")]
    list_segments: Option<usize>,
    /// Lists that each query scans
    #[arg(long, value_name = "N")]
    probed_lists: Option<usize>,
    /// Lists from which on a graph finds them
    #[arg(long, value_name = "N")]
    graph_from_lists: Option<usize>,
    /// With --attention clipped: the distance that nothing exceeds
    #[arg(long, value_name = "N")]
    clip_tokens: Option<usize>,
    /// At which positions retrieved units are read
    #[arg(long, value_name = "WHERE")]
    positions: Option<Positions>,
    /// How keys and values are kept
    #[arg(long, value_name = "TYPE")]
    kv_type: Option<KvType>,
}

impl MemoryFlags {
    pub fn change(&self, memory: &mut MemoryConfig) {
        put(&mut memory.attention, &self.attention);
        put(&mut memory.sink_tokens, &self.sink_tokens);
        put(&mut memory.window_tokens, &self.window_tokens);
        put(&mut memory.unit_tokens, &self.unit_tokens);
        put(&mut memory.unit_cuts, &self.unit_cuts);
        put(&mut memory.segment_tokens, &self.segment_tokens);
        put(&mut memory.retrieved_units, &self.retrieved_units);
        put(&mut memory.candidates_per_unit, &self.candidates_per_unit);
        put(&mut memory.coarse_sharpness, &self.coarse_sharpness);
        put(&mut memory.sets, &self.sets);
        put(&mut memory.neighbour_units, &self.neighbour_units);
        put(&mut memory.pinned_percent, &self.pinned_percent);
        put(&mut memory.pin_share_percent, &self.pin_share_percent);
        put(&mut memory.pin_words_percent, &self.pin_words_percent);
        put(&mut memory.pin_spread_percent, &self.pin_spread_percent);
        put(&mut memory.pin_neighbour_units, &self.pin_neighbour_units);
        put(&mut memory.pin_sides, &self.pin_sides);
        put(&mut memory.pin_contrast, &self.pin_contrast);
        put(&mut memory.unpinned_units, &self.unpinned_units);
        put(&mut memory.pin_candidates, &self.pin_candidates);
        put(&mut memory.read_again_passages, &self.read_again_passages);
        put(&mut memory.passage_share_percent, &self.passage_share_percent);
        put(&mut memory.passage_tokens, &self.passage_tokens);
        put(&mut memory.vote_permille, &self.vote_permille);
        put(&mut memory.first_layers, &self.first_layers);
        put(&mut memory.first_layer_units, &self.first_layer_units);
        put(&mut memory.lookup_layers, &self.lookup_layers);
        put(&mut memory.chunk_tokens, &self.chunk_tokens);
        put(&mut memory.ask_chunk_tokens, &self.ask_chunk_tokens);
        put(&mut memory.answer_chunk_tokens, &self.answer_chunk_tokens);
        put(&mut memory.read_query_tokens, &self.read_query_tokens);
        put(&mut memory.ask_query_tokens, &self.ask_query_tokens);
        put(&mut memory.lookup, &self.lookup);
        put(&mut memory.vote, &self.vote);
        put(&mut memory.cluster_from_tokens, &self.cluster_from_tokens);
        put(&mut memory.cluster_span_units, &self.cluster_span_units);
        put(&mut memory.cluster_bytes, &self.cluster_bytes);
        put(&mut memory.list_segments, &self.list_segments);
        put(&mut memory.probed_lists, &self.probed_lists);
        put(&mut memory.graph_from_lists, &self.graph_from_lists);
        put(&mut memory.clip_tokens, &self.clip_tokens);
        put(&mut memory.positions, &self.positions);
        put(&mut memory.kv_type, &self.kv_type);
    }
}

pub(super) fn put<T: Clone>(setting: &mut T, flag: &Option<T>) {
    if let Some(value) = flag {
        setting.clone_from(value);
    }
}
