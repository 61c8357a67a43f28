//! Where is a unit made? In room that serves again.

use crate::backend::PageLayout;

/// Room to make a unit of a page in.
#[derive(Debug, Default)]
pub(super) struct Sealing {
    /// The page, where it is not on the host. Words, for their alignment.
    pub page: Vec<u32>,
    /// The page with its last key repeated, where it is not full.
    pub filled: Vec<u32>,
    /// The page in another type.
    pub packed: Vec<u32>,
    /// `[head_dim][page_len]`
    pub keys: Vec<f32>,
}

impl Sealing {
    /// For pages laid out like this.
    pub fn of(layout: PageLayout) -> Self {
        Self { keys: vec![0.0; layout.heads.head_dim * layout.page_len], ..Self::default() }
    }
}
