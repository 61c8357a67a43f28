//! What does a layer attend to, and at which positions? Sinks, retrieved units, window: for each
//! set of heads its pages, each with its place (DESIGN.md, section 3).

use memory_store::{RecordId, StoreError};

use super::config::{AttentionMode, Positions};
use super::layers::Memory;
use super::pages::PageKind;
use crate::backend::{Backend, PageSource, PlacedPage, Placement};

impl<B: Backend> Memory<B> {
    /// Slots of one unit's length between the sinks and the window.
    fn unit_slots(&self) -> usize {
        match self.config.positions {
            Positions::Question | Positions::Contiguous => self.chunk.n_retrieved,
            Positions::Edge => self.chunk.n_retrieved.min(1),
            Positions::Fixed => 0,
        }
    }

    /// Tokens of the window that stand before the units: its pages before the one that the question
    /// begins in.
    fn tokens_before_units(&self) -> usize {
        let question = match (self.config.positions, self.chunk.question_start) {
            (Positions::Question, Some(start)) if self.chunk.n_retrieved > 0 => start,
            _ => return 0,
        };
        let starts = self.pages.window_starts().take_while(|start| *start <= question);
        starts.last().map_or(0, |page| page - self.pages.window_start())
    }

    pub(super) fn prepare_angles(&mut self) {
        let (sinks, unit) = (self.config.sink_tokens, self.config.unit_tokens);
        for page in self.angles.sinks.len()..sinks.div_ceil(unit) {
            self.angles.sinks.push(self.rotary.angles_at(page * unit));
        }
        let before = self.tokens_before_units();
        self.angles.place_slots(&self.rotary, (sinks + before, unit), self.unit_slots());
        let width = 2 * self.rotary.n_pairs();
        let window_position = sinks + self.unit_slots() * unit;
        self.angles.place_window(&self.rotary, (sinks, before, window_position), &self.pages);
        self.chunk.near_angles.resize(self.chunk.n_tokens * width, 0.0);
        for (i, angles) in self.chunk.near_angles.chunks_exact_mut(width).enumerate() {
            let index = self.n_tokens + i;
            let position = match index.checked_sub(self.pages.window_start()) {
                Some(past) => window_position + past,
                None => index, // a sink itself
            };
            self.rotary.write_angles(position, angles);
        }
    }

    /// The pages of all sets that the layer's heads attend to, equally many in each; returns how
    /// many sets.
    pub(super) fn place_sets<'a>(
        &'a self,
        layer: usize,
        placed: &mut Vec<PlacedPage<'a, B::Page>>,
    ) -> Result<usize, StoreError> {
        let n_sets = if self.chunk.n_retrieved > 0 { self.lookup.n_sets() } else { 1 };
        let looked_up = self.config.lookup_layer(layer);
        let n_retrieved = |set| self.lookup.retrieved(looked_up, set).len();
        let most = match self.chunk.n_retrieved {
            0 => 0,
            _ => (0..n_sets).map(n_retrieved).max().unwrap_or(0),
        };
        for set in 0..n_sets {
            let units = match self.chunk.n_retrieved {
                0 => &[],
                _ => self.lookup.retrieved(looked_up, set),
            };
            self.place(layer, (units, most), placed)?;
        }
        Ok(n_sets)
    }

    /// Adds what the step's pages received, `masses[set][page]`, to the evidence.
    pub(super) fn tally(&mut self, layer: usize, pages_a_set: usize, masses: Vec<f32>) {
        self.tally_near_pages(pages_a_set, &masses);
        let layer = self.config.lookup_layer(layer);
        let n_sets = if self.chunk.n_retrieved > 0 { self.lookup.n_sets() } else { 0 };
        for set in 0..n_sets {
            let units = self.lookup.retrieved(layer, set);
            let window = (set + 1) * pages_a_set - self.pages.n_window_pages();
            self.evidence.add(units, &masses[window - units.len()..]);
        }
        self.evidence.take_back(masses);
    }

    /// The pages of a set: sinks, `n_unit_pages` for units, window: each with its place. Units are
    /// in document order, after empty pages where they are fewer.
    fn place<'a>(
        &'a self,
        layer: usize,
        (units, n_unit_pages): (&[u32], usize),
        placed: &mut Vec<PlacedPage<'a, B::Page>>,
    ) -> Result<(), StoreError> {
        let end = self.n_tokens + self.chunk.n_tokens;
        let clipped_before = match self.config.attention {
            AttentionMode::Clipped => (end + 1).saturating_sub(self.config.clip_tokens),
            _ => 0,
        };
        let push_fast = |kind: PageKind, placed: &mut Vec<PlacedPage<'a, B::Page>>| {
            for page in self.pages.iter().filter(|page| page.kind == kind) {
                let tokens = self.pages.tokens_of(&page, end);
                let angles = match kind {
                    PageKind::Sink => &self.angles.sinks[page.slot][..],
                    PageKind::Window => self.angles.of_window_page(page.slot),
                };
                let is_clipped = page.first_index < clipped_before;
                placed.push(PlacedPage {
                    page: PageSource::Fast(page.page),
                    kv_type: self.layout.kv_type,
                    n_keys: tokens.len(),
                    first_index: page.first_index,
                    placement: if is_clipped { Placement::Far } else { Placement::At(angles) },
                });
            }
        };
        push_fast(PageKind::Sink, placed);
        let absent = PlacedPage {
            page: PageSource::None,
            kv_type: self.layout.kv_type,
            n_keys: 0,
            first_index: 0,
            placement: Placement::Far,
        };
        placed.extend(std::iter::repeat_n(absent, n_unit_pages - units.len()));
        // Where there are fewer units than slots, they are next to the window.
        let first_slot = self.chunk.n_retrieved - units.len();
        self.store.expect(&mut units.iter().map(|unit| RecordId(*unit)), layer);
        for (slot, unit) in (first_slot..).zip(units) {
            let placement = match self.config.positions {
                Positions::Question | Positions::Contiguous => {
                    Placement::At(&self.angles.slots[slot])
                }
                Positions::Edge => Placement::At(&self.angles.slots[0]),
                Positions::Fixed => Placement::Far,
            };
            let tokens = self.unit_tokens(*unit as usize);
            let bytes = self.store.read(RecordId(*unit), layer)?.bytes();
            placed.push(PlacedPage {
                page: PageSource::Unit(self.unit_ids[*unit as usize], bytes),
                kv_type: self.config.kv_type,
                n_keys: tokens.len(),
                first_index: tokens.start,
                placement,
            });
        }
        push_fast(PageKind::Window, placed);
        Ok(())
    }
}
