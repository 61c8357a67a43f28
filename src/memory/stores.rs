//! Where does a memory keep what it seals? In two stores: units, and blocks of what stands for them.

use memory_store::{InMemoryStore, StoreError, StreamShape, UnitStore};

use super::coarse::block_layout;
use super::config::MemoryConfig;
use crate::backend::PageLayout;

/// The stores of one memory.
pub struct Stores {
    /// Units' pages; a section is a layer.
    pub units: Box<dyn UnitStore>,
    /// Blocks of sixteen units' representatives; a section is a layer.
    pub blocks: Box<dyn UnitStore>,
}

impl Stores {
    /// Stores in host memory, gone with the process.
    ///
    /// # Errors
    /// Never, for layouts that have heads.
    pub fn in_memory(layout: PageLayout, config: &MemoryConfig) -> Result<Self, StoreError> {
        let [units, blocks] = Self::shapes(layout, config);
        Ok(Self {
            units: Box::new(InMemoryStore::new(units.record_bytes)?),
            blocks: Box::new(InMemoryStore::new(blocks.record_bytes)?),
        })
    }

    /// What the stores of such a memory keep: units, blocks.
    pub fn shapes(layout: PageLayout, config: &MemoryConfig) -> [StreamShape; 2] {
        let units = layout.of_type(config.kv_type).page_bytes();
        let blocks = block_layout(layout, config);
        [
            StreamShape { record_bytes: units, section_bytes: units / layout.n_layers },
            StreamShape { record_bytes: blocks.block_bytes(), section_bytes: blocks.layer_bytes() },
        ]
    }
}
