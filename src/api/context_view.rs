//! What does a context look like from outside? What the store knows of it, and what is known of its
//! reading while it goes on.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::keys::Tenant;
use super::reading::Reading;
use super::state::Service;
use super::wire::contexts::{ContextObject, Status};
use crate::engine::ContextNotes;
use crate::memory::store::{ContextSummary, Pinned};

/// A context of the tenant's.
///
/// # Errors
/// When there is none.
pub fn view(service: &Service, tenant: &Tenant, name: &str) -> Result<ContextObject, ApiError> {
    let reading = service.reading(tenant, name);
    let stored = service.store().show(&tenant.0, name)?;
    match (stored, reading) {
        (Some(stored), Some(reading)) => {
            let mut object = of_stored(service, stored);
            add_reading(&mut object, &reading);
            Ok(object)
        }
        (Some(stored), None) => Ok(of_stored(service, stored)),
        (None, Some(reading)) => Ok(of_reading(service, name, &reading)),
        (None, None) => Err(ApiError::no_context(name)),
    }
}

/// All of the tenant's.
///
/// # Errors
/// When the store cannot be read.
pub fn all(service: &Service, tenant: &Tenant) -> Result<Vec<ContextObject>, ApiError> {
    let mut objects = Vec::new();
    for stored in service.store().list(&tenant.0)? {
        let reading = service.reading(tenant, &stored.name);
        let mut object = of_stored(service, stored);
        if let Some(reading) = reading {
            add_reading(&mut object, &reading);
        }
        objects.push(object);
    }
    for (name, reading) in service.readings(tenant) {
        if !objects.iter().any(|object| object.id == name) {
            objects.push(of_reading(service, &name, &reading));
        }
    }
    Ok(objects)
}

/// A context of which only its reading is known.
pub fn of_reading(service: &Service, name: &str, reading: &Reading) -> ContextObject {
    let mut object = ContextObject {
        id: name.to_owned(),
        object: "context",
        model: service.model().to_owned(),
        kind: if reading.is_conversation { "conversation" } else { "document" },
        status: Status::Queued,
        created: reading.created,
        last_used: reading.created,
        expires_at: None,
        pinned: false,
        tokens: 0,
        total_tokens: None,
        text_bytes: 0,
        turns: 0,
        disk_bytes: 0,
        own_bytes: 0,
        forked_from: None,
        metadata: parsed(&reading.metadata),
        error: None,
    };
    add_reading(&mut object, reading);
    object
}

fn add_reading(object: &mut ContextObject, reading: &Reading) {
    let progress = reading.progress();
    object.status = progress.status;
    object.tokens = progress.tokens.max(object.tokens);
    object.total_tokens = progress.total_tokens;
    object.text_bytes = reading.text_bytes.max(object.text_bytes);
    object.error = progress.error;
}

fn of_stored(service: &Service, stored: ContextSummary) -> ContextObject {
    let notes = ContextNotes::of(&stored).ok();
    let is_conversation = notes.as_ref().is_some_and(|notes| notes.conversation.is_some());
    let is_whole = notes.as_ref().is_some_and(|notes| notes.is_whole) || is_conversation;
    let tokens = stored.length as usize;
    let is_ours = notes
        .as_ref()
        .is_some_and(|notes| notes.model == service.engine().path().display().to_string());
    ContextObject {
        id: stored.name,
        object: "context",
        model: match (&notes, is_ours) {
            (Some(notes), false) => notes.model.clone(),
            _ => service.model().to_owned(),
        },
        kind: if is_conversation { "conversation" } else { "document" },
        status: if is_whole { Status::Ready } else { Status::Stopped },
        created: stored.created,
        last_used: stored.used,
        expires_at: stored.expires,
        pinned: stored.pinned == Pinned::Yes,
        tokens,
        total_tokens: is_whole.then_some(tokens),
        text_bytes: notes.as_ref().map_or(0, |notes| notes.text_bytes),
        turns: notes.as_ref().map_or(0, |notes| notes.turns.len().saturating_sub(1)),
        disk_bytes: stored.disk_bytes,
        own_bytes: stored.own_bytes,
        forked_from: stored.parent,
        metadata: notes.map_or(Map::new(), |notes| parsed(&notes.metadata)),
        error: None,
    }
}

fn parsed(metadata: &str) -> Map<String, Value> {
    serde_json::from_str(metadata).unwrap_or_default()
}
