//! What is the index that is scanned whole? Blocks of representatives in a store, and the one that is
//! being filled.

use std::sync::Arc;

use memory_store::{AlignedBytes, RecordId, StoreError, UnitStore};

use super::blocks::{BlockLayout, Represented, UNITS, turn_back};
use super::unit_index::{Unit, UnitIndex};
use crate::backend::{
    Backend, BlocksView, CoarseVotes, LookupQueries, NamedBlocks, PageLayout, UnitId, emptied,
};

/// All representatives are scanned.
pub(super) struct ExactIndex {
    pub layout: BlockLayout,
    /// Full blocks, a section a layer.
    pub blocks: Box<dyn UnitStore>,
    /// The first block that is scanned: those before it are in a better index.
    pub first_block: usize,
    open: Arc<AlignedBytes>, // the block that is being filled; shared by forks until one adds to it
    n_open: usize,           // units that it has
    names: Vec<UnitId>,      // [block], the open one last
    views: Vec<&'static [u8]>, // empty between lookups: an allocation to use again
}

impl ExactIndex {
    /// An index of the units of `blocks` (all full) and of the first `n_open` of `open`.
    ///
    /// # Errors
    /// When there is no memory for a block.
    pub fn new(
        layout: BlockLayout,
        blocks: Box<dyn UnitStore>,
        (open, n_open): (&[u8], usize),
    ) -> Result<Self, StoreError> {
        let mut block = AlignedBytes::zeroed(layout.block_bytes())?;
        match n_open {
            0 => layout.clear(&mut block),
            _ => block.copy_from_slice(open),
        }
        let open = Arc::new(block);
        let names = (0..=blocks.len()).map(|_| UnitId::new()).collect();
        Ok(Self { layout, blocks, first_block: 0, open, n_open, names, views: Vec::new() })
    }

    /// The block that is being filled, and the units that it has.
    pub fn open(&self) -> (&[u8], usize) {
        (&self.open, self.n_open)
    }

    /// Units that are scanned.
    pub fn n_units(&self) -> usize {
        (self.blocks.len() - self.first_block) * UNITS + self.n_open
    }

    pub fn add(
        &mut self,
        unit: Unit<'_>,
        (angles, keys): (&[f32], &mut [f32]),
    ) -> Result<(), StoreError> {
        if Arc::get_mut(&mut self.open).is_none() {
            self.open = Arc::new(self.open.try_clone()?);
        }
        let block = Arc::get_mut(&mut self.open).expect("because it was made sure of");
        let page_len = unit.layout.page_len;
        for (i, head) in block.chunks_exact_mut(self.layout.head_bytes()).enumerate() {
            let (layer, kv_head) = (i / self.layout.n_kv_heads, i % self.layout.n_kv_heads);
            unit.layout.view(unit.page, layer, kv_head).read_keys(page_len, keys);
            // Means of rotated keys would smear: they are turned back first, where they are.
            turn_back(keys, angles);
            let masses = unit.masses.map(|masses| &masses[i * page_len..][..page_len]);
            let represented = Represented { keys, n_keys: unit.n_keys, masses };
            self.layout.write(head, self.n_open, represented);
        }
        self.n_open += 1;
        // The open block is another one now.
        self.names.pop();
        self.names.push(UnitId::new());
        if self.n_open == UNITS {
            self.names.push(UnitId::new());
            self.blocks.append(block)?;
            self.layout.clear(block);
            self.n_open = 0;
        }
        Ok(())
    }

    /// Runs `run` with a layer's blocks; returns the bytes that they have.
    pub fn view(
        &mut self,
        layer: usize,
        run: impl FnOnce(BlocksView<'_>),
    ) -> Result<u64, StoreError> {
        let section = layer * self.layout.layer_bytes()..(layer + 1) * self.layout.layer_bytes();
        let mut views = emptied(std::mem::take(&mut self.views));
        let here = self.first_block..self.blocks.len();
        self.blocks.expect(&mut here.clone().map(|block| RecordId(block as u32)), layer);
        for block in here {
            views.push(&self.blocks.read(RecordId(block as u32), layer)?.bytes()[section.clone()]);
        }
        if self.n_open > 0 {
            views.push(&self.open[section]);
        }
        let n_segments = self.layout.n_segments;
        let bytes = (views.len() * self.layout.layer_bytes()) as u64;
        run(BlocksView { n_segments, blocks: &views });
        self.views = emptied(views);
        Ok(bytes)
    }

    /// Bytes of blocks in host memory, the open one included.
    pub fn size(&self) -> usize {
        self.blocks.resident_bytes() + self.open.len()
    }

    pub fn try_clone(&self) -> Result<Self, StoreError> {
        Ok(Self {
            layout: self.layout,
            blocks: self.blocks.fork()?,
            first_block: self.first_block,
            open: self.open.clone(),
            n_open: self.n_open,
            names: self.names.clone(),
            views: Vec::new(),
        })
    }
}

impl<B: Backend> UnitIndex<B> for ExactIndex {
    fn push(&mut self, unit: Unit<'_>, scratch: (&[f32], &mut [f32])) -> Result<(), StoreError> {
        self.add(unit, scratch)
    }

    fn catch_up(&mut self) {
        self.blocks.catch_up();
    }

    fn vote(
        &mut self,
        backend: &B,
        queries: &LookupQueries,
        layer: usize,
        votes: &mut CoarseVotes,
    ) -> Result<u64, StoreError> {
        let n_units = self.n_units();
        votes.units.clear();
        votes.units.extend(0..n_units as u32);
        votes.votes.resize(queries.n_sets * n_units, 0.0);
        self.view(layer, |blocks| backend.vote_by_segments(queries, blocks, &mut votes.votes))
    }

    fn with_named(
        &mut self,
        (layer, layout): (usize, PageLayout),
        run: &mut dyn FnMut(NamedBlocks<'_>),
    ) -> Result<bool, StoreError> {
        if self.first_block > 0 {
            return Ok(false);
        }
        let (names, n_units) = (std::mem::take(&mut self.names), self.n_units());
        let seen = self.view(layer, |view| {
            run(NamedBlocks { view, names: &names[..view.blocks.len()], n_units, layer, layout });
        });
        self.names = names;
        seen.map(|_| true)
    }

    fn bytes(&self) -> usize {
        self.size()
    }

    fn open_block(&self) -> (&[u8], usize) {
        self.open()
    }

    fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    fn share_blocks(&self) -> Result<Box<dyn UnitStore>, StoreError> {
        self.blocks.fork()
    }

    fn into_blocks(self: Box<Self>) -> Box<dyn UnitStore> {
        self.blocks
    }

    fn fork(&self) -> Result<Box<dyn UnitIndex<B>>, StoreError> {
        Ok(Box::new(self.try_clone()?))
    }
}
