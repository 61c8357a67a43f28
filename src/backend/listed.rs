//! What does a lookup vote for? All units, by what stands for their segments, or segments in lists, each of
//! some unit.

/// The representatives of one layer's units, sixteen of them side by side in a block.
#[derive(Clone, Copy, Debug)]
pub struct BlocksView<'a> {
    /// Representatives of a unit, one a segment.
    pub n_segments: usize,
    /// `[block][kv_head]`: means `[segment][width / 4][16][4]`, each byte a value in units of its
    /// scale + 128, then scales `[segment][16]` f32.
    pub blocks: &'a [&'a [u8]],
}

/// What a coarse stage voted for; nobody voted for other units.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoarseVotes {
    /// In document order.
    pub units: Vec<u32>,
    /// `[set][unit of those]`
    pub votes: Vec<f32>,
}

/// Consecutive segments of one layer and KV head.
#[derive(Clone, Copy, Debug)]
pub struct SegmentRun<'a> {
    /// Whose they are.
    pub kv_head: usize,
    /// `[block][head_dim / 4][16][4]`, as in [`BlocksView`] of a single segment.
    pub means: &'a [u8],
    /// `[block][16]`
    pub scales: &'a [f32],
}

/// Segments of units of a span that are alike.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// `[block][width / 4][16][4]`, as in [`BlocksView`] of a single segment.
    pub means: &'a [u8],
    /// `[block][16]`
    pub scales: &'a [f32],
    /// `[block][16]`: the unit of the span that each is of. What fills up the last block is another
    /// of it once more.
    pub owners: &'a [u32],
}

/// Segments of a layer in lists, and the units after them whole.
#[derive(Clone, Copy, Debug)]
pub struct ListedSegments<'a> {
    /// Of all spans and KV heads.
    pub lists: &'a [List<'a>],
    /// `[span][kv_head]`: where its lists end among those.
    pub ends: &'a [usize],
    /// Units of each span; the first has the text's first.
    pub span_units: usize,
    /// What stands for the units after those of the spans.
    pub rest: BlocksView<'a>,
    /// Units of `rest`.
    pub n_rest: usize,
}
