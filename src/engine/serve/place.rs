//! How many may be served at once? So many as there are places.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of a server.
#[derive(Clone, Debug)]
pub(super) struct Places {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// A place in a server, given back when dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<AtomicUsize>,
}

impl Places {
    pub fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// One of them, if any is free.
    pub fn take(&self) -> Option<Place> {
        let more = |n: usize| (n < self.max).then_some(n + 1);
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.ok().map(|_| Place { taken: Arc::clone(&self.taken) })
    }

    /// How many are taken.
    pub fn n_taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}
