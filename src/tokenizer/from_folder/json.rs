//! What shape does `tokenizer.json` have? As much of it as we read.

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The whole file.
#[derive(Deserialize)]
pub(super) struct TokenizerJson {
    #[serde(default)]
    pub added_tokens: Vec<AddedJson>,
    #[serde(default)]
    pub normalizer: Value,
    #[serde(default)]
    pub pre_tokenizer: Value,
    #[serde(default)]
    pub post_processor: Value,
    pub model: ModelJson,
}

/// As much of the file as tells what kind of model it holds.
#[derive(Deserialize)]
pub(super) struct KindJson {
    pub model: ModelKindJson,
}

/// See [`KindJson`].
#[derive(Deserialize)]
pub(super) struct ModelKindJson {
    #[serde(rename = "type")]
    pub kind: Option<String>,
}

/// A byte pair encoding.
#[derive(Deserialize)]
pub(super) struct ModelJson {
    pub vocab: Entries,
    pub merges: Vec<MergeJson>,
    pub unk_token: Option<String>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub fuse_unk: bool,
    #[serde(default)]
    pub byte_fallback: bool,
    #[serde(default)]
    pub ignore_merges: bool,
}

/// A token that is matched as it is written.
#[derive(Deserialize)]
pub(super) struct AddedJson {
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub special: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub single_word: bool,
}

/// A merge, as older and newer files write it.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum MergeJson {
    Line(String),
    Pair(String, String),
}

/// An object as the list of its entries, so that one that occurs twice is seen.
pub(super) struct Entries(pub Vec<(String, u32)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = Entries;
            fn expecting(&self, message: &mut std::fmt::Formatter) -> std::fmt::Result {
                message.write_str("an object of tokens with their ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Entry)
    }
}
