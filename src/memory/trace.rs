//! How long does a memory look things up, and as a part of what? For whoever measures and traces.

use std::time::Duration;

use tracing::Span;

use super::layers::Memory;
use crate::backend::Backend;

impl<B: Backend> Memory<B> {
    /// How long units were looked up so far, all layers together.
    pub fn retrieval_time(&self) -> Duration {
        self.lookup.time()
    }

    /// Counts lookups of a fork's as its own.
    pub fn add_retrieval_time(&mut self, time: Duration) {
        self.lookup.add_time(time);
    }

    /// Makes the lookups that follow, and those of forks, parts of `span`, for whoever traces.
    pub fn trace_into(&mut self, span: Span) {
        self.lookup.trace_into(span);
    }
}
