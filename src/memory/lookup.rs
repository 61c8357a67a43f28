//! Which units does a layer retrieve? In two stages: every unit is voted on by its segments' means,
//! and of the best few the exact keys decide (DESIGN.md, section 2).

use memory_store::{RecordId, StoreError, UnitStore};

use super::config::MAX_CANDIDATES;
use super::index::SegmentIndex;
use crate::backend::{Backend, Candidates, LookupQueries, LookupStep, PageLayout, SegmentsView};

/// Selections of all layers, and buffers to make them.
#[derive(Debug)]
pub(super) struct Lookup {
    retrieved: Vec<Vec<u32>>, // [layer], in document order
    queries: LookupQueries,
    votes: Vec<f32>,      // [unit] or [candidate]
    candidates: Vec<u32>, // units, best first, then in document order
    order: Vec<u32>,      // [unit] or [candidate], partly sorted by vote
}

/// One layer's lookup.
pub(super) struct Task<'a> {
    pub layout: PageLayout,
    pub layer: usize,
    /// Units to retrieve; at most as many as there are.
    pub n_retrieved: usize,
    /// Units whose keys are looked at.
    pub n_candidates: usize,
    /// One a KV head.
    pub index: &'a [SegmentIndex],
    pub store: &'a dyn UnitStore,
}

impl Lookup {
    pub fn new(n_layers: usize) -> Self {
        Self {
            retrieved: vec![Vec::new(); n_layers],
            queries: LookupQueries::default(),
            votes: Vec::new(),
            candidates: Vec::new(),
            order: Vec::new(),
        }
    }

    /// The units of `layer`'s last lookup, in document order.
    pub fn retrieved(&self, layer: usize) -> &[u32] {
        &self.retrieved[layer]
    }

    pub fn run<B: Backend>(
        &mut self,
        backend: &B,
        step: LookupStep<'_>,
        queries: &B::Buffer,
        task: Task<'_>,
    ) -> Result<(), StoreError> {
        let n_units = task.store.len() as u32;
        if task.n_retrieved >= n_units as usize {
            self.retrieved[task.layer].clear();
            self.retrieved[task.layer].extend(0..n_units);
            return Ok(());
        }
        backend.prepare_lookup(step, queries, &mut self.queries);
        self.pick_candidates(backend, &task, n_units);
        let mut keys = [const { &[] as &[u8] }; MAX_CANDIDATES];
        let keys = &mut keys[..self.candidates.len()];
        for (keys, unit) in keys.iter_mut().zip(&self.candidates) {
            *keys = task.store.read(RecordId(*unit))?.bytes();
        }
        self.votes.resize(keys.len(), 0.0);
        let candidates = Candidates { layout: task.layout, layer: task.layer, pages: keys };
        backend.vote_by_keys(&self.queries, candidates, &mut self.votes);
        best(&self.votes, task.n_retrieved, &mut self.order);
        let retrieved = &mut self.retrieved[task.layer];
        retrieved.clear();
        retrieved.extend(self.order.iter().map(|i| self.candidates[*i as usize]));
        retrieved.sort_unstable();
        Ok(())
    }

    fn pick_candidates<B: Backend>(&mut self, backend: &B, task: &Task<'_>, n_units: u32) {
        self.candidates.clear();
        if task.n_candidates >= n_units as usize {
            self.candidates.extend(0..n_units);
            return;
        }
        let mut views = [const { SegmentsView { n_segments: 0, means: &[], scales: &[] } }; 256];
        let views = &mut views[..task.index.len()];
        for (view, index) in views.iter_mut().zip(task.index) {
            *view = index.view();
        }
        self.votes.resize(n_units as usize, 0.0);
        backend.vote_by_segments(&self.queries, views, &mut self.votes);
        best(&self.votes, task.n_candidates, &mut self.order);
        self.candidates.extend_from_slice(&self.order);
        self.candidates.sort_unstable();
    }
}

/// The indexes of the `n` largest votes, in no order; equal votes go to the lower index, so that a
/// selection never depends on how it was computed.
fn best(votes: &[f32], n: usize, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..votes.len() as u32);
    let by_vote =
        |a: &u32, b: &u32| votes[*b as usize].total_cmp(&votes[*a as usize]).then(a.cmp(b));
    if n < order.len() {
        order.select_nth_unstable_by(n, by_vote);
        order.truncate(n);
    }
}
