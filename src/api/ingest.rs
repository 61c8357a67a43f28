//! `POST /v1/contexts` and `/append`: what is to be read, and how far it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{Stream, StreamExt, unfold};
use serde_json::{Value, json};

use super::answering::blocking;
use super::completions::{check_model, messages};
use super::context_view::{self, view};
use super::contexts::{check_ttl, checked_name, metadata, new_name};
use super::error::{ApiError, ErrorReply};
use super::keys::Tenant;
use super::reading::{Reading, Request, Source};
use super::readings;
use super::state::Service;
use super::upload::Upload;
use super::wire::completions::WireMessage;
use super::wire::contexts::{AppendText, ContextObject, CreateContext, ReadingProgress};
use super::wire::{Nulls, parse};
use crate::engine::check_turns;

/// The name of a context whose maker chose none.
#[derive(Clone, Debug)]
pub struct NewName(pub String);

/// Goes with a reply that is a stream: whose reading it follows.
#[derive(Clone, Debug)]
pub struct Follows(pub String);

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
    new: Option<Extension<NewName>>,
    upload: Upload,
) -> Result<Response, ApiError> {
    let request: CreateContext = match upload {
        Upload::Json(body) => parse(&body, Nulls::AreAbsent)?,
        Upload::Form(request) => *request,
    };
    check_model(&service, request.model.as_deref())?;
    let name = match request.name {
        Some(name) => checked_name(name)?,
        None => new.map_or_else(new_name, |Extension(NewName(name))| name),
    };
    check_ttl(request.ttl)?;
    let metadata = request.metadata.as_ref().map_or(Ok(String::new()), metadata)?;
    let origin = match request.metadata.as_ref().and_then(|it| it.get("file")) {
        Some(Value::String(file)) => file.clone(),
        _ => "the service".to_owned(),
    };
    let source = source(request.text, request.messages)?;
    let changing = service.change(&tenant, &name)?;
    check_new(&service, &tenant, (&name, &source))?;
    service.check_room(&tenant.0, 1)?; // all of it is known when its tokens are counted
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
        (None, Some(said)) => {
            let said = messages(said)?;
            check_turns(&said)?;
            Ok(Source::Messages(said))
        }
        _ => Err(ApiError::invalid("text", "Send either `text` or `messages`.")),
    }
}

/// Refuses a name that is taken, unless by a document that was read in part.
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
    Ok(())
}

fn begun(
    (service, tenant): (Service, Tenant),
    (name, reading): (String, Arc<Reading>),
    streams: bool,
) -> Result<Response, ApiError> {
    if streams {
        let mut response = stream(service, tenant, name.clone(), &reading);
        response.extensions_mut().insert(Follows(name));
        return Ok(response);
    }
    let object = context_view::of_reading(&service, &name, &reading);
    Ok((StatusCode::ACCEPTED, Json(object)).into_response())
}

/// How far a reading is, as events: the context as it begins, progress, and the context in the end.
fn stream(service: Service, tenant: Tenant, name: String, reading: &Reading) -> Response {
    let first = json!(context_view::of_reading(&service, &name, reading));
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

/// What a reading is that was asked for before, as events: how far it is, or the context as it is now.
pub fn follow(service: Service, tenant: Tenant, name: String) -> Response {
    if let Some(reading) = service.reading(&tenant, &name)
        && reading.progress().status.is_under_way()
    {
        return stream(service, tenant, name, &reading);
    }
    match view(&service, &tenant, &name) {
        Ok(object) => sse(futures_util::stream::iter([json!(object), Value::Null])),
        Err(error) => error.into_response(),
    }
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
    let changing = service.change(&tenant, &id)?;
    let notes = service.contexts(&tenant).notes(&id)?;
    if notes.conversation.is_some() {
        let message = "This context is a conversation: send what is said now to /v1/chat/completions, \
                       with `context_mode` \"append\".";
        return Err(ApiError::conflict("is_conversation", message));
    }
    service.check_room(&tenant.0, 1)?;
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
