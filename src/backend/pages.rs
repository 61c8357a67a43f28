//! How are keys and values laid out? In pages of consecutive tokens that hold all layers: what is
//! in the window, what a unit is, and what the store keeps are the same bytes.

use std::ops::Range;

/// Sizes of a model's attention heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head; a multiple of 16.
    pub head_dim: usize,
    /// Rotated pairs `(i, i + n_pairs)` of a head; dimensions after `2 * n_pairs` stay.
    pub n_pairs: usize,
}

impl HeadShape {
    /// Query heads that share a key/value head.
    pub fn group(self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// The layout of a page: `[layer][kv_head]`, and for each of them keys `[head_dim][page_len]`
/// (dimension-major) and then values `[page_len][head_dim]`, all f16.
///
/// Keys are rotated by their offset in the page and by nothing else. A page can so be placed
/// anywhere: rotations add up, and what its position adds is the same for all its keys, so that it
/// can be taken out of the few queries instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    /// Sizes of heads.
    pub heads: HeadShape,
    /// Layers.
    pub n_layers: usize,
    /// Tokens in a page: the unit length.
    pub page_len: usize,
}

impl PageLayout {
    /// f16 elements of a page.
    pub fn page_elements(self) -> usize {
        self.n_layers * self.heads.n_kv_heads * 2 * self.part()
    }

    /// Where the keys of a layer and KV head are in a page.
    pub fn keys(self, layer: usize, kv_head: usize) -> Range<usize> {
        let start = (layer * self.heads.n_kv_heads + kv_head) * 2 * self.part();
        start..start + self.part()
    }

    /// Where the values of a layer and KV head are in a page.
    pub fn values(self, layer: usize, kv_head: usize) -> Range<usize> {
        let keys = self.keys(layer, kv_head);
        keys.end..keys.end + self.part()
    }

    /// Bytes of keys and values a token.
    pub fn bytes_per_token(self) -> usize {
        self.page_elements() * 2 / self.page_len
    }

    fn part(self) -> usize {
        self.heads.head_dim * self.page_len
    }
}

/// A page and where its keys are seen from.
#[derive(Clone, Copy, Debug)]
pub struct PlacedPage<'a> {
    /// The page of all layers.
    pub page: &'a [u16],
    /// Keys that are there, from the first.
    pub n_keys: usize,
    /// Index in the text of the first key.
    pub first_index: usize,
    /// Position.
    pub placement: Placement<'a>,
}

/// At which position a page's keys are read.
#[derive(Clone, Copy, Debug)]
pub enum Placement<'a> {
    /// The first key's position has these angles: cosines of the pairs, then their sines.
    At(&'a [f32]),
    /// All keys are at the one far distance.
    Far,
}
