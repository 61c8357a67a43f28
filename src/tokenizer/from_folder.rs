//! How does a Hugging Face folder hold a tokenizer? In `tokenizer.json` (vocabulary, merges and a
//! pipeline of normalizers and splitters) and in small files beside it (template, special tokens).
//!
//! What the pipeline does before and after words is taken out of it, because we do it ourselves:
//! added tokens (so that text can be kept from steering), the space before a text (so that a text
//! can be cut) and decoding (so that it can be streamed).

mod json;
mod pipeline;
mod settings;

use std::collections::HashSet;
use std::path::Path;

use serde_json::Value;

use self::json::{AddedJson, KindJson, MergeJson, TokenizerJson};
use self::pipeline::Pipeline;
use self::settings::Settings;
use super::added::{AddedToken, AddedTokens};
use super::error::{TokenizerError, VocabularyFault, shorten};
use super::parts::{Marks, Parts};
use super::pieces::{Alphabet, PieceRole, Pieces, has_space_after_letter};
use super::stream::LeadingSpace;
use super::vocabulary::Vocabulary;
use super::words::{PrefixScope, WordRules, Words};
use crate::ids::TokenId;

const VOCAB: &str = "model.vocab";
const MERGES: &str = "model.merges";
const ADDED: &str = "added_tokens";

/// Reads the tokenizer of the folder `path`.
pub(super) fn read(path: &Path) -> Result<Parts, TokenizerError> {
    let json_path = path.join("tokenizer.json");
    let bytes = match std::fs::read(&json_path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(TokenizerError::NoTokenizer { path: path.to_owned() });
        }
        Err(source) => return Err(TokenizerError::Read { path: json_path, source }),
        Ok(bytes) => bytes,
    };
    let settings = Settings::read(path)?;
    let assembled = parse(&bytes).and_then(|json| {
        let alphabet_and_pipeline = Pipeline::read(&json.normalizer, &json.pre_tokenizer)?;
        Source { json: &json, file_bytes: bytes.len(), settings }
            .assemble(alphabet_and_pipeline, path)
    });
    assembled.map_err(|fault| TokenizerError::Vocabulary { path: json_path, fault })
}

fn parse(bytes: &[u8]) -> Result<TokenizerJson, VocabularyFault> {
    let malformed = |error: serde_json::Error| VocabularyFault::Json { message: error.to_string() };
    let kind: KindJson = serde_json::from_slice(bytes).map_err(malformed)?;
    // Files from before the type was written have none and are BPE.
    match kind.model.kind.as_deref() {
        None | Some("BPE") => serde_json::from_slice(bytes).map_err(malformed),
        Some(other) => Err(unsupported("model.type", other, "BPE")),
    }
}

/// All that was read.
struct Source<'a> {
    json: &'a TokenizerJson,
    /// Bytes of `tokenizer.json`: no id of an honest file is larger.
    file_bytes: usize,
    settings: Settings,
}

impl Source<'_> {
    fn assemble(self, pipeline: Pipeline, path: &Path) -> Result<Parts, VocabularyFault> {
        let alphabet = self.alphabet(&pipeline)?;
        let merges = self.vocabulary(alphabet)?;
        let pieces = self.pieces(alphabet)?;
        let added = self.added()?;
        let marks = self.marks(&added, &pieces)?;
        let vocab = &self.json.model.vocab.0;
        let is_sliceable = pipeline.is_sliceable
            && match alphabet {
                Alphabet::ByteLevel => pipeline.splits_words,
                Alphabet::Metaspace => !vocab.iter().any(|(t, _)| has_space_after_letter(t)),
            };
        let leading_space = match (alphabet, pipeline.prefix.scope) {
            (Alphabet::ByteLevel, _) | (_, PrefixScope::None) => LeadingSpace::Keep,
            _ => LeadingSpace::Drop,
        };
        let words = Words::new(WordRules {
            normalizer: pipeline.normalizer,
            pre_tokenizer: pipeline.pre_tokenizer,
            merges,
            prefix: pipeline.prefix,
            is_sliceable,
        });
        let (path, template) = (path.to_owned(), self.settings.template);
        Ok(Parts { path, words, added, pieces, leading_space, marks, template })
    }

    fn alphabet(&self, pipeline: &Pipeline) -> Result<Alphabet, VocabularyFault> {
        if pipeline.is_byte_level {
            Ok(Alphabet::ByteLevel)
        } else if pipeline.is_metaspace || self.json.model.byte_fallback {
            Ok(Alphabet::Metaspace)
        } else {
            let supported = "byte-level (ByteLevel) and SentencePiece (Metaspace) vocabularies";
            Err(unsupported("pre_tokenizer", "neither of the two", supported))
        }
    }

    fn vocabulary(
        &self,
        alphabet: Alphabet,
    ) -> Result<tokenizers::models::bpe::BPE, VocabularyFault> {
        let model = &self.json.model;
        let affixes = [
            ("model.continuing_subword_prefix", &model.continuing_subword_prefix),
            ("model.end_of_word_suffix", &model.end_of_word_suffix),
        ];
        for (key, affix) in affixes {
            if let Some(affix) = affix.as_deref().filter(|affix| !affix.is_empty()) {
                return Err(unsupported(key, affix, "none"));
            }
        }
        let added = &self.json.added_tokens;
        let controls: HashSet<&str> =
            added.iter().filter(|token| token.special).map(|t| t.content.as_str()).collect();
        // A byte-level text needs no unknown token, and files name one that steers the model.
        let unknown = model.unk_token.as_deref().filter(|_| alphabet == Alphabet::Metaspace);
        let is_word = |text: &str| !controls.contains(text) || unknown == Some(text);
        let tokens = model.vocab.0.iter().map(|(text, id)| (text.as_str(), *id));
        Vocabulary {
            tokens_key: VOCAB,
            merges_key: MERGES,
            tokens: tokens.filter(|(text, _)| is_word(text)).collect(),
            merges: merges(&model.merges)?,
            alphabet,
            unknown,
            fuses_unknown: model.fuse_unk,
            ignores_merges: model.ignore_merges,
        }
        .build()
    }

    /// Every token's text; ids that no token has stand for nothing.
    fn pieces(&self, alphabet: Alphabet) -> Result<Pieces, VocabularyFault> {
        let mut slots: Vec<Option<(&str, Vec<u8>, PieceRole)>> = Vec::new();
        let words = self.json.model.vocab.0.iter();
        let words = words.map(|(t, id)| (t.as_str(), *id, alphabet.bytes(t), PieceRole::Text));
        let added = self.json.added_tokens.iter().map(|token| {
            let role = if token.special { PieceRole::Control } else { PieceRole::Text };
            (token.content.as_str(), token.id, token.content.clone().into_bytes(), role)
        });
        for (text, id, bytes, role) in words.chain(added) {
            let idx = id as usize;
            if idx >= self.file_bytes {
                let limit = self.file_bytes;
                return Err(VocabularyFault::IdOutOfRange { key: VOCAB, id: u64::from(id), limit });
            }
            if idx >= slots.len() {
                slots.resize_with(idx + 1, || None);
            }
            if let Some((other, ..)) = slots[idx].as_ref().filter(|(other, ..)| *other != text) {
                let (first, second) = (shorten(other), shorten(text));
                return Err(VocabularyFault::DuplicateId { key: ADDED, id, first, second });
            }
            slots[idx] = Some((text, bytes, role));
        }
        let mut pieces = Pieces::default();
        for slot in slots {
            let (_, bytes, role) = slot.unwrap_or_default();
            pieces.push(&bytes, role);
        }
        Ok(pieces)
    }

    fn added(&self) -> Result<AddedTokens, VocabularyFault> {
        let tokens = self.json.added_tokens.iter().map(AddedJson::token).collect();
        AddedTokens::new(tokens)
            .map_err(|error| VocabularyFault::Json { message: error.to_string() })
    }

    fn marks(&self, added: &AddedTokens, pieces: &Pieces) -> Result<Marks, VocabularyFault> {
        let settings = &self.settings;
        let in_range = |key, id: u64| match u32::try_from(id) {
            Ok(id) if (id as usize) < pieces.len() => Ok(TokenId(id)),
            _ => Err(VocabularyFault::IdOutOfRange { key, id, limit: pieces.len() }),
        };
        let end_ids = settings.end_ids.iter().map(|&id| in_range("eos_token_id", id));
        let ends = end_ids.collect::<Result<Vec<_>, _>>()?;
        let bos = match &settings.bos {
            Some(text) => self.token(text),
            None => settings.bos_id.map(|id| in_range("bos_token_id", id)).transpose()?,
        };
        let eos = settings.eos.as_deref().and_then(|text| self.token(text));
        let frame = frame(&self.json.post_processor);
        let mut marks = Marks {
            bos,
            eos: eos.or(ends.first().copied()),
            adds_bos: settings.adds_bos.unwrap_or(frame.has_start),
            adds_eos: settings.adds_eos.unwrap_or(frame.has_end),
            ends,
        };
        marks.complete_ends(added);
        Ok(marks)
    }

    /// The token written so, added or not.
    fn token(&self, text: &str) -> Option<TokenId> {
        let added = self.json.added_tokens.iter().find(|token| token.content == text);
        let listed = || self.json.model.vocab.0.iter().find(|(token, _)| token == text);
        added.map(|token| token.id).or_else(|| listed().map(|(_, id)| *id)).map(TokenId)
    }
}

impl AddedJson {
    fn token(&self) -> AddedToken {
        AddedToken {
            id: TokenId(self.id),
            text: self.content.clone(),
            is_control: self.special,
            strips_left: self.lstrip,
            strips_right: self.rstrip,
            is_single_word: self.single_word,
        }
    }
}

fn merges(entries: &[MergeJson]) -> Result<Vec<(&str, &str)>, VocabularyFault> {
    let halves = entries.iter().enumerate().map(|(idx, entry)| match entry {
        MergeJson::Pair(left, right) => Ok((left.as_str(), right.as_str())),
        MergeJson::Line(line) => line.split_once(' ').ok_or_else(|| {
            VocabularyFault::MalformedMerge { key: MERGES, idx, merge: shorten(line) }
        }),
    });
    halves.collect()
}

/// What a post-processor puts around a text.
#[derive(Default)]
struct Frame {
    has_start: bool,
    has_end: bool,
}

/// Reads a template such as `[SpecialToken, Sequence]`, alone or in a sequence of processors.
fn frame(processor: &Value) -> Frame {
    if let Some(processors) = processor["processors"].as_array() {
        let frames = processors.iter().map(frame);
        return frames.fold(Frame::default(), |a, b| Frame {
            has_start: a.has_start || b.has_start,
            has_end: a.has_end || b.has_end,
        });
    }
    let single = processor["single"].as_array().map_or(&[][..], Vec::as_slice);
    let is_special =
        |item: Option<&Value>| item.is_some_and(|item| item["SpecialToken"].is_object());
    Frame { has_start: is_special(single.first()), has_end: is_special(single.last()) }
}

fn unsupported(key: &'static str, found: &str, supported: &str) -> VocabularyFault {
    VocabularyFault::Unsupported { key, found: shorten(found), supported: supported.to_owned() }
}
