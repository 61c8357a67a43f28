//! How do query rows attend to pages of keys and values, each key read once?
//!
//! A page's keys are rotated by their offset in the page; what is left is one rotation for the
//! whole page, by the position of its first key. With few query rows it is the queries that are
//! turned back by it, and keys and values are multiplied where they lie; with many the page is
//! turned once, into L1-sized scratch:
//!
//! | | few rows | many rows |
//! |---|---|---|
//! | [`Arithmetic::Float`] | f16 in place; all else is widened | widened |
//! | [`Arithmetic::Integer`] | f16, bytes and nibbles in place | pairs of 16-bit integers |
//!
//! The softmax is online (FlashAttention-2, arXiv 2307.08691), its state `(max, sum, unnormalised
//! output)` mergeable with that of other pages (flash-decoding). With integers the weights of a
//! page are rounded to 13 bits of the largest of them, each with its value's scale in it.

use super::page;
use super::page_step::{PageStep, Sight};
use super::pairs::{BOTH_LARGEST, BYTES_PARTNER_LARGEST, ColScales, Nibbles, RoundRows, ShortRows};
use super::softmax::RowState;
use super::vector::{Kernel, Simd, TILE_ROWS};
use crate::backend::cpu::host::HostPage;
use crate::backend::{HeadPage, KEY_GROUP, PageLayout, Placement};

/// Up to so many query rows pages are used where they lie.
pub const FEW_ROWS: usize = 2 * TILE_ROWS;

/// In which numbers products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32: the reference.
    Float,
    /// Integers of 16 bits, as long as that is faster.
    Integer,
}

/// Room for one page and one tile.
#[derive(Debug)]
pub struct Scratch {
    pub(super) keys: Vec<f32>,          // [head_dim][page_len]
    values: Vec<f32>,                   // [page_len][head_dim]
    key_pairs: Vec<i16>,                // [head_dim / 2][page_len][2]
    value_pairs: Vec<i16>,              // [page_len / 2][head_dim][2]
    key_scales: Vec<f32>,               // [page_len]
    value_scales: Vec<f32>,             // [page_len]
    pub(super) turned: Vec<f32>,        // [FEW_ROWS][head_dim]
    pub(super) turned_shorts: Vec<i16>, // [FEW_ROWS][head_dim]
    pub(super) turned_scales: Vec<f32>, // [FEW_ROWS]
    pub(super) rests: Vec<f32>,         // [FEW_ROWS]
    near: (Vec<i16>, Vec<f32>),         // [row][head_dim], [row]
    far: (Vec<i16>, Vec<f32>),
    pub(super) scores: Vec<f32>, // [TILE_ROWS][page_len]
    weights: Vec<i16>,           // [TILE_ROWS][page_len]
}

impl Scratch {
    /// Scratch for pages of `layout`.
    pub fn new(layout: PageLayout) -> Self {
        let (head_dim, page_len) = (layout.heads.head_dim, layout.page_len);
        let page = head_dim * page_len;
        Self {
            keys: vec![0.0; page],
            values: vec![0.0; page],
            key_pairs: vec![0; page],
            value_pairs: vec![0; page],
            key_scales: vec![0.0; page_len],
            value_scales: vec![0.0; page_len],
            turned: vec![0.0; FEW_ROWS * head_dim],
            turned_shorts: vec![0; FEW_ROWS * head_dim],
            turned_scales: vec![0.0; FEW_ROWS],
            rests: vec![0.0; FEW_ROWS],
            near: Default::default(),
            far: Default::default(),
            scores: vec![0.0; TILE_ROWS * page_len],
            weights: vec![0; TILE_ROWS * page_len],
        }
    }
}

/// The query rows of one head group.
#[derive(Clone, Copy, Debug)]
pub struct Queries<'a> {
    /// `[token][head of the group][head_dim]`, rotated to the tokens' positions and scaled.
    pub near: &'a [f32],
    /// The same rows rotated to the fixed far distance (for pages that have no position).
    pub far: &'a [f32],
    /// Query heads that share the KV head.
    pub group: usize,
    /// Index in the text of the first row's token.
    pub first_index: usize,
}

/// What a head of a layer reads of a page, whose type is its own; nothing where there are no keys.
#[inline(always)]
pub fn part_of<'a>(
    layout: PageLayout,
    (layer, kv_head): (usize, usize),
    page: &HostPage<'a>,
) -> &'a [u8] {
    let part = layout.of_type(page.kv_type).head(layer, kv_head);
    page.bytes().get(part).unwrap_or(&[])
}

/// Attends to `pages` in turn. `out` and `states` are overwritten.
#[derive(Debug)]
pub struct Attend<'a> {
    /// Sizes.
    pub layout: PageLayout,
    /// Layer and KV head.
    pub head: (usize, usize),
    /// Numbers.
    pub arithmetic: Arithmetic,
    /// The rows.
    pub queries: Queries<'a>,
    /// The pages, of all layers and heads.
    pub pages: &'a [HostPage<'a>],
    /// What this thread reads after them: asked for meanwhile.
    pub after: &'a [u8],
    /// Angles of the offsets in a page: cosines `[n_pairs][page_len]`, then sines.
    pub offset_angles: &'a [f32],
    /// Reused between calls.
    pub scratch: &'a mut Scratch,
    /// `[row][head_dim]`, not yet divided by the sums.
    pub out: &'a mut [f32],
    /// `[row]`
    pub states: &'a mut [RowState],
    /// `[page][row]`: what each page alone added, where someone asks.
    pub page_states: Option<&'a mut [RowState]>,
}

impl Kernel for Attend<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        self.out.fill(0.0);
        self.states.fill(RowState::EMPTY);
        if let Some(page_states) = self.page_states.as_deref_mut() {
            page_states.fill(RowState::EMPTY);
        }
        let few = self.states.len() <= FEW_ROWS;
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            if self.arithmetic == Arithmetic::Integer && !few {
                self.round_queries::<S>();
            }
            for page_idx in 0..self.pages.len() {
                if self.sight(page_idx).keys_of(self.states.len() - 1) == 0 {
                    continue;
                }
                let page = self.view(page_idx);
                match (self.arithmetic, few, self.pages[page_idx].placement, page) {
                    (_, true, Placement::At(angles), HeadPage::F16 { keys, values }) => {
                        self.attend_halves::<S>(page_idx, angles, (keys, values));
                    }
                    (Arithmetic::Integer, true, Placement::At(angles), HeadPage::Int8 { .. }) => {
                        self.attend_bytes::<S>(page_idx, angles);
                    }
                    (Arithmetic::Integer, true, Placement::At(angles), HeadPage::Int4 { .. }) => {
                        self.attend_nibbles::<S>(page_idx, angles);
                    }
                    (Arithmetic::Integer, false, ..) => self.attend_paired::<S>(page_idx),
                    _ => self.attend_widened::<S>(page_idx),
                }
            }
        }
    }
}

impl<'a> Attend<'a> {
    #[inline(always)]
    fn view(&self, page_idx: usize) -> HeadPage<'a> {
        let layout = self.layout.of_type(self.pages[page_idx].kv_type);
        layout.view(self.pages[page_idx].bytes(), self.head.0, self.head.1)
    }

    #[inline(always)]
    fn sight(&self, page_idx: usize) -> Sight {
        Sight::of((self.queries.first_index, self.queries.group), &self.pages[page_idx])
    }

    /// The scratch, and where the results of a page go.
    #[inline(always)]
    fn step(&mut self, page_idx: usize) -> (&mut Scratch, PageStep<'_>) {
        let n_rows = self.states.len();
        let step = PageStep {
            head_dim: self.layout.heads.head_dim,
            page_len: self.layout.page_len,
            sight: self.sight(page_idx),
            out: self.out,
            states: self.states,
            page_states: self
                .page_states
                .as_deref_mut()
                .map(|states| &mut states[page_idx * n_rows..][..n_rows]),
            rests: None,
        };
        (self.scratch, step)
    }

    /// Rounds all rows once, for pages that are turned.
    #[inline(always)]
    unsafe fn round_queries<S: Simd>(&mut self) {
        let head_dim = self.layout.heads.head_dim;
        let Scratch { near, far, .. } = &mut *self.scratch;
        for (x, (q, scales)) in [(self.queries.near, near), (self.queries.far, far)] {
            q.resize(x.len(), 0);
            scales.resize(x.len() / head_dim, 0.0);
            // SAFETY: the caller vouches for the instruction set.
            unsafe { RoundRows { x, width: head_dim, largest: BOTH_LARGEST, q, scales }.run::<S>() }
        }
    }

    /// What is read after a page, to be asked for.
    #[inline(always)]
    fn next_page(&self, page_idx: usize) -> &'a [u8] {
        match self.pages.get(page_idx + 1) {
            Some(next) => part_of(self.layout, self.head, next),
            None => self.after,
        }
    }

    /// The rows, turned back by the page's position, into scratch.
    #[inline(always)]
    fn turn_queries(&mut self, angles: &[f32]) {
        let head_dim = self.layout.heads.head_dim;
        let rows = self.scratch.turned.chunks_exact_mut(head_dim);
        for (out, x) in rows.zip(self.queries.near.chunks_exact(head_dim)) {
            page::turn_back_row(x, angles, out);
        }
    }

    /// Few rows, f16 where it lies.
    #[inline(always)]
    unsafe fn attend_halves<S: Simd>(
        &mut self,
        page_idx: usize,
        angles: &[f32],
        (keys, values): (&[u16], &[u16]),
    ) {
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            self.turn_queries(angles);
            let next = self.next_page(page_idx);
            let n_rows = self.states.len();
            let (Scratch { turned, scores, .. }, mut step) = self.step(page_idx);
            let queries = &turned[..n_rows * step.head_dim];
            step.add::<S, u16>(queries, (keys, values), (scores, next));
        }
    }

    /// Few rows, bytes where they lie.
    #[inline(always)]
    unsafe fn attend_bytes<S: Simd>(&mut self, page_idx: usize, angles: &[f32]) {
        let HeadPage::Int8 { keys, key_scales, values, value_scales } = self.view(page_idx) else {
            unreachable!("bytes come here")
        };
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            self.turn_queries(angles);
            let next = self.next_page(page_idx);
            let n_rows = self.states.len();
            let (scratch, mut step) = self.step(page_idx);
            let n = n_rows * step.head_dim;
            let Scratch { turned, turned_shorts, turned_scales, weights, .. } = scratch;
            let (q, scales) = (&mut turned_shorts[..n], &mut turned_scales[..n_rows]);
            RoundRows {
                x: &turned[..n],
                width: step.head_dim,
                largest: BYTES_PARTNER_LARGEST,
                q,
                scales,
            }
            .run::<S>();
            let (q, scales) = (&turned_shorts[..n], &turned_scales[..n_rows]);
            step.copy_scales(value_scales, &mut scratch.value_scales);
            step.add_pairs::<S, i8, i8>(
                ShortRows { q, scales },
                (keys, ColScales::Halves { scales: key_scales, span_pairs: KEY_GROUP / 2 }),
                (values, &scratch.value_scales),
                (&mut scratch.scores, weights, next),
            );
        }
    }

    /// Few rows, nibbles where they lie: the queries take the steps of the keys' channels.
    #[inline(always)]
    unsafe fn attend_nibbles<S: Simd>(&mut self, page_idx: usize, angles: &[f32]) {
        let HeadPage::Int4 { keys, key_steps, key_middles, values, value_steps } =
            self.view(page_idx)
        else {
            unreachable!("nibbles come here")
        };
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            self.turn_queries(angles);
            let next = self.next_page(page_idx);
            let n_rows = self.states.len();
            let (scratch, mut step) = self.step(page_idx);
            let n = n_rows * step.head_dim;
            let Scratch { turned, turned_shorts, turned_scales, rests, weights, .. } = scratch;
            page::scale_to_channels::<S>((key_steps, key_middles), &mut turned[..n], rests);
            let (q, scales) = (&mut turned_shorts[..n], &mut turned_scales[..n_rows]);
            let (x, width) = (&turned[..n], step.head_dim);
            RoundRows { x, width, largest: BYTES_PARTNER_LARGEST, q, scales }.run::<S>();
            step.rests = Some(rests);
            step.copy_scales(value_steps, &mut scratch.value_scales);
            step.add_pairs::<S, Nibbles, Nibbles>(
                ShortRows { q: &turned_shorts[..n], scales: &turned_scales[..n_rows] },
                (bytemuck::cast_slice(keys), ColScales::One),
                (bytemuck::cast_slice(values), &scratch.value_scales),
                (&mut scratch.scores, weights, next),
            );
        }
    }

    /// Many rows: the page is turned, and rounded to pairs where it is not bytes.
    #[inline(always)]
    unsafe fn attend_paired<S: Simd>(&mut self, page_idx: usize) {
        let (layout, page) = (self.layout, self.view(page_idx));
        let (placement, offset_angles) = (self.pages[page_idx].placement, self.offset_angles);
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let (scratch, mut step) = self.step(page_idx);
            page::place_keys::<S>(layout, page, placement, offset_angles, &mut scratch.keys);
            let pairs = (&mut scratch.key_pairs[..], &mut scratch.key_scales[..]);
            page::pair_keys::<S>(layout, &scratch.keys, pairs);
            let (q, scales) = match placement {
                Placement::At(_) => &scratch.near,
                Placement::Far => &scratch.far,
            };
            let rows = ShortRows { q, scales };
            let keys = (&scratch.key_pairs[..], ColScales::Floats(&scratch.key_scales));
            let room = (&mut scratch.scores[..], &mut scratch.weights[..], &[][..]);
            match page {
                HeadPage::F16 { values, .. } => {
                    let n_keys = step.sight.n_keys;
                    let pairs = (&mut scratch.value_pairs[..], &mut scratch.value_scales[..]);
                    page::pair_halves::<S>(step.head_dim, values, n_keys, pairs);
                    let values = (&scratch.value_pairs[..], &scratch.value_scales[..]);
                    step.add_pairs::<S, i16, i16>(rows, keys, values, room);
                }
                HeadPage::Int8 { values, value_scales, .. } => {
                    step.copy_scales(value_scales, &mut scratch.value_scales);
                    let values = (values, &scratch.value_scales[..]);
                    step.add_pairs::<S, i16, i8>(rows, keys, values, room);
                }
                HeadPage::Int4 { values, value_steps, .. } => {
                    page::pair_nibbles::<S>(values, &mut scratch.value_pairs);
                    step.copy_scales(value_steps, &mut scratch.value_scales);
                    let values = (&scratch.value_pairs[..], &scratch.value_scales[..]);
                    step.add_pairs::<S, i16, i16>(rows, keys, values, room);
                }
            }
        }
    }

    /// Any rows, any page, in floats: what the others are tested against.
    #[inline(always)]
    unsafe fn attend_widened<S: Simd>(&mut self, page_idx: usize) {
        let (layout, page) = (self.layout, self.view(page_idx));
        let (placement, offset_angles) = (self.pages[page_idx].placement, self.offset_angles);
        let queries = match placement {
            Placement::At(_) => self.queries.near,
            Placement::Far => self.queries.far,
        };
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let (scratch, mut step) = self.step(page_idx);
            let Scratch { keys, values, scores, .. } = scratch;
            page::place_keys::<S>(layout, page, placement, offset_angles, keys);
            page::widen_values::<S>(layout, page, step.sight.n_keys, values);
            step.add::<S, f32>(queries, (keys, values), (scores, &[]));
        }
    }
}
