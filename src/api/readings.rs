//! How is a context read? As a task of its own, which goes on when whoever asked for it has left: they
//! may come back and see how far it is.

use std::sync::Arc;

use tokio::sync::mpsc::channel;
use tokio::sync::oneshot;
use tracing::{Instrument, Span};

use super::answering::{blocking, reading};
use super::clock::now;
use super::error::ApiError;
use super::keys::Tenant;
use super::reading::{Reading, Request, Source};
use super::state::{Changing, Service};
use super::wire::contexts::Status;
use crate::engine::serve::{Ended, Event, Place, Saving, Stage, Task, Work};
use crate::engine::{Context, Contexts};
use crate::memory::store::Pinned;

/// Begins to read. The right to change the context is held until it is over.
pub fn start(
    service: &Service,
    tenant: &Tenant,
    request: Request,
    (changing, place): (Changing, Place),
) -> Arc<Reading> {
    let n_before = match service.contexts(tenant).notes(&request.name) {
        Ok(notes) => notes.text_bytes,
        Err(_) => 0, // there is none yet
    };
    let reading = Arc::new(Reading::new(&request, n_before));
    let name = request.name.clone();
    service.add_reading(tenant, &name, Arc::clone(&reading));
    let (service, tenant, shared) = (service.clone(), tenant.clone(), Arc::clone(&reading));
    let read = async move {
        let run = Run { service: &service, tenant: &tenant, reading: &shared };
        let read = run.read(request, place).await;
        drop(changing); // before anybody hears that it is over
        run.finish(&name, read);
    };
    tokio::spawn(read.in_current_span());
    reading
}

struct Run<'a> {
    service: &'a Service,
    tenant: &'a Tenant,
    reading: &'a Reading,
}

/// How a reading ended that did not fail.
enum Read {
    Whole,
    Stopped,
}

impl Run<'_> {
    async fn read(&self, request: Request, place: Place) -> Result<Read, ApiError> {
        let (service, tenant) = (self.service.clone(), self.tenant.clone());
        let (context, stages, request, n_before) = blocking(move || {
            let contexts = service.contexts(&tenant);
            let (context, stages) = open(&service, &contexts, &request)?;
            let n_before = context.session().n_tokens();
            Ok((context, stages, request, n_before))
        })
        .await?;
        let (events, mut received) = channel(4);
        let (held, let_go) = oneshot::channel();
        let work = Work::Context(Box::new(context));
        let task =
            Task { work, stages, answers: None, events, held: Some(held), span: Span::current() };
        self.service.server().submit(task, place);
        loop {
            let event = tokio::select! {
                event = received.recv() => event,
                () = self.reading.stopped() => {
                    received.close(); // the server keeps what was read, then lets go
                    let _ = let_go.await; // nothing is sent: it is dropped
                    return Ok(Read::Stopped);
                }
            };
            match event {
                Some(Event::Progress { done_tokens, total_tokens }) => {
                    self.reading.update(|progress| {
                        progress.status = Status::Reading;
                        progress.tokens = n_before + done_tokens;
                        progress.total_tokens = Some(n_before + total_tokens);
                    });
                }
                Some(Event::Piece(..)) => {}
                Some(Event::Failed(error)) => return Err(error.into()),
                Some(Event::Ended(_, ended)) => {
                    let (service, tenant) = (self.service.clone(), self.tenant.clone());
                    return blocking(move || end(&service, &tenant, *ended, &request)).await;
                }
                None => return Err(ApiError::internal("The model's server has ended.")),
            }
        }
    }

    fn finish(&self, name: &str, read: Result<Read, ApiError>) {
        let (status, error) = match read {
            Ok(Read::Whole) => (Status::Ready, None),
            Ok(Read::Stopped) => (Status::Stopped, None),
            Err(error) => {
                tracing::warn!(context = name, message = error.body.message, "reading failed");
                (Status::Failed, Some(error.body))
            }
        };
        if error.is_none() {
            self.service.remove_reading(self.tenant, name); // from now on the store knows
        }
        self.reading.update(|progress| {
            (progress.status, progress.error) = (status, error);
        });
    }
}

/// The context to read on in, and what to read.
fn open(
    service: &Service,
    contexts: &Contexts,
    request: &Request,
) -> Result<(Context, Vec<Stage>), ApiError> {
    let Request { name, source, metadata, .. } = request;
    let (mut context, stages) = match source {
        Source::Document(text) => {
            let document = Arc::new(service.engine().document_prompt(text)?);
            let is_new = service.store().show(contexts.tenant(), name)?.is_none();
            let context = contexts.to_read(name, service.memory(), (&document, &request.origin))?;
            let n_read = context.n_read_of(&document)?;
            let room = check_room(service, contexts, document.ids().len() - n_read);
            if room.is_err() && is_new && n_read > 0 {
                service.store().delete(contexts.tenant(), name)?; // a fork that reads nothing
            }
            room?;
            (context, vec![reading(&document, n_read, Saving::AsItComes)])
        }
        Source::Continuation(text) => {
            let context = contexts.open(name)?;
            context.n_read_of_any()?;
            let document = Arc::new(service.engine().continuation(text));
            check_room(service, contexts, document.ids().len())?;
            (context, vec![reading(&document, 0, Saving::Whole)])
        }
        Source::Messages(messages) => {
            let mut context = contexts.create(name, service.memory(), &request.origin)?;
            let ids = context.begin_conversation(messages)?;
            (context, vec![Stage::Tokens(ids)])
        }
    };
    if !metadata.is_empty() {
        context.set_metadata(metadata.clone());
    }
    Ok((context, stages))
}

fn check_room(service: &Service, contexts: &Contexts, n_tokens: usize) -> Result<(), ApiError> {
    let bytes = n_tokens * service.engine().bytes_per_token(service.memory());
    service.check_room(contexts.tenant(), bytes as u64)
}

/// Saves what has to be saved in the end.
fn end(
    service: &Service,
    tenant: &Tenant,
    ended: Ended,
    request: &Request,
) -> Result<Read, ApiError> {
    let Work::Context(mut context) = ended.work else {
        return Err(ApiError::internal("The model's server returned something else."));
    };
    match &request.source {
        Source::Messages(_) => context.has_said()?,
        Source::Document(_) | Source::Continuation(_) => context.save_whole()?,
    }
    let (store, name) = (service.store(), &request.name);
    if let Some(ttl) = request.ttl {
        store.set_expiry(&tenant.0, name, Some(now().saturating_add(ttl)))?;
    }
    if request.pinned {
        store.set_pinned(&tenant.0, name, Pinned::Yes)?;
    }
    Ok(Read::Whole)
}
