//! Where are the keys that are always attended? In pages of one unit's length, each of all layers,
//! so that the oldest page of the window is, byte for byte, the unit it becomes.

use std::collections::VecDeque;
use std::ops::Range;

use super::error::MemoryError;
use crate::backend::{Backend, BackendError};
use crate::bytes::{ByteReader, ByteWriter};

/// Sinks and window. Tokens are counted from the start of the text.
#[derive(Debug)]
pub struct FastPages<P> {
    sink_tokens: usize,
    page_len: usize,
    page_bytes: usize,
    sinks: Vec<P>,
    window: VecDeque<P>,
    lengths: VecDeque<usize>, // [window page]: tokens that it holds when it is full
    /// Pages that have left the window and wait to be used again.
    spare: Vec<P>,
    /// Of sinks, then of the window, where they are set aside: there are no pages then.
    aside: Option<Vec<Box<[u8]>>>,
    /// Tokens of pages that have left the window for good, so where the window begins.
    n_gone: usize,
}

/// A page of sinks or window, and which tokens it holds.
#[derive(Debug)]
pub struct FastPage<'a, P> {
    /// Which page of its kind, counted from the oldest that is still there.
    pub slot: usize,
    /// Whether it is one of the sinks.
    pub kind: PageKind,
    /// Index in the text of the first token.
    pub first_index: usize,
    /// Memory of all layers.
    pub page: &'a P,
}

/// Which part of the memory a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// The text's first tokens.
    Sink,
    /// Recent tokens.
    Window,
}

impl<P> FastPages<P> {
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
            aside: None,
            n_gone: 0,
        }
    }

    /// A copy.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn try_clone<B: Backend<Page = P>>(&self, backend: &B) -> Result<Self, BackendError> {
        let copy = |page| backend.copy_page(page);
        Ok(Self {
            sinks: self.sinks.iter().map(copy).collect::<Result<_, _>>()?,
            window: self.window.iter().map(copy).collect::<Result<_, _>>()?,
            spare: Vec::new(),
            aside: self.aside.clone(),
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
        self.lengths.len()
    }

    /// Whether they are set aside.
    pub fn are_aside(&self) -> bool {
        self.aside.is_some()
    }

    /// Bytes of the backend's memory that pages take.
    pub fn near_bytes(&self) -> usize {
        (self.sinks.len() + self.window.len() + self.spare.len()) * self.page_bytes
    }

    /// Bytes that pages set aside will take.
    pub fn aside_bytes(&self) -> usize {
        self.aside.as_ref().map_or(0, |pages| pages.len() * self.page_bytes)
    }

    /// Gives the backend's memory back: what the pages hold goes to the host's. Until
    /// [`take_back`](Self::take_back) there are no pages to be read or written.
    pub fn set_aside<B: Backend<Page = P>>(&mut self, backend: &B) {
        if self.aside.is_some() {
            return;
        }
        let mut room = Vec::new();
        let pages = self.sinks.iter().chain(&self.window);
        let bytes = pages.map(|page| Box::from(backend.page_bytes(page, &mut room)));
        self.aside = Some(bytes.collect());
        self.sinks.clear();
        self.window.clear();
        self.spare.clear();
    }

    /// Brings back what was set aside.
    ///
    /// # Errors
    /// When there is no memory for it: it stays aside.
    pub fn take_back<B>(&mut self, backend: &B) -> Result<(), BackendError>
    where
        B: Backend<Page = P>,
    {
        let Some(aside) = &self.aside else { return Ok(()) };
        let filled = |bytes: &[u8]| {
            let mut page = backend.page(bytes.len())?;
            backend.fill_page(&mut page, bytes);
            Ok(page)
        };
        let mut pages =
            aside.iter().map(|bytes| filled(bytes)).collect::<Result<VecDeque<_>, _>>()?;
        self.window = pages.split_off(pages.len() - self.lengths.len());
        self.sinks = pages.into();
        self.aside = None;
        Ok(())
    }

    /// Makes pages for all tokens before `end`.
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn reserve<B>(&mut self, backend: &B, end: usize) -> Result<(), BackendError>
    where
        B: Backend<Page = P>,
    {
        let n_sinks = self.sink_tokens.min(end).div_ceil(self.page_len);
        while self.sinks.len() < n_sinks {
            self.sinks.push(backend.page(self.page_bytes)?);
        }
        let mut window_end = self.window_start() + self.lengths.iter().sum::<usize>();
        while window_end < end {
            window_end += self.page_len;
            self.lengths.push_back(self.page_len);
            let page = match self.spare.pop() {
                Some(page) => page,
                None => backend.page(self.page_bytes)?,
            };
            self.window.push_back(page);
        }
        Ok(())
    }

    /// Gives back the memory of pages that have left the window.
    pub fn release_spare(&mut self) {
        self.spare.clear();
    }

    /// Page `slot` of the window.
    pub fn window_page(&self, slot: usize) -> &P {
        &self.window[slot]
    }

    /// The same, to be written.
    pub fn window_page_mut(&mut self, slot: usize) -> &mut P {
        &mut self.window[slot]
    }

    /// Makes `pages` the window, all of one length; `n_gone` tokens have left it.
    pub fn set_window(&mut self, n_gone: usize, pages: Vec<P>) {
        self.n_gone = n_gone;
        self.lengths = pages.iter().map(|_| self.page_len).collect();
        self.window = pages.into();
        self.spare.clear();
    }

    /// Writes all pages but the first `n_ahead` of the window, which are kept elsewhere.
    pub fn write<B>(&self, backend: &B, out: &mut ByteWriter, n_ahead: usize)
    where
        B: Backend<Page = P>,
    {
        let mut room = Vec::new();
        out.len(self.sinks.len());
        self.sinks.iter().for_each(|page| out.bytes(backend.page_bytes(page, &mut room)));
        let lengths: Vec<u32> = self.lengths.iter().map(|length| *length as u32).collect();
        out.u32s(&lengths);
        let window = self.window.iter().skip(n_ahead);
        window.for_each(|page| out.bytes(backend.page_bytes(page, &mut room)));
    }

    /// Reads what was written, after `n_gone` tokens had left the window. Its first `n_ahead` pages
    /// are for the caller to fill.
    ///
    /// # Errors
    /// When it is not what was written, or there is no memory for it.
    pub fn read<B: Backend<Page = P>>(
        &mut self,
        backend: &B,
        from: &mut ByteReader<'_>,
        (n_gone, n_ahead): (usize, usize),
    ) -> Result<(), MemoryError> {
        let n_sinks = from.len("pages of sinks")?;
        if n_sinks > self.sink_tokens.div_ceil(self.page_len) {
            return Err(from.malformed("pages of sinks").into());
        }
        self.n_gone = n_gone;
        for _ in 0..n_sinks {
            let page = self.read_page(backend, from)?;
            self.sinks.push(page);
        }
        let lengths = from.u32s("lengths of pages")?;
        let page_len = self.page_len;
        if lengths.len() < n_ahead || lengths.iter().any(|length| *length as usize > page_len) {
            return Err(from.malformed("lengths of pages").into());
        }
        for slot in 0..lengths.len() {
            let page = match slot < n_ahead {
                true => backend.page(self.page_bytes)?,
                false => self.read_page(backend, from)?,
            };
            self.window.push_back(page);
        }
        self.lengths = lengths.iter().map(|length| *length as usize).collect();
        Ok(())
    }

    fn read_page<B>(&self, backend: &B, from: &mut ByteReader<'_>) -> Result<P, MemoryError>
    where
        B: Backend<Page = P>,
    {
        let bytes = from.bytes("page")?;
        if bytes.len() != self.page_bytes {
            return Err(from.malformed("page").into());
        }
        let mut page = backend.page(self.page_bytes)?;
        backend.fill_page(&mut page, bytes);
        Ok(page)
    }

    /// The pages of `tokens`, which were reserved: each with the slot of its first token of them, and
    /// which they are.
    ///
    /// # Panics
    /// When there is no page for one of them.
    pub fn pages_of(
        &mut self,
        tokens: Range<usize>,
    ) -> impl Iterator<Item = (&mut P, usize, Range<usize>)> {
        let (page_len, sink_tokens, window_start) =
            (self.page_len, self.sink_tokens, self.window_start());
        let sinks_end = sink_tokens.min(self.sinks.len() * page_len);
        let lengths = self.lengths.iter().take(self.window.len());
        let window_end = window_start + lengths.sum::<usize>();
        let n_within =
            |start: usize, end: usize| tokens.end.min(end).saturating_sub(tokens.start.max(start));
        let n_there = n_within(0, sinks_end) + n_within(window_start, window_end);
        assert_eq!(n_there, tokens.len(), "pages for all tokens were reserved");
        let sinks = self
            .sinks
            .iter_mut()
            .enumerate()
            .map(move |(i, page)| (page, i * page_len, ((i + 1) * page_len).min(sink_tokens)));
        let window = self.window.iter_mut().zip(&self.lengths);
        let window = window.scan(window_start, |next, (page, length)| {
            let first = *next;
            *next += length;
            Some((page, first, *next))
        });
        sinks.chain(window).filter_map(move |(page, first, end)| {
            let within = tokens.start.max(first)..tokens.end.min(end);
            (!within.is_empty()).then(|| (page, within.start - first, within))
        })
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
    pub fn iter(&self) -> impl Iterator<Item = FastPage<'_, P>> {
        let page_len = self.page_len;
        let sinks = self.sinks.iter().enumerate().map(move |(slot, page)| FastPage {
            slot,
            kind: PageKind::Sink,
            first_index: slot * page_len,
            page,
        });
        let window = self.window.iter().zip(self.window_starts()).enumerate();
        let window = window.map(|(slot, (page, first_index))| FastPage {
            slot,
            kind: PageKind::Window,
            first_index,
            page,
        });
        sinks.chain(window)
    }

    /// Tokens of the page that begins at `first_index`, of those before `end`.
    pub fn tokens_of(&self, page: &FastPage<'_, P>, end: usize) -> Range<usize> {
        let (length, limit) = match page.kind {
            PageKind::Sink => (self.page_len, end.min(self.sink_tokens)),
            PageKind::Window => (self.lengths[page.slot], end),
        };
        page.first_index..(page.first_index + length).min(limit).max(page.first_index)
    }

    /// The oldest page of the window, and how many tokens it holds.
    pub fn oldest(&self) -> Option<(&P, usize)> {
        let length = *self.lengths.front()?;
        self.window.front().map(|page| (page, length))
    }

    /// Index in the text of the token after the oldest page; where there is none, of none.
    pub fn oldest_end(&self) -> usize {
        self.lengths.front().map_or(usize::MAX, |length| self.window_start() + length)
    }

    /// Takes the oldest page out of the window; its memory is used again.
    pub fn drop_oldest(&mut self) {
        if let Some((page, length)) = self.window.pop_front().zip(self.lengths.pop_front()) {
            self.spare.push(page);
            self.n_gone += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Precision;
    use crate::backend::cpu::{CpuBackend, HostBytes};

    /// Sinks of 5 tokens and 7 in two pages of the window, the oldest of whose pages has left it.
    fn pages() -> FastPages<HostBytes> {
        let backend = CpuBackend::new(1, Precision::F32);
        let mut pages = FastPages::new(5, 4, 64);
        pages.reserve(&backend, 5 + 12).unwrap();
        pages.cut(9, 3);
        pages.drop_oldest();
        pages
    }

    fn found(tokens: Range<usize>) -> Vec<(usize, Range<usize>)> {
        pages().pages_of(tokens).map(|(_, slot, tokens)| (slot, tokens)).collect()
    }

    #[test]
    fn tokens_are_found_in_the_pages_that_hold_them() {
        assert_eq!(found(0..5), [(0, 0..4), (0, 4..5)]);
        assert_eq!(found(2..3), [(2, 2..3)]);
        assert_eq!(found(9..16), [(0, 9..12), (0, 12..16)]);
        assert_eq!(found(11..14), [(2, 11..12), (0, 12..14)]);
        assert_eq!(found(14..14), []);
    }

    #[test]
    #[should_panic(expected = "pages for all tokens were reserved")]
    fn a_token_that_no_page_was_made_for_is_not_passed_over() {
        found(15..17);
    }

    #[test]
    #[should_panic(expected = "pages for all tokens were reserved")]
    fn a_token_whose_page_has_left_the_window_is_not_passed_over() {
        found(4..10);
    }
}
