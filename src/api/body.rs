//! How long may a request's body be, and how long may it take to arrive? It is read here, whole, before
//! anything else is done with it, so that there is one answer to each: 413 and 408. Files of contexts
//! alone are read as they come (`transfer.rs`).

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, StreamExt, unfold};
use tokio::time::timeout;

use super::error::ApiError;
use super::state::Service;

/// Bytes beyond the limit that are read all the same: a client that is still writing would otherwise
/// never hear why it was refused.
const MAX_DRAINED_BYTES: u64 = 256 << 20;

/// Reads a request's body, within the limits.
pub async fn whole(State(service): State<Service>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let config = service.config();
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    let length = length.and_then(|it| it.parse().ok());
    let read = read(body, length, config.max_body_bytes, patience(&service));
    // Whoever sends a byte now and then holds nothing for ever either.
    match timeout(Duration::from_secs(config.request_seconds), read).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(error)) => error.into_response(),
        Err(_) => ApiError::timed_out(config.request_seconds).into_response(),
    }
}

/// How long the next piece of a body may take.
pub fn patience(service: &Service) -> Duration {
    Duration::from_secs(service.config().body_seconds)
}

async fn read(
    body: Body,
    length: Option<u64>,
    max: usize,
    patience: Duration,
) -> Result<Bytes, ApiError> {
    let mut pieces = Box::pin(pieces(body, patience));
    let mut whole = Vec::with_capacity(length.unwrap_or(0).min(max as u64) as usize);
    let mut drained = 0;
    let too_long = length.is_some_and(|length| length > max as u64);
    if too_long && length.is_some_and(|length| length > MAX_DRAINED_BYTES) {
        return Err(too_large(max));
    }
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if too_long || whole.len() + piece.len() > max {
            drained += piece.len() as u64;
            if drained > MAX_DRAINED_BYTES {
                break;
            }
        } else if drained == 0 {
            whole.extend_from_slice(&piece);
        }
    }
    if too_long || drained > 0 { Err(too_large(max)) } else { Ok(whole.into()) }
}

/// A body as it comes, and an error where it stops.
pub fn pieces(body: Body, patience: Duration) -> impl Stream<Item = Result<Bytes, ApiError>> {
    unfold(Some(body.into_data_stream()), move |body| async move {
        let mut body = body?;
        match timeout(patience, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(error))) => {
                let message = format!("The body broke off: {error}.");
                Some((Err(ApiError::bad("invalid_body", message)), None))
            }
            Err(_) => Some((Err(too_slow(patience)), None)),
        }
    })
}

fn too_slow(patience: Duration) -> ApiError {
    let message = format!(
        "Nothing of the body came for {} seconds; see serve.body-seconds.",
        patience.as_secs()
    );
    ApiError::refused(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
}

fn too_large(max: usize) -> ApiError {
    let message = format!("The body has more than {max} bytes; see serve.max-body-bytes.");
    ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(50);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    fn of(pieces: Vec<&'static str>) -> Body {
        let pieces = pieces.into_iter().map(|it| Ok::<_, std::io::Error>(Bytes::from(it)));
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    fn status(read: Result<Bytes, ApiError>) -> Result<Bytes, StatusCode> {
        read.map_err(|error| error.status)
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit_and_no_longer_whether_it_says_so_or_not() {
        for (pieces, length, expected) in [
            (vec!["abc", "de"], Some(5), Ok("abcde".into())),
            (vec!["abc", "de"], None, Ok("abcde".into())),
            (vec!["abc", "def", "g"], None, Err(StatusCode::PAYLOAD_TOO_LARGE)),
            (vec!["abc", "def"], Some(6), Err(StatusCode::PAYLOAD_TOO_LARGE)),
            (vec!["a"], Some(u64::MAX), Err(StatusCode::PAYLOAD_TOO_LARGE)),
            (vec![], None, Ok(Bytes::new())),
        ] {
            let read = runtime().block_on(read(of(pieces), length, 5, PATIENCE));
            assert_eq!(status(read), expected);
        }
    }

    #[test]
    fn a_body_that_stops_is_given_up() {
        let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("abc"))]);
        let body = Body::from_stream(first.chain(futures_util::stream::pending()));
        let read = runtime().block_on(read(body, Some(5), 5, PATIENCE));
        assert_eq!(status(read), Err(StatusCode::REQUEST_TIMEOUT));
    }

    #[test]
    fn a_body_that_breaks_off_says_so() {
        let broken = Err(std::io::Error::other("gone"));
        let body = Body::from_stream(futures_util::stream::iter([Ok(Bytes::from("abc")), broken]));
        let read = runtime().block_on(read(body, Some(5), 5, PATIENCE));
        assert_eq!(status(read), Err(StatusCode::BAD_REQUEST));
    }
}
