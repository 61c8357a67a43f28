//! What was replied to requests that may be sent again?

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::keys::Tenant;

/// Says that a reply was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// How long a reply is kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Replies kept at most, of all tenants.
const MAX_REPLIES: usize = 10_000;

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

/// A reply that is given again.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// The type of its body.
    pub content_type: Option<HeaderValue>,
    /// Its body.
    pub body: Bytes,
    /// Or the context whose reading it followed.
    pub follows: Option<String>,
}

/// What to do with a request.
pub enum Verdict {
    /// It is new.
    CarryOut,
    /// It was carried out before.
    Again(Reply),
}

impl Replies {
    /// Takes note of a request that comes in.
    ///
    /// # Errors
    /// When the key was used for another, or it is being carried out.
    pub fn begin(&self, of: &(Tenant, String), request: [u8; 32]) -> Result<Verdict, ApiError> {
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
pub struct Begun<'a> {
    /// Where it is noted.
    pub replies: &'a Replies,
    /// Whose, and by which key.
    pub of: &'a (Tenant, String),
    /// What was replied, once it was.
    pub reply: Option<Reply>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.replies.end(self.of, self.reply.take());
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        if let Some(content_type) = self.content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        response
    }
}
