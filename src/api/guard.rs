//! What does every request pass? Its number, its tenant, the checks against pages of strangers, and the
//! log.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use tracing::field::Empty;

use super::error::ApiError;
use super::keys::{LOCAL_TENANT, Tenant};
use super::state::Service;

/// The number of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Numbers a request, finds whose it is, and logs it.
pub async fn guard(State(service): State<Service>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("none", |path| path.as_str());
    let (route, method) = (route.to_owned(), request.method().clone());
    let tenant = admit(&service, &request);
    let whose = tenant.as_ref().map_or("", |tenant| tenant.0.as_str());
    let span = tracing::info_span!(
        "request", id, %method, route, tenant = whose, trace_id = Empty, parent_id = Empty
    );
    if let Some((trace, parent)) = trace_parent(request.headers()) {
        span.record("trace_id", trace).record("parent_id", parent);
    }
    let response = match &tenant {
        Ok(tenant) => {
            request.extensions_mut().insert(tenant.clone());
            next.run(request).instrument(span.clone()).await
        }
        Err(error) => error.clone().into_response(),
    };
    let status = response.status().as_u16();
    service.measures().count_request(&route, status, tenant.as_ref().ok());
    let millis = begun.elapsed().as_millis() as u64;
    span.in_scope(|| tracing::info!(status, millis, "replied"));
    let mut response = response;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The client's own, where it can be logged, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let is_sound =
        |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_sound);
    given.map_or_else(|| format!("req_{:032x}", fastrand::u128(..)), str::to_owned)
}

/// Trace and span of the caller's, where it sends them (W3C Trace Context, version 00).
fn trace_parent(headers: &HeaderMap) -> Option<(&str, &str)> {
    let is_id = |id: &str, len: usize| {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        id.len() == len && id.bytes().all(is_digit) && id.bytes().any(|byte| byte != b'0')
    };
    let given = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = given.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let is_sound = version != "ff" && is_id(trace, 32) && is_id(parent, 16);
    is_sound.then_some((trace, parent))
}

fn admit(service: &Service, request: &Request) -> Result<Tenant, ApiError> {
    check_origin(service, request.headers(), request.uri())?;
    if service.keys().is_empty() {
        return Ok(Tenant(LOCAL_TENANT.to_owned()));
    }
    if is_open(request.uri().path()) {
        return Ok(Tenant(String::new()));
    }
    let key = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        let message = "This service needs a key: send the header `Authorization: Bearer KEY`.";
        return Err(ApiError::unauthorised(message));
    };
    let tenant = service.keys().tenant_of(key).cloned();
    tenant.ok_or_else(|| ApiError::unauthorised("This key is not known to the service."))
}

/// What is served without a key: whether the service lives, and the page, which holds nothing of anybody.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/") || path.starts_with("/page/")
}

/// Keeps pages of strangers, open in a browser that reaches the service, from using it: those of other
/// origins, and those whose name was made to lead here.
fn check_origin(service: &Service, headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let forbidden = |message: String| {
        Err(ApiError::refused(StatusCode::FORBIDDEN, "forbidden_origin", message))
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or(uri.authority().map(|it| it.as_str())).unwrap_or_default();
    if service.keys().is_empty() && !host.is_empty() && !is_loopback(host) {
        return forbidden(format!(
            "Without keys the service answers for this machine only, and {host:?} is another name."
        ));
    }
    let Some(origin) = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else {
        return Ok(());
    };
    let allowed = &service.config().cors_origins;
    let is_own = origin.split_once("://").is_some_and(|(_, name)| name == host);
    if is_own || allowed.iter().any(|it| it == "*" || it == origin) {
        return Ok(());
    }
    forbidden(format!("Pages of {origin} may not use this service; see serve.cors-origins."))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_are_known() {
        for name in
            ["localhost", "localhost:80", "127.0.0.1:8077", "[::1]:8077", "[::1]", "127.1.2.3"]
        {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["example.org", "localhost.example.org:80", "10.0.0.1", "0.0.0.0:80", ""] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    #[test]
    fn a_callers_trace_is_taken_where_it_is_one() {
        let given = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_str(text).unwrap());
            trace_parent(&headers).map(|(trace, parent)| format!("{trace} {parent}"))
        };
        let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let whole = format!("00-{trace}-{parent}-01");
        assert_eq!(given(&whole), Some(format!("{trace} {parent}")));
        for wrong in [
            String::new(),
            format!("00-{trace}"),
            format!("ff-{trace}-{parent}-01"),
            format!("00-{}-{parent}-01", "0".repeat(32)),
            format!("00-{}-{parent}-01", trace.to_uppercase()),
        ] {
            assert_eq!(given(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_that_cannot_be_logged_is_replaced() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).unwrap());
            request_id(&headers)
        };
        assert_eq!(with("abc-1"), "abc-1");
        assert!(with("a b").starts_with("req_"));
        assert!(with(&"a".repeat(200)).starts_with("req_"));
    }
}
