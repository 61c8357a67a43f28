//! Which settings of a memory can work? Each size alone, and their sum in a model's trained length.

use super::config::{AttentionMode, MAX_CANDIDATES, MemoryConfig};
use crate::backend::Vote;

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
    /// Units cannot end at borders of the text, since the attention that keys receive is tallied by
    /// units of one size.
    #[error(
        "unit-cuts must be \"fixed\" where lookup = \"attention-mass\": set one of them to something else"
    )]
    Cuts,
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
        if self.cuts() && self.tallies_keys() {
            return Err(ConfigError::Cuts);
        }
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
            (1..=MAX_CANDIDATES).contains(&self.candidates_per_unit),
            "candidates-per-unit",
            self.candidates_per_unit,
            &format!("must be between 1 and {MAX_CANDIDATES}"),
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
        self.validate_clusters()?;
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
            self.pin_share_percent <= 100,
            "pin-share-percent",
            self.pin_share_percent,
            "must be between 0 and 100",
        )?;
        demand(
            self.pin_words_percent <= 1000,
            "pin-words-percent",
            self.pin_words_percent,
            "must be between 0 and 1000",
        )?;
        demand(
            self.pin_spread_percent <= 100,
            "pin-spread-percent",
            self.pin_spread_percent,
            "must be between 0 and 100",
        )?;
        demand(
            self.pin_candidates <= MAX_CANDIDATES,
            "pin-candidates",
            self.pin_candidates,
            &format!("must be at most {MAX_CANDIDATES}"),
        )?;
        self.validate_passages()?;
        demand(
            self.neighbour_units <= MAX_CANDIDATES,
            "neighbour-units",
            self.neighbour_units,
            &format!("must be at most {MAX_CANDIDATES}"),
        )?;
        demand(
            self.pin_neighbour_units <= MAX_CANDIDATES,
            "pin-neighbour-units",
            self.pin_neighbour_units,
            &format!("must be at most {MAX_CANDIDATES}"),
        )?;
        demand(self.lookup_layers > 0, "lookup-layers", 0, "must be at least 1")
    }

    /// What of a document is read again for a question.
    fn validate_passages(&self) -> Result<(), ConfigError> {
        demand(
            self.read_again_passages <= 64,
            "read-again-passages",
            self.read_again_passages,
            "must be at most 64",
        )?;
        demand(
            self.passage_share_percent <= 100,
            "passage-share-percent",
            self.passage_share_percent,
            "must be between 0 and 100",
        )?;
        demand(
            self.passage_tokens >= 16,
            "passage-tokens",
            self.passage_tokens,
            "must be at least 16",
        )
    }

    /// How the index is clustered.
    fn validate_clusters(&self) -> Result<(), ConfigError> {
        let span = self.cluster_span_units;
        demand(
            (16..=32_768).contains(&span) && span.is_multiple_of(16),
            "cluster-span-units",
            span,
            "must be a multiple of 16 between 16 and 32768",
        )?;
        for (name, value) in [
            ("list-segments", self.list_segments),
            ("probed-lists", self.probed_lists),
            ("graph-from-lists", self.graph_from_lists),
        ] {
            demand(value > 0, name, value, "must be at least 1")?;
        }
        Ok(())
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
    use crate::memory::{LookupPolicy, UnitCuts};

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
            (refusal(|config| config.pin_share_percent = 101), "pin-share-percent = 101"),
            (refusal(|config| config.pin_words_percent = 1001), "pin-words-percent = 1001"),
            (refusal(|config| config.pin_spread_percent = 101), "pin-spread-percent = 101"),
            (refusal(|config| config.coarse_sharpness = 0), "coarse-sharpness = 0"),
            (refusal(|config| config.vote_permille = 0), "vote-permille = 0"),
            (refusal(|config| config.vote_permille = 1001), "vote-permille = 1001"),
            (refusal(|config| config.lookup_layers = 0), "lookup-layers = 0"),
            (refusal(|config| config.neighbour_units = usize::MAX), "neighbour-units"),
            (refusal(|config| config.pin_neighbour_units = usize::MAX), "pin-neighbour-units"),
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

    #[test]
    fn borders_are_refused_where_attention_is_tallied_by_units() {
        let message = refusal(|config| {
            config.lookup = LookupPolicy::AttentionMass;
            config.unit_cuts = UnitCuts::Sentence;
        });
        assert!(message.contains("unit-cuts") && message.contains("attention-mass"), "{message}");
    }
}
