//! What is a lookup told? Queries, what stands for units, and where the units themselves are.

use std::marker::PhantomData;

use crate::device::{Array, Device};
use crate::error::DeviceError;
use crate::launch::paged::{AttentionSizes, Page, PageRef};

/// What stands for the units of a layer, see `backend::BlocksView` of mneme: blocks of sixteen
/// units, of each `[kv_head]`, and of that the means `[segment][head_dim / 4][16][4]`, a byte being
/// the value in units of its scale + 128, then the scales `[segment][16]` f32.
pub struct SegmentIndex<'a, D: Device> {
    /// Where each block is.
    pub blocks: &'a [BlockRef<'a, D>],
    /// Units.
    pub n_units: usize,
    /// Segments of a unit.
    pub n_segments: usize,
}

/// A layer's part of a block.
pub struct BlockRef<'a, D: Device> {
    /// Holds it.
    pub buffer: &'a D::Buffer,
    /// Where it begins in it: a multiple of 16.
    pub offset: usize,
}

/// Where a layer's units are.
pub struct UnitTable<'a, D: Device> {
    pub(super) table: Array<D, Page>,
    pub(super) sizes: AttentionSizes, // that the pages were checked for
    pages: PhantomData<&'a D::Buffer>,
}

/// What a score counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteKind {
    /// Its share of the softmax over units.
    Shares,
    /// Itself.
    Scores,
}

/// What queries ask of one layer's units.
pub struct Ask<'a, D: Device> {
    /// `[row][head][head_dim]`, not rotated.
    pub queries: &'a Array<D, f32>,
    /// Row of the first query.
    pub first_row: usize,
    /// Query tokens.
    pub n_tokens: usize,
    /// Consecutive tokens that are represented by their mean.
    pub group_len: usize,
    /// `[2][n_pairs]`: cosines, then sines, of the distance to segments' means.
    pub segment_angles: &'a Array<D, f32>,
    /// The same to pages' keys, which are rotated by their slots.
    pub key_angles: &'a Array<D, f32>,
    /// Factor on scores.
    pub scale: f32,
    /// Factor on scores of segments, beside `scale`.
    pub sharpness: f32,
    /// What scores count for.
    pub vote: VoteKind,
    /// Sets of units: one by all heads, or one by the heads of each KV head.
    pub n_sets: usize,
    /// What stands for units.
    pub index: SegmentIndex<'a, D>,
    /// Units that the coarse stage lets through.
    pub n_candidates: usize,
}

/// A lookup of one layer, all of whose units are on the device.
pub struct LookUp<'a, D: Device> {
    /// What is asked.
    pub ask: Ask<'a, D>,
    /// The units themselves, as many as the index has.
    pub units: &'a UnitTable<'a, D>,
    /// Units wanted.
    pub n_wanted: usize,
}

impl<'a, D: Device> UnitTable<'a, D> {
    /// Tells the device where the layer's units are.
    ///
    /// # Errors
    /// When a page is not what it is said to be, or the device fails.
    pub fn new(
        device: &D,
        sizes: &AttentionSizes,
        units: &[PageRef<'a, D>],
    ) -> Result<Self, DeviceError> {
        let pages = units.iter().map(|unit| sizes.page(unit)).collect::<Result<Vec<_>, _>>()?;
        let (table, sizes) = (Array::of(device, &pages)?, sizes.clone());
        Ok(Self { table, sizes, pages: PhantomData })
    }
}
