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

    /// Bytes of the backend's memory that sinks and window take now.
    pub fn near_bytes(&self) -> usize {
        self.pages.near_bytes()
    }

    /// Bytes of it that they take once the next chunk, of `n_tokens` tokens, has begun.
    pub fn near_bytes_of_step(&self, n_tokens: usize) -> usize {
        let more = (n_tokens + self.layout.page_len - 1).div_ceil(self.layout.page_len);
        self.pages.near_bytes() + self.pages.aside_bytes() + more * self.layout.page_bytes()
    }

    /// Moves sinks and window to the host's memory, where the backend's is another: the next chunk
    /// brings them back.
    pub fn set_aside(&mut self) {
        self.pages.set_aside(&*self.backend);
    }

    /// Bytes that the index of segments takes.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }
}
