//! How does the pipeline of a `tokenizer.json` treat a text? The steps that we know, in their
//! order, without the one that puts a space before the text: that one we do ourselves.

use serde_json::Value;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::normalizers::utils::Sequence as Normalizers;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence as Splitters;

use crate::tokenizer::error::{VocabularyFault, shorten};
use crate::tokenizer::splitter::splits_before_spaced_words;
use crate::tokenizer::words::{Prefix, PrefixScope};

const NORMALIZER: &str = "normalizer";
const SPLITTER: &str = "pre_tokenizer";

/// What happens to a text before its words are merged.
pub(super) struct Pipeline {
    pub normalizer: Option<NormalizerWrapper>,
    pub pre_tokenizer: Option<PreTokenizerWrapper>,
    pub prefix: Prefix,
    /// Whether words are written in GPT-2's alphabet of bytes.
    pub is_byte_level: bool,
    /// Whether `▁` is written for a space.
    pub is_metaspace: bool,
    /// Whether no step is known to look across a space between letters.
    pub is_sliceable: bool,
    /// Whether a step splits before such a space.
    pub splits_words: bool,
}

impl Pipeline {
    /// Reads both halves of the pipeline.
    pub fn read(normalizer: &Value, splitter: &Value) -> Result<Self, VocabularyFault> {
        let mut pipeline = Self {
            normalizer: None,
            pre_tokenizer: None,
            prefix: Prefix::NONE,
            is_byte_level: false,
            is_metaspace: false,
            is_sliceable: true,
            splits_words: false,
        };
        let mut normalizers = Vec::new();
        for step in flatten(normalizer, "normalizers") {
            if pipeline.normalizes(step)? {
                normalizers.push(parse(step.clone())?);
            }
        }
        let mut splitters = Vec::new();
        for step in flatten(splitter, "pretokenizers") {
            splitters.push(parse(pipeline.splits(step)?)?);
        }
        pipeline.normalizer =
            (!normalizers.is_empty()).then(|| Normalizers::new(normalizers).into());
        pipeline.pre_tokenizer = (!splitters.is_empty()).then(|| Splitters::new(splitters).into());
        Ok(pipeline)
    }

    /// Notes what a normalizer does; whether the library is to do it.
    fn normalizes(&mut self, step: &Value) -> Result<bool, VocabularyFault> {
        match kind(step) {
            "NFC" | "NFD" | "NFKC" | "NFKD" => {}
            "Replace" => {
                let is_space = step["pattern"]["String"] == " " && step["content"] == "▁";
                self.is_metaspace |= is_space;
                self.is_sliceable &= is_space;
            }
            "Prepend" if step["prepend"] == "▁" => {
                let scope = PrefixScope::EveryRun;
                self.prefix = Prefix { space: "▁", scope, spares_spaced: false };
                return Ok(false);
            }
            other => {
                let supported = "NFC, NFD, NFKC, NFKD, Replace, Prepend of ▁, Sequence";
                return Err(unsupported(NORMALIZER, other, supported));
            }
        }
        Ok(true)
    }

    /// Notes what a splitter does; the splitter that the library is to run.
    fn splits(&mut self, step: &Value) -> Result<Value, VocabularyFault> {
        let mut step = step.clone();
        let scope = PrefixScope::EveryRun;
        match kind(&step) {
            "ByteLevel" => {
                self.is_byte_level = true;
                if step["add_prefix_space"] == true {
                    self.prefix = Prefix { space: " ", scope, spares_spaced: true };
                }
                self.splits_words |= step["use_regex"] != false;
                step["add_prefix_space"] = Value::Bool(false);
            }
            "Metaspace" => {
                self.is_metaspace = true;
                let scope = metaspace_scope(&step)?;
                self.prefix = Prefix { space: "▁", scope, spares_spaced: true };
                step["prepend_scheme"] = "never".into();
                step["add_prefix_space"] = Value::Null;
            }
            "Split" => {
                let pattern = step["pattern"]["Regex"].as_str().unwrap_or_default();
                let is_known = splits_before_spaced_words(pattern)
                    && step["behavior"] == "Isolated"
                    && step["invert"] == false;
                self.is_sliceable &= is_known;
                self.splits_words |= is_known;
            }
            "Digits" => {}
            other => {
                let supported = "ByteLevel, Metaspace, Split, Digits, Sequence";
                return Err(unsupported(SPLITTER, other, supported));
            }
        }
        Ok(step)
    }
}

/// Where a Metaspace step puts its space: newer files have a scheme, older ones a flag.
fn metaspace_scope(step: &Value) -> Result<PrefixScope, VocabularyFault> {
    match (step["prepend_scheme"].as_str(), step["add_prefix_space"].as_bool()) {
        (Some("never"), _) | (None, Some(false)) => Ok(PrefixScope::None),
        (Some("first"), _) => Ok(PrefixScope::TextStart),
        (Some("always"), _) | (None, _) => Ok(PrefixScope::EveryRun),
        (Some(other), _) => {
            Err(unsupported("pre_tokenizer.prepend_scheme", other, "always, first, never"))
        }
    }
}

/// The steps of a pipeline that may be none, one or a sequence of sequences.
fn flatten<'a>(step: &'a Value, list_key: &str) -> Vec<&'a Value> {
    match step {
        Value::Null => Vec::new(),
        _ if kind(step) == "Sequence" => {
            let steps = step[list_key].as_array().map_or(&[][..], Vec::as_slice);
            steps.iter().flat_map(|step| flatten(step, list_key)).collect()
        }
        step => vec![step],
    }
}

fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

fn parse<T: serde::de::DeserializeOwned>(step: Value) -> Result<T, VocabularyFault> {
    let name = kind(&step).to_owned();
    serde_json::from_value(step)
        .map_err(|error| VocabularyFault::Json { message: format!("the step {name:?}: {error}") })
}

fn unsupported(key: &'static str, found: &str, supported: &str) -> VocabularyFault {
    VocabularyFault::Unsupported { key, found: shorten(found), supported: supported.to_owned() }
}
