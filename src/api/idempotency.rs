//! What if a client sends a request again, not knowing whether it arrived? With an `Idempotency-Key` it
//! is carried out once, and gets the same reply each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::keys::Tenant;
use super::state::Service;

/// How long a reply is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Replies kept at most, of all tenants.
const MAX_REPLIES: usize = 10_000;

/// Bytes of a reply that is kept.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Replies to requests that may be sent again.
#[derive(Debug, Default)]
pub struct Replies {
    kept: Mutex<HashMap<(Tenant, String), Kept>>,
}

#[derive(Debug)]
struct Kept {
    request: [u8; 32],
    since: Instant,
    reply: Option<Reply>, // none while it is carried out
}

#[derive(Clone, Debug)]
struct Reply {
    status: StatusCode,
    content_type: Option<axum::http::HeaderValue>,
    body: Bytes,
}

/// What to do with a request.
enum Verdict {
    CarryOut,
    Again(Reply),
}

impl Replies {
    fn begin(&self, of: &(Tenant, String), request: [u8; 32]) -> Result<Verdict, ApiError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| kept.since.elapsed() < KEPT);
        if let Some(known) = kept.get(of) {
            if known.request != request {
                let message =
                    "This Idempotency-Key came with another request before; take a new one.";
                return Err(ApiError::conflict("idempotency_key_reused", message));
            }
            let busy = || {
                let message = "The request with this Idempotency-Key is still being carried out.";
                ApiError::conflict("request_in_progress", message)
            };
            return known.reply.clone().map(Verdict::Again).ok_or_else(busy);
        }
        if kept.len() >= MAX_REPLIES {
            let done = kept.iter().filter(|(_, kept)| kept.reply.is_some());
            let oldest = done.min_by_key(|(_, kept)| kept.since).map(|(of, _)| of.clone());
            oldest.map(|of| kept.remove(&of));
        }
        kept.insert(of.clone(), Kept { request, since: Instant::now(), reply: None });
        Ok(Verdict::CarryOut)
    }

    fn end(&self, of: &(Tenant, String), reply: Option<Reply>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match reply {
            Some(reply) => {
                if let Some(kept) = kept.get_mut(of) {
                    kept.reply = Some(reply);
                }
            }
            None => {
                kept.remove(of);
            }
        }
    }
}

/// Forgets a request that was not carried out to its end.
struct Begun<'a> {
    replies: &'a Replies,
    of: &'a (Tenant, String),
    reply: Option<Reply>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.replies.end(self.of, self.reply.take());
    }
}

/// Carries a request with an `Idempotency-Key` out once. What went wrong on our side, or for want of
/// room, is tried again the next time.
pub async fn once(State(service): State<Service>, request: Request, next: Next) -> Response {
    match key_of(request.headers()) {
        Ok(Some(key)) => {
            once_by(&service, key, request, next).await.unwrap_or_else(|e| e.into_response())
        }
        Ok(None) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn once_by(
    service: &Service,
    key: String,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let tenant = request.extensions().get::<Tenant>().cloned();
    let tenant = tenant.ok_or_else(|| ApiError::internal("A request without a tenant."))?;
    let of = (tenant, key);
    let (parts, body) = request.into_parts();
    let max = service.config().max_body_bytes;
    let body = to_bytes(body, max).await.map_err(|_| {
        let message = format!("The body has more than {max} bytes, or could not be read.");
        ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    })?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(parts.method.as_str().as_bytes());
    hasher.update(parts.uri.to_string().as_bytes());
    hasher.update(&body);
    let replies = service.replies();
    if let Verdict::Again(reply) = replies.begin(&of, hasher.finalize().into())? {
        return Ok(reply.into_response());
    }
    let mut begun = Begun { replies, of: &of, reply: None };
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let is_ours = response.status().is_server_error();
    if is_ours || response.status() == StatusCode::TOO_MANY_REQUESTS || is_stream(&response) {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_REPLY_BYTES).await;
    let body = body.map_err(|_| ApiError::internal("A reply too long to be kept."))?;
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    begun.reply = Some(Reply { status: parts.status, content_type, body: body.clone() });
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// A stream tells what is so now; whoever asks again is told again, since reading the same document
/// under the same name goes on where it was.
fn is_stream(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    content_type.is_some_and(|value| {
        value.starts_with(b"text/event-stream") || value.starts_with(b"application/octet-stream")
    })
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()));
    let wrong =
        || ApiError::bad("invalid_value", "An Idempotency-Key has 1 to 255 visible letters.");
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        if let Some(content_type) = self.content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
            .headers_mut()
            .insert("idempotent-replayed", axum::http::HeaderValue::from_static("true"));
        response
    }
}
