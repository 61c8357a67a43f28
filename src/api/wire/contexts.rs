//! Contexts, on the wire: docs/api.md says what each field means.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::super::error::ErrorBody;
use super::completions::WireMessage;

/// `POST /v1/contexts`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateContext {
    /// What it will be called; a new name where it is left out.
    pub name: Option<String>,
    /// The model's name.
    pub model: Option<String>,
    /// The document to read.
    pub text: Option<String>,
    /// Or what was said so far.
    pub messages: Option<Vec<WireMessage>>,
    /// Seconds until it is removed.
    pub ttl: Option<u64>,
    /// Whether it is kept whatever the limit of the store.
    pub pinned: Option<bool>,
    /// The client's own, kept and given back.
    pub metadata: Option<Map<String, Value>>,
    /// Sends how far it is.
    pub stream: Option<bool>,
}

/// `PATCH /v1/contexts/{id}`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeContext {
    /// Seconds until it is removed; null keeps it.
    #[serde(default, deserialize_with = "said")]
    pub ttl: Option<Option<u64>>,
    /// Whether it is kept whatever the limit of the store.
    pub pinned: Option<bool>,
    /// Takes the place of what was there.
    pub metadata: Option<Map<String, Value>>,
}

/// `POST /v1/contexts/{id}/append`
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AppendText {
    /// What comes after what was read.
    pub text: String,
    /// Sends how far it is.
    pub stream: Option<bool>,
}

/// `POST /v1/contexts/{id}/fork`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkContext {
    /// What the fork will be called.
    pub name: Option<String>,
    /// Tokens after which it goes its own way.
    pub at: Option<usize>,
    /// Turns after which it does.
    pub turn: Option<usize>,
}

/// `POST /v1/contexts/{id}/rewind`
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RewindContext {
    /// Tokens that are left.
    pub tokens: Option<usize>,
    /// Turns that are left.
    pub turn: Option<usize>,
}

/// A field that may be null, and says something by it.
fn said<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What a context is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Waiting for its turn.
    Queued,
    /// Being read.
    Reading,
    /// Read.
    Ready,
    /// Read in part.
    Stopped,
    /// Not read, because of an error.
    Failed,
}

/// A context.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ContextObject {
    /// What it is called.
    pub id: String,
    /// `context`
    pub object: &'static str,
    /// The model that read it.
    pub model: String,
    /// `document` or `conversation`
    pub kind: &'static str,
    /// What it is doing.
    pub status: Status,
    /// Seconds since 1970, as all times.
    pub created: u64,
    /// When it was used.
    pub last_used: u64,
    /// When it will be removed.
    pub expires_at: Option<u64>,
    /// Whether it is kept whatever the limit of the store.
    pub pinned: bool,
    /// Tokens read.
    pub tokens: usize,
    /// Tokens there are to read, where that is known.
    pub total_tokens: Option<usize>,
    /// Bytes of its text, all that is read or to be read.
    pub text_bytes: usize,
    /// Turns of a conversation.
    pub turns: usize,
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Of these, bytes that no other context has.
    pub own_bytes: u64,
    /// The context that it was forked from.
    pub forked_from: Option<String>,
    /// The client's own.
    pub metadata: Map<String, Value>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
}

/// `GET /v1/contexts`
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ContextList {
    /// `list`
    pub object: &'static str,
    /// By id.
    pub data: Vec<ContextObject>,
    /// The first id of these.
    pub first_id: Option<String>,
    /// The last, for `after`.
    pub last_id: Option<String>,
    /// Whether there are more after them.
    pub has_more: bool,
}

/// `DELETE /v1/contexts/{id}`
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeletedContext {
    /// What it was called.
    pub id: String,
    /// `context.deleted`
    pub object: &'static str,
    /// `true`
    pub deleted: bool,
}

/// `GET /v1/contexts/{id}/text`
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ContextText {
    /// What it is called.
    pub id: String,
    /// The first byte, on a character's border.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Bytes of the whole text.
    pub text_bytes: usize,
    /// The text between.
    pub text: String,
}

/// How far a reading is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReadingProgress {
    /// `context.progress`
    pub object: &'static str,
    /// Which context.
    pub id: String,
    /// Tokens read.
    pub tokens: usize,
    /// Tokens there are.
    pub total_tokens: usize,
}
