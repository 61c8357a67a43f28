//! What does a client hear when something is wrong? A status, and an object of OpenAI's shape that says
//! what happened and what to do.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::backend::BackendError;
use crate::engine::{ContextError, EngineError};
use crate::memory::store::StoreError;

/// A refusal or a failure, as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status of the reply.
    pub status: StatusCode,
    /// What it says; all four fields are always there.
    pub body: ErrorBody,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What happened, and what to do.
    pub message: String,
    /// The kind of error.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The field that is wrong.
    pub param: Option<String>,
    /// A name of what happened, for programs.
    pub code: Option<&'static str>,
}

/// The object around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ErrorReply {
    /// What is wrong.
    pub error: ErrorBody,
}

impl ApiError {
    fn new(
        status: StatusCode,
        (kind, code): (&'static str, &'static str),
        message: impl Into<String>,
    ) -> Self {
        let body = ErrorBody { message: message.into(), kind, param: None, code: Some(code) };
        Self { status, body }
    }

    /// A field that is wrong.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::bad("invalid_value", message).at(param)
    }

    /// A field that is not supported.
    pub fn unsupported(param: &str) -> Self {
        let message =
            format!("`{param}` is not supported; leave it out. docs/api.md lists what is.");
        Self::bad("unsupported_field", message).at(param)
    }

    /// A request that is wrong.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ("invalid_request_error", code), message)
    }

    /// The same with another status.
    pub fn refused(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, ("invalid_request_error", code), message)
    }

    /// No key, or none that is known.
    pub fn unauthorised(message: &str) -> Self {
        let kind = ("authentication_error", "invalid_api_key");
        Self::new(StatusCode::UNAUTHORIZED, kind, message)
    }

    /// Nothing of this name, or somebody else's.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ("not_found_error", code), message)
    }

    /// No context of this name; the same whoever else has one.
    pub fn no_context(name: &str) -> Self {
        let message =
            format!("There is no context {name:?}. GET /v1/contexts lists those there are.");
        Self::not_found("context_not_found", message).at("context")
    }

    /// It cannot be done beside what is there or going on.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, ("conflict_error", code), message)
    }

    /// Somebody is changing the context.
    pub fn busy(name: &str) -> Self {
        let message = format!(
            "Context {name:?} is being changed by another request. Try again when that has ended, or \
             fork the context."
        );
        Self::conflict("context_busy", message)
    }

    /// All places are taken.
    pub fn overloaded(max: usize) -> Self {
        let message = format!(
            "All {max} places of this service are taken. Try again later, or raise serve.max-requests."
        );
        let kind = ("rate_limit_error", "queue_full");
        Self::new(StatusCode::TOO_MANY_REQUESTS, kind, message)
    }

    /// The service is ending.
    pub fn draining() -> Self {
        let message = "The service is shutting down and takes no new requests.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ("server_error", "draining"), message)
    }

    /// It took longer than a request may.
    pub fn timed_out(seconds: u64) -> Self {
        let message = format!(
            "The request took longer than {seconds} seconds. Read long documents as contexts, or raise \
             serve.request-seconds."
        );
        Self::new(StatusCode::GATEWAY_TIMEOUT, ("server_error", "timeout"), message)
    }

    /// The GPU had no room for the step that it was in.
    pub fn no_room(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, ("server_error", "gpu_full"), message)
    }

    /// There is no room on the disk for it.
    pub fn store_full(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, ("server_error", "store_full"), message)
    }

    /// Something that should not happen did.
    pub fn internal(message: impl Into<String>) -> Self {
        let kind = ("server_error", "internal_error");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind, message)
    }

    /// The same, of field `param`.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.body.param = Some(param.to_owned());
        self
    }
}

/// When a client that was refused for want of room should try again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::error!(code = self.body.code, message = self.body.message, "failed");
        }
        let is_temporary =
            [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&self.status);
        let mut response = (self.status, Json(ErrorReply { error: self.body })).into_response();
        if is_temporary {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let message = error.to_string();
        match error {
            EngineError::Backend(BackendError::NoRoom { .. }) => Self::no_room(message),
            EngineError::Store(error) => error.into(),
            EngineError::Context(error) => error.into(),
            EngineError::Chat(_) => Self::bad("invalid_value", message).at("messages"),
            EngineError::Form { .. } => Self::bad("invalid_value", message).at("response_format"),
            EngineError::QuestionTooLong { .. } => Self::bad("context_length_exceeded", message),
            EngineError::NotTurns => Self::bad("invalid_value", message).at("messages"),
            EngineError::NothingRead => Self::bad("invalid_value", message),
            EngineError::Memory(_) | EngineError::Config(_) => {
                Self::conflict("settings_differ", message)
            }
            _ => Self::internal(message),
        }
    }
}

impl From<ContextError> for ApiError {
    fn from(error: ContextError) -> Self {
        let message = error.to_string();
        match error {
            ContextError::NoSuch { name } => Self::no_context(&name),
            ContextError::OtherModel { .. } => Self::conflict("other_model", message),
            ContextError::OtherText { .. } => Self::conflict("context_exists", message),
            ContextError::Conversation { .. } => Self::conflict("is_conversation", message),
            ContextError::NoTurn { .. } => Self::bad("invalid_value", message).at("turn"),
            ContextError::Settings { .. } | ContextError::Malformed(_) => Self::internal(message),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::UnknownContext { name } => Self::no_context(&name),
            StoreError::NameTaken { .. } => Self::conflict("context_exists", message),
            StoreError::NameTooLong { .. } => Self::invalid("name", message),
            StoreError::Conflict { .. } | StoreError::Gone { .. } => {
                Self::conflict("context_busy", message)
            }
            StoreError::DiskBudget { .. } => Self::store_full(message),
            _ => Self::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_gpu_asks_to_try_again() {
        let (n_bytes, free_bytes, total_bytes) = (3, 2, 9);
        let full = BackendError::NoRoom { n_bytes, free_bytes, total_bytes };
        let error = ApiError::from(EngineError::Backend(full));
        assert_eq!(error.body.code, Some("gpu_full"));
        let response = error.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn every_error_has_all_four_keys() {
        for error in [
            ApiError::invalid("a", "b"),
            ApiError::overloaded(3),
            ApiError::internal("x"),
            ApiError::no_context("c"),
        ] {
            let body = serde_json::to_value(ErrorReply { error: error.body }).unwrap();
            let keys: Vec<_> = body["error"].as_object().unwrap().keys().cloned().collect();
            assert_eq!(keys.len(), 4, "{keys:?}");
            for key in ["message", "type", "param", "code"] {
                assert!(body["error"].get(key).is_some(), "{key}");
            }
        }
    }
}
