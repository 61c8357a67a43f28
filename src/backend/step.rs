//! What is a backend asked to attend to? One text's rows of a layer, the placed pages that they see,
//! and what is to be told of it. A step owns its lists, so that it can be computed beside others'.

use super::{PageLayout, PlacedPage, emptied};

/// Attention of one layer's queries, consecutive tokens of one text, to placed pages.
#[derive(Debug)]
pub struct AttendStep<'a, P> {
    /// Sizes.
    pub layout: PageLayout,
    /// Which layer's part of the pages.
    pub layer: usize,
    /// `[set][page]`: what is attended to, in the order of the text.
    pub pages: Vec<PlacedPage<'a, P>>,
    /// Sets of pages, equally long: one for all heads, or one a KV head.
    pub n_sets: usize,
    /// Query tokens.
    pub n_tokens: usize,
    /// Row of the first of them in the buffers of queries and outputs.
    pub first_row: usize,
    /// Index in the text of the first query token.
    pub first_index: usize,
    /// `[token]`: cosines of the pairs, then their sines, for the queries' places.
    pub near_angles: &'a [f32],
    /// Cosines, then sines, of the fixed distance, for pages that have no position.
    pub far_angles: &'a [f32],
    /// Angles of the offsets in a page: cosines `[pair][page_len]`, then sines.
    pub offset_angles: &'a [f32],
    /// Factor on scores.
    pub scale: f32,
    /// `[set][page]`: the square of the softmax mass that each page received, summed over tokens
    /// and heads, where asked. Squared, since a head that reads one page says more of where an
    /// answer came from than many that glance at all.
    pub page_masses: Option<Vec<f32>>,
    /// Where the softmax mass of single keys is added up, where asked.
    pub key_masses: Option<KeyMasses>,
}

/// The softmax mass that keys receive, summed over tokens and the heads that share a KV head.
#[derive(Clone, Debug)]
pub struct KeyMasses {
    /// The first page of each set whose keys count; the later ones count as well.
    pub first_page: usize,
    /// `[kv_head][page from the first on][page_len]`: what is received is added.
    pub masses: Vec<f32>,
}

/// What is left of a step once it was computed.
#[derive(Debug)]
pub struct StepDone<P: 'static> {
    /// Pages of a set.
    pub pages_a_set: usize,
    /// An allocation to use again.
    pub pages: Vec<PlacedPage<'static, P>>,
    /// As the step's.
    pub page_masses: Option<Vec<f32>>,
    /// As the step's.
    pub key_masses: Option<KeyMasses>,
}

impl<'a, P> AttendStep<'a, P> {
    /// Pages of a set.
    pub fn pages_a_set(&self) -> usize {
        self.pages.len() / self.n_sets
    }

    /// The pages that KV head `kv_head` attends to.
    pub fn pages_of(&self, kv_head: usize) -> &[PlacedPage<'a, P>] {
        let n = self.pages_a_set();
        &self.pages[set_of(kv_head, self.n_sets) * n..][..n]
    }

    /// Rows of the step's tokens in the buffers of queries and outputs.
    pub fn rows(&self) -> std::ops::Range<usize> {
        self.first_row..self.first_row + self.n_tokens
    }
}

impl<P: 'static> AttendStep<'_, P> {
    /// Lets go of what the step borrows.
    pub fn done(self) -> StepDone<P> {
        StepDone {
            pages_a_set: self.pages_a_set(),
            pages: emptied(self.pages),
            page_masses: self.page_masses,
            key_masses: self.key_masses,
        }
    }
}

/// Which of `n_sets` sets is that of a KV head?
pub(crate) fn set_of(kv_head: usize, n_sets: usize) -> usize {
    if n_sets == 1 { 0 } else { kv_head }
}
