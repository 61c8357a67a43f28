//! A reading of a context: what was asked for, and how far it is.

use tokio::sync::{Notify, watch};

use super::clock::now;
use super::error::ErrorBody;
use super::wire::contexts::Status;
use crate::tokenizer::Message;

/// A context that is being read, or could not be.
#[derive(Debug)]
pub struct Reading {
    progress: watch::Sender<Progress>,
    stop: Notify,
    /// Bytes of what is read, with what was there before where that is known.
    pub text_bytes: usize,
    /// Whether it will be a conversation.
    pub is_conversation: bool,
    /// When it was asked for.
    pub created: u64,
    /// The client's own, as JSON.
    pub metadata: String,
}

/// How far it is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What it is doing.
    pub status: Status,
    /// Tokens read.
    pub tokens: usize,
    /// Tokens there are, once that is known.
    pub total_tokens: Option<usize>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
}

/// What is to be read.
pub enum Source {
    /// A document: the context's beginning.
    Document(String),
    /// What comes after what was read.
    Continuation(String),
    /// What was said.
    Messages(Vec<Message>),
}

/// A reading that was asked for.
pub struct Request {
    /// What it will be called.
    pub name: String,
    /// What is read.
    pub source: Source,
    /// Seconds until it is removed.
    pub ttl: Option<u64>,
    /// Whether it is kept whatever the limit of the store.
    pub pinned: bool,
    /// The client's own, as JSON; empty to leave what is there.
    pub metadata: String,
    /// Where its text comes from, for people.
    pub origin: String,
}

impl Reading {
    /// What can be known of one that begins.
    pub fn new(request: &Request, n_before: usize) -> Self {
        let (len, is_conversation) = match &request.source {
            Source::Document(text) => (text.len(), false),
            Source::Continuation(text) => (n_before + text.len(), false),
            Source::Messages(_) => (0, true),
        };
        let first = Progress { status: Status::Queued, tokens: 0, total_tokens: None, error: None };
        Self {
            progress: watch::Sender::new(first),
            stop: Notify::new(),
            text_bytes: len,
            is_conversation,
            created: now(),
            metadata: request.metadata.clone(),
        }
    }

    /// How far it is now.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// How far it is, as it comes.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Has it stop; what was read of a document is kept.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until it is to stop.
    pub async fn stopped(&self) {
        self.stop.notified().await;
    }

    /// Changes how far it is.
    pub fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
    }

    /// Waits until nothing more is read.
    pub async fn ended(&self) {
        let is_over = |progress: &Progress| !progress.status.is_under_way();
        let _ = self.watch().wait_for(is_over).await; // who sends is here
    }
}

impl Status {
    /// Whether it will change by itself.
    pub fn is_under_way(self) -> bool {
        matches!(self, Self::Queued | Self::Reading)
    }
}
