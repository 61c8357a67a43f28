//! Where do the numbers get crunched? One trait, one implementation a kind of device. What is
//! above this floor names operations; what is below it is loops.
//!
//! A backend has its own buffer type, so that a buffer of one device handed to another is a type
//! error. Everything here is f32 on the outside; how weights are multiplied is the backend's
//! affair (see [`Precision`]).

pub mod any;
mod convert;
pub mod cpu;
pub mod cuda;
mod draw;
mod error;
mod listed;
mod pages;
mod placed;
mod reuse;
mod step;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::ids::TokenId;
use crate::tensor::Matrix;

pub use draw::{Draw, RowDraw};
pub use error::BackendError;
pub use listed::{BlocksView, CoarseVotes, List, ListedSegments, SegmentRun};
pub use pages::{HeadPage, HeadPageMut, HeadShape, KEY_GROUP, KvType, PageLayout};
pub use placed::{PageSource, PlacedPage, Placement, UnitId};
pub(crate) use reuse::emptied;
pub(crate) use step::set_of;
pub use step::{AttendStep, KeyMasses, StepDone};

/// How products with quantised weights are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Activations are rounded to 12 bits with a scale for each 32; sums of products are integers
    /// within a block. As good as f32, and faster than it.
    #[default]
    Int16,
    /// Activations are rounded to 8 bits with a scale for each 32. The fastest, with some noise.
    Int8,
    /// Weights are widened, everything is f32. The reference.
    F32,
}

/// One product of a layer's inputs with a weight matrix.
#[derive(Debug)]
pub struct Projection<'a, B: Backend + ?Sized> {
    /// `[rows][cols]`
    pub weight: &'a B::Weight,
    /// `[token][rows]`
    pub out: &'a mut B::Buffer,
}

/// What a product does with what its output held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrites it.
    Set,
    /// Adds to it (the residual stream).
    Add,
}

/// What a head's scores count for in a lookup's vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vote {
    /// Each query's softmax over units: heads with large logits do not drown the others
    /// (TokenSelect, arXiv 2411.02886).
    #[default]
    Soft,
    /// The scores themselves, as InfLLM adds them up.
    Raw,
}

/// What the coarse stage of a lookup scores queries against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Representatives {
    /// Keys that stand for others, `[head_dim]`: scores are products.
    #[default]
    Keys,
    /// Element-wise maxima, then minima, of several keys, `[2][head_dim]`: scores are what no key
    /// between them exceeds (Quest, arXiv 2406.10774).
    Bounds,
}

impl Representatives {
    /// Elements of a representative.
    pub fn width(self, head_dim: usize) -> usize {
        match self {
            Self::Keys => head_dim,
            Self::Bounds => 2 * head_dim,
        }
    }
}

/// Queries prepared for a lookup; see [`Backend::prepare_lookup`].
#[derive(Debug, Default)]
pub struct LookupQueries {
    /// What scores count for.
    pub vote: Vote,
    /// Sets of units voted for: one by all heads, or one by the heads of each KV head.
    pub n_sets: usize,
    /// `[head of the group][head_dim]`: scratch.
    pub mean: Vec<f32>,
    /// Rows of a KV head: groups of tokens times query heads of the group.
    pub n_rows: usize,
    /// Groups of consecutive tokens; each is represented by its mean query.
    pub n_token_groups: usize,
    /// `[kv_head][token group][head of the group][head_dim]`, scaled, rotated for pages' keys.
    pub rows: Vec<f32>,
    /// `[head of the group][head_dim]`: scratch.
    pub turned: Vec<f32>,
    /// Shape as of `rows`: the same as 16-bit numbers, for keys that are bytes.
    pub shorts: Vec<i16>,
    /// `[kv_head][row]`: what a step of `shorts` is worth.
    pub short_scales: Vec<f32>,
    /// `[kv_head][token group][head of the group][width]`, the width that of representatives:
    /// rotated for them, as bytes. For bounds: what of a query is positive, then what is negative.
    pub bytes: Vec<i8>,
    /// `[kv_head][row]`: what a byte's step is worth.
    pub scales: Vec<f32>,
    /// `[kv_head][row]`: sum of the row's bytes.
    pub sums: Vec<i32>,
}

impl LookupQueries {
    /// Floats that stand for a block of scored segments: `[row of the KV head][16]`, then the largest
    /// of each row.
    pub fn block_floats(&self) -> usize {
        self.n_rows * (16 + 1)
    }
}

/// All of a layer's units, by names: a block's bytes never change under its name.
#[derive(Clone, Copy, Debug)]
pub struct NamedBlocks<'a> {
    /// The blocks.
    pub view: BlocksView<'a>,
    /// `[block]`
    pub names: &'a [UnitId],
    /// Units of all blocks.
    pub n_units: usize,
    /// Which layer's.
    pub layer: usize,
    /// How units' pages are laid out.
    pub layout: PageLayout,
}

/// Pages whose keys a lookup compares one by one.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// Sizes.
    pub layout: PageLayout,
    /// Which layer's part of the pages.
    pub layer: usize,
    /// `[set][candidate]`: the pages of all layers, as many for each set.
    pub pages: &'a [&'a [u8]],
    /// `[set][candidate]`: their names.
    pub units: &'a [UnitId],
}

/// What a memory is going to ask of a backend.
#[derive(Clone, Copy, Debug)]
pub struct MemoryNeeds {
    /// Sizes of pages.
    pub layout: PageLayout,
    /// Whether pages are seen from the far distance ([`Placement::Far`]).
    pub far_pages: bool,
    /// Whether the attention that single keys receive is tallied ([`KeyMasses`]).
    pub key_masses: bool,
    /// Units of a layer that a step attends to at most, of all sets.
    pub n_units: usize,
    /// Bytes of the pages of one text's sinks and window at most, where it does not keep all.
    pub near_bytes: usize,
    /// Bytes of what stands for sixteen units in one layer; 0 where there are no lookups.
    pub index_bytes: usize,
}

/// Is told a lookup's candidates, `[set][candidate]`, and hands their pages on; nothing where they
/// cannot be read, of which it keeps the error.
pub type BringFn<'a> = dyn FnMut(&[u32], &mut dyn FnMut(Candidates<'_>)) + 'a;

/// A device that can run a transformer and its memory.
///
/// Operations do not fail one by one: a device reports what went wrong with one at a later call.
/// The first failure is kept and [`check`](Self::check) says it; what was computed since means
/// nothing.
pub trait Backend: Send + Sync {
    /// Activations: `len` floats on the device.
    type Buffer: Send;
    /// A weight matrix, ready to be multiplied with.
    type Weight: Send + Sync;
    /// Keys and values of consecutive tokens, of all layers, where attention reads them fast: what
    /// sinks and window are made of.
    type Page: Send + Sync + 'static;

    /// Device and instruction set, for reports.
    fn description(&self) -> String;
    /// Says whether all that was asked for so far was done.
    ///
    /// # Errors
    /// The first failure since the backend was made. There is no going on from it, but where there
    /// was [no room](BackendError::NoRoom): [`begin_pass`](Self::begin_pass).
    fn check(&self) -> Result<(), BackendError> {
        Ok(())
    }
    /// Begins a pass: that one before it had no room is no longer held against the device, once
    /// [`check`](Self::check) has said it. All other failures stay.
    fn begin_pass(&self) {}
    /// Says whether a memory can be kept on this device, and makes room for its units.
    ///
    /// # Errors
    /// When it cannot, or there is no such room: what would help.
    fn check_memory(&self, needs: &MemoryNeeds) -> Result<(), BackendError> {
        self.plan_windows(needs, None).map(|_| ())
    }
    /// The same, for many memories that have `window_bytes` for all of their sinks and windows
    /// together: how many these are, where there is a limit.
    ///
    /// # Errors
    /// As [`check_memory`](Self::check_memory).
    fn plan_windows(
        &self,
        _needs: &MemoryNeeds,
        window_bytes: Option<usize>,
    ) -> Result<Option<usize>, BackendError> {
        Ok(window_bytes)
    }
    /// Makes a matrix of a model file ready.
    ///
    /// # Errors
    /// When there is no room for it.
    fn prepare(&self, matrix: &Matrix) -> Result<Self::Weight, BackendError>;
    /// A buffer of zeros.
    ///
    /// # Errors
    /// When there is no room for it.
    fn buffer(&self, len: usize) -> Result<Self::Buffer, BackendError>;
    /// Copies `values` to the device.
    ///
    /// # Errors
    /// When there is no room for them.
    fn upload(&self, values: &[f32]) -> Result<Self::Buffer, BackendError>;

    /// A page of `n_bytes` zeros.
    ///
    /// # Errors
    /// When there is no room for it.
    fn page(&self, n_bytes: usize) -> Result<Self::Page, BackendError>;
    /// A copy of a page.
    ///
    /// # Errors
    /// When there is no room for it.
    fn copy_page(&self, page: &Self::Page) -> Result<Self::Page, BackendError>;
    /// Makes `bytes` a page's content; they are as long as it is.
    fn fill_page(&self, page: &mut Self::Page, bytes: &[u8]);
    /// A page's content: where it lies, or copied to `room`.
    fn page_bytes<'a>(&self, page: &'a Self::Page, room: &'a mut Vec<u32>) -> &'a [u8];

    /// Copies rows of `width` floats from one buffer into another, from row `to.1` on.
    fn copy_rows(
        &self,
        from: (&Self::Buffer, Range<usize>),
        to: (&mut Self::Buffer, usize),
        width: usize,
    );
    /// Moves rows of `width` floats to the beginning of a buffer.
    fn keep_rows(&self, buffer: &mut Self::Buffer, rows: Range<usize>, width: usize);
    /// Copies `out.len()` floats of a buffer, from one of them on, to the host.
    fn download(&self, from: (&Self::Buffer, usize), out: &mut [f32]);

    /// Whether it is worth preparing a draw: whether [`draw`](Self::draw) draws, as a rule.
    fn draws(&self) -> bool {
        false
    }
    /// Draws a token from each of some rows of `logits.0` (`[row][logits.1]`, which may change), where
    /// the device does that itself, so that logits need not leave it: rows in their order. Says
    /// whether it does; where not, the host draws.
    fn draw(
        &self,
        _logits: (&mut Self::Buffer, usize),
        _draws: &[RowDraw<'_>],
        _tokens: &mut Vec<TokenId>,
    ) -> bool {
        false
    }

    /// `out[i] = table[tokens[i]]`. Tokens must be in the table.
    fn embed(&self, table: &Self::Weight, tokens: &[TokenId], out: &mut Self::Buffer);
    /// RMSNorm of each of some rows as long as `gain`.
    fn rms_norm(&self, x: &Self::Buffer, norm: Norm<'_, Self>, out: &mut Self::Buffer);
    /// Products of the first `n_tokens` rows of `input` with each weight.
    fn project(
        &self,
        input: &Self::Buffer,
        n_tokens: usize,
        outputs: &mut [Projection<'_, Self>],
        write: Write,
    );
    /// Calls `task` once for each of `0..n`, shared out over the host's threads that the backend has.
    fn share_out(&self, n: usize, task: &(dyn Fn(usize) + Sync));
    /// Says with which weight the second [`project`](Self::project) from now begins, so that it can
    /// be on its way while the first ends. A hint: it changes no result and may be wrong.
    fn expect(&self, _weight: &Self::Weight) {}
    /// Adds `bias` to each of `n_rows` rows.
    fn add_bias(&self, x: &mut Self::Buffer, bias: &Self::Buffer, n_rows: usize);
    /// Normalises each head of each row in place (query and key norms of Qwen 3).
    fn norm_heads(&self, x: &mut Self::Buffer, norm: Norm<'_, Self>);
    /// Reorders the rotated part of each of `n_rows` heads from pairs `(2i, 2i + 1)` to pairs `(i,
    /// i + n_pairs)`.
    fn split_pairs(&self, x: &mut Self::Buffer, n_rows: usize, heads: HeadShape);
    /// `gate = silu(gate) * up` over the first `len` elements.
    fn swiglu(&self, gate: &mut Self::Buffer, up: &Self::Buffer, len: usize);

    /// Writes rows of `keys` and `values`, `[token][kv_head][head_dim]`, to where each target says, keys
    /// rotated by their slots. Targets are in the order of their rows, and no two have a row in common.
    fn write_pages(
        &self,
        targets: &mut [PageTarget<'_, Self::Page>],
        keys: &Self::Buffer,
        values: &Self::Buffer,
    );
    /// A full page in another type, in which units are kept: [`KvType::Int4`], or as it is. `out`
    /// is as long as a page of that type.
    fn pack_page(&self, layout: PageLayout, page: &[u8], kv_type: KvType, out: &mut [u8]);
    /// Attention of each step's rows of `queries` (`[token][head][head_dim]`, not rotated) into
    /// those of `out` (same shape). Steps are of one layer, in the order of their rows, and no two
    /// have a row in common.
    fn attend(
        &self,
        steps: &mut [AttendStep<'_, Self::Page>],
        queries: &Self::Buffer,
        out: &mut Self::Buffer,
    );
    /// Rotates the queries to the far distance and averages groups of `group_len` tokens.
    fn prepare_lookup(&self, step: LookupStep<'_>, queries: &Self::Buffer, out: &mut LookupQueries);
    /// Both stages of a lookup where the device keeps the index itself: the `n` candidates of each
    /// set, in document order, are told to `out.0`, and `out.1[set][candidate]` are their votes. Says
    /// whether it was done; where not, `out.0` was not called, and the host looks up.
    fn look_up(
        &self,
        _step: LookupStep<'_>,
        _queries: &Self::Buffer,
        _index: (NamedBlocks<'_>, usize),
        _out: (&mut BringFn<'_>, &mut Vec<f32>),
    ) -> bool {
        false
    }
    /// The coarse vote: `votes[set][unit]`, from the best segment of each unit. `votes` is as
    /// long as there are units in all sets.
    fn vote_by_segments(&self, queries: &LookupQueries, index: BlocksView<'_>, votes: &mut [f32]);
    /// The coarse vote where only some segments are looked at: their units' votes, from the best of those.
    /// Segments are means of keys, not bounds.
    fn vote_by_lists(
        &self,
        queries: &LookupQueries,
        lists: ListedSegments<'_>,
        votes: &mut CoarseVotes,
    );
    /// Scores single segments, which are means of keys: [`LookupQueries::block_floats`] for each block
    /// of all runs. `scores` becomes as long at least.
    fn score_segments(
        &self,
        queries: &LookupQueries,
        runs: &[SegmentRun<'_>],
        scores: &mut Vec<f32>,
    );
    /// The fine vote: `votes[set][candidate]`, from the best key of each candidate page.
    fn vote_by_keys(&self, queries: &LookupQueries, candidates: Candidates<'_>, votes: &mut [f32]);
}

/// A gain and an epsilon, and which rows to normalise.
#[derive(Debug)]
pub struct Norm<'a, B: Backend + ?Sized> {
    /// As long as a row.
    pub gain: &'a B::Buffer,
    /// Added to the mean square.
    pub epsilon: f32,
    /// Rows to normalise; the first of them is the first of the output.
    pub rows: Range<usize>,
}

/// Where [`Backend::write_pages`] writes keys and values of consecutive tokens of one text.
#[derive(Debug)]
pub struct PageTarget<'a, P> {
    /// Sizes.
    pub layout: PageLayout,
    /// Which layer's part.
    pub layer: usize,
    /// The page of all layers.
    pub page: &'a mut P,
    /// The first key's slot in the page.
    pub first_slot: usize,
    /// The tokens' rows in the buffers of keys and values.
    pub rows: Range<usize>,
    /// Angles of the slots: `[slot]`: cosines of the pairs, then their sines.
    pub slot_angles: &'a [f32],
}

/// What [`Backend::prepare_lookup`] rotates.
#[derive(Clone, Copy, Debug)]
pub struct LookupStep<'a> {
    /// Sizes.
    pub heads: HeadShape,
    /// Query tokens.
    pub n_tokens: usize,
    /// Row of the first of them in the buffer of queries.
    pub first_row: usize,
    /// Tokens whose queries are averaged: 1 for a vote of each.
    pub group_len: usize,
    /// What scores count for.
    pub vote: Vote,
    /// Sets of units voted for: 1 or as many as KV heads.
    pub n_sets: usize,
    /// What the coarse stage scores queries against.
    pub representatives: Representatives,
    /// Cosines of the pairs at the far distance, then their sines: for segments' means, which are
    /// not rotated.
    pub segment_angles: &'a [f32],
    /// The same half a page further on: for pages' keys, which are rotated by their offsets.
    pub key_angles: &'a [f32],
    /// Factor on scores.
    pub scale: f32,
    /// Factor on representatives' scores, beside `scale`.
    pub sharpness: f32,
}
