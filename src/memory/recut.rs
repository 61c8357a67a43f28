//! How are pages cut where a text has its borders? When a chunk has passed, pages that it completed
//! get their lengths, and what moves by it is written again (see `cuts`).

use std::sync::Arc;

use super::error::MemoryError;
use super::layers::Memory;
use super::written::Writing;
use crate::backend::Backend;

impl<B: Backend> Memory<B> {
    /// Cuts the pages that the chunk at hand has completed at their strongest borders, and writes
    /// what moves by it again. `borders` says how strong the border before each token of the chunk
    /// is; where nobody says, there is none.
    ///
    /// # Errors
    /// When there is no memory for one more page.
    pub(super) fn cut_pages(&mut self, borders: Option<&[f32]>) -> Result<(), MemoryError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let page_len = self.layout.page_len;
        let (_, width) = self.kv_shape();
        let end = self.n_tokens + self.chunk.n_tokens;
        open.note(self.n_tokens, (self.chunk.n_tokens, borders));
        let lengths = open.cut(page_len);
        let whole = lengths.iter().take_while(|length| **length == page_len).count();
        if whole < lengths.len() {
            let mut start = open.first;
            for length in &lengths {
                self.pages.cut(start, *length);
                start += length;
            }
            self.pages.reserve(&*self.backend, end)?;
            self.angles.forget_window();
            let moved = whole * page_len + lengths[whole]..open.n_tokens();
            for layer in 0..self.layout.n_layers {
                let backend = Arc::clone(&self.backend);
                let slot_angles = &self.angles.offset_rows[..];
                let writing = Writing { layout: self.layout, layer, slot_angles };
                let first = open.first + moved.start;
                let targets = writing.targets(&mut self.pages, moved.clone(), first);
                let mut targets: Vec<_> = targets.collect();
                backend.write_pages(&mut targets, &open.keys[layer], &open.values[layer]);
            }
        }
        let n_closed = lengths.iter().sum::<usize>();
        if n_closed > 0 {
            open.forget(&*self.backend, n_closed, width);
        }
        self.open = Some(open);
        Ok(())
    }
}
