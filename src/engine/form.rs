//! How is an answer held to a form? A grammar says before each token which may come (`llguidance`);
//! the answer is over when the grammar says so.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use super::error::EngineError;
use super::loaded::Engine;
use crate::ids::TokenId;
use crate::tokenizer::Tokenizer;

/// What form an answer must have.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AnswerForm {
    /// None.
    #[default]
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema describes (json-schema.org; what of it is understood: `llguidance`).
    JsonSchema(Value),
}

/// Follows an answer through its grammar.
pub(super) struct Form {
    matcher: Matcher,
    allowed: Option<SimpleVob>,
}

/// What grammars are made with, for one vocabulary.
pub(super) struct Forms {
    factory: ParserFactory,
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

impl Engine {
    /// A grammar's beginning; none for text of any form.
    ///
    /// # Errors
    /// When the schema is not understood.
    pub(super) fn form(&self, form: &AnswerForm) -> Result<Option<Form>, EngineError> {
        let schema = match form {
            AnswerForm::Text => return Ok(None),
            AnswerForm::JsonObject => serde_json::json!({ "type": "object" }),
            AnswerForm::JsonSchema(schema) => schema.clone(),
        };
        let parser = self.forms()?.factory.create_parser(TopLevelGrammar::from_json_schema(schema));
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(what) => Err(form_error(what)),
            None => Ok(Some(Form { matcher, allowed: None })),
        }
    }
}

impl Form {
    /// Finds which tokens may come next; says whether any may.
    ///
    /// # Errors
    /// When the grammar needs more than it may take.
    pub fn advance(&mut self) -> Result<bool, EngineError> {
        if self.matcher.is_stopped() {
            return Ok(false);
        }
        self.allowed = Some(self.matcher.compute_mask_or_eos().map_err(form_error)?);
        Ok(true)
    }

    /// Whether `token` may come next.
    pub fn allows(&self, token: TokenId) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.is_allowed(token.0))
    }

    /// Takes note of the token that came.
    ///
    /// # Errors
    /// When it may not.
    pub fn take(&mut self, token: TokenId) -> Result<(), EngineError> {
        self.matcher.consume_token(token.0).map_err(form_error)
    }

    /// The same, for another answer of the same form.
    pub fn fork(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), allowed: self.allowed.clone() }
    }
}

fn form_error(what: impl std::fmt::Display) -> EngineError {
    EngineError::Form { what: what.to_string() }
}
