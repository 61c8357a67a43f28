//! How does a page of the window become a unit? It comes to the host, where it is not there, is
//! packed and stored, and what stands for it goes to the index.

use memory_store::StoreError;

use super::config::AttentionMode;
use super::error::MemoryError;
use super::layers::Memory;
use super::room::Sealing;
use super::unit_index::Unit;
use crate::backend::{Backend, UnitId};

impl<B: Backend> Memory<B> {
    /// Seals now what `n_tokens` more tokens will push out of the window: a question can then be
    /// asked for it, where it would leave in the middle of the question and be missed by its first pass.
    ///
    /// # Errors
    /// When there is no room for the window on the device, or the store refuses a unit; the memory must
    /// then be dropped.
    pub fn make_way(&mut self, n_tokens: usize) -> Result<(), MemoryError> {
        if self.config.attention != AttentionMode::Retrieval {
            return Ok(()); // what leaves the window there is gone
        }
        let were_aside = self.pages.are_aside();
        self.pages.take_back(&*self.backend)?;
        self.leave_room(n_tokens)?;
        if were_aside {
            self.pages.set_aside(&*self.backend);
        }
        Ok(())
    }

    /// Has whole pages leave the window, until it holds less than one of them more than it should when
    /// `n_tokens` more are in it.
    pub(super) fn leave_room(&mut self, n_tokens: usize) -> Result<(), MemoryError> {
        if self.config.keeps_all() {
            return Ok(());
        }
        let keep = self.config.window_tokens + self.config.unit_tokens;
        let closed = self.open.as_ref().map_or(self.n_tokens, |open| open.first);
        while self.n_tokens + n_tokens >= self.pages.window_start() + keep
            && self.pages.oldest_end() <= closed
        {
            if self.config.attention == AttentionMode::Retrieval {
                self.seal_oldest()?;
            }
            self.pages.drop_oldest();
            self.key_masses.drop_oldest();
        }
        Ok(())
    }

    /// Takes in the unit that another memory of the same text has sealed next; the window stays as
    /// it is.
    pub(super) fn add_unit(&mut self, page: &[u8], n_keys: usize) -> Result<(), StoreError> {
        self.store.append(page)?;
        self.note_unit(n_keys);
        let masses = self.config.tallies_keys().then(|| self.key_masses.oldest());
        let scratch = (&self.angles.offsets[..], &mut self.sealing.keys[..]);
        let layout = self.layout.of_type(self.config.kv_type);
        self.index.push(Unit { layout, page, n_keys, masses: masses.flatten() }, scratch)?;
        self.index.catch_up();
        self.index.make_more();
        self.key_masses.drop_oldest();
        Ok(())
    }

    /// Makes the oldest page of the window a unit; the page stays.
    ///
    /// # Errors
    /// When the device has failed, or the store refuses it.
    pub(super) fn seal_oldest(&mut self) -> Result<(), MemoryError> {
        let (page, n_keys) =
            self.pages.oldest().expect("because the window holds more than a unit");
        let Sealing { page: room, filled, packed, keys } = &mut self.sealing;
        let mut page = self.backend.page_bytes(page, room);
        self.backend.check()?;
        if n_keys < self.layout.page_len {
            filled.resize(page.len() / 4, 0);
            let filled: &mut [u8] = bytemuck::cast_slice_mut(filled);
            filled.copy_from_slice(page);
            self.layout.repeat_last(filled, n_keys);
            page = filled;
        }
        if self.store.len() > self.unit_ends.len() {
            // It was stored when the memory was suspended.
        } else if self.layout.kv_type == self.config.kv_type {
            self.store.append(page)?;
        } else {
            let packed_bytes = self.layout.of_type(self.config.kv_type).page_bytes();
            packed.resize(packed_bytes.div_ceil(4), 0);
            let packed = bytemuck::cast_slice_mut(packed);
            self.backend.pack_page(self.layout, page, self.config.kv_type, packed);
            self.store.append(packed)?;
        }
        let masses = self.config.tallies_keys().then(|| self.key_masses.oldest());
        let unit = Unit { layout: self.layout, page, n_keys, masses: masses.flatten() };
        self.index.push(unit, (&self.angles.offsets, keys))?;
        self.note_unit(n_keys);
        Ok(())
    }

    fn note_unit(&mut self, n_keys: usize) {
        let start = self.unit_ends.last().copied().unwrap_or(self.config.sink_tokens as u32);
        self.unit_ends.push(start + n_keys as u32);
        self.unit_ids.push(UnitId::new());
    }
}
