//! Completions, as OpenAI's clients write and read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// `POST /v1/chat/completions`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// The model's name; the service's own where it is left out.
    pub model: Option<String>,
    /// What was said; with `context` what is said now.
    pub messages: Vec<WireMessage>,
    /// The context to ask.
    pub context: Option<String>,
    /// What becomes of the context.
    pub context_mode: Option<ContextMode>,
    /// Adds to each choice the passages that it was read from.
    pub include_evidence: Option<bool>,
    /// Sends the answer as it comes.
    pub stream: Option<bool>,
    /// What else a stream carries.
    pub stream_options: Option<StreamOptions>,
    /// Tokens of an answer at most.
    pub max_tokens: Option<usize>,
    /// The same, by its newer name.
    pub max_completion_tokens: Option<usize>,
    /// 0 takes the likeliest token each time. Default: 1.
    pub temperature: Option<f32>,
    /// Draws from the likeliest tokens that together have this share.
    pub top_p: Option<f32>,
    /// Draws from so many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Draws from tokens at least so likely beside the likeliest.
    pub min_p: Option<f32>,
    /// Same seed, same answer.
    pub seed: Option<i64>,
    /// Strings before which the answer ends, at most four.
    pub stop: Option<OneOrMany>,
    /// Answers.
    pub n: Option<usize>,
    /// With each token, how likely it was.
    pub logprobs: Option<bool>,
    /// And how likely so many of the likeliest were, at most 20.
    pub top_logprobs: Option<usize>,
    /// Makes tokens less likely by how often the answer has them; -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Makes tokens less likely once the answer has them; -2 to 2.
    pub presence_penalty: Option<f32>,
    /// Added to tokens' logits, by their numbers; -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// What form the answer must have.
    pub response_format: Option<ResponseFormat>,
    /// Who asks, for the service's log.
    pub user: Option<String>,
}

/// `POST /v1/completions`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// The model's name; the service's own where it is left out.
    pub model: Option<String>,
    /// The text to go on from, or several.
    pub prompt: OneOrMany,
    /// Sends the answer as it comes.
    pub stream: Option<bool>,
    /// What else a stream carries.
    pub stream_options: Option<StreamOptions>,
    /// Tokens of an answer at most. Default: 16.
    pub max_tokens: Option<usize>,
    /// 0 takes the likeliest token each time. Default: 1.
    pub temperature: Option<f32>,
    /// Draws from the likeliest tokens that together have this share.
    pub top_p: Option<f32>,
    /// Draws from so many of the likeliest tokens.
    pub top_k: Option<usize>,
    /// Draws from tokens at least so likely beside the likeliest.
    pub min_p: Option<f32>,
    /// Same seed, same answer.
    pub seed: Option<i64>,
    /// Strings before which the answer ends, at most four.
    pub stop: Option<OneOrMany>,
    /// Answers to each prompt.
    pub n: Option<usize>,
    /// With each token, how likely it and so many of the likeliest were, at most 20.
    pub logprobs: Option<usize>,
    /// Makes tokens less likely by how often the answer has them; -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Makes tokens less likely once the answer has them; -2 to 2.
    pub presence_penalty: Option<f32>,
    /// Added to tokens' logits, by their numbers; -100 to 100.
    pub logit_bias: Option<BTreeMap<String, f32>>,
    /// Adds to each choice the passages that it was read from.
    pub include_evidence: Option<bool>,
    /// Who asks, for the service's log.
    pub user: Option<String>,
}

/// A message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WireMessage {
    /// Who says it.
    pub role: WireRole,
    /// What is said.
    pub content: Option<Content>,
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WireRole {
    /// Sets the rules.
    System,
    /// The same, by its newer name.
    Developer,
    /// Asks.
    User,
    /// The model.
    Assistant,
}

/// What is said: a text, or parts that are texts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts of one.
    Parts(Vec<ContentPart>),
}

/// A part of a message.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "there is one kind, and reading checks it")]
pub struct ContentPart {
    /// `text`, the only one supported.
    #[serde(rename = "type")]
    pub kind: PartKind,
    /// The text.
    pub text: String,
}

/// The kind of a part.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// Text.
    Text,
}

impl Content {
    /// All of its text.
    pub fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts(parts) => parts.into_iter().map(|part| part.text).collect(),
        }
    }
}

/// One string or several.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    /// All of them.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// What becomes of a context that is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContextMode {
    /// It stays as it is.
    #[default]
    Ask,
    /// What is said is kept.
    Append,
}

/// What else a stream carries.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// A last chunk with `usage`.
    pub include_usage: Option<bool>,
}

/// What form an answer must have.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ResponseFormat {
    /// Any.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema {
        /// The schema, with a name.
        json_schema: NamedSchema,
    },
}

/// A JSON schema.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "its name is the client's own, and answers are always strict")]
pub struct NamedSchema {
    /// What it is called; for the client alone.
    pub name: Option<String>,
    /// What it is for; for the client alone.
    pub description: Option<String>,
    /// The schema.
    pub schema: Value,
    /// Answers follow the schema in any case.
    pub strict: Option<bool>,
}

/// A passage that an answer was read from.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Evidence {
    /// Its first byte in the text.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
    /// The passage.
    pub text: String,
    /// Its share of the attention that the answer gave to what is far.
    pub weight: f32,
}

/// How many tokens a request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Usage {
    /// Of the prompt, the context's included.
    pub prompt_tokens: usize,
    /// Of all answers.
    pub completion_tokens: usize,
    /// Both.
    pub total_tokens: usize,
    /// Of the prompt's.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// What is known of a prompt's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens that had been read before.
    pub cached_tokens: usize,
}

/// A token that was drawn, as chat completions say it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct WireLogprob {
    /// Its text.
    pub token: String,
    /// In nats.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The likeliest tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<Vec<WireLogprob>>,
}
