//! How does a memory become two? Units are shared, since they never change; sinks and window are
//! copied. A fork may look up by another policy than what it came from: the index is then made
//! again from the units.

use std::ops::Range;

use memory_store::{RecordId, StoreError};

use super::angles::Angles;
use super::coarse;
use super::config::MemoryConfig;
use super::error::MemoryError;
use super::layers::{self, Memory};
use super::lookup::Lookup;
use super::room::Sealing;
use super::unit_index::Unit;
use crate::backend::Backend;

impl<B: Backend> Memory<B> {
    /// A memory of the same tokens, which goes its own way by `config`. What `config` says of
    /// units' and window's sizes, of the key/value type and of what becomes of distant context must
    /// be as it was.
    ///
    /// # Errors
    /// When it is not, the sizes do not fit the model, or there is no memory for the fork.
    pub fn fork(&self, config: MemoryConfig, trained_tokens: usize) -> Result<Self, MemoryError> {
        config.validate(trained_tokens)?;
        let was = &self.config;
        if let Some(name) = config.shaped_otherwise(was) {
            return Err(MemoryError::Differs { name });
        }
        self.backend.check_memory(&config.needs(self.unit_layout()))?;
        let mut fork = Self {
            backend: self.backend.clone(),
            layout: self.layout,
            rotary: self.rotary.clone(),
            n_tokens: self.n_tokens,
            pages: self.pages.try_clone(&*self.backend)?,
            unit_ends: self.unit_ends.clone(),
            unit_ids: self.unit_ids.clone(),
            open: self
                .open
                .as_ref()
                .map(|open| open.fork(&*self.backend, self.kv_shape(), layers::most_open(&config)))
                .transpose()?,
            store: self.store.fork()?,
            index: self.index.fork()?,
            angles: Angles::new(&self.rotary, &config),
            chunk: self.chunk.clone(),
            lookup: match config.sets == was.sets {
                true => self.lookup.fork(),
                false => Lookup::new(self.layout.n_layers, layers::n_sets(self.layout, &config)),
            },
            evidence: self.evidence.clone(),
            tallies_questions: self.tallies_questions,
            key_masses: self.key_masses.clone(),
            placed: Vec::new(),
            sealing: Sealing::of(self.layout),
            excerpt: self.fork_excerpt(&config, trained_tokens)?,
            near_masses: self.near_masses.clone(),
            config,
        };
        if fork.config != *was {
            fork.chunk.answered = 0; // what the other policy chose serves no further token
        }
        let is_same_index = fork.config.tallies_keys() == was.tallies_keys()
            && fork.config.representatives_per_unit() == was.representatives_per_unit()
            && fork.config.representatives() == was.representatives()
            && fork.config.clustering() == was.clustering();
        if !is_same_index {
            fork.index_again()?;
        }
        Ok(fork)
    }

    /// Makes the index from the units.
    fn index_again(&mut self) -> Result<(), StoreError> {
        let layout = self.unit_layout();
        let blocks = coarse::no_blocks(layout, &self.config)?;
        self.index = coarse::index(layout, &self.config, blocks)?;
        self.index_units(0..self.n_units())
    }

    /// Adds units to the index.
    pub(super) fn index_units(&mut self, units: Range<usize>) -> Result<(), StoreError> {
        let layout = self.unit_layout();
        for unit in units {
            let mut page = &[][..];
            for layer in 0..layout.n_layers {
                page = self.store.read(RecordId(unit as u32), layer)?.bytes();
            }
            let n_keys = self.unit_tokens(unit).len();
            let scratch = (&self.angles.offsets[..], &mut self.sealing.keys[..]);
            self.index.push(Unit { layout, page, n_keys, masses: None }, scratch)?;
            self.index.catch_up();
            self.index.make_more();
        }
        Ok(())
    }
}

impl MemoryConfig {
    /// A setting that shapes what is remembered, and is not as it was in `was`.
    fn shaped_otherwise(&self, was: &Self) -> Option<&'static str> {
        let shaped = [
            ("attention", self.attention == was.attention),
            ("sink-tokens", self.sink_tokens == was.sink_tokens),
            ("window-tokens", self.window_tokens == was.window_tokens),
            ("unit-tokens", self.unit_tokens == was.unit_tokens),
            ("kv-type", self.kv_type == was.kv_type),
            ("unit-cuts", self.unit_cuts == was.unit_cuts),
            ("lookup", was.tallies_keys() || !self.tallies_keys()),
        ];
        shaped.into_iter().find(|(_, is_same)| !is_same).map(|(name, _)| name)
    }

    /// Checks that a memory that was suspended with `was` can go on with these settings: they may
    /// choose units otherwise, by the same representatives.
    ///
    /// # Errors
    /// When they cannot, with the setting that differs.
    pub fn check_goes_on_from(&self, was: &Self) -> Result<(), MemoryError> {
        let is_same_index = self.representatives() == was.representatives()
            && self.tallies_keys() == was.tallies_keys();
        let is_same_length = self.representatives_per_unit() == was.representatives_per_unit();
        let differs = match self.shaped_otherwise(was) {
            None if !is_same_index => Some("lookup"),
            None if !is_same_length => Some("segment-tokens"),
            None if self.sets != was.sets => Some("sets"),
            differs => differs,
        };
        differs.map_or(Ok(()), |name| Err(MemoryError::Differs { name }))
    }
}
