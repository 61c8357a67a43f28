//! Which units does a layer retrieve? As the policy says. In two stages by default: every unit is
//! voted on by its segments' means, and of the best few the exact keys decide (DESIGN.md, section 2).

use memory_store::{RecordId, StoreError, UnitStore};

use super::config::LookupPolicy;
use super::index::SegmentIndex;
use super::reuse::emptied;
use crate::backend::{Backend, Candidates, LookupQueries, LookupStep, PageLayout, SegmentsView};

/// Selections of all layers, and buffers to make them.
#[derive(Debug)]
pub(super) struct Lookup {
    retrieved: Vec<Vec<u32>>, // [layer], in document order
    sought: Vec<bool>,        // [unit]: retrieved for a question or an answer
    queries: LookupQueries,
    votes: Vec<f32>,           // [unit] or [candidate]
    candidates: Vec<u32>,      // units, best first, then in document order
    order: Vec<u32>,           // [unit] or [candidate], partly sorted by vote
    pages: Vec<&'static [u8]>, // empty between lookups: an allocation to use again
}

/// One layer's lookup.
pub(super) struct Task<'a> {
    pub layout: PageLayout,
    pub layer: usize,
    /// By what units are chosen.
    pub policy: LookupPolicy,
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
            sought: Vec::new(),
            queries: LookupQueries::default(),
            votes: Vec::new(),
            candidates: Vec::new(),
            order: Vec::new(),
            pages: Vec::new(),
        }
    }

    /// The same selections, and buffers of its own.
    pub fn fork(&self) -> Self {
        let (retrieved, sought) = (self.retrieved.clone(), self.sought.clone());
        Self { retrieved, sought, ..Self::new(0) }
    }

    /// The units of `layer`'s last lookup, in document order.
    pub fn retrieved(&self, layer: usize) -> &[u32] {
        &self.retrieved[layer]
    }

    /// Whether any layer has retrieved `unit` for a question or an answer.
    pub fn was_sought(&self, unit: usize) -> bool {
        self.sought.get(unit).copied().unwrap_or(false)
    }

    /// Notes what `layer` has retrieved as sought.
    pub fn note_sought(&mut self, layer: usize, n_units: usize) {
        self.sought.resize(n_units, false);
        for unit in &self.retrieved[layer] {
            self.sought[*unit as usize] = true;
        }
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
        self.candidates.clear();
        match task.policy {
            LookupPolicy::None => {}
            LookupPolicy::Exact => self.candidates.extend(0..n_units),
            LookupPolicy::TwoStage if task.n_candidates >= n_units as usize => {
                self.candidates.extend(0..n_units);
            }
            LookupPolicy::TwoStage => self.vote_by_segments(backend, &task, task.n_candidates),
            LookupPolicy::Segments | LookupPolicy::Bound => {
                self.vote_by_segments(backend, &task, task.n_retrieved);
            }
        }
        if self.candidates.len() > task.n_retrieved {
            self.vote_by_keys(backend, &task)?;
        }
        let retrieved = &mut self.retrieved[task.layer];
        retrieved.clone_from(&self.candidates);
        Ok(())
    }

    /// Picks the `n` units whose representatives score best.
    fn vote_by_segments<B: Backend>(&mut self, backend: &B, task: &Task<'_>, n: usize) {
        let mut views = [const { SegmentsView { n_segments: 0, means: &[], scales: &[] } }; 256];
        let views = &mut views[..task.index.len()];
        for (view, index) in views.iter_mut().zip(task.index) {
            *view = index.view();
        }
        self.votes.resize(task.store.len(), 0.0);
        backend.vote_by_segments(&self.queries, views, &mut self.votes);
        best(&self.votes, n, &mut self.order);
        self.candidates.extend_from_slice(&self.order);
        self.candidates.sort_unstable();
    }

    /// Keeps the candidates whose best keys score best.
    fn vote_by_keys<B: Backend>(&mut self, backend: &B, task: &Task<'_>) -> Result<(), StoreError> {
        let mut pages = emptied(std::mem::take(&mut self.pages));
        for unit in &self.candidates {
            pages.push(task.store.read(RecordId(*unit))?.bytes());
        }
        self.votes.resize(pages.len(), 0.0);
        let candidates = Candidates { layout: task.layout, layer: task.layer, pages: &pages };
        backend.vote_by_keys(&self.queries, candidates, &mut self.votes);
        self.pages = emptied(pages);
        best(&self.votes, task.n_retrieved, &mut self.order);
        for place in &mut self.order {
            *place = self.candidates[*place as usize];
        }
        std::mem::swap(&mut self.candidates, &mut self.order);
        self.candidates.sort_unstable();
        Ok(())
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
