//! How does a context move to another machine? As one stream of bytes, verified at both ends, which never
//! lies in memory as a whole.

use std::io::{self, Read, Write};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{StreamExt, unfold};
use serde::Deserialize;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use utoipa::IntoParams;

use super::answering::blocking;
use super::body;
use super::context_view::view;
use super::contexts::checked_name;
use super::error::{ApiError, ErrorReply};
use super::keys::Tenant;
use super::state::Service;
use super::wire::contexts::ContextObject;

/// Pieces on their way, and their bytes.
const N_PIECES: usize = 4;
const PIECE_BYTES: usize = 1 << 20;

/// Bytes read of a file that was refused already.
const MAX_DRAINED_BYTES: usize = 64 << 20;

/// Writes a context to one file.
#[utoipa::path(
    get, path = "/v1/contexts/{id}/export", tag = "contexts", params(("id" = String, Path)),
    responses(
        (status = 200, description = "The file", content_type = "application/octet-stream"),
        (status = "4XX", description = "There is none", body = ErrorReply),
    )
)]
pub async fn export(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    service.stored(&tenant, &id)?;
    let (pieces, received) = channel(N_PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { pieces: pieces.clone(), piece: Vec::with_capacity(PIECE_BYTES) };
        let exported = service.store().export(&tenant.0, &id, &mut out).map_err(io::Error::other);
        let done = exported.and_then(|_| out.flush());
        if let Err(error) = done {
            tracing::warn!(context = id, %error, "export failed");
            // The stream breaks off: nobody takes it for whole.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let next = |mut received: Receiver<io::Result<Bytes>>| async move {
        received.recv().await.map(|piece| (piece, received))
    };
    let body = Body::from_stream(unfold(received, next));
    Ok(([(CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// What is written, in pieces.
struct Pieces {
    pieces: Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let sent = self.pieces.blocking_send(Ok(piece.into()));
        sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "nobody reads any more"))
    }
}

/// What an import is called.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ImportAs {
    /// Its name; the one it had where this is left out.
    name: Option<String>,
}

/// Takes in a context that was exported.
#[utoipa::path(
    post, path = "/v1/contexts/import", tag = "contexts", params(ImportAs),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "The context", body = ContextObject),
        (status = "4XX", description = "What is wrong with the file", body = ErrorReply),
        (status = "5XX", description = "What went wrong", body = ErrorReply),
    )
)]
pub async fn import(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
    name: Result<Query<ImportAs>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let Query(ImportAs { name }) =
        name.map_err(|error| ApiError::bad("invalid_value", error.body_text()))?;
    let length = request.headers().get(CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    let n_bytes: u64 = length.and_then(|it| it.parse().ok()).unwrap_or(0);
    let (pieces, received) = channel(N_PIECES);
    let pieces_of_body = body::pieces(request.into_body(), body::patience(&service));
    tokio::spawn(async move {
        let mut body = Box::pin(pieces_of_body);
        let mut drained = 0;
        while let Some(piece) = body.next().await {
            // Where the import has failed the rest is read all the same, up to a limit, so that the
            // client hears of it.
            let n_bytes = piece.as_ref().map_or(0, Bytes::len);
            drained += if pieces.is_closed() { n_bytes } else { 0 };
            if drained > MAX_DRAINED_BYTES {
                return;
            }
            let piece = piece.map_err(|error| io::Error::other(error.body.message));
            let _ = pieces.send(piece).await; // see above
        }
    });
    let name = name.map(checked_name).transpose()?;
    let object = blocking(move || {
        service.check_room(&tenant.0, n_bytes)?;
        let mut input = Arriving { received, piece: Bytes::new() };
        let imported = service.store().import(&tenant.0, name.as_deref(), &mut input);
        view(&service, &tenant, &imported.map_err(import_error)?.name)
    })
    .await?;
    Ok((StatusCode::CREATED, Json(object)).into_response())
}

fn import_error(error: crate::memory::store::StoreError) -> ApiError {
    use crate::memory::store::StoreError;
    match error {
        StoreError::Damaged { .. }
        | StoreError::DamagedRecord { .. }
        | StoreError::NewerFormat { .. } => ApiError::bad("invalid_file", error.to_string()),
        error => error.into(),
    }
}

/// What arrives, to be read.
struct Arriving {
    received: Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Arriving {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.received.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.piece.len());
        out[..n].copy_from_slice(&self.piece.split_to(n));
        Ok(n)
    }
}
