//! How does a GGUF file hold a tokenizer? In its metadata, under `tokenizer.*`:
//!
//! | key | holds |
//! |---|---|
//! | `ggml.model` | `gpt2` (byte-level) or `llama` (SentencePiece) |
//! | `ggml.pre` | the name of the splitting rule (`gpt2` only) |
//! | `ggml.tokens`, `.token_type` | text and kind of every token |
//! | `ggml.merges` or `.scores` | what is merged first (`gpt2`, `llama`) |
//! | `ggml.*_token_id`, `.add_*` | tokens with a meaning of their own |
//! | `chat_template` | the conversation's template |

use std::collections::HashMap;

use tokenizers::normalizers::{NormalizerWrapper, Replace};

use super::added::{AddedToken, AddedTokens};
use super::error::{TokenizerError, VocabularyFault, shorten};
use super::parts::{Marks, Parts};
use super::pieces::{Alphabet, METASPACE, PieceRole, Pieces, has_space_after_letter};
use super::splitter::Splitter;
use super::stream::LeadingSpace;
use super::vocabulary::Vocabulary;
use super::words::{Prefix, PrefixScope, WordRules, Words};
use crate::ids::TokenId;
use crate::tensor::gguf::GgufFile;

const MODEL: &str = "tokenizer.ggml.model";
const SPLITTER: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Tokens that end a generation besides `EOS`.
const OTHER_ENDS: [&str; 2] = ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// What a token is for, as GGML numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl TokenKind {
    fn numbered(number: i32) -> Option<Self> {
        [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte]
            .get(usize::try_from(number).ok()?.checked_sub(1)?)
            .copied()
    }
}

/// The tokens of a file, with what they are for.
struct Listed<'a> {
    texts: Vec<&'a str>,
    /// As long as `texts`.
    kinds: Vec<TokenKind>,
    alphabet: Alphabet,
}

/// Reads the tokenizer of `file`.
pub(super) fn read(file: &GgufFile) -> Result<Parts, TokenizerError> {
    let model = file.string(MODEL)?.ok_or_else(|| fault(file, missing(MODEL)))?;
    let (words, listed, leading_space) = match model {
        "gpt2" => byte_level(file)?,
        "llama" => sentence_piece(file)?,
        other => return Err(fault(file, unsupported(MODEL, other, "gpt2, llama".to_owned()))),
    };
    let added = listed.added().map_err(|error| fault(file, error))?;
    let mut marks = read_marks(file, listed.texts.len())?;
    marks.complete_ends(&added);
    Ok(Parts {
        path: file.path().to_owned(),
        words,
        pieces: listed.pieces(),
        added,
        leading_space,
        marks,
        template: file.string(TEMPLATE)?.map(str::to_owned),
    })
}

type Model<'a> = (Words, Listed<'a>, LeadingSpace);

/// Byte-level BPE, as GPT-2 began it: merges listed in order.
fn byte_level(file: &GgufFile) -> Result<Model<'_>, TokenizerError> {
    let listed = Listed::read(file, Alphabet::ByteLevel)?;
    let name = file.string(SPLITTER)?.unwrap_or("default");
    let splitter = Splitter::named(name)
        .ok_or_else(|| fault(file, unsupported(SPLITTER, name, Splitter::supported())))?;
    let entries = file.strings(MERGES)?.ok_or_else(|| fault(file, missing(MERGES)))?;
    let vocabulary = Vocabulary {
        tokens_key: TOKENS,
        merges_key: MERGES,
        tokens: listed.of_kinds(&[TokenKind::Normal, TokenKind::Byte]),
        merges: split_merges(&entries).map_err(|error| fault(file, error))?,
        alphabet: Alphabet::ByteLevel,
        unknown: None,
        fuses_unknown: false,
        ignores_merges: splitter.ignores_merges,
    };
    let adds_space = file.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(false);
    let scope = if adds_space { PrefixScope::TextStart } else { PrefixScope::None };
    let words = Words::new(WordRules {
        normalizer: None,
        pre_tokenizer: Some(splitter.pre_tokenizer()),
        merges: vocabulary.build().map_err(|error| fault(file, error))?,
        prefix: Prefix { space: " ", scope, spares_spaced: true },
        is_sliceable: true,
    });
    Ok((words, listed, LeadingSpace::Keep))
}

/// SentencePiece BPE, as Llama had it: any two neighbours that make a token merge, the token with
/// the highest score first.
fn sentence_piece(file: &GgufFile) -> Result<Model<'_>, TokenizerError> {
    let listed = Listed::read(file, Alphabet::Metaspace)?;
    let scores = file.f32s(SCORES)?.ok_or_else(|| fault(file, missing(SCORES)))?;
    let n_tokens = listed.texts.len();
    if scores.len() != n_tokens {
        let length = VocabularyFault::LengthMismatch { key: SCORES, found: scores.len(), n_tokens };
        return Err(fault(file, length));
    }
    let unknown = listed.unknown(file.u32(UNKNOWN)?).map_err(|error| fault(file, error))?;
    let mut tokens = listed.of_kinds(&[TokenKind::Normal, TokenKind::Byte]);
    tokens.extend(unknown.filter(|entry| !tokens.contains(entry)));
    let vocabulary = Vocabulary {
        tokens_key: TOKENS,
        merges_key: SCORES,
        merges: merges_by_score(&listed, &scores),
        tokens,
        alphabet: Alphabet::Metaspace,
        unknown: unknown.map(|(text, _)| text),
        fuses_unknown: true,
        ignores_merges: false,
    };
    let adds_space = file.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let scope = if adds_space { PrefixScope::EveryRun } else { PrefixScope::None };
    let spaces = Replace::new(" ", METASPACE.to_string());
    let spaces = spaces.expect("because a plain space is a valid pattern");
    let words = Words::new(WordRules {
        normalizer: Some(NormalizerWrapper::Replace(spaces)),
        pre_tokenizer: None,
        merges: vocabulary.build().map_err(|error| fault(file, error))?,
        prefix: Prefix { space: "▁", scope, spares_spaced: false },
        is_sliceable: !listed.texts.iter().any(|text| has_space_after_letter(text)),
    });
    let leading_space = if adds_space { LeadingSpace::Drop } else { LeadingSpace::Keep };
    Ok((words, listed, leading_space))
}

/// The two halves of each entry `left right`; the left one may itself begin with a space.
fn split_merges<'a>(entries: &[&'a str]) -> Result<Vec<(&'a str, &'a str)>, VocabularyFault> {
    let halves = entries.iter().enumerate().map(|(idx, entry)| {
        let first = entry.chars().next().map_or(0, char::len_utf8);
        let space = entry[first..].find(' ').map(|at| first + at);
        let halves = space.map(|at| (&entry[..at], &entry[at + 1..]));
        halves.filter(|(_, right)| !right.is_empty()).ok_or_else(|| {
            VocabularyFault::MalformedMerge { key: MERGES, idx, merge: shorten(entry) }
        })
    });
    halves.collect()
}

/// Every way to make a token of two others, the token with the highest score first.
fn merges_by_score<'a>(listed: &Listed<'a>, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let normal = listed.of_kinds(&[TokenKind::Normal]);
    let ids: HashMap<&str, u32> = normal.iter().copied().collect();
    let mut merges = Vec::new();
    for (text, id) in normal {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((id, left_id, right_id, left, right));
            }
        }
    }
    merges.sort_by(|a, b| {
        let by_score = scores[b.0 as usize].total_cmp(&scores[a.0 as usize]);
        by_score.then((a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)))
    });
    merges.into_iter().map(|(_, _, _, left, right)| (left, right)).collect()
}

impl<'a> Listed<'a> {
    fn read(file: &'a GgufFile, alphabet: Alphabet) -> Result<Self, TokenizerError> {
        let texts = file.strings(TOKENS)?.ok_or_else(|| fault(file, missing(TOKENS)))?;
        let n_tokens = texts.len();
        let Some(numbers) = file.i32s(KINDS)? else {
            return Ok(Self { kinds: vec![TokenKind::Normal; n_tokens], texts, alphabet });
        };
        if numbers.len() != n_tokens {
            let found = numbers.len();
            let length = VocabularyFault::LengthMismatch { key: KINDS, found, n_tokens };
            return Err(fault(file, length));
        }
        let kinds = numbers.into_iter().map(|number| {
            TokenKind::numbered(number).ok_or_else(|| {
                fault(file, unsupported(KINDS, &number.to_string(), "1 to 6".to_owned()))
            })
        });
        Ok(Self { kinds: kinds.collect::<Result<_, _>>()?, texts, alphabet })
    }

    fn entries(&self) -> impl Iterator<Item = (&'a str, u32, TokenKind)> {
        self.texts.iter().zip(0..).zip(&self.kinds).map(|((&text, id), &kind)| (text, id, kind))
    }

    /// Tokens of some kinds, with their ids. Placeholders without text are left out.
    fn of_kinds(&self, kinds: &[TokenKind]) -> Vec<(&'a str, u32)> {
        let wanted =
            self.entries().filter(|(text, _, kind)| !text.is_empty() && kinds.contains(kind));
        wanted.map(|(text, id, _)| (text, id)).collect()
    }

    /// What unknown letters become: the token that the file names, else the first that is for
    /// it; never one that steers the model.
    fn unknown(&self, named: Option<u32>) -> Result<Option<(&'a str, u32)>, VocabularyFault> {
        let Some(id) = named else {
            return Ok(self.of_kinds(&[TokenKind::Unknown]).first().copied());
        };
        let Some(&text) = self.texts.get(id as usize) else {
            let (id, limit) = (u64::from(id), self.texts.len());
            return Err(VocabularyFault::IdOutOfRange { key: UNKNOWN, id, limit });
        };
        Ok((self.kinds[id as usize] != TokenKind::Control).then_some((text, id)))
    }

    fn added(&self) -> Result<AddedTokens, VocabularyFault> {
        let matched = |kind| matches!(kind, TokenKind::Control | TokenKind::UserDefined);
        let tokens = self.entries().filter(|(_, _, kind)| matched(*kind));
        let tokens = tokens.map(|(text, id, kind)| AddedToken {
            id: TokenId(id),
            text: text.to_owned(),
            is_control: kind == TokenKind::Control,
            strips_left: false,
            strips_right: false,
            is_single_word: false,
        });
        AddedTokens::new(tokens.collect())
            .map_err(|error| VocabularyFault::Json { message: error.to_string() })
    }

    fn pieces(&self) -> Pieces {
        let mut pieces = Pieces::default();
        for (text, _, kind) in self.entries() {
            match kind {
                TokenKind::Control => pieces.push(text.as_bytes(), PieceRole::Control),
                TokenKind::UserDefined => pieces.push(text.as_bytes(), PieceRole::Text),
                _ => pieces.push(&self.alphabet.bytes(text), PieceRole::Text),
            }
        }
        pieces
    }
}

fn read_marks(file: &GgufFile, n_tokens: usize) -> Result<Marks, TokenizerError> {
    let id = |key: &'static str| -> Result<Option<TokenId>, TokenizerError> {
        match file.u32(key)? {
            Some(id) if id as usize >= n_tokens => {
                let id = u64::from(id);
                Err(fault(file, VocabularyFault::IdOutOfRange { key, id, limit: n_tokens }))
            }
            id => Ok(id.map(TokenId)),
        }
    };
    let mut ends = Vec::new();
    for key in OTHER_ENDS {
        ends.extend(id(key)?);
    }
    let is_llama = file.string(MODEL)? == Some("llama");
    Ok(Marks {
        bos: id(BOS)?,
        eos: id(EOS)?,
        adds_bos: file.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(is_llama),
        adds_eos: file.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
        ends,
    })
}

fn missing(key: &'static str) -> VocabularyFault {
    VocabularyFault::Missing { key }
}

fn unsupported(key: &'static str, found: &str, supported: String) -> VocabularyFault {
    VocabularyFault::Unsupported { key, found: shorten(found), supported }
}

fn fault(file: &GgufFile, fault: VocabularyFault) -> TokenizerError {
    TokenizerError::Vocabulary { path: file.path().to_owned(), fault }
}
