//! What can be asked of the index of what stands for units? One trait, behind which it is scanned whole or
//! in parts.

use memory_store::{StoreError, UnitStore};

use crate::backend::{Backend, CoarseVotes, LookupQueries, NamedBlocks, PageLayout};

/// A unit to be indexed.
#[derive(Clone, Copy, Debug)]
pub struct Unit<'a> {
    /// How its page is laid out.
    pub layout: PageLayout,
    /// Keys and values of all layers.
    pub page: &'a [u8],
    /// Keys that it has, from the first on.
    pub n_keys: usize,
    /// What its keys received of attention, `[layer][kv_head][page_len]`, where that decides what
    /// stands for it.
    pub masses: Option<&'a [f32]>,
}

/// What stands for all units of a memory. It can always be made again from the units.
pub trait UnitIndex<B: Backend>: Send {
    /// Adds the next unit. `angles` are those of the offsets in a page: cosines `[pair][page_len]`,
    /// then sines; `keys` is scratch, `[head_dim][page_len]`.
    ///
    /// # Errors
    /// When the store refuses a block.
    fn push(&mut self, unit: Unit<'_>, scratch: (&[f32], &mut [f32])) -> Result<(), StoreError>;
    /// Takes over what was made in the background meanwhile. Never waits.
    fn catch_up(&mut self) {}
    /// Has more made in the background, where it is time. Never waits.
    fn make_more(&mut self) {}
    /// Waits for all that is to be made in the background.
    fn settle(&mut self) {}
    /// The coarse votes of a layer; returns how many bytes were read for them.
    ///
    /// # Errors
    /// When a block cannot be read.
    fn vote(
        &mut self,
        backend: &B,
        queries: &LookupQueries,
        layer: usize,
        votes: &mut CoarseVotes,
    ) -> Result<u64, StoreError>;
    /// Runs `run` with all blocks of a layer by their names, where units are scanned whole; says
    /// whether they are.
    ///
    /// # Errors
    /// When a block cannot be read.
    fn with_named(
        &mut self,
        _of: (usize, PageLayout),
        _run: &mut dyn FnMut(NamedBlocks<'_>),
    ) -> Result<bool, StoreError> {
        Ok(false)
    }
    /// Bytes of host memory that it takes.
    fn bytes(&self) -> usize;
    /// The block that is being filled, and the units that it has.
    fn open_block(&self) -> (&[u8], usize);
    /// Full blocks in its store.
    fn n_blocks(&self) -> usize;
    /// A store of the same full blocks.
    ///
    /// # Errors
    /// When the store cannot be shared.
    fn share_blocks(&self) -> Result<Box<dyn UnitStore>, StoreError>;
    /// The store of full blocks; the index is then to be made anew.
    fn into_blocks(self: Box<Self>) -> Box<dyn UnitStore>;
    /// An index of the same units that goes its own way.
    ///
    /// # Errors
    /// When the store cannot be shared.
    fn fork(&self) -> Result<Box<dyn UnitIndex<B>>, StoreError>;
}
