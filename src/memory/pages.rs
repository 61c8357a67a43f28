//! Where are the keys that are always attended? In pages of one unit's length, each of all layers,
//! so that the oldest page of the window is, byte for byte, the unit it becomes.

use std::collections::VecDeque;
use std::ops::Range;

use memory_store::{AlignedBytes, StoreError};

/// Sinks and window. Tokens are counted from the start of the text.
#[derive(Debug)]
pub struct FastPages {
    sink_tokens: usize,
    page_len: usize,
    page_bytes: usize,
    sinks: Vec<AlignedBytes>,
    window: VecDeque<AlignedBytes>,
    /// Pages that have left the window and wait to be used again.
    spare: Vec<AlignedBytes>,
    /// Pages that have left the window for good, so where the window begins.
    n_gone: usize,
}

/// A page of sinks or window, and which tokens it holds.
#[derive(Debug)]
pub struct FastPage<'a> {
    /// Which page of its kind, counted from the oldest that is still there.
    pub slot: usize,
    /// Whether it is one of the sinks.
    pub kind: PageKind,
    /// Index in the text of the first token.
    pub first_index: usize,
    /// Memory of all layers.
    pub bytes: &'a [u8],
}

/// Which part of the memory a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// The text's first tokens.
    Sink,
    /// Recent tokens.
    Window,
}

impl FastPages {
    /// No tokens yet.
    pub fn new(sink_tokens: usize, page_len: usize, page_bytes: usize) -> Self {
        Self {
            sink_tokens,
            page_len,
            page_bytes,
            sinks: Vec::new(),
            window: VecDeque::new(),
            spare: Vec::new(),
            n_gone: 0,
        }
    }

    /// A copy.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn try_clone(&self) -> Result<Self, StoreError> {
        Ok(Self {
            sinks: self.sinks.iter().map(AlignedBytes::try_clone).collect::<Result<_, _>>()?,
            window: self.window.iter().map(AlignedBytes::try_clone).collect::<Result<_, _>>()?,
            spare: Vec::new(),
            ..*self
        })
    }

    /// Index in the text of the window's first token.
    pub fn window_start(&self) -> usize {
        self.sink_tokens + self.n_gone * self.page_len
    }

    /// Pages of the window.
    pub fn n_window_pages(&self) -> usize {
        self.window.len()
    }

    /// Makes pages for all tokens before `end`.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn reserve(&mut self, end: usize) -> Result<(), StoreError> {
        let n_sinks = self.sink_tokens.min(end).div_ceil(self.page_len);
        while self.sinks.len() < n_sinks {
            self.sinks.push(AlignedBytes::zeroed(self.page_bytes)?);
        }
        let n_window = end.saturating_sub(self.window_start()).div_ceil(self.page_len);
        while self.window.len() < n_window {
            let page = match self.spare.pop() {
                Some(page) => page,
                None => AlignedBytes::zeroed(self.page_bytes)?,
            };
            self.window.push_back(page);
        }
        Ok(())
    }

    /// The page and slot of token `index`, and the end of the run of tokens that share the page.
    pub fn page_of(&mut self, index: usize) -> (&mut [u8], usize, usize) {
        if index < self.sink_tokens {
            let page = index / self.page_len;
            let end = ((page + 1) * self.page_len).min(self.sink_tokens);
            return (&mut self.sinks[page], index % self.page_len, end);
        }
        let past = index - self.window_start();
        let page = past / self.page_len;
        let end = self.window_start() + (page + 1) * self.page_len;
        (&mut self.window[page], past % self.page_len, end)
    }

    /// Sinks, then window, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = FastPage<'_>> {
        let page_len = self.page_len;
        let sinks = self.sinks.iter().enumerate().map(move |(slot, bytes)| FastPage {
            slot,
            kind: PageKind::Sink,
            first_index: slot * page_len,
            bytes,
        });
        let start = self.window_start();
        let window = self.window.iter().enumerate().map(move |(slot, bytes)| FastPage {
            slot,
            kind: PageKind::Window,
            first_index: start + slot * page_len,
            bytes,
        });
        sinks.chain(window)
    }

    /// Tokens of the page that begins at `first_index`, of those before `end`.
    pub fn tokens_of(&self, page: &FastPage<'_>, end: usize) -> Range<usize> {
        let limit = match page.kind {
            PageKind::Sink => end.min(self.sink_tokens),
            PageKind::Window => end,
        };
        page.first_index..(page.first_index + self.page_len).min(limit).max(page.first_index)
    }

    /// The oldest page of the window.
    pub fn oldest(&self) -> Option<&[u8]> {
        self.window.front().map(|page| &**page)
    }

    /// Takes the oldest page out of the window; its memory is used again.
    pub fn drop_oldest(&mut self) {
        if let Some(page) = self.window.pop_front() {
            self.spare.push(page);
            self.n_gone += 1;
        }
    }
}
