//! Where do a chunk's keys and values go? To the pages of their tokens.

use std::ops::Range;

use super::pages::FastPages;
use crate::backend::{PageLayout, PageTarget};

/// How pages are written: their layout, the layer, and the angles of offsets in a page.
#[derive(Clone, Copy)]
pub(super) struct Writing<'a> {
    pub layout: PageLayout,
    pub layer: usize,
    pub slot_angles: &'a [f32],
}

impl<'a> Writing<'a> {
    /// Where rows `rows` of keys and values go: to the pages of their tokens, the first of which is
    /// `first`.
    pub fn targets<P>(
        self,
        pages: &'a mut FastPages<P>,
        rows: Range<usize>,
        first: usize,
    ) -> impl Iterator<Item = PageTarget<'a, P>> {
        let Self { layout, layer, slot_angles } = self;
        let pages = pages.pages_of(first..first + rows.len());
        pages.map(move |(page, first_slot, tokens)| {
            let rows = rows.start + (tokens.start - first)..rows.start + (tokens.end - first);
            PageTarget { layout, layer, page, first_slot, rows, slot_angles }
        })
    }
}
