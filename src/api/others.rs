//! What else is answered: models, tokens, health, measures.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::answering::blocking;
use super::completions::messages;
use super::error::{ApiError, ErrorReply};
use super::keys::Tenant;
use super::state::Service;
use super::wire::completions::WireMessage;
use super::wire::{Nulls, parse};

/// Lists the service's model.
#[utoipa::path(
    get, path = "/v1/models", tag = "others",
    responses((status = 200, description = "The models", body = Value))
)]
pub async fn models(State(service): State<Service>) -> Json<Value> {
    Json(json!({ "object": "list", "data": [model_object(&service)] }))
}

/// Shows a model.
#[utoipa::path(
    get, path = "/v1/models/{id}", tag = "others", params(("id" = String, Path)),
    responses(
        (status = 200, description = "The model", body = Value),
        (status = "4XX", description = "There is none", body = ErrorReply),
    )
)]
pub async fn model(
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    super::completions::check_model(&service, Some(&id))?;
    Ok(Json(model_object(&service)))
}

fn model_object(service: &Service) -> Value {
    json!({
        "id": service.model(),
        "object": "model",
        "created": service.started(),
        "owned_by": "mneme",
    })
}

/// Bytes whose tokens are told at once.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// `POST /tokenize`
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizeRequest {
    /// The model's name.
    pub model: Option<String>,
    /// A text.
    pub text: Option<String>,
    /// Or a conversation, in the model's template.
    pub messages: Option<Vec<WireMessage>>,
}

/// The tokens of a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Tokens {
    /// Their numbers.
    pub tokens: Vec<u32>,
    /// How many.
    pub count: usize,
    /// The text of each.
    pub pieces: Vec<String>,
}

/// Gives the tokens of a text or a conversation.
#[utoipa::path(
    post, path = "/tokenize", tag = "others", request_body = TokenizeRequest,
    responses(
        (status = 200, description = "The tokens", body = Tokens),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
    )
)]
pub async fn tokenize(
    State(service): State<Service>,
    Extension(_): Extension<Tenant>,
    body: Bytes,
) -> Result<Json<Tokens>, ApiError> {
    let request: TokenizeRequest = parse(&body, Nulls::AreAbsent)?;
    super::completions::check_model(&service, request.model.as_deref())?;
    blocking(move || tokens(&service, request)).await.map(Json)
}

fn tokens(service: &Service, request: TokenizeRequest) -> Result<Tokens, ApiError> {
    let engine = service.engine();
    let tokens = match (request.text, request.messages) {
        (Some(text), None) if text.len() > MAX_TEXT_BYTES => return Err(too_long("text")),
        (Some(text), None) => engine.tokenize(&text),
        (None, Some(said)) if !said.is_empty() => {
            let said = messages(said)?;
            if said.iter().map(|it| it.content.len()).sum::<usize>() > MAX_TEXT_BYTES {
                return Err(too_long("messages"));
            }
            let prompt = engine.chat_prompt(&said, service.memory())?;
            prompt.ids.iter().map(|id| (*id, engine.token_text(*id))).collect()
        }
        _ => return Err(ApiError::invalid("text", "Send either `text` or `messages`.")),
    };
    Ok(Tokens {
        count: tokens.len(),
        tokens: tokens.iter().map(|(id, _)| id.0).collect(),
        pieces: tokens.into_iter().map(|(_, piece)| piece).collect(),
    })
}

fn too_long(field: &str) -> ApiError {
    let message = format!("`{field}` may have {MAX_TEXT_BYTES} bytes here.");
    ApiError::invalid(field, message)
}

/// Says that the process lives.
#[utoipa::path(
    get, path = "/healthz", tag = "others",
    responses((status = 200, description = "It does", body = String))
)]
pub async fn health() -> &'static str {
    "ok\n"
}

/// Says whether the service takes requests.
#[utoipa::path(
    get, path = "/readyz", tag = "others",
    responses(
        (status = 200, description = "It does", body = String),
        (status = 503, description = "It is ending", body = ErrorReply),
    )
)]
pub async fn ready(State(service): State<Service>) -> Result<&'static str, ApiError> {
    match service.is_draining() {
        true => Err(ApiError::draining()),
        false => Ok("ready\n"),
    }
}
