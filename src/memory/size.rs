//! How much does a memory take?

use super::layers::Memory;
use crate::backend::Backend;

impl<B: Backend> Memory<B> {
    /// Bytes that all of it takes, units in the store included, which forks share.
    pub fn bytes(&self) -> usize {
        let near =
            self.pages.n_window_pages() + self.config.sink_tokens.div_ceil(self.layout.page_len);
        let units = self.n_units() * self.unit_layout().page_bytes();
        near * self.layout.page_bytes() + units + self.index_bytes()
    }

    /// Bytes that the index of segments takes.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }
}
