//! What are grammars of answers made with? The vocabulary, as a trie (`toktrie`).

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::error::EngineError;
use crate::ids::TokenId;
use crate::tokenizer::Tokenizer;

/// What grammars are made with, for one vocabulary.
pub(super) struct Forms {
    pub factory: ParserFactory,
}

impl Forms {
    /// Takes a moment: all tokens are put into a trie.
    ///
    /// # Errors
    /// When the vocabulary has no token that ends a text.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, EngineError> {
        let no_end = || form_error("this model has no token that ends an answer");
        let end = tokenizer.end_ids().first().ok_or_else(no_end)?;
        let n_tokens = tokenizer.vocab_size() as u32;
        let word = |id: u32| {
            let piece = tokenizer.piece(TokenId(id));
            match tokenizer.is_control(TokenId(id)) {
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], tokenizer.spell(TokenId(id)).as_bytes()]
                    .concat(),
                false => piece.to_vec(),
            }
        };
        let words: Vec<Vec<u8>> = (0..n_tokens).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(n_tokens, end.0), &words);
        let ends: Vec<u32> = tokenizer.end_ids().iter().map(|id| id.0).collect();
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&ends)));
        let mut factory = ParserFactory::new_simple(&environment).map_err(form_error)?;
        factory.quiet();
        Ok(Self { factory })
    }
}

pub(super) fn form_error(what: impl std::fmt::Display) -> EngineError {
    EngineError::Form { what: what.to_string() }
}
