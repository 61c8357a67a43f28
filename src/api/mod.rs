//! How do programs and people reach mneme over the network? An OpenAI-compatible service, contexts as a
//! resource, and a page. docs/api.md is its contract.
//!
//! ```text
//! guard (number, tenant, log) -> body (limits) -> once (Idempotency-Key) -> a handler
//!   completions -> options, answering -> engine::serve -> shape -> the reply
//!   contexts    -> readings           -> engine::serve -> context_view
//! ```
//!
//! Invariant: nothing of a tenant is found without its [`Tenant`], which `guard` alone makes.
//! Invariant: every queue is bounded, and what finds no place is told so.

mod answering;
mod body;
mod clock;
mod completions;
mod config;
mod connections;
mod context_view;
mod contexts;
mod describe;
mod error;
mod guard;
mod idempotency;
mod ingest;
mod keys;
mod measures;
mod metrics;
mod options;
mod others;
mod page;
mod reading;
mod readings;
mod replies;
mod run;
mod shape;
mod state;
mod transfer;
mod upload;
mod wire;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, patch, post};
use tower_http::cors::{AllowOrigin, CorsLayer};

pub use config::{LogFormat, LogLevel, ServeConfig};
pub use error::ApiError;
pub use keys::{Keys, Tenant, hash_in_hex, is_tenant};
pub use run::{ServeError, serve};
pub use state::{Parts, Service};

/// Every route.
const ROUTES: &[(&str, &str)] = &[
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{id}"),
    ("POST", "/v1/contexts"),
    ("GET", "/v1/contexts"),
    ("GET", "/v1/contexts/{id}"),
    ("PATCH", "/v1/contexts/{id}"),
    ("DELETE", "/v1/contexts/{id}"),
    ("POST", "/v1/contexts/{id}/append"),
    ("POST", "/v1/contexts/{id}/fork"),
    ("POST", "/v1/contexts/{id}/rewind"),
    ("GET", "/v1/contexts/{id}/text"),
    ("GET", "/v1/contexts/{id}/export"),
    ("POST", "/v1/contexts/import"),
    ("POST", "/tokenize"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/"),
    ("GET", "/page/{name}"),
];

/// Routes that the OpenAPI document leaves out: they are for people.
#[cfg(test)]
const UNDESCRIBED: &[&str] = &["/openapi.json", "/docs", "/", "/page/{name}"];

/// All that the service answers.
pub fn app(service: Service) -> Router {
    let once = from_fn_with_state(service.clone(), idempotency::once);
    let whole_body = from_fn_with_state(service.clone(), body::whole);
    let mut router = Router::new();
    for (method, path) in ROUTES {
        let handler = handler(method, path);
        let is_repeatable = *path == "/v1/contexts" || path.starts_with("/v1/contexts/");
        let handler = match is_repeatable && *method != "GET" && *path != "/v1/contexts/import" {
            true => handler.layer(once.clone()),
            false => handler,
        };
        let handler = match *path {
            "/v1/contexts/import" => handler, // a file of any length, never in memory as a whole
            _ => handler.layer(whole_body.clone()),
        };
        router = router.route(path, handler);
    }
    let config = service.config();
    let origins = &config.cors_origins;
    let cors = (!origins.is_empty()).then(|| cors(origins));
    let router = router
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::disable()) // see `body`
        .layer(map_response(plain_refusals))
        .layer(from_fn_with_state(service.clone(), guard::guard))
        .with_state(service);
    match cors {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

fn handler(method: &str, path: &str) -> MethodRouter<Service> {
    match (method, path) {
        ("POST", "/v1/chat/completions") => post(completions::chat),
        ("POST", "/v1/completions") => post(completions::complete),
        ("GET", "/v1/models") => get(others::models),
        ("GET", "/v1/models/{id}") => get(others::model),
        ("POST", "/v1/contexts") => post(ingest::create),
        ("GET", "/v1/contexts") => get(contexts::list),
        ("GET", "/v1/contexts/{id}") => get(contexts::show),
        ("PATCH", "/v1/contexts/{id}") => patch(contexts::change),
        ("DELETE", "/v1/contexts/{id}") => delete(contexts::delete),
        ("POST", "/v1/contexts/{id}/append") => post(ingest::append),
        ("POST", "/v1/contexts/{id}/fork") => post(contexts::fork),
        ("POST", "/v1/contexts/{id}/rewind") => post(contexts::rewind),
        ("GET", "/v1/contexts/{id}/text") => get(contexts::text),
        ("GET", "/v1/contexts/{id}/export") => get(transfer::export),
        ("POST", "/v1/contexts/import") => post(transfer::import),
        ("POST", "/tokenize") => post(others::tokenize),
        ("GET", "/healthz") => get(others::health),
        ("GET", "/readyz") => get(others::ready),
        ("GET", "/metrics") => get(metrics::metrics),
        ("GET", "/openapi.json") => get(describe::openapi),
        ("GET", "/docs") => get(describe::docs),
        ("GET", "/") => get(page::index),
        ("GET", "/page/{name}") => get(page::file),
        _ => unreachable!("because all of ROUTES are here"),
    }
}

fn cors(origins: &[String]) -> CorsLayer {
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|it| HeaderValue::from_str(it).ok())),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::HeaderName::from_static("idempotency-key"),
            guard::REQUEST_ID,
        ])
        .expose_headers([guard::REQUEST_ID])
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    let message =
        format!("There is no {method} {} here; GET /docs lists what there is.", uri.path());
    ApiError::not_found("not_found", message)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} cannot be reached with {method}; see GET /docs.", uri.path());
    ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// Refusals of the framework's own are texts; clients get them as they get ours.
async fn plain_refusals(response: Response) -> Response {
    let is_ours = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(b"application/json"));
    let status = response.status();
    if !status.is_client_error() || is_ours {
        return response;
    }
    let reason = status.canonical_reason().unwrap_or("The request is not understood");
    ApiError::refused(status, "invalid_value", format!("{reason}.")).into_response()
}
