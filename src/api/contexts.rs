//! `/v1/contexts`: what is remembered, as a resource. What a context looks like is in `context_view`,
//! how it comes to be in `ingest`.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::IntoParams;

use super::answering::blocking;
use super::clock::now;
use super::context_view::{self, view};
use super::error::{ApiError, ErrorReply};
use super::keys::Tenant;
use super::state::Service;
use super::wire::contexts::{
    ChangeContext, ContextList, ContextObject, ContextText, DeletedContext, ForkContext,
    RewindContext,
};
use super::wire::{Nulls, parse};
use crate::ids::ByteSpan;
use crate::memory::store::{Pinned, StoreError};

/// Contexts in a list where nobody says, and at most.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// Bytes of a text given at once.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Bytes of a client's own words at most.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// How a list goes on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Contexts at most, 1 to 100; 20 where it is left out.
    limit: Option<usize>,
    /// Those that come after this id.
    after: Option<String>,
}

/// Lists the tenant's contexts.
#[utoipa::path(
    get, path = "/v1/contexts", tag = "contexts", params(Page),
    responses(
        (status = 200, description = "Some of them", body = ContextList),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
    )
)]
pub async fn list(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    page: Result<Query<Page>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ContextList>, ApiError> {
    let Query(Page { limit, after }) =
        page.map_err(|error| ApiError::bad("invalid_value", error.body_text()))?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("`limit` must be 1 to {MAX_LIMIT}, not {limit}.");
        return Err(ApiError::invalid("limit", message));
    }
    let mut data = blocking(move || context_view::all(&service, &tenant)).await?;
    data.sort_by(|a, b| a.id.cmp(&b.id));
    let from = after.map_or(0, |after| data.partition_point(|context| context.id <= after));
    let has_more = data.len() - from > limit;
    let data: Vec<ContextObject> = data.into_iter().skip(from).take(limit).collect();
    let (first_id, last_id) = (data.first(), data.last());
    let (first_id, last_id) = (first_id.map(|it| it.id.clone()), last_id.map(|it| it.id.clone()));
    Ok(Json(ContextList { object: "list", data, first_id, last_id, has_more }))
}

/// Shows a context.
#[utoipa::path(
    get, path = "/v1/contexts/{id}", tag = "contexts", params(("id" = String, Path)),
    responses(
        (status = 200, description = "The context", body = ContextObject),
        (status = "4XX", description = "There is none", body = ErrorReply),
    )
)]
pub async fn show(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
) -> Result<Json<ContextObject>, ApiError> {
    blocking(move || view(&service, &tenant, &id)).await.map(Json)
}

/// Changes what is kept with a context, and how long it is kept.
#[utoipa::path(
    patch, path = "/v1/contexts/{id}", tag = "contexts", params(("id" = String, Path)),
    request_body = ChangeContext,
    responses(
        (status = 200, description = "The context", body = ContextObject),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
    )
)]
pub async fn change(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<ContextObject>, ApiError> {
    let request: ChangeContext = parse(&body, Nulls::Count)?;
    let metadata = request.metadata.as_ref().map(metadata).transpose()?;
    check_ttl(request.ttl.flatten())?;
    let changing = service.change(&tenant, &id)?;
    blocking(move || {
        let store = service.store();
        if let Some(ttl) = request.ttl {
            store.set_expiry(&tenant.0, &id, ttl.map(|ttl| now().saturating_add(ttl)))?;
        }
        if let Some(pinned) = request.pinned {
            let pinned = if pinned { Pinned::Yes } else { Pinned::No };
            store.set_pinned(&tenant.0, &id, pinned)?;
        }
        if let Some(metadata) = metadata {
            service.contexts(&tenant).set_metadata(&id, metadata)?;
        }
        drop(changing);
        view(&service, &tenant, &id)
    })
    .await
    .map(Json)
}

/// Removes a context, and stops its reading.
#[utoipa::path(
    delete, path = "/v1/contexts/{id}", tag = "contexts", params(("id" = String, Path)),
    responses(
        (status = 200, description = "It is gone", body = DeletedContext),
        (status = "4XX", description = "There is none", body = ErrorReply),
    )
)]
pub async fn delete(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
) -> Result<Json<DeletedContext>, ApiError> {
    let reading = service.reading(&tenant, &id);
    if let Some(reading) = &reading {
        reading.stop();
        reading.ended().await;
        service.remove_reading(&tenant, &id);
    }
    let changing = service.change(&tenant, &id)?;
    let deleted = DeletedContext { id: id.clone(), object: "context.deleted", deleted: true };
    blocking(move || {
        let removed = service.store().delete(&tenant.0, &id);
        drop(changing);
        match removed {
            // It was stopped before anything of it was kept.
            Err(StoreError::UnknownContext { .. }) if reading.is_some() => Ok(()),
            removed => Ok(removed?),
        }
    })
    .await?;
    Ok(Json(deleted))
}

/// Makes another context that has read the same; no unit is copied.
#[utoipa::path(
    post, path = "/v1/contexts/{id}/fork", tag = "contexts", params(("id" = String, Path)),
    request_body = ForkContext,
    responses(
        (status = 201, description = "The fork", body = ContextObject),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
    )
)]
pub async fn fork(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: ForkContext = match body.is_empty() {
        true => ForkContext::default(),
        false => parse(&body, Nulls::AreAbsent)?,
    };
    let name = request.name.map_or_else(|| Ok(new_name()), checked_name)?;
    let changing = service.change(&tenant, &name)?;
    let object = blocking(move || {
        check_at(&service, &tenant, (&id, request.at, request.turn))?;
        service.store().fork(&tenant.0, &id, &name)?;
        let back = back(&service, &tenant, (&name, request.at, request.turn));
        if let Err(error) = back {
            service.store().delete(&tenant.0, &name)?;
            return Err(error);
        }
        drop(changing);
        view(&service, &tenant, &name)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(object)).into_response())
}

/// Takes a context back.
#[utoipa::path(
    post, path = "/v1/contexts/{id}/rewind", tag = "contexts", params(("id" = String, Path)),
    request_body = RewindContext,
    responses(
        (status = 200, description = "The context", body = ContextObject),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
    )
)]
pub async fn rewind(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<ContextObject>, ApiError> {
    let request: RewindContext = parse(&body, Nulls::AreAbsent)?;
    if request.tokens.is_some() == request.turn.is_some() {
        return Err(ApiError::invalid("tokens", "Send either `tokens` or `turn`."));
    }
    let changing = service.change(&tenant, &id)?;
    blocking(move || {
        back(&service, &tenant, (&id, request.tokens, request.turn))?;
        drop(changing);
        view(&service, &tenant, &id)
    })
    .await
    .map(Json)
}

/// Takes a context back to so many tokens or turns, where either is said.
fn back(
    service: &Service,
    tenant: &Tenant,
    (name, tokens, turn): (&str, Option<usize>, Option<usize>),
) -> Result<(), ApiError> {
    if tokens.is_none() && turn.is_none() {
        return Ok(());
    }
    let mut context = service.contexts(tenant).open(name)?;
    let n_tokens = context.session().n_tokens();
    match (tokens, turn) {
        (Some(tokens), None) if tokens > n_tokens => {
            let message = format!("The context has {n_tokens} tokens, fewer than {tokens}.");
            return Err(ApiError::invalid("tokens", message));
        }
        (Some(tokens), None) => context.rewind(tokens)?,
        (None, Some(turn)) => context.rewind_to_turn(turn)?,
        _ => return Err(ApiError::invalid("turn", "Send either tokens or `turn`.")),
    }
    context.save()?;
    Ok(context.sync()?)
}

/// Which part of a text.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The first byte; 0 where it is left out.
    start: Option<usize>,
    /// One past the last byte; as much as is given at once where it is left out.
    end: Option<usize>,
}

/// Gives a part of the text that was read.
#[utoipa::path(
    get, path = "/v1/contexts/{id}/text", tag = "contexts", params(("id" = String, Path), Part),
    responses(
        (status = 200, description = "The part", body = ContextText),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
    )
)]
pub async fn text(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
    part: Result<Query<Part>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ContextText>, ApiError> {
    let Query(Part { start, end }) =
        part.map_err(|error| ApiError::bad("invalid_value", error.body_text()))?;
    let start = start.unwrap_or(0);
    let end = end.unwrap_or(start.saturating_add(MAX_TEXT_BYTES));
    if end < start || end - start > MAX_TEXT_BYTES {
        let message = format!(
            "`end` must be at or after `start`, and at most {MAX_TEXT_BYTES} bytes after it."
        );
        return Err(ApiError::invalid("end", message));
    }
    blocking(move || {
        service.stored(&tenant, &id)?;
        let context = service.contexts(&tenant).open(&id)?;
        let text_bytes = context.session().text_bytes();
        let (start, end) = (start.min(text_bytes), end.min(text_bytes));
        let (span, text) = context.session().text(ByteSpan { start, end })?;
        Ok(ContextText { id, start: span.start, end: span.end, text_bytes, text })
    })
    .await
    .map(Json)
}

/// Refuses a place in a context that it does not have.
fn check_at(
    service: &Service,
    tenant: &Tenant,
    (name, at, turn): (&str, Option<usize>, Option<usize>),
) -> Result<(), ApiError> {
    let stored = service.stored(tenant, name)?;
    let n_turns = service.contexts(tenant).notes(name)?.turns.len().saturating_sub(1);
    match (at, turn) {
        (Some(_), Some(_)) => Err(ApiError::invalid("turn", "Send either `at` or `turn`.")),
        (Some(at), _) if at as u64 > stored.length => {
            let message = format!("The context has {} tokens, fewer than {at}.", stored.length);
            Err(ApiError::invalid("at", message))
        }
        (_, Some(turn)) if turn > n_turns => {
            let message = format!("The context has {n_turns} turns, fewer than {turn}.");
            Err(ApiError::invalid("turn", message))
        }
        _ => Ok(()),
    }
}

/// Refuses a time to live that is over at once.
pub fn check_ttl(ttl: Option<u64>) -> Result<(), ApiError> {
    match ttl {
        Some(0) => Err(ApiError::invalid("ttl", "`ttl` must be at least 1 second, or null.")),
        _ => Ok(()),
    }
}

/// A name that nobody chose.
pub fn new_name() -> String {
    format!("ctx_{:024x}", fastrand::u128(..) >> 32)
}

/// A name that can stand in an address and that people can type.
pub fn checked_name(name: String) -> Result<String, ApiError> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_sound = (1..=128).contains(&name.len()) && name.chars().all(is_letter);
    match is_sound && !name.starts_with('.') {
        true => Ok(name),
        false => {
            let message = "`name` must be 1 to 128 letters, digits, '-', '_' or '.', and not begin with a dot.";
            Err(ApiError::invalid("name", message))
        }
    }
}

/// The client's own words, to be kept.
pub fn metadata(metadata: &Map<String, Value>) -> Result<String, ApiError> {
    let text = Value::Object(metadata.clone()).to_string();
    match text.len() <= MAX_METADATA_BYTES {
        true => Ok(text),
        false => {
            let message = format!("`metadata` has more than {MAX_METADATA_BYTES} bytes.");
            Err(ApiError::invalid("metadata", message))
        }
    }
}
