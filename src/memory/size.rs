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
        let of_excerpt = self.excerpt.as_ref().map(|excerpt| excerpt.memory.near_bytes());
        self.pages.near_bytes() + of_excerpt.unwrap_or(0)
    }

    /// Bytes of it that they take once the next chunk, of `n_tokens` tokens, has begun.
    pub fn near_bytes_of_step(&self, n_tokens: usize) -> usize {
        let more = (n_tokens + self.layout.page_len - 1).div_ceil(self.layout.page_len);
        let of_excerpt = self.excerpt.as_ref().map(|it| it.memory.near_bytes_of_step(n_tokens));
        let own = self.pages.near_bytes() + self.pages.aside_bytes();
        own + more * self.layout.page_bytes() + of_excerpt.unwrap_or(0)
    }

    /// Gives back memory of the backend's that is kept for pages to come.
    pub fn release_spare(&mut self) {
        self.pages.release_spare();
    }

    /// Moves sinks and window to the host's memory, where the backend's is another: the next chunk
    /// brings them back.
    pub fn set_aside(&mut self) {
        self.pages.set_aside(&*self.backend);
        if let Some(excerpt) = &mut self.excerpt {
            excerpt.memory.set_aside();
        }
    }

    /// Bytes that the index of segments takes.
    pub fn index_bytes(&self) -> usize {
        self.index.bytes()
    }
}
