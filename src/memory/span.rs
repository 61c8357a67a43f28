//! Units that were clustered together: the lists of all layers and KV heads, side by side in huge pages,
//! since a lookup reads a few kilobytes here and there of them.

use std::ops::Range;
use std::sync::Arc;

use memory_store::{AlignedBytes, RecordId, StoreError, UnitStore};

use super::blocks::{BlockLayout, HeadBlocks, UNITS};
use super::lists::{Lists, ListsView};

/// The lists of a span.
pub struct Span {
    heads: Vec<(Lists, usize)>, // [layer][kv_head], and where their bytes begin
    bytes: AlignedBytes,
    n_bytes: usize,   // of those
    own_bytes: usize, // of what is not among those
}

fn most_list_bytes(layout: BlockLayout, n_units: usize, n_lists: usize) -> usize {
    let n_heads = layout.n_layers * layout.n_kv_heads;
    n_heads * Lists::most_bytes(layout.width(), n_units * layout.n_segments, n_lists)
}

/// Blocks to be clustered together.
pub struct SpanBlocks {
    /// How they are laid out.
    pub layout: BlockLayout,
    /// Of all blocks.
    pub blocks: Box<dyn UnitStore>,
    /// Which of them.
    pub here: Range<usize>,
}

impl Span {
    /// The lists of a head: `layer * n_kv_heads + kv_head`.
    pub fn lists(&self, head: usize) -> ListsView<'_> {
        let (lists, at) = &self.heads[head];
        lists.view(&self.bytes[*at..])
    }

    /// Means of a head's lists, `[list][width]`.
    pub fn centroids(&self, head: usize) -> &[f32] {
        self.heads[head].0.centroids()
    }

    /// Layers times KV heads.
    pub fn n_heads(&self) -> usize {
        self.heads.len()
    }

    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.n_bytes + self.own_bytes
    }

    /// Bytes that the span of so many units has at most.
    pub fn most_bytes(layout: BlockLayout, n_units: usize, n_lists: usize) -> usize {
        let n_heads = layout.n_layers * layout.n_kv_heads;
        most_list_bytes(layout, n_units, n_lists)
            + n_heads * Lists::own_bytes(layout.width(), n_lists)
    }
}

impl SpanBlocks {
    /// Clusters them.
    ///
    /// # Errors
    /// When a block cannot be read, or there is no memory.
    pub fn cluster(&self, n_lists: usize) -> Result<Span, StoreError> {
        let layout = self.layout;
        // What is not written of it takes no memory.
        let most = most_list_bytes(layout, self.here.len() * UNITS, n_lists);
        let mut bytes = AlignedBytes::zeroed(most)?;
        let mut heads = Vec::with_capacity(layout.n_layers * layout.n_kv_heads);
        let mut n_bytes = 0;
        for layer in 0..layout.n_layers {
            self.blocks.expect(&mut self.here.clone().map(|block| RecordId(block as u32)), layer);
            let blocks =
                self.here.clone().map(|block| self.blocks.read(RecordId(block as u32), layer));
            let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
            for kv_head in 0..layout.n_kv_heads {
                let at = layer * layout.layer_bytes() + kv_head * layout.head_bytes();
                let head = blocks.iter().map(|b| &b.bytes()[at..at + layout.head_bytes()]);
                let blocks: Vec<&[u8]> = head.collect();
                let blocks = HeadBlocks { layout, blocks: &blocks };
                let lists = Lists::of(blocks, n_lists, &mut bytes[n_bytes..]);
                let at = n_bytes;
                n_bytes += lists.n_bytes();
                heads.push((lists, at));
            }
        }
        let own_bytes = heads.len() * Lists::own_bytes(layout.width(), n_lists);
        Ok(Span { heads, bytes, n_bytes, own_bytes })
    }
}

/// The centroids of some spans' lists as segments come, side by side for each head: what a lookup compares
/// first, all of a head's.
#[derive(Default)]
pub struct Centroids {
    means: Vec<u8>,   // [head][span][block][width / 4][UNITS][4]
    scales: Vec<f32>, // [head][span][block][UNITS]
    n_heads: usize,
}

impl Centroids {
    /// Of `spans`.
    pub fn of(spans: &[Arc<Span>]) -> Self {
        let n_heads = spans.first().map_or(0, |span| span.n_heads());
        let mut centroids = Self { n_heads, ..Self::default() };
        let Self { means, scales, .. } = &mut centroids;
        for head in 0..n_heads {
            spans.iter().for_each(|span| span.heads[head].0.add_centroids(means, scales));
        }
        centroids
    }

    /// Bytes of `n` spans' centroids.
    pub fn bytes_of(layout: BlockLayout, n: usize, n_lists: usize) -> usize {
        let n_blocks = n * layout.n_layers * layout.n_kv_heads * n_lists.div_ceil(UNITS);
        n_blocks * UNITS * (layout.width() + size_of::<f32>())
    }

    /// Means and scales of a head's: `layer * n_kv_heads + kv_head`.
    pub fn of_head(&self, head: usize) -> (&[u8], &[f32]) {
        let Some(n_means) = self.means.len().checked_div(self.n_heads) else { return (&[], &[]) };
        let n_scales = self.scales.len() / self.n_heads;
        (&self.means[head * n_means..][..n_means], &self.scales[head * n_scales..][..n_scales])
    }

    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.means.len() + size_of_val(&*self.scales)
    }
}
