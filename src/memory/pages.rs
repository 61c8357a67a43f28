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
    lengths: VecDeque<usize>, // [window page]: tokens that it holds when it is full
    /// Pages that have left the window and wait to be used again.
    spare: Vec<AlignedBytes>,
    /// Tokens of pages that have left the window for good, so where the window begins.
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
            lengths: VecDeque::new(),
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
            lengths: self.lengths.clone(),
            ..*self
        })
    }

    /// Index in the text of the window's first token.
    pub fn window_start(&self) -> usize {
        self.sink_tokens + self.n_gone
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
        let mut window_end = self.window_start() + self.lengths.iter().sum::<usize>();
        while window_end < end {
            window_end += self.page_len;
            self.lengths.push_back(self.page_len);
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
        let mut first = self.window_start();
        for (page, length) in self.window.iter_mut().zip(&self.lengths) {
            if index < first + length {
                return (page, index - first, first + length);
            }
            first += length;
        }
        unreachable!("pages for all tokens were reserved")
    }

    /// Has the page that begins with token `first` hold `length` tokens; later ones move.
    pub fn cut(&mut self, first: usize, length: usize) {
        let page = self.window_starts().position(|start| start == first);
        self.lengths[page.expect("because a page begins there")] = length;
    }

    /// Index in the text of each window page's first token.
    pub fn window_starts(&self) -> impl Iterator<Item = usize> {
        self.lengths.iter().scan(self.window_start(), |next, length| {
            let start = *next;
            *next += length;
            Some(start)
        })
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
        let window = self.window.iter().zip(self.window_starts()).enumerate();
        let window = window.map(|(slot, (bytes, first_index))| FastPage {
            slot,
            kind: PageKind::Window,
            first_index,
            bytes,
        });
        sinks.chain(window)
    }

    /// Tokens of the page that begins at `first_index`, of those before `end`.
    pub fn tokens_of(&self, page: &FastPage<'_>, end: usize) -> Range<usize> {
        let (length, limit) = match page.kind {
            PageKind::Sink => (self.page_len, end.min(self.sink_tokens)),
            PageKind::Window => (self.lengths[page.slot], end),
        };
        page.first_index..(page.first_index + length).min(limit).max(page.first_index)
    }

    /// The oldest page of the window, and how many tokens it holds.
    pub fn oldest(&mut self) -> Option<(&mut [u8], usize)> {
        let length = *self.lengths.front()?;
        self.window.front_mut().map(|page| (&mut **page, length))
    }

    /// Takes the oldest page out of the window; its memory is used again.
    pub fn drop_oldest(&mut self) {
        if let Some((page, length)) = self.window.pop_front().zip(self.lengths.pop_front()) {
            self.spare.push(page);
            self.n_gone += length;
        }
    }
}
