//! What is a tokenizer made of? The same parts, whatever file they came from.

use std::path::PathBuf;

use super::added::AddedTokens;
use super::pieces::Pieces;
use super::stream::LeadingSpace;
use super::words::Words;
use crate::ids::TokenId;

/// All parts of a tokenizer.
#[derive(Debug)]
pub(super) struct Parts {
    /// The model's file or folder, for messages.
    pub path: PathBuf,
    /// Plain text.
    pub words: Words,
    /// Tokens found in the text as they are written.
    pub added: AddedTokens,
    /// Every token's text.
    pub pieces: Pieces,
    /// What to do with a space at the beginning when decoding.
    pub leading_space: LeadingSpace,
    pub marks: Marks,
    /// The chat template's source.
    pub template: Option<String>,
}

/// Tokens with a meaning of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// Begins a text.
    pub bos: Option<TokenId>,
    /// Ends a text.
    pub eos: Option<TokenId>,
    /// Whether plain text is to begin with `bos`.
    pub adds_bos: bool,
    /// Whether plain text is to end with `eos`.
    pub adds_eos: bool,
    /// All tokens that end a generation, `eos` among them; sorted.
    pub ends: Vec<TokenId>,
}

/// Control tokens that end a generation wherever they occur: of turns, of messages, of texts.
const ENDS: [&str; 11] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<EOT>",
    "</s>",
    "<｜end▁of▁sentence｜>",
];

impl Marks {
    /// Completes `ends`: with `eos`, and with the control tokens known to end a generation.
    pub fn complete_ends(&mut self, added: &AddedTokens) {
        self.ends.extend(self.eos);
        let known = added.tokens().iter().filter(|token| ENDS.contains(&token.text.as_str()));
        self.ends.extend(known.map(|token| token.id));
        self.ends.sort_unstable();
        self.ends.dedup();
    }
}
