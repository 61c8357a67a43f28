//! The memory of all layers: chunk by chunk, keys and values are written to pages, units are looked
//! up, placed and attended to, and what leaves the window is sealed.

use std::ops::Range;
use std::sync::Arc;

use memory_store::{StoreError, UnitStore};

use super::angles::Angles;
use super::choice::Budget;
use super::coarse::{self, Blocks, block_layout};
use super::config::{MemoryConfig, Phase, Sets};
use super::cuts::OpenTokens;
use super::error::MemoryError;
use super::evidence::{EvidenceTally, UnitMass};
use super::excerpt::{Excerpt, NearMasses};
use super::lookup::{self, Lookup};
use super::mass::KeyMassTally;
use super::pages::FastPages;
use super::room::Sealing;
use super::stores::Stores;
use super::unit_index::UnitIndex;
use super::written::Writing;
use crate::attention::{Attention, AttentionError, Qkv, Rotary};
use crate::backend::{
    AttendStep, Backend, KeyMasses, LookupStep, MemoryNeeds, PageLayout, PageTarget, PlacedPage,
    StepDone, UnitId, emptied, set_of,
};
use crate::ids::LayerIdx;

/// The memory of one session, over all layers.
pub struct Memory<B: Backend> {
    pub(super) backend: Arc<B>,
    pub(super) config: MemoryConfig,
    pub(super) layout: PageLayout, // of sinks and window; units are of `config.kv_type`
    pub(super) rotary: Rotary,
    /// Tokens remembered.
    pub(super) n_tokens: usize,
    pub(super) pages: FastPages<B::Page>,
    pub(super) unit_ends: Vec<u32>, // [unit]: index in the text after its last token
    pub(super) unit_ids: Vec<UnitId>, // [unit]: forks have the same
    /// Where units may be cut at borders.
    pub(super) open: Option<OpenTokens<B>>,
    pub(super) store: Box<dyn UnitStore>,
    pub(super) index: Box<dyn UnitIndex<B>>,
    pub(super) angles: Angles,
    pub(super) chunk: Chunk,
    pub(super) lookup: Lookup,
    pub(super) evidence: EvidenceTally,
    pub(super) tallies_questions: bool,
    /// Of the window's keys, where representatives are chosen by it.
    pub(super) key_masses: KeyMassTally,
    pub(super) placed: Vec<PlacedPage<'static, B::Page>>, // empty between layers: an allocation to use again
    pub(super) sealing: Sealing,
    /// A passage that is attended to in place of all this.
    pub(super) excerpt: Option<Box<Excerpt<Self>>>,
    /// What pages of sinks and window received, where that is tallied.
    pub(super) near_masses: Option<NearMasses>,
}

/// The chunk at hand.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    pub(super) n_tokens: usize,
    pub(super) phase: Phase,
    /// Units that the layer with the most of them may retrieve.
    pub(super) n_retrieved: usize,
    /// Whether they are looked up, or those of the last lookup serve again.
    pub(super) looks_up: bool,
    /// Answer tokens since units were looked up.
    pub(super) answered: usize,
    /// The first token of the question at hand.
    pub(super) question_start: Option<usize>,
    pub(super) near_angles: Vec<f32>, // [token]: cosines, sines of its position
    pub(super) max_attended: usize,
}

impl<B: Backend> Memory<B> {
    /// An empty memory that keeps what it seals in `stores`, which must be empty.
    ///
    /// # Errors
    /// When the sizes cannot work or do not fit the model, or there is no memory.
    pub fn new(
        backend: Arc<B>,
        config: MemoryConfig,
        layout: PageLayout,
        (rotary, trained_tokens): (Rotary, usize),
        stores: Stores,
    ) -> Result<Self, MemoryError> {
        config.validate(trained_tokens)?;
        backend.check_memory(&config.needs(layout))?;
        let angles = Angles::new(&rotary, &config);
        let (sinks, unit) = (config.sink_tokens, config.unit_tokens);
        let blocks = Blocks { full: stores.blocks, open: (&[], 0) };
        let mut memory = Self {
            backend,
            layout: layout.of_type(config.kv_type.near()),
            n_tokens: 0,
            pages: FastPages::new(sinks, unit, layout.of_type(config.kv_type.near()).page_bytes()),
            store: stores.units,
            index: coarse::index(layout, &config, blocks)?,
            angles,
            chunk: Chunk::new(),
            lookup: Lookup::new(layout.n_layers, n_sets(layout, &config)),
            evidence: EvidenceTally::default(),
            tallies_questions: false,
            key_masses: KeyMassTally::default(),
            placed: Vec::new(),
            sealing: Sealing::of(layout),
            excerpt: None,
            near_masses: None,
            unit_ends: Vec::new(),
            unit_ids: Vec::new(),
            open: None,
            rotary,
            config,
        };
        if memory.config.cuts() {
            let most = most_open(&memory.config);
            let open = OpenTokens::new(&*memory.backend, memory.kv_shape(), (sinks, most));
            memory.open = Some(open?);
        }
        Ok(memory)
    }

    /// The sizes in use.
    pub fn config(&self) -> &MemoryConfig {
        &self.config
    }

    /// Tokens remembered.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Units sealed.
    pub fn n_units(&self) -> usize {
        self.unit_ends.len()
    }

    /// Tokens of the text that unit `unit` holds.
    pub fn unit_tokens(&self, unit: usize) -> Range<usize> {
        let end = |unit: usize| self.unit_ends[unit] as usize;
        unit.checked_sub(1).map_or(self.config.sink_tokens, end)..end(unit)
    }

    /// The most keys that any token so far has attended to.
    pub fn max_attended_tokens(&self) -> usize {
        let of_excerpt = self.excerpt.as_ref().map(|excerpt| excerpt.memory.max_attended_tokens());
        self.chunk.max_attended.max(of_excerpt.unwrap_or(0))
    }

    /// The units that KV head `kv_head` of layer `layer` retrieved for the last chunk, in document
    /// order.
    pub fn retrieved(&self, layer: LayerIdx, kv_head: usize) -> &[u32] {
        let set = set_of(kv_head, self.lookup.n_sets());
        self.lookup.retrieved(self.config.lookup_layer(layer.0), set)
    }

    /// Whether any layer has retrieved unit `unit` for a question or an answer.
    pub fn was_sought(&self, unit: usize) -> bool {
        self.lookup.was_sought(unit)
    }

    /// The unit that holds token `token`, if it is in one.
    pub fn unit_of(&self, token: usize) -> Option<usize> {
        token.checked_sub(self.config.sink_tokens)?;
        let unit = self.unit_ends.partition_point(|end| *end as usize <= token);
        (unit < self.n_units()).then_some(unit)
    }

    /// The attention mass that answer tokens gave each unit since the last call, heaviest first;
    /// that of questions too, where [`tally_questions`](Self::tally_questions) was called.
    pub fn take_evidence(&mut self) -> Vec<UnitMass> {
        self.evidence.take()
    }

    /// Tallies from now on what questions attend to as well.
    pub fn tally_questions(&mut self) {
        self.tallies_questions = true;
    }

    /// Has every layer retrieve `units`, the most wanted first, for questions and answers until
    /// more text is read or others are pinned.
    pub fn pin(&mut self, units: Vec<u32>) {
        self.lookup.pin(units);
    }

    /// Prepares for `n_tokens` more tokens, which then pass through all layers by
    /// [`Attention::begin_layer`] and [`Attention::end_layer`].
    ///
    /// # Errors
    /// When there is no memory for the chunk's keys and values.
    ///
    /// # Panics
    /// When the chunk is longer than the configuration's.
    pub fn begin_chunk(&mut self, n_tokens: usize, phase: Phase) -> Result<(), MemoryError> {
        assert!(n_tokens <= self.config.chunk_tokens, "a chunk longer than configured");
        self.pages.take_back(&*self.backend)?;
        self.chunk.n_tokens = n_tokens;
        match (self.chunk.phase, phase) {
            (_, Phase::Reading) => {
                self.lookup.pin(Vec::new());
                self.chunk.question_start = None;
                // A question looks up too little for clusters to be worth their making.
                self.index.make_more();
            }
            (Phase::Asking, Phase::Asking) | (_, Phase::Answering) => {}
            (_, Phase::Asking) => self.chunk.question_start = Some(self.n_tokens),
        }
        self.chunk.phase = phase;
        self.store.catch_up();
        self.index.catch_up();
        let has_excerpt = self.begin_excerpt(n_tokens, phase)?;
        let n_retrieved = if has_excerpt { 0 } else { self.config.retrieves(phase) };
        self.plan_lookup(n_retrieved.min(self.n_units()));
        self.pages.reserve(&*self.backend, self.n_tokens + n_tokens)?;
        if self.config.tallies_keys() {
            self.key_masses.reserve(self.pages.n_window_pages(), self.layout);
        }
        self.prepare_angles();
        if !has_excerpt {
            self.note_attended();
        }
        Ok(())
    }

    /// Decides whether the chunk looks up units. Neighbouring answer tokens share a lookup: what
    /// one needs the next mostly needs as well, and a lookup reads four times the keys that it
    /// finds.
    fn plan_lookup(&mut self, n_retrieved: usize) {
        let chunk = &mut self.chunk;
        let shares = chunk.phase == Phase::Answering
            && n_retrieved == chunk.n_retrieved
            && chunk.answered > 0
            && chunk.answered < self.config.answer_chunk_tokens;
        chunk.looks_up = n_retrieved > 0 && !shares;
        chunk.n_retrieved = n_retrieved;
        chunk.answered = match (chunk.phase, shares) {
            (Phase::Answering, true) => chunk.answered + chunk.n_tokens,
            (Phase::Answering, false) => chunk.n_tokens,
            _ => 0,
        };
    }

    /// Accepts the chunk: its tokens are remembered, and what leaves the window is sealed.
    ///
    /// # Errors
    /// When the store refuses a unit; the memory must then be dropped.
    pub fn end_chunk(&mut self) -> Result<(), MemoryError> {
        self.finish(None)
    }

    /// The same, with the strength of the border before each of the chunk's tokens: by them units
    /// are cut, where they may be.
    ///
    /// # Errors
    /// As [`end_chunk`](Self::end_chunk).
    ///
    /// # Panics
    /// When units may be cut and there is not one border for each token.
    pub fn end_chunk_at(&mut self, borders: &[f32]) -> Result<(), MemoryError> {
        assert!(self.open.is_none() || borders.len() == self.chunk.n_tokens, "a border a token");
        self.finish(Some(borders))
    }

    fn finish(&mut self, borders: Option<&[f32]>) -> Result<(), MemoryError> {
        self.backend.check()?;
        self.cut_pages(borders)?;
        self.n_tokens += self.chunk.n_tokens;
        self.chunk.n_tokens = 0;
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.memory.finish(borders)?;
        }
        self.leave_room(0)
    }

    /// The layout of units.
    pub(super) fn unit_layout(&self) -> PageLayout {
        self.layout.of_type(self.config.kv_type)
    }

    /// Factor on scores.
    pub(super) fn scale(&self) -> f32 {
        self.rotary.score_factor() / (self.layout.heads.head_dim as f32).sqrt()
    }

    fn note_attended(&mut self) {
        let end = self.n_tokens + self.chunk.n_tokens;
        let sinks = end.min(self.config.sink_tokens);
        let window = end.saturating_sub(self.pages.window_start());
        let attended = sinks + self.chunk.n_retrieved * self.config.unit_tokens + window;
        self.chunk.max_attended = self.chunk.max_attended.max(attended);
    }

    /// Layers, and floats of a token's keys.
    pub(super) fn kv_shape(&self) -> (usize, usize) {
        let heads = self.layout.heads;
        (self.layout.n_layers, heads.n_kv_heads * heads.head_dim)
    }

    /// Looks up units for the chunk's queries, the first of which is row `first_row` of `queries`.
    pub(super) fn look_up(
        &mut self,
        layer: usize,
        (queries, first_row): (&B::Buffer, usize),
    ) -> Result<(), StoreError> {
        let step = LookupStep {
            heads: self.layout.heads,
            n_tokens: self.chunk.n_tokens,
            first_row,
            group_len: match self.chunk.phase {
                Phase::Reading => self.config.read_query_tokens.max(1),
                Phase::Asking | Phase::Answering => self.config.ask_query_tokens,
            },
            vote: self.config.vote,
            n_sets: self.lookup.n_sets(),
            representatives: self.config.representatives(),
            segment_angles: &self.angles.far,
            key_angles: &self.angles.far_keys,
            scale: self.scale(),
            sharpness: self.config.coarse_sharpness as f32,
        };
        let task = lookup::Task {
            layout: self.unit_layout(),
            layer,
            policy: self.config.lookup,
            budget: Budget {
                n_units: self.lookup.budget(self.config.units_of(layer), &self.config),
                neighbour_units: self.config.neighbour_units,
                vote_share: self.config.vote_permille as f32 / 1000.0,
            },
            candidates_per_unit: self.config.candidates_per_unit,
            index: &mut *self.index,
            store: &*self.store,
            unit_ids: &self.unit_ids,
        };
        self.lookup.run(&*self.backend, step, queries, task)?;
        if self.chunk.phase != Phase::Reading {
            self.lookup.note_sought(layer, self.unit_ends.len());
        }
        Ok(())
    }
}

/// Tokens at most whose page is open when a chunk has passed.
pub(super) fn most_open(config: &MemoryConfig) -> usize {
    config.unit_tokens + config.chunk_tokens
}

impl MemoryConfig {
    /// What a memory of these settings asks of its backend, where pages are laid out as `layout`.
    pub fn needs(&self, layout: PageLayout) -> MemoryNeeds {
        let layout = layout.of_type(self.kv_type);
        MemoryNeeds {
            layout,
            far_pages: self.places_far(),
            key_masses: self.tallies_keys(),
            n_units: n_sets(layout, self) * self.retrieves(Phase::Answering),
            near_bytes: self.near_pages() * layout.of_type(self.kv_type.near()).page_bytes(),
            index_bytes: match self.retrieves(Phase::Answering) {
                0 => 0,
                _ => block_layout(layout, self).layer_bytes(),
            },
        }
    }

    /// Pages of sinks and window at most, while a chunk is read.
    fn near_pages(&self) -> usize {
        let window = self.window_tokens + self.unit_tokens + self.chunk_tokens;
        // Where units are cut a page may be a quarter shorter, and one is open.
        let (shortest, n_open) =
            if self.cuts() { (self.unit_tokens * 3 / 4, 1) } else { (self.unit_tokens, 0) };
        self.sink_tokens.div_ceil(self.unit_tokens) + window.div_ceil(shortest) + n_open
    }
}

/// Sets of units that a layer retrieves.
pub(super) fn n_sets(layout: PageLayout, config: &MemoryConfig) -> usize {
    match config.sets {
        Sets::Layer => 1,
        Sets::KvHead => layout.heads.n_kv_heads,
    }
}

impl Chunk {
    pub(super) fn new() -> Self {
        Self {
            n_tokens: 0,
            phase: Phase::Reading,
            n_retrieved: 0,
            looks_up: false,
            answered: 0,
            question_start: None,
            near_angles: Vec::new(),
            max_attended: 0,
        }
    }
}

impl<B: Backend> Memory<B> {
    /// Whether what the chunk attends to is evidence.
    fn is_tallied(&self) -> bool {
        let is_wanted = match self.chunk.phase {
            Phase::Reading => false,
            Phase::Asking => self.tallies_questions,
            Phase::Answering => true,
        };
        is_wanted && (self.chunk.n_retrieved > 0 || self.near_masses.is_some())
    }
}

impl<B: Backend> Attention<B> for Memory<B> {
    fn targets<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut Vec<PageTarget<'a, B::Page>>,
    ) {
        let (layout, slot_angles) = (self.layout, &self.angles.offset_rows[..]);
        let writing = Writing { layout, layer: layer.0, slot_angles };
        out.extend(writing.targets(&mut self.pages, chunk.rows.clone(), self.n_tokens));
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.memory.targets(layer, chunk, out);
        }
    }

    fn begin_layer<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut B::Buffer,
    ) -> Result<Option<AttendStep<'a, B::Page>>, AttentionError> {
        let refused = |error: StoreError| AttentionError(Box::new(error));
        let (_, width) = self.kv_shape();
        if let Some(open) = &mut self.open {
            open.keep(&*self.backend, (layer.0, self.n_tokens), chunk, width);
        }
        if self.excerpt.is_some() {
            return self.begin_layer_of_excerpt(layer, chunk, out);
        }
        if self.chunk.looks_up && self.config.lookup_layer(layer.0) == layer.0 {
            self.look_up(layer.0, (chunk.queries, chunk.rows.start)).map_err(refused)?;
        }
        let mut pages = emptied(std::mem::take(&mut self.placed));
        let tallies_keys = self.config.tallies_keys();
        let key_masses = tallies_keys.then(|| self.key_masses.of_step(self.layout));
        let page_masses = self.is_tallied().then(|| self.evidence.room());
        let n_sets = self.place_sets(layer.0, &mut pages).map_err(refused)?;
        Ok(Some(AttendStep {
            layout: self.layout,
            layer: layer.0,
            n_sets,
            n_tokens: chunk.n_tokens(),
            first_row: chunk.rows.start,
            first_index: self.n_tokens,
            near_angles: &self.chunk.near_angles,
            far_angles: &self.angles.far,
            offset_angles: &self.angles.offsets,
            scale: self.scale(),
            key_masses: key_masses.map(|masses| KeyMasses {
                first_page: pages.len() / n_sets - self.pages.n_window_pages(),
                masses,
            }),
            page_masses: page_masses.map(|mut masses| {
                masses.resize(pages.len(), 0.0);
                masses
            }),
            pages,
        }))
    }

    fn end_layer(
        &mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        done: Option<StepDone<B::Page>>,
    ) -> Result<(), AttentionError> {
        if self.excerpt.is_some() {
            return self.end_layer_of_excerpt(layer, chunk, done);
        }
        let StepDone { pages_a_set, pages, page_masses, key_masses } =
            done.expect("because every layer has a step");
        self.placed = pages;
        if let Some(masses) = page_masses {
            self.tally(layer.0, pages_a_set, masses);
        }
        if let Some(KeyMasses { masses, .. }) = key_masses {
            self.key_masses.add(self.layout, layer.0, masses);
        }
        self.backend.check().map_err(|error| AttentionError(Box::new(error)))
    }
}
