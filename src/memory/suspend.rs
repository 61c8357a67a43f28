//! How does a memory outlive its process? What it sealed is in its stores already; the rest (sinks,
//! window, scores, what is pinned) becomes a string of bytes from which it is taken up again as if
//! nothing had happened. And how does it go back? Pages are the same bytes in window and store, so
//! that any earlier state can be put together again from them.

use std::ops::Range;
use std::sync::Arc;

use memory_store::{RecordId, StoreError, UnitStore};

use super::angles::Angles;
use super::coarse::{self, Blocks};
use super::config::{AttentionMode, MemoryConfig, Phase};
use super::cuts::OpenTokens;
use super::error::MemoryError;
use super::layers::{self, Chunk, Memory};
use super::lookup::Lookup;
use super::stores::Stores;
use crate::attention::Rotary;
use crate::backend::{Backend, PageLayout, UnitId};
use crate::bytes::{ByteReader, ByteWriter};

/// A memory between processes.
#[derive(Clone, Debug)]
pub struct Suspended {
    /// What is not in the stores.
    pub state: Vec<u8>,
    /// Records of units that belong to it: the first so many of their store.
    pub n_units: usize,
    /// Records of blocks that belong to it.
    pub n_blocks: usize,
}

/// Units that one block holds.
const BLOCK_UNITS: usize = super::blocks::UNITS;

impl<B: Backend> Memory<B> {
    /// Whether the window's full pages are, byte for byte, the units that they will be.
    fn pages_are_units(&self) -> bool {
        self.layout.kv_type == self.config.kv_type
            && !self.config.cuts()
            && self.config.attention == AttentionMode::Retrieval
    }

    /// What has to be kept to take the memory up again. Full pages of the window are stored now
    /// where they will be units as they are.
    ///
    /// # Errors
    /// When the store refuses a unit.
    pub fn suspend(&mut self) -> Result<Suspended, MemoryError> {
        self.pages.take_back(&*self.backend)?;
        if self.pages_are_units() {
            self.store_ahead()?;
        }
        self.suspend_whole()
    }

    /// The same, with what of the window is not stored yet in the string of bytes.
    ///
    /// # Errors
    /// As [`suspend`](Self::suspend).
    pub(super) fn suspend_whole(&mut self) -> Result<Suspended, MemoryError> {
        self.pages.take_back(&*self.backend)?;
        let n_ahead = self.store.len() - self.n_units();
        let mut out = ByteWriter::new();
        out.len(self.n_tokens);
        if self.config.cuts() {
            out.u32s(&self.unit_ends);
        }
        self.chunk.write(&mut out);
        out.len(n_ahead);
        self.pages.write(&*self.backend, &mut out, n_ahead);
        if let Some(open) = &self.open {
            open.write(&*self.backend, self.kv_shape(), &mut out);
        }
        let (block, n_open) = self.index.open_block();
        out.len(n_open);
        out.bytes(if n_open > 0 { block } else { &[] });
        self.key_masses.write(&mut out);
        self.lookup.write(&mut out);
        self.write_excerpt(&mut out)?;
        self.backend.check()?;
        let (n_units, n_blocks) = (self.store.len(), self.index.n_blocks());
        Ok(Suspended { state: out.finish(), n_units, n_blocks })
    }

    /// The units whose representatives record `block` of the store of blocks holds.
    pub fn units_of_block(&self, block: usize) -> Range<usize> {
        block * BLOCK_UNITS..(block + 1) * BLOCK_UNITS
    }

    /// Stores with the same records, which go their own way.
    ///
    /// # Errors
    /// When they cannot be shared.
    pub fn share_stores(&self) -> Result<Stores, StoreError> {
        Ok(Stores { units: self.store.fork()?, blocks: self.index.share_blocks()? })
    }

    /// Stores the window's full pages that are not stored yet.
    fn store_ahead(&mut self) -> Result<(), MemoryError> {
        let mut room = Vec::new();
        let n_ahead = self.store.len() - self.n_units();
        let n_full =
            (self.n_tokens.saturating_sub(self.pages.window_start())) / self.config.unit_tokens;
        for slot in n_ahead..n_full {
            let page = self.backend.page_bytes(self.pages.window_page(slot), &mut room);
            self.backend.check()?;
            self.store.append(page)?;
        }
        Ok(())
    }

    /// Takes up the memory that was suspended with `state`, its records in `stores`. `config` may
    /// choose units otherwise than before, as for a [`fork`](Self::fork).
    ///
    /// # Errors
    /// When the sizes cannot work, the state is not what was written, or a unit cannot be read.
    pub fn resume(
        backend: Arc<B>,
        config: MemoryConfig,
        layout: PageLayout,
        (rotary, trained_tokens): (Rotary, usize),
        (stores, state): (Stores, &[u8]),
    ) -> Result<Self, MemoryError> {
        let mut from = ByteReader::new(state);
        let n_tokens = from.len("number of tokens")?;
        let (sinks, unit) = (config.sink_tokens, config.unit_tokens);
        let unit_ends = match config.cuts() {
            true => Some(from.u32s("ends of units")?),
            false => None,
        };
        let chunk = Chunk::read(&mut from)?;
        let n_ahead = from.len("number of stored pages")?;
        let n_units = stores.units.len().checked_sub(n_ahead);
        let n_units = n_units.ok_or(from.malformed("number of stored pages"))?;
        let unit_ends = unit_ends.unwrap_or_else(|| {
            (1..=n_units).map(|unit_idx| (sinks + unit_idx * unit) as u32).collect()
        });
        if unit_ends.len() != n_units {
            return Err(from.malformed("ends of units").into());
        }
        let (units, blocks) = (stores.units, stores.blocks);
        let no_blocks = coarse::no_blocks(layout, &config)?;
        let empty = Stores { units, blocks: no_blocks.full };
        let mut memory = Self::new(backend, config, layout, (rotary, trained_tokens), empty)?;
        memory.n_tokens = n_tokens;
        memory.chunk = chunk;
        memory.unit_ids = unit_ends.iter().map(|_| UnitId::new()).collect();
        memory.unit_ends = unit_ends;
        let sizes = (memory.n_units_tokens(), n_ahead);
        memory.pages.read(&*memory.backend, &mut from, sizes)?;
        memory.read_pages_ahead(n_ahead)?;
        if memory.open.is_some() {
            let most = (layers::most_open(&memory.config), memory.kv_shape());
            memory.open = Some(OpenTokens::read(&*memory.backend, most, &mut from)?);
        }
        let n_open = from.len("units of the open block")?;
        let open = from.bytes("open block")?;
        let block_bytes = coarse::block_layout(layout, &memory.config).block_bytes();
        let is_block = n_open == 0 || (n_open < BLOCK_UNITS && open.len() == block_bytes);
        if !is_block || blocks.len() * BLOCK_UNITS + n_open != n_units {
            return Err(from.malformed("open block").into());
        }
        let blocks = Blocks { full: blocks, open: (open, n_open) };
        memory.index = coarse::index(layout, &memory.config, blocks)?;
        memory.key_masses.read(&mut from, layout)?;
        let sets = (layout.n_layers, memory.lookup.n_sets());
        memory.lookup = Lookup::read(&mut from, sets, n_units)?;
        memory.read_excerpt(layout, &mut from)?;
        from.finish("end of the memory's state")?;
        Ok(memory)
    }

    /// Tokens in sealed units.
    fn n_units_tokens(&self) -> usize {
        self.unit_ends.last().map_or(0, |end| *end as usize - self.config.sink_tokens)
    }

    /// Reads the window's first `n` pages from the store, where units come after those sealed.
    fn read_pages_ahead(&mut self, n: usize) -> Result<(), StoreError> {
        for slot in 0..n {
            let id = RecordId((self.n_units() + slot) as u32);
            let record = whole_record(&*self.store, id, self.layout.n_layers)?;
            self.backend.fill_page(self.pages.window_page_mut(slot), record);
        }
        Ok(())
    }

    /// Goes back to the state after the first `n_tokens` tokens: later ones were never read.
    ///
    /// # Errors
    /// When there are fewer tokens, or the memory does not keep what it takes.
    pub fn rewind(&mut self, n_tokens: usize) -> Result<(), MemoryError> {
        let refused = |why| MemoryError::Rewind { n_tokens, why };
        if n_tokens > self.n_tokens {
            return Err(refused("it is not that long"));
        }
        if n_tokens == self.n_tokens {
            return Ok(());
        }
        if !self.can_rewind() {
            return Err(refused(
                "that takes attention = \"retrieval\", fixed unit-cuts, kv-type int8 or f16 and a \
                 lookup other than \"attention-mass\"; read the text again up to there",
            ));
        }
        let (sinks, unit) = (self.config.sink_tokens, self.config.unit_tokens);
        let keep = self.config.window_tokens + unit;
        self.pages.take_back(&*self.backend)?;
        let n_units = match n_tokens.checked_sub(sinks + keep) {
            Some(over) => over / unit + 1,
            None => 0,
        };
        self.store_ahead()?;
        let n_full = n_tokens.saturating_sub(sinks) / unit;
        let n_pages = n_tokens.saturating_sub(sinks).div_ceil(unit) - n_units;
        self.put_together(n_units..n_units + n_pages)?;
        self.n_tokens = n_tokens;
        self.store.truncate(n_full);
        self.unit_ends.truncate(n_units);
        self.unit_ids.truncate(n_units);
        self.index_first(n_units)?;
        self.angles = Angles::new(&self.rotary, &self.config);
        self.lookup = Lookup::new(self.layout.n_layers, self.lookup.n_sets());
        self.evidence.take();
        self.excerpt = None;
        self.chunk = Chunk::new();
        Ok(())
    }

    /// Whether [`rewind`](Self::rewind) can put earlier states together again.
    pub fn can_rewind(&self) -> bool {
        self.pages_are_units() && !self.config.tallies_keys()
    }

    /// Forgets everything, in the same stores, so that the text can be read anew.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn restart(&mut self) -> Result<(), MemoryError> {
        let layout = self.unit_layout();
        let mut blocks = self.take_blocks()?;
        blocks.truncate(0);
        let nothing = Stores::in_memory(layout, &self.config)?.units;
        let mut units = std::mem::replace(&mut self.store, nothing);
        units.truncate(0);
        let (backend, rotary) = (Arc::clone(&self.backend), self.rotary.clone());
        let fits = (rotary, usize::MAX); // as it did when this was made
        let stores = Stores { units, blocks };
        *self = Self::new(backend, self.config.clone(), layout, fits, stores)?;
        Ok(())
    }

    /// Makes pages `pages`, counted from the first after the sinks, the window.
    fn put_together(&mut self, pages: Range<usize>) -> Result<(), MemoryError> {
        let n_stored = self.store.len();
        let first = self.n_units();
        let mut window = Vec::with_capacity(pages.len());
        for page in pages.clone() {
            window.push(match page < n_stored {
                true => {
                    let id = RecordId(page as u32);
                    let record = whole_record(&*self.store, id, self.layout.n_layers)?;
                    let mut page = self.backend.page(self.layout.page_bytes())?;
                    self.backend.fill_page(&mut page, record);
                    page
                }
                // Only the last page, which is not full yet.
                false => self.backend.copy_page(self.pages.window_page(page - first))?,
            });
        }
        self.pages.set_window(pages.start * self.config.unit_tokens, window);
        Ok(())
    }

    /// The index's blocks, of which it has none then.
    fn take_blocks(&mut self) -> Result<Box<dyn UnitStore>, StoreError> {
        let layout = self.unit_layout();
        let empty = coarse::index(layout, &self.config, coarse::no_blocks(layout, &self.config)?)?;
        Ok(std::mem::replace(&mut self.index, empty).into_blocks())
    }

    /// Makes the index one of the first `n_units` units.
    fn index_first(&mut self, n_units: usize) -> Result<(), StoreError> {
        let layout = self.unit_layout();
        let mut full = self.take_blocks()?;
        full.truncate(n_units / BLOCK_UNITS);
        let is_released = matches!(full.read(RecordId(0), 0), Err(StoreError::Released { .. }));
        if is_released {
            return self.index_units(0..n_units); // the index in use was made of them anew
        }
        let blocks = Blocks { full, open: (&[], 0) };
        self.index = coarse::index(layout, &self.config, blocks)?;
        self.index_units(n_units / BLOCK_UNITS * BLOCK_UNITS..n_units)
    }
}

/// A record, all its sections checked.
fn whole_record(
    store: &dyn UnitStore,
    id: RecordId,
    n_sections: usize,
) -> Result<&[u8], StoreError> {
    let mut record = &[][..];
    for section in 0..n_sections {
        record = store.read(id, section)?.bytes();
    }
    Ok(record)
}

impl Chunk {
    fn write(&self, out: &mut ByteWriter) {
        out.u8(match self.phase {
            Phase::Reading => 0,
            Phase::Asking => 1,
            Phase::Answering => 2,
        });
        out.len(self.n_retrieved);
        out.len(self.answered);
        out.optional_len(self.question_start);
        out.len(self.max_attended);
    }

    fn read(from: &mut ByteReader<'_>) -> Result<Self, MemoryError> {
        let phase = match from.u8("phase")? {
            0 => Phase::Reading,
            1 => Phase::Asking,
            2 => Phase::Answering,
            _ => return Err(from.malformed("phase").into()),
        };
        Ok(Self {
            phase,
            n_retrieved: from.len("retrieved units")?,
            answered: from.len("tokens answered")?,
            question_start: from.optional_len("start of the question")?,
            max_attended: from.len("tokens attended")?,
            ..Self::new()
        })
    }
}
