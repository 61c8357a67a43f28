//! What if a client sends a request again, not knowing whether it arrived? With an `Idempotency-Key` it
//! is carried out once, and gets the same reply each time.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;

use super::error::ApiError;
use super::ingest::{self, Follows, NewName};
use super::keys::Tenant;
use super::replies::{Begun, Reply, Verdict};
use super::state::Service;

/// Bytes of a reply that is kept.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Carries a request with an `Idempotency-Key` out once. What went wrong on our side, or for want of
/// room, is tried again the next time.
pub async fn once(State(service): State<Service>, request: Request, next: Next) -> Response {
    let key = match key_of(request.headers()) {
        Ok(Some(key)) => key,
        Ok(None) => return next.run(request).await,
        Err(error) => return error.into_response(),
    };
    // It is carried out to its end whoever still listens: that is what keys are for.
    let carried =
        tokio::spawn(async move { once_by(&service, key, request, next).await }.in_current_span());
    match carried.await {
        Ok(done) => done.unwrap_or_else(IntoResponse::into_response),
        Err(error) => {
            ApiError::internal(format!("A task of the service failed: {error}.")).into_response()
        }
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
    let name = name_by(&tenant, &key);
    let of = (tenant, key);
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(name);
    let body = to_bytes(body, usize::MAX).await; // it is within the limits: see `body`
    let body = body.map_err(|error| ApiError::bad("invalid_body", error.to_string()))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(parts.method.as_str().as_bytes());
    hasher.update(parts.uri.to_string().as_bytes());
    hasher.update(&body);
    let replies = service.replies();
    match replies.begin(&of, hasher.finalize().into())? {
        Verdict::Again(Reply { follows: Some(name), .. }) => {
            return Ok(ingest::follow(service.clone(), of.0, name));
        }
        Verdict::Again(reply) => return Ok(reply.into_response()),
        Verdict::CarryOut => {}
    }
    let mut begun = Begun { replies, of: &of, reply: None };
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    let is_ours = response.status().is_server_error();
    if is_ours || response.status() == StatusCode::TOO_MANY_REQUESTS {
        return Ok(response);
    }
    if let Some(Follows(name)) = response.extensions().get::<Follows>().cloned() {
        let (status, content_type, body) = (response.status(), None, Bytes::new());
        begun.reply = Some(Reply { status, content_type, body, follows: Some(name) });
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_REPLY_BYTES).await;
    let body = body.map_err(|_| ApiError::internal("A reply too long to be kept."))?;
    let content_type = parts.headers.get(CONTENT_TYPE).cloned();
    let (status, follows) = (parts.status, None);
    begun.reply = Some(Reply { status, content_type, body: body.clone(), follows });
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// The name that a context gets whose maker chose none: the same when it is made again.
fn name_by(tenant: &Tenant, key: &str) -> NewName {
    let mut hasher = blake3::Hasher::new();
    hasher.update(tenant.0.as_bytes());
    hasher.update(&[0]);
    hasher.update(key.as_bytes());
    NewName(format!("ctx_{}", &hasher.finalize().to_hex()[..24]))
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()));
    let wrong =
        || ApiError::bad("invalid_value", "An Idempotency-Key has 1 to 255 visible letters.");
    key.map(|key| Some(key.to_owned())).ok_or_else(wrong)
}
