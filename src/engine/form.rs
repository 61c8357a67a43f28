//! How is an answer held to a form? A grammar says before each token which may come (`llguidance`);
//! the answer is over when the grammar says so.

use llguidance::Matcher;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::SimpleVob;
use serde_json::Value;

use super::error::EngineError;
use super::forms::form_error;
use super::loaded::Engine;
use crate::ids::TokenId;

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
        let schema = without_idle_blanks(schema);
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

/// The schema with one way to write blanks: a small model that may write any number of them may never
/// come to an end.
fn without_idle_blanks(mut schema: Value) -> Value {
    if let Value::Object(fields) = &mut schema {
        let writing = serde_json::json!({
            "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ",
        });
        fields.entry("x-guidance").or_insert(writing);
    }
    schema
}
