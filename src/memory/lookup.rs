//! Which units does a layer retrieve? As the policy says. In two stages by default: every unit is
//! voted on by its segments' means, and of the best few the exact keys decide (DESIGN.md, section 2).

use std::time::{Duration, Instant};

use memory_store::{RecordId, StoreError, UnitStore};
use tracing::Span;

use super::choice::{self, Budget};
use super::config::{LookupPolicy, MemoryConfig};
use super::unit_index::UnitIndex;
use crate::backend::{
    Backend, BringFn, Candidates, CoarseVotes, LookupQueries, LookupStep, PageLayout, UnitId,
    emptied,
};
use crate::bytes::{ByteReader, ByteWriter, Malformed};

/// Selections of all layers, and buffers to make them.
#[derive(Debug)]
pub(super) struct Lookup {
    n_sets: usize,            // of a layer
    retrieved: Vec<Vec<u32>>, // [layer][set], in document order
    sought: Vec<bool>,        // [unit]: retrieved for a question or an answer
    pinned: Vec<u32>,         // retrieved by every layer that looks up, most wanted first
    queries: LookupQueries,
    coarse: CoarseVotes,
    votes: Vec<f32>,      // [set][candidate]
    units: Vec<u32>,      // all of them
    candidates: Vec<u32>, // [set][candidate], in document order
    order: Vec<u32>,      // [unit] or [candidate], partly sorted by vote
    bytes_read: u64,      // of index, keys and scales, by all lookups so far
    room: CandidateRoom,
    time: Duration, // of all lookups so far
    span: Span,     // whose part lookups are, where somebody traces
}

/// One layer's lookup.
pub(super) struct Task<'a, B: Backend> {
    pub layout: PageLayout,
    pub layer: usize,
    /// By what units are chosen.
    pub policy: LookupPolicy,
    /// Units to retrieve.
    pub budget: Budget,
    /// Units whose keys are looked at, for each unit retrieved.
    pub candidates_per_unit: usize,
    pub index: &'a mut dyn UnitIndex<B>,
    pub store: &'a dyn UnitStore,
    /// Units that are sealed, by their names.
    pub unit_ids: &'a [UnitId],
}

impl Lookup {
    pub fn new(n_layers: usize, n_sets: usize) -> Self {
        Self {
            n_sets,
            retrieved: vec![Vec::new(); n_layers * n_sets],
            sought: Vec::new(),
            pinned: Vec::new(),
            queries: LookupQueries::default(),
            coarse: CoarseVotes::default(),
            votes: Vec::new(),
            units: Vec::new(),
            candidates: Vec::new(),
            order: Vec::new(),
            bytes_read: 0,
            room: CandidateRoom::default(),
            time: Duration::ZERO,
            span: Span::none(),
        }
    }

    /// The same selections, and buffers of its own.
    pub fn fork(&self) -> Self {
        Self {
            retrieved: self.retrieved.clone(),
            sought: self.sought.clone(),
            pinned: self.pinned.clone(),
            span: self.span.clone(),
            ..Self::new(0, self.n_sets)
        }
    }

    /// Writes what is retrieved and pinned.
    pub fn write(&self, out: &mut ByteWriter) {
        out.u32s(&self.pinned);
        self.retrieved.iter().for_each(|units| out.u32s(units));
    }

    /// Reads what was written of `n_layers` layers of `n_sets` sets, when there were `n_units` units.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn read(
        from: &mut ByteReader<'_>,
        (n_layers, n_sets): (usize, usize),
        n_units: usize,
    ) -> Result<Self, Malformed> {
        let mut units = |what| {
            let units = from.u32s(what)?;
            let is_there = units.iter().all(|unit| (*unit as usize) < n_units);
            if is_there { Ok(units) } else { Err(from.malformed(what)) }
        };
        let mut lookup = Self::new(n_layers, n_sets);
        lookup.pinned = units("pinned units")?;
        for retrieved in &mut lookup.retrieved {
            *retrieved = units("retrieved units")?;
        }
        Ok(lookup)
    }

    /// Sets of a layer: one for all heads, or one a KV head.
    pub fn n_sets(&self) -> usize {
        self.n_sets
    }

    /// The units of `layer`'s last lookup for set `set`, in document order.
    pub fn retrieved(&self, layer: usize, set: usize) -> &[u32] {
        &self.retrieved[layer * self.n_sets + set]
    }

    /// Bytes of index, keys and scales that lookups have read.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The time of all lookups.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Counts lookups of others as its own.
    pub fn add_time(&mut self, time: Duration) {
        self.time += time;
    }

    /// Makes the lookups that follow parts of `span`.
    pub fn trace_into(&mut self, span: Span) {
        self.span = span;
    }

    /// Whether any layer has retrieved `unit` for a question or an answer.
    pub fn was_sought(&self, unit: usize) -> bool {
        self.sought.get(unit).copied().unwrap_or(false)
    }

    /// Has every layer that looks up retrieve `units`, the most wanted first, until others are pinned.
    pub fn pin(&mut self, units: Vec<u32>) {
        self.pinned = units;
    }

    /// Units that a layer with a budget of `most` retrieves: no more than are pinned and may be looked
    /// up besides.
    pub fn budget(&self, most: usize, config: &MemoryConfig) -> usize {
        match self.pinned.len() {
            0 => most,
            n => most.min(n + config.unpinned_units),
        }
    }

    /// Notes what `layer` has retrieved as sought.
    pub fn note_sought(&mut self, layer: usize, n_units: usize) {
        self.sought.resize(n_units, false);
        for unit in self.retrieved[layer * self.n_sets..][..self.n_sets].iter().flatten() {
            self.sought[*unit as usize] = true;
        }
    }

    /// Notes units that are read for a question or an answer without being retrieved.
    pub fn note_sought_units(&mut self, units: &[usize], n_units: usize) {
        self.sought.resize(n_units, false);
        units.iter().for_each(|unit| self.sought[*unit] = true);
    }

    /// Selects one layer's units.
    pub fn run<B: Backend>(
        &mut self,
        backend: &B,
        step: LookupStep<'_>,
        queries: &B::Buffer,
        task: Task<'_, B>,
    ) -> Result<(), StoreError> {
        let span = tracing::trace_span!(parent: &self.span, "retrieval", layer = task.layer);
        let begun = Instant::now();
        let selected = span.in_scope(|| self.select(backend, step, queries, task));
        self.time += begun.elapsed();
        selected
    }

    fn select<B: Backend>(
        &mut self,
        backend: &B,
        step: LookupStep<'_>,
        queries: &B::Buffer,
        mut task: Task<'_, B>,
    ) -> Result<(), StoreError> {
        let n_units = task.unit_ids.len();
        self.units.extend(self.units.len() as u32..n_units as u32);
        let takes_all = task.budget.n_units >= n_units && task.budget.vote_share >= 1.0;
        let takes_none = task.budget.n_units == 0 || task.policy == LookupPolicy::None;
        if takes_all || takes_none {
            let n = if takes_none { 0 } else { n_units };
            for set in 0..self.n_sets {
                let retrieved = &mut self.retrieved[task.layer * self.n_sets + set];
                retrieved.clear();
                retrieved.extend_from_slice(&self.units[..n]);
            }
            return Ok(());
        }
        if self.pinned.len() >= task.budget.n_units
            && self.pinned.iter().all(|unit| (*unit as usize) < n_units)
        {
            self.retrieve_pinned(&task);
            return Ok(());
        }
        let n_candidates = task.budget.n_units * task.candidates_per_unit;
        self.candidates.clear();
        let two_stages = task.policy == LookupPolicy::TwoStage && n_candidates < n_units;
        if two_stages && self.look_up(backend, (step, queries), &mut task, n_candidates)? {
            self.choose(&task);
            return Ok(());
        }
        backend.prepare_lookup(step, queries, &mut self.queries);
        match task.policy {
            LookupPolicy::TwoStage if two_stages => {
                self.vote_by_segments(backend, &mut task)?;
                let CoarseVotes { units, votes } = &self.coarse;
                for votes in votes.chunks_exact(units.len()) {
                    choice::best(votes, n_candidates, &mut self.order);
                    self.order.sort_unstable();
                    self.candidates.extend(self.order.iter().map(|i| units[*i as usize]));
                }
                self.vote_by_keys(backend, &task)?;
            }
            LookupPolicy::TwoStage | LookupPolicy::Exact => {
                for _ in 0..self.n_sets {
                    self.candidates.extend_from_slice(&self.units[..n_units]);
                }
                self.vote_by_keys(backend, &task)?;
            }
            LookupPolicy::Segments
            | LookupPolicy::AttentionMass
            | LookupPolicy::Bound
            | LookupPolicy::None => {
                self.vote_by_segments(backend, &mut task)?;
                for _ in 0..self.n_sets {
                    self.candidates.extend_from_slice(&self.coarse.units);
                }
                std::mem::swap(&mut self.votes, &mut self.coarse.votes);
            }
        }
        self.choose(&task);
        Ok(())
    }

    /// Has nobody vote where what is pinned takes the whole budget.
    fn retrieve_pinned<B: Backend>(&mut self, task: &Task<'_, B>) {
        for set in 0..self.n_sets {
            let retrieved = &mut self.retrieved[task.layer * self.n_sets + set];
            retrieved.clear();
            retrieved.extend_from_slice(&self.pinned[..task.budget.n_units]);
            retrieved.sort_unstable();
        }
    }

    /// Takes from each set's candidates those that the votes name.
    fn choose<B: Backend>(&mut self, task: &Task<'_, B>) {
        let n = self.candidates.len() / self.n_sets;
        for set in 0..self.n_sets {
            let votes = (&self.votes[set * n..][..n], &self.candidates[set * n..][..n]);
            let chosen = &mut self.retrieved[task.layer * self.n_sets + set];
            let units = (&self.pinned[..], 0..task.unit_ids.len() as u32);
            choice::choose(task.budget, votes, units, (&mut self.order, chosen));
        }
    }

    /// Has the device look up, where it keeps the index; says whether it does.
    fn look_up<B: Backend>(
        &mut self,
        backend: &B,
        (step, queries): (LookupStep<'_>, &B::Buffer),
        task: &mut Task<'_, B>,
        n: usize,
    ) -> Result<bool, StoreError> {
        let (mut was_done, mut read) = (false, Ok(()));
        let Task { index, store, layout, layer, unit_ids, .. } = task;
        let units = (*store, *unit_ids, (*layout, *layer));
        let Self { candidates, votes, room, bytes_read, n_sets, .. } = self;
        index.with_named((*layer, *layout), &mut |named| {
            let bring: &mut BringFn<'_> = &mut |units_named, vote| {
                candidates.extend_from_slice(units_named);
                read = room.read(units, candidates, vote);
            };
            was_done = backend.look_up(step, queries, (named, n), (bring, votes));
        })?;
        *bytes_read += candidates.len() as u64 * key_bytes(task, *n_sets);
        read.map(|()| was_done)
    }

    /// Units' votes, by what stands for them.
    fn vote_by_segments<B: Backend>(
        &mut self,
        backend: &B,
        task: &mut Task<'_, B>,
    ) -> Result<(), StoreError> {
        let votes = &mut self.coarse;
        self.bytes_read += task.index.vote(backend, &self.queries, task.layer, votes)?;
        Ok(())
    }

    /// The candidates' votes, by their own keys.
    fn vote_by_keys<B: Backend>(
        &mut self,
        backend: &B,
        task: &Task<'_, B>,
    ) -> Result<(), StoreError> {
        self.bytes_read += self.candidates.len() as u64 * key_bytes(task, self.n_sets);
        self.votes.resize(self.candidates.len(), 0.0);
        let units = (task.store, task.unit_ids, (task.layout, task.layer));
        let (queries, votes) = (&self.queries, &mut self.votes);
        self.room.read(units, &self.candidates, &mut |candidates| {
            backend.vote_by_keys(queries, candidates, votes);
        })
    }
}

/// Bytes of a candidate's keys that are read, of all heads that vote.
fn key_bytes<B: Backend>(task: &Task<'_, B>, n_sets: usize) -> u64 {
    (task.layout.keys(0, 0).len() * task.layout.heads.n_kv_heads / n_sets) as u64
}

/// Room for candidates' pages and names.
#[derive(Debug, Default)]
struct CandidateRoom {
    names: Vec<UnitId>,
    pages: Vec<&'static [u8]>, // empty between lookups: an allocation to use again
}

impl CandidateRoom {
    /// Reads the pages of `candidates` and hands them on.
    fn read(
        &mut self,
        (store, unit_ids, (layout, layer)): (&dyn UnitStore, &[UnitId], (PageLayout, usize)),
        candidates: &[u32],
        run: &mut dyn FnMut(Candidates<'_>),
    ) -> Result<(), StoreError> {
        let mut pages = emptied(std::mem::take(&mut self.pages));
        store.expect(&mut candidates.iter().map(|unit| RecordId(*unit)), layer);
        for unit in candidates {
            pages.push(store.read(RecordId(*unit), layer)?.bytes());
        }
        self.names.clear();
        self.names.extend(candidates.iter().map(|unit| unit_ids[*unit as usize]));
        run(Candidates { layout, layer, pages: &pages, units: &self.names });
        self.pages = emptied(pages);
        Ok(())
    }
}
