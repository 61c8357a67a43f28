//! How large is each part of the memory, and does that fit the model?

use serde::{Deserialize, Serialize};

use crate::backend::{KvType, Representatives, Vote};

/// What distant context becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttentionMode {
    /// Units, of which each layer retrieves those that matter to the query.
    #[default]
    Retrieval,
    /// Nothing: sinks and window only (StreamingLLM, arXiv 2309.17453).
    Window,
    /// It stays in the window: every key is attended at its true position. The oracle.
    Full,
    /// The same, but what is further away than `clip_tokens` is attended as if it were just so far:
    /// what a model can do with every key at distances that it knows. By pages of a unit's length.
    Clipped,
}

/// By what a layer chooses the units that it retrieves (DESIGN.md, section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LookupPolicy {
    /// Segments' mean keys name candidates, of which the best exact key decides.
    #[default]
    TwoStage,
    /// Segments' mean keys alone.
    Segments,
    /// The mean of the keys of a unit that received the most attention while they were in the
    /// window (InfLLM, arXiv 2402.04617; by KV head, not by query head). Shapes what is remembered
    /// of a unit, so it has to be chosen before the text is read.
    AttentionMass,
    /// Segments' largest and smallest elements: what no key of them exceeds (Quest, arXiv
    /// 2406.10774).
    Bound,
    /// The best exact key of every unit: reads all keys. The oracle of the others.
    Exact,
    /// Nothing is retrieved (StreamingLLM, arXiv 2309.17453), though units are kept.
    None,
}

/// Where a unit ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitCuts {
    /// After `unit_tokens`.
    #[default]
    Fixed,
    /// At the end of a line, a sentence or a clause, after three quarters of them or later.
    Sentence,
    /// Before the token that surprised the model most, likewise (EM-LLM, arXiv 2407.09450). All
    /// tokens read are scored for it.
    Surprise,
}

/// Who retrieves together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sets {
    /// All heads of a layer vote for one set of units.
    #[default]
    Layer,
    /// The query heads of each KV head vote for their own.
    KvHead,
}

/// On which side of a pinned unit those are that come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinSides {
    /// On both.
    #[default]
    Both,
    /// Before it where the question's words stand at its beginning, after it where they stand at its
    /// end, and on none where they stand in the middle.
    Words,
}

/// At which positions retrieved units are read (DESIGN.md, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// Sinks, window up to the question, units in document order, question and answer: what is
    /// asked for stands beside the question, where a model reads it best. As `Contiguous` while
    /// there is no question in the window.
    #[default]
    Question,
    /// Sinks, units in document order and window follow one another, as if one short text.
    Contiguous,
    /// Every unit just beyond the far edge of the window.
    Edge,
    /// Every distant key at one fixed distance (InfLLM, arXiv 2402.04617).
    Fixed,
}

impl Positions {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Question, Self::Contiguous, Self::Edge, Self::Fixed];
}

/// What a chunk of tokens is for, which decides how it looks up units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Taking in a document: queries vote in groups, or nothing is looked up.
    Reading,
    /// A question: each token votes.
    Asking,
    /// An answer: each token votes, and what it attends to is tallied as evidence.
    Answering,
}

/// Most units whose keys one lookup reads, but for the exact one.
pub const MAX_CANDIDATES: usize = 1024;

/// Sizes of the memory, in tokens unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryConfig {
    /// What distant context becomes.
    pub attention: AttentionMode,
    /// First tokens, always attended.
    pub sink_tokens: usize,
    /// Recent tokens, always attended: between this and this plus a unit.
    pub window_tokens: usize,
    /// Tokens of a unit; a multiple of 16.
    pub unit_tokens: usize,
    /// Where units end.
    pub unit_cuts: UnitCuts,
    /// Tokens whose mean key is one representative; divides `unit_tokens`.
    pub segment_tokens: usize,
    /// Units retrieved per layer and chunk.
    pub retrieved_units: usize,
    /// Candidates of the coarse stage, for each unit retrieved.
    pub candidates_per_unit: usize,
    /// Factor on segments' scores before the coarse stage's softmax. A mean of keys scores lower
    /// than the best of them, so that shares come out flat, and the many heads that look nowhere in
    /// particular outvote the few that do.
    pub coarse_sharpness: usize,
    /// Who retrieves together.
    pub sets: Sets,
    /// Units that come with a hit, on each side of it and within the budget (EM-LLM, arXiv
    /// 2407.09450).
    pub neighbour_units: usize,
    /// How much of the budget a first pass of a question pins, in percent: the units that it
    /// attended to most are retrieved by every layer when the question is taken in again and while
    /// it is answered. 0: no first pass.
    pub pinned_percent: usize,
    /// Percent of what the unit has that the first pass attended to most: units with less are not
    /// pinned. 0 pins as many as the budget has.
    pub pin_share_percent: usize,
    /// What words in common with the question count for when units are pinned, in percent of what
    /// attention does: the most of them as much as the most attention.
    pub pin_words_percent: usize,
    /// How much of what speaks for a unit speaks for those beside it as well, in percent.
    pub pin_spread_percent: usize,
    /// Units that come with a pinned one, on each side of it and within the budget.
    pub pin_neighbour_units: usize,
    /// On which side.
    pub pin_sides: PinSides,
    /// Whether what a neutral question attends to as well does not count, see
    /// [`beyond_neutral`](super::beyond_neutral).
    pub pin_contrast: bool,
    /// Units that a layer looks up besides those pinned, within its budget.
    pub unpinned_units: usize,
    /// Candidates of the coarse stage in that first pass, which happens once a question: more of
    /// them find what later lookups, that pin it, need not find again. No fewer than in other
    /// lookups.
    pub pin_candidates: usize,
    /// Passages of a document that a first pass compares: the one in whose view the question is
    /// likeliest is read again by itself and answers it, in place of the rest of the text. 0: the
    /// units pinned answer.
    pub read_again_passages: usize,
    /// Percent of what speaks for the best passage: those for which less does are not compared.
    pub passage_share_percent: usize,
    /// Tokens of such a passage at most.
    pub passage_tokens: usize,
    /// Thousandths of the votes that are enough: no more units are retrieved than have so many;
    /// 1000 retrieves the whole budget.
    pub vote_permille: usize,
    /// Layers, from the first on, that retrieve `first_layer_units` instead of `retrieved_units`.
    pub first_layers: usize,
    /// See `first_layers`.
    pub first_layer_units: usize,
    /// Neighbouring layers that share the lookup of the first of them (OmniKV); 1: each its own.
    pub lookup_layers: usize,
    /// Tokens of a chunk while a document is read; a multiple of `unit_tokens`.
    pub chunk_tokens: usize,
    /// Tokens of a chunk while a question is taken in; each chunk looks up anew.
    pub ask_chunk_tokens: usize,
    /// Tokens of an answer that share one lookup; 1 looks up anew for each.
    pub answer_chunk_tokens: usize,
    /// While a document is read: tokens whose mean query looks up units; 0 looks up nothing.
    pub read_query_tokens: usize,
    /// While a question is taken in: tokens whose mean query looks up units.
    pub ask_query_tokens: usize,
    /// By what units are chosen.
    pub lookup: LookupPolicy,
    /// What the scores of a head count for.
    pub vote: Vote,
    /// Tokens in units from which on the index of segments is clustered, where `lookup` goes by
    /// segments' means; 0 never clusters.
    pub cluster_from_tokens: usize,
    /// Units that are clustered together; a multiple of 16.
    pub cluster_span_units: usize,
    /// Segments of a list, on average.
    pub list_segments: usize,
    /// Lists that each query scans.
    pub probed_lists: usize,
    /// Lists of a layer and KV head from which on a graph finds them.
    pub graph_from_lists: usize,
    /// Bytes of memory that lists and graphs may take; the units of a text for which there is no
    /// more are scanned whole.
    pub cluster_bytes: usize,
    /// The distance that nothing exceeds, for [`AttentionMode::Clipped`].
    pub clip_tokens: usize,
    /// Placement of retrieved units.
    pub positions: Positions,
    /// How keys and values are kept.
    pub kv_type: KvType,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            attention: AttentionMode::Retrieval,
            sink_tokens: 64,
            window_tokens: 832,
            unit_tokens: 64,
            unit_cuts: UnitCuts::default(),
            segment_tokens: 8,
            retrieved_units: 8,
            candidates_per_unit: 8,
            coarse_sharpness: 4,
            sets: Sets::default(),
            neighbour_units: 1,
            pinned_percent: 100,
            pin_share_percent: 60,
            pin_words_percent: 100,
            pin_spread_percent: 50,
            pin_neighbour_units: 1,
            pin_sides: PinSides::default(),
            pin_contrast: true,
            unpinned_units: 0,
            pin_candidates: 1024,
            read_again_passages: 6,
            passage_share_percent: 30,
            passage_tokens: 384,
            vote_permille: 1000,
            first_layers: 0,
            first_layer_units: 0,
            lookup_layers: 1,
            chunk_tokens: 256,
            ask_chunk_tokens: 4,
            answer_chunk_tokens: 4,
            read_query_tokens: 8,
            ask_query_tokens: 1,
            lookup: LookupPolicy::default(),
            vote: Vote::default(),
            cluster_from_tokens: 196_608,
            cluster_span_units: 512,
            list_segments: 128,
            probed_lists: 16,
            graph_from_lists: 8192,
            cluster_bytes: 1 << 30,
            clip_tokens: 4096,
            positions: Positions::default(),
            kv_type: KvType::default(),
        }
    }
}

impl MemoryConfig {
    /// The same settings, without what makes no difference while a document is read: equal where
    /// two memories read alike, so that one reading serves both (see [`super::Memory::fork`]).
    pub fn for_reading(&self) -> Self {
        let default = Self::default();
        let mut reading = Self {
            ask_query_tokens: default.ask_query_tokens,
            pinned_percent: 0,
            pin_share_percent: default.pin_share_percent,
            pin_words_percent: default.pin_words_percent,
            pin_spread_percent: default.pin_spread_percent,
            pin_neighbour_units: default.pin_neighbour_units,
            pin_sides: default.pin_sides,
            pin_contrast: default.pin_contrast,
            unpinned_units: default.unpinned_units,
            pin_candidates: default.pin_candidates,
            read_again_passages: default.read_again_passages,
            passage_share_percent: default.passage_share_percent,
            passage_tokens: default.passage_tokens,
            positions: match self.positions {
                Positions::Question => Positions::Contiguous,
                positions => positions,
            },
            ask_chunk_tokens: 1,
            answer_chunk_tokens: 1,
            ..self.clone()
        };
        if self.attention != AttentionMode::Clipped {
            reading.clip_tokens = default.clip_tokens;
        }
        if self.retrieves(Phase::Reading) == 0 {
            reading.read_query_tokens = 0;
            reading.segment_tokens = self.unit_tokens;
            reading.retrieved_units = 0;
            reading.candidates_per_unit = default.candidates_per_unit;
            reading.coarse_sharpness = default.coarse_sharpness;
            reading.sets = default.sets;
            reading.neighbour_units = default.neighbour_units;
            reading.vote_permille = default.vote_permille;
            reading.first_layers = default.first_layers;
            reading.first_layer_units = default.first_layer_units;
            reading.lookup_layers = default.lookup_layers;
            if !self.tallies_keys() {
                reading.lookup = default.lookup;
            }
            reading.vote = default.vote;
            reading.cluster_from_tokens = 0;
            reading.cluster_span_units = default.cluster_span_units;
            reading.list_segments = default.list_segments;
            reading.probed_lists = default.probed_lists;
            reading.graph_from_lists = default.graph_from_lists;
            reading.cluster_bytes = default.cluster_bytes;
            reading.positions = Positions::Contiguous;
        }
        reading
    }

    /// Whether pages may be seen from the far distance.
    pub(super) fn places_far(&self) -> bool {
        self.attention == AttentionMode::Clipped
            || (self.attention == AttentionMode::Retrieval && self.positions == Positions::Fixed)
    }

    /// Whether the attention that keys receive in the window is added up.
    pub fn tallies_keys(&self) -> bool {
        self.attention == AttentionMode::Retrieval && self.lookup == LookupPolicy::AttentionMass
    }

    /// Representatives of a unit, for each KV head.
    pub fn representatives_per_unit(&self) -> usize {
        match self.lookup {
            LookupPolicy::AttentionMass => 1,
            _ => self.unit_tokens / self.segment_tokens,
        }
    }

    /// Whether the index is clustered once it is large.
    pub fn clusters(&self) -> bool {
        self.attention == AttentionMode::Retrieval
            && self.cluster_from_tokens > 0
            && matches!(self.lookup, LookupPolicy::TwoStage | LookupPolicy::Segments)
    }

    /// What decides how the index is clustered; `None` where it is not.
    pub fn clustering(&self) -> Option<[usize; 6]> {
        self.clusters().then_some([
            self.cluster_from_tokens,
            self.cluster_span_units,
            self.list_segments,
            self.probed_lists,
            self.graph_from_lists,
            self.cluster_bytes,
        ])
    }

    /// Whether units may end early.
    pub fn cuts(&self) -> bool {
        self.attention == AttentionMode::Retrieval && self.unit_cuts != UnitCuts::Fixed
    }

    /// Whether everything stays in the window.
    pub fn keeps_all(&self) -> bool {
        matches!(self.attention, AttentionMode::Full | AttentionMode::Clipped)
    }

    /// The one distance of keys that have no position, and from which lookups see.
    pub fn far_tokens(&self) -> usize {
        if self.attention == AttentionMode::Clipped { self.clip_tokens } else { self.window_tokens }
    }

    /// What stands for a segment in the index.
    pub fn representatives(&self) -> Representatives {
        match self.lookup {
            LookupPolicy::Bound => Representatives::Bounds,
            _ => Representatives::Keys,
        }
    }

    /// Units that the layer with the most of them retrieves for a chunk of `phase`, were there
    /// enough.
    pub fn retrieves(&self, phase: Phase) -> usize {
        let reads_alone = phase == Phase::Reading && self.read_query_tokens == 0;
        let is_off =
            self.attention != AttentionMode::Retrieval || self.lookup == LookupPolicy::None;
        if is_off || reads_alone { 0 } else { self.most_units() }
    }

    /// The largest budget of any layer.
    fn most_units(&self) -> usize {
        match self.first_layers {
            0 => self.retrieved_units,
            _ => self.retrieved_units.max(self.first_layer_units),
        }
    }

    /// The budget of layer `layer`.
    pub fn units_of(&self, layer: usize) -> usize {
        if layer < self.first_layers { self.first_layer_units } else { self.retrieved_units }
    }

    /// Units that a first pass of a question pins.
    pub fn pinned_units(&self) -> usize {
        self.retrieved_units * self.pinned_percent / 100
    }

    /// The same settings for a first pass, which looks at more candidates.
    pub fn for_first_pass(&self) -> Self {
        let most = self.most_units().max(1);
        let candidates_per_unit = (self.pin_candidates / most).max(self.candidates_per_unit);
        Self { candidates_per_unit, ..self.clone() }
    }

    /// The layer whose lookup serves layer `layer`.
    pub fn lookup_layer(&self, layer: usize) -> usize {
        layer - layer % self.lookup_layers
    }

    /// Units' worth of positions between sinks and window when all units are retrieved.
    pub fn placed_units(&self) -> usize {
        match (self.attention, self.positions) {
            (AttentionMode::Retrieval, Positions::Question | Positions::Contiguous) => {
                self.most_units()
            }
            (AttentionMode::Retrieval, Positions::Edge) => self.most_units().min(1),
            _ => 0,
        }
    }

    /// The most keys that one token can attend to; `None` when it grows with the text.
    pub fn max_attended_tokens(&self) -> Option<usize> {
        let retrieved = match self.attention {
            AttentionMode::Retrieval => self.most_units() * self.unit_tokens,
            AttentionMode::Window => 0,
            AttentionMode::Full | AttentionMode::Clipped => return None,
        };
        Some(
            self.sink_tokens
                + retrieved
                + self.window_tokens
                + self.unit_tokens
                + self.chunk_tokens,
        )
    }
}
