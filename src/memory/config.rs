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
    /// The mean of the keys of a unit that received the most attention while they were in the window
    /// (InfLLM, arXiv 2402.04617; by KV head, not by query head). Shapes what is remembered of a
    /// unit, so it has to be chosen before the text is read.
    AttentionMass,
    /// Segments' largest and smallest elements: what no key of them exceeds (Quest, arXiv
    /// 2406.10774).
    Bound,
    /// The best exact key of every unit: reads all keys. The oracle of the others.
    Exact,
    /// Nothing is retrieved (StreamingLLM, arXiv 2309.17453), though units are kept.
    None,
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

/// At which positions retrieved units are read (DESIGN.md, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// Sinks, units in document order and window follow one another, as if one short text.
    #[default]
    Contiguous,
    /// Every unit just beyond the far edge of the window.
    Edge,
    /// Every distant key at one fixed distance (InfLLM, arXiv 2402.04617).
    Fixed,
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
    /// Tokens whose mean key is one representative; divides `unit_tokens`.
    pub segment_tokens: usize,
    /// Units retrieved per layer and chunk.
    pub retrieved_units: usize,
    /// Candidates of the coarse stage, for each unit retrieved.
    pub candidates_per_unit: usize,
    /// Factor on segments' scores before the coarse stage's softmax. A mean of keys scores lower than
    /// the best of them, so that shares come out flat, and the many heads that look nowhere in
    /// particular outvote the few that do.
    pub coarse_sharpness: usize,
    /// Who retrieves together.
    pub sets: Sets,
    /// Units that come with a hit, on each side of it and within the budget (EM-LLM, arXiv
    /// 2407.09450).
    pub neighbour_units: usize,
    /// How much of the budget a first pass of a question pins, in percent: the units that it attended
    /// to most are retrieved by every layer when the question is taken in again and while it is
    /// answered. 0: no first pass.
    pub pinned_percent: usize,
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
            window_tokens: 768,
            unit_tokens: 64,
            segment_tokens: 8,
            retrieved_units: 8,
            candidates_per_unit: 8,
            coarse_sharpness: 4,
            sets: Sets::default(),
            neighbour_units: 1,
            pinned_percent: 50,
            vote_permille: 1000,
            first_layers: 0,
            first_layer_units: 0,
            lookup_layers: 1,
            chunk_tokens: 256,
            ask_chunk_tokens: 4,
            answer_chunk_tokens: 4,
            read_query_tokens: 16,
            ask_query_tokens: 1,
            lookup: LookupPolicy::default(),
            vote: Vote::default(),
            clip_tokens: 4096,
            positions: Positions::Contiguous,
            kv_type: KvType::default(),
        }
    }
}

/// Sizes that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One size alone is out of its range.
    #[error("{name} = {value}: {demand}")]
    Size {
        /// The setting, as it is written in flags and files.
        name: &'static str,
        /// Its value.
        value: usize,
        /// What it has to be.
        demand: String,
    },
    /// The sizes add up to more than the model can tell apart.
    #[error(
        "the memory does not fit the model's trained length: {sum} = {needed} positions, and the \
         model was trained for {trained_tokens}; lower one of them"
    )]
    TrainedLength {
        /// The sum, spelled out.
        sum: String,
        /// What it comes to.
        needed: usize,
        /// What there is.
        trained_tokens: usize,
    },
}

impl MemoryConfig {
    /// Checks each size and their sum against the model's trained length.
    ///
    /// # Errors
    /// When a size cannot work, with what it has to be.
    pub fn validate(&self, trained_tokens: usize) -> Result<(), ConfigError> {
        let unit = self.unit_tokens;
        demand(
            (16..=1024).contains(&unit) && unit.is_multiple_of(16),
            "unit-tokens",
            unit,
            "must be a multiple of 16 between 16 and 1024",
        )?;
        let segment = self.segment_tokens;
        demand(
            segment > 0 && unit.is_multiple_of(segment),
            "segment-tokens",
            segment,
            &format!("must divide unit-tokens ({unit})"),
        )?;
        demand(self.window_tokens > 0, "window-tokens", self.window_tokens, "must be at least 1")?;
        let chunk = self.chunk_tokens;
        demand(
            chunk > 0 && chunk.is_multiple_of(unit),
            "chunk-tokens",
            chunk,
            &format!("must be a multiple of unit-tokens ({unit})"),
        )?;
        for (name, tokens) in [
            ("ask-chunk-tokens", self.ask_chunk_tokens),
            ("answer-chunk-tokens", self.answer_chunk_tokens),
        ] {
            let range = &format!("must be between 1 and chunk-tokens ({chunk})");
            demand((1..=chunk).contains(&tokens), name, tokens, range)?;
        }
        demand(
            (1..=64).contains(&self.candidates_per_unit),
            "candidates-per-unit",
            self.candidates_per_unit,
            "must be between 1 and 64",
        )?;
        demand(self.ask_query_tokens > 0, "ask-query-tokens", 0, "must be at least 1")?;
        demand(
            self.attention != AttentionMode::Clipped || self.clip_tokens > chunk + unit,
            "clip-tokens",
            self.clip_tokens,
            &format!("must be more than chunk-tokens + unit-tokens ({})", chunk + unit),
        )?;
        for (name, units) in [
            ("retrieved-units", self.retrieved_units),
            ("first-layer-units", self.first_layer_units),
        ] {
            demand(
                units.saturating_mul(self.candidates_per_unit) <= MAX_CANDIDATES,
                name,
                units,
                &format!("times candidates-per-unit must be at most {MAX_CANDIDATES}"),
            )?;
        }
        self.validate_choice()?;
        self.validate_sum(trained_tokens)
    }

    /// What of the votes is retrieved.
    fn validate_choice(&self) -> Result<(), ConfigError> {
        let permille = self.vote_permille;
        demand(
            (1..=1000).contains(&permille),
            "vote-permille",
            permille,
            "must be between 1 and 1000",
        )?;
        demand(
            (1..=64).contains(&self.coarse_sharpness),
            "coarse-sharpness",
            self.coarse_sharpness,
            "must be between 1 and 64",
        )?;
        demand(
            permille == 1000 || self.vote == Vote::Soft,
            "vote-permille",
            permille,
            "raw votes have no share: vote = \"soft\", or 1000",
        )?;
        demand(
            self.pinned_percent <= 100,
            "pinned-percent",
            self.pinned_percent,
            "must be between 0 and 100",
        )?;
        demand(
            self.neighbour_units <= MAX_CANDIDATES,
            "neighbour-units",
            self.neighbour_units,
            &format!("must be at most {MAX_CANDIDATES}"),
        )?;
        demand(self.lookup_layers > 0, "lookup-layers", 0, "must be at least 1")
    }

    fn validate_sum(&self, trained_tokens: usize) -> Result<(), ConfigError> {
        if self.attention == AttentionMode::Full {
            return Ok(());
        }
        if self.attention == AttentionMode::Clipped {
            let clip_tokens = self.clip_tokens;
            return match clip_tokens <= trained_tokens {
                true => Ok(()),
                false => Err(ConfigError::TrainedLength {
                    sum: format!("clip-tokens {clip_tokens}"),
                    needed: clip_tokens,
                    trained_tokens,
                }),
            };
        }
        let Self { sink_tokens, window_tokens, unit_tokens, chunk_tokens, .. } = *self;
        let units = self.placed_units() * unit_tokens; // bounded by MAX_CANDIDATES units
        let needed = [sink_tokens, units, window_tokens, unit_tokens, chunk_tokens]
            .into_iter()
            .fold(0usize, usize::saturating_add);
        if needed <= trained_tokens {
            return Ok(());
        }
        let sum = format!(
            "sink-tokens {sink_tokens} + retrieved units {units} ({} x {unit_tokens}) + \
             window-tokens {window_tokens} + one unit {unit_tokens} + chunk-tokens {chunk_tokens}",
            self.placed_units(),
        );
        Err(ConfigError::TrainedLength { sum, needed, trained_tokens })
    }

    /// The same settings, without what makes no difference while a document is read: equal where
    /// two memories read alike, so that one reading serves both (see [`super::Memory::fork`]).
    pub fn for_reading(&self) -> Self {
        let default = Self::default();
        let mut reading = Self {
            ask_query_tokens: default.ask_query_tokens,
            pinned_percent: 0,
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
            reading.positions = default.positions;
        }
        reading
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

    /// The layer whose lookup serves layer `layer`.
    pub fn lookup_layer(&self, layer: usize) -> usize {
        layer - layer % self.lookup_layers
    }

    /// Units' worth of positions between sinks and window when all units are retrieved.
    pub fn placed_units(&self) -> usize {
        match (self.attention, self.positions) {
            (AttentionMode::Retrieval, Positions::Contiguous) => self.most_units(),
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

fn demand(holds: bool, name: &'static str, value: usize, demand: &str) -> Result<(), ConfigError> {
    match holds {
        true => Ok(()),
        false => Err(ConfigError::Size { name, value, demand: demand.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut MemoryConfig)) -> String {
        let mut config = MemoryConfig::default();
        change(&mut config);
        config.validate(8192).expect_err("must be refused").to_string()
    }

    fn clip(config: &mut MemoryConfig, clip_tokens: usize) {
        config.attention = AttentionMode::Clipped;
        config.clip_tokens = clip_tokens;
    }

    #[test]
    fn a_clip_that_is_not_used_refuses_nothing() {
        let config = MemoryConfig { clip_tokens: 0, ..MemoryConfig::default() };
        assert_eq!(config.validate(8192), Ok(()));
    }

    #[test]
    fn the_defaults_fit_the_default_model() {
        assert_eq!(MemoryConfig::default().validate(8192), Ok(()));
    }

    #[test]
    fn a_sum_beyond_the_trained_length_is_refused_and_spelled_out() {
        let message = refusal(|config| config.window_tokens = 8000);
        assert!(message.contains("window-tokens 8000 + one unit 64"), "{message}");
        assert!(message.contains("= 8896 positions"), "{message}");
        assert!(message.contains("trained for 8192"), "{message}");
    }

    #[test]
    fn sizes_that_cannot_work_are_refused_by_name() {
        let refused = [
            (refusal(|config| config.unit_tokens = 24), "unit-tokens = 24"),
            (refusal(|config| config.unit_tokens = 0), "unit-tokens = 0"),
            (refusal(|config| config.segment_tokens = 5), "segment-tokens = 5"),
            (refusal(|config| config.segment_tokens = 0), "segment-tokens = 0"),
            (refusal(|config| config.window_tokens = 0), "window-tokens = 0"),
            (refusal(|config| config.chunk_tokens = 100), "chunk-tokens = 100"),
            (refusal(|config| config.ask_chunk_tokens = 0), "ask-chunk-tokens = 0"),
            (refusal(|config| config.answer_chunk_tokens = 0), "answer-chunk-tokens = 0"),
            (refusal(|config| config.candidates_per_unit = 0), "candidates-per-unit = 0"),
            (refusal(|config| config.ask_query_tokens = 0), "ask-query-tokens = 0"),
            (refusal(|config| config.pinned_percent = 101), "pinned-percent = 101"),
            (refusal(|config| config.coarse_sharpness = 0), "coarse-sharpness = 0"),
            (refusal(|config| config.vote_permille = 0), "vote-permille = 0"),
            (refusal(|config| config.vote_permille = 1001), "vote-permille = 1001"),
            (refusal(|config| config.lookup_layers = 0), "lookup-layers = 0"),
            (refusal(|config| config.neighbour_units = usize::MAX), "neighbour-units"),
            (refusal(|config| config.first_layer_units = usize::MAX), "first-layer-units"),
            (
                refusal(|config| (config.first_layers, config.first_layer_units) = (1, 128)),
                "retrieved units 8192 (128 x 64)",
            ),
            (
                refusal(|config| (config.vote, config.vote_permille) = (Vote::Raw, 900)),
                "vote-permille = 900: raw votes",
            ),
            (refusal(|config| clip(config, 320)), "clip-tokens = 320"),
            (refusal(|config| clip(config, 9000)), "clip-tokens 9000 = 9000 positions"),
            (refusal(|config| config.retrieved_units = usize::MAX), "retrieved-units"),
            (refusal(|config| config.sink_tokens = usize::MAX), "trained length"),
        ];
        for (message, expected) in refused {
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
    }
}
