//! Where does a memory keep what it seals? In two stores: units, and blocks of what stands for them.

use memory_store::{InMemoryStore, StoreError, UnitStore};

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

/// Sizes of what a store keeps, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordShape {
    /// Of a record.
    pub record_bytes: usize,
    /// Of a section: what is read at once.
    pub section_bytes: usize,
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
    pub fn shapes(layout: PageLayout, config: &MemoryConfig) -> [RecordShape; 2] {
        let units = layout.of_type(config.kv_type).page_bytes();
        let blocks = block_layout(layout, config);
        [
            RecordShape { record_bytes: units, section_bytes: units / layout.n_layers },
            RecordShape { record_bytes: blocks.block_bytes(), section_bytes: blocks.layer_bytes() },
        ]
    }
}
