//! `/v1/contexts`: what is remembered, as a resource. What a context looks like is in `context_view`,
//! how it is read in `readings`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{Stream, StreamExt, unfold};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::answering::blocking;
use super::completions::{check_model, messages};
use super::context_view::{self, view};
use super::error::{ApiError, ErrorReply};
use super::keys::Tenant;
use super::readings::{self, Reading, Request, Source};
use super::state::{Service, now};
use super::upload::Upload;
use super::wire::completions::WireMessage;
use super::wire::contexts::{
    AppendText, ChangeContext, ContextList, ContextObject, ContextText, CreateContext,
    DeletedContext, ForkContext, ReadingProgress, RewindContext, Status,
};
use super::wire::{Nulls, parse};
use crate::ids::ByteSpan;
use crate::memory::store::Pinned;

/// Contexts in a list where nobody says, and at most.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// Bytes of a text given at once.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Bytes of a client's own words at most.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// Makes a context of a document or of messages.
#[utoipa::path(
    post, path = "/v1/contexts", tag = "contexts", request_body = CreateContext,
    responses(
        (status = 202, description = "It is being read", body = ContextObject),
        (status = 200, description = "How far it is, as events"),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
        (status = "5XX", description = "What went wrong", body = ErrorReply),
    )
)]
pub async fn create(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    upload: Upload,
) -> Result<Response, ApiError> {
    let request: CreateContext = match upload {
        Upload::Json(body) => parse(&body, Nulls::AreAbsent)?,
        Upload::Form(request) => *request,
    };
    check_model(&service, request.model.as_deref())?;
    let name = match request.name {
        Some(name) => checked_name(name)?,
        None => new_name(),
    };
    let metadata = request.metadata.as_ref().map_or(Ok(String::new()), metadata)?;
    let origin = match request.metadata.as_ref().and_then(|it| it.get("file")) {
        Some(Value::String(file)) => file.clone(),
        _ => "the service".to_owned(),
    };
    let source = source(request.text, request.messages)?;
    let changing = service.change(&tenant, &name)?;
    check_new(&service, &tenant, (&name, &source))?;
    let place = service.reserve()?;
    service.remove_reading(&tenant, &name); // one that failed
    let (ttl, pinned) = (request.ttl, request.pinned == Some(true));
    let request_of = Request { name: name.clone(), source, ttl, pinned, metadata, origin };
    let reading = readings::start(&service, &tenant, request_of, (changing, place));
    begun((service, tenant), (name, reading), request.stream == Some(true))
}

fn source(text: Option<String>, said: Option<Vec<WireMessage>>) -> Result<Source, ApiError> {
    match (text, said) {
        (Some(text), None) if text.trim().is_empty() => {
            Err(ApiError::invalid("text", "`text` is empty: there is nothing to read."))
        }
        (Some(text), None) => Ok(Source::Document(text)),
        (None, Some(said)) => Ok(Source::Messages(messages(said)?)),
        _ => Err(ApiError::invalid("text", "Send either `text` or `messages`.")),
    }
}

/// Refuses a name that is taken, unless by a document that was read in part, and what no room is for.
fn check_new(
    service: &Service,
    tenant: &Tenant,
    (name, source): (&str, &Source),
) -> Result<(), ApiError> {
    if service.store().show(&tenant.0, name)?.is_some() {
        let notes = service.contexts(tenant).notes(name)?;
        let goes_on = matches!(source, Source::Document(_)) && !notes.is_whole;
        if !goes_on || notes.conversation.is_some() {
            let message =
                format!("There is a context {name:?} already: delete it, or choose another name.");
            return Err(ApiError::conflict("context_exists", message).at("name"));
        }
    }
    let max = service.config().tenant_max_bytes;
    if max > 0 {
        let used: u64 = service.store().list(&tenant.0)?.iter().map(|it| it.own_bytes).sum();
        if used >= max {
            let message = format!(
                "Contexts of this tenant take {used} bytes of the {max} that they may take: delete some."
            );
            return Err(ApiError {
                status: StatusCode::INSUFFICIENT_STORAGE,
                ..ApiError::conflict("store_full", message)
            });
        }
    }
    Ok(())
}

fn begun(
    (service, tenant): (Service, Tenant),
    (name, reading): (String, Arc<Reading>),
    streams: bool,
) -> Result<Response, ApiError> {
    if streams {
        return Ok(stream(service, tenant, name, reading));
    }
    let object = context_view::of_reading(&service, &name, &reading);
    Ok((StatusCode::ACCEPTED, Json(object)).into_response())
}

/// How far a reading is, as events: the context as it begins, progress, and the context in the end.
fn stream(service: Service, tenant: Tenant, name: String, reading: Arc<Reading>) -> Response {
    let first = json!(context_view::of_reading(&service, &name, &reading));
    let states = unfold((reading.watch(), false), |(mut watch, is_over)| async move {
        if is_over || watch.changed().await.is_err() {
            return None;
        }
        let progress = watch.borrow_and_update().clone();
        let is_over = !progress.status.is_under_way();
        Some((progress, (watch, is_over)))
    });
    let events = states.then(move |progress| {
        let (service, tenant, name) = (service.clone(), tenant.clone(), name.clone());
        async move {
            if progress.status.is_under_way() {
                return vec![json!(ReadingProgress {
                    object: "context.progress",
                    id: name,
                    tokens: progress.tokens,
                    total_tokens: progress.total_tokens.unwrap_or(0),
                })];
            }
            let last = match progress.error {
                Some(error) => json!({ "error": error }),
                None => {
                    let of = name.clone();
                    match blocking(move || view(&service, &tenant, &of)).await {
                        Ok(object) => json!(object),
                        Err(error) => json!({ "error": error.body }),
                    }
                }
            };
            vec![last, Value::Null]
        }
    });
    let events = events.flat_map(futures_util::stream::iter);
    sse(futures_util::stream::iter([first]).chain(events))
}

/// Events of JSON; null stands for the end.
fn sse(events: impl Stream<Item = Value> + Send + 'static) -> Response {
    let events = events.map(|event| {
        let data = if event.is_null() { "[DONE]".to_owned() } else { event.to_string() };
        Ok::<_, Infallible>(Event::default().data(data))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(10));
    Sse::new(events).keep_alive(keep_alive).into_response()
}

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
            Err(_) if reading.is_some() => Ok(()),
            removed => Ok(removed?),
        }
    })
    .await?;
    Ok(Json(deleted))
}

/// Reads more of a document.
#[utoipa::path(
    post, path = "/v1/contexts/{id}/append", tag = "contexts", params(("id" = String, Path)),
    request_body = AppendText,
    responses(
        (status = 202, description = "It is being read", body = ContextObject),
        (status = 200, description = "How far it is, as events"),
        (status = "4XX", description = "What is wrong with the request", body = ErrorReply),
        (status = "5XX", description = "What went wrong", body = ErrorReply),
    )
)]
pub async fn append(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: AppendText = parse(&body, Nulls::AreAbsent)?;
    if request.text.is_empty() {
        return Err(ApiError::invalid("text", "`text` is empty: there is nothing to read."));
    }
    let notes = service.contexts(&tenant).notes(&id)?;
    if notes.conversation.is_some() {
        let message = "This context is a conversation: send what is said now to /v1/chat/completions, \
                       with `context_mode` \"append\".";
        return Err(ApiError::conflict("is_conversation", message));
    }
    let changing = service.change(&tenant, &id)?;
    let place = service.reserve()?;
    let request_of = Request {
        name: id.clone(),
        source: Source::Continuation(request.text),
        ttl: None,
        pinned: false,
        metadata: String::new(),
        origin: notes.source,
    };
    let reading = readings::start(&service, &tenant, request_of, (changing, place));
    begun((service, tenant), (id, reading), request.stream == Some(true))
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
        let context = service.contexts(&tenant).open(&id)?;
        let text_bytes = context.session().text_bytes();
        let (span, text) = context.session().text(ByteSpan { start, end })?;
        Ok(ContextText { id, start: span.start, end: span.end, text_bytes, text })
    })
    .await
    .map(Json)
}

/// A name that nobody chose.
fn new_name() -> String {
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

fn metadata(metadata: &Map<String, Value>) -> Result<String, ApiError> {
    let text = Value::Object(metadata.clone()).to_string();
    match text.len() <= MAX_METADATA_BYTES {
        true => Ok(text),
        false => {
            let message = format!("`metadata` has more than {MAX_METADATA_BYTES} bytes.");
            Err(ApiError::invalid("metadata", message))
        }
    }
}

impl Status {
    /// What a context is doing that no reading is known of.
    pub fn of_stored(is_whole: bool) -> Self {
        if is_whole { Self::Ready } else { Self::Stopped }
    }
}
