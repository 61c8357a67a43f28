//! How is attention shared out over threads? By KV head, by blocks of query tokens and, when the
//! tokens are few, by runs of pages whose partial results are merged by log-sum-exp. The split
//! depends on sizes alone, so the result is the same whatever the number of threads.

use super::crew::{AttentionScratch, Crew};
use super::host::{HostStep, HostTarget};
use super::pool::Grid;
use super::simd::attend::{Attend, Queries};
use super::simd::key_mass::AddKeyMasses;
use super::simd::rows::{QuantizeGroups, QuantizeRow, RotateRows, ToHalf};
use super::simd::softmax::RowState;
use crate::backend::{HeadPageMut, HeadShape, KEY_GROUP, KeyMasses, Placement, set_of};

/// Query rows of a task: some 100 KB of queries and outputs, and the widening of a page amortised.
const ROWS_A_TASK: usize = 192;

/// Up to so many query tokens the pages are shared out as well.
const MAX_SPLIT_TOKENS: usize = 16;

/// Pages of a task when they are shared out.
const PAGES_A_SPLIT: usize = 4;

/// Partial results of attention that was shared out by pages: `[split][kv_head]` of outputs
/// `[row][head_dim]`, states `[row]` and states of the pages alone `[page][row]`.
pub type Partials = Vec<f32>;

/// Attention of one layer. `queries` and `out` are `[token][head][head_dim]`.
pub fn attend(
    crew: &Crew,
    partials: &mut Partials,
    mut step: HostStep<'_>,
    queries: &[f32],
    out: &mut [f32],
) {
    let (masses, key_masses) = (step.page_masses.take(), step.key_masses.take());
    let asks = masses.is_some() || key_masses.is_some();
    if step.n_tokens <= MAX_SPLIT_TOKENS || asks {
        attend_split(crew, partials, &step, queries);
        merge(&step, partials, out);
        if let Some(masses) = masses {
            sum_masses(&step, partials, masses);
        }
        if let Some(masses) = key_masses {
            add_key_masses(crew, (&step, partials), queries, masses);
        }
    } else {
        attend_blocks(crew, &step, queries, out);
    }
}

/// Many tokens: a task is a block of tokens of one KV head and sees all pages.
fn attend_blocks(crew: &Crew, step: &HostStep<'_>, queries: &[f32], out: &mut [f32]) {
    let heads = step.layout.heads;
    let width = heads.group() * heads.head_dim;
    let row_step = (ROWS_A_TASK / heads.group()).max(1);
    let cols = heads.n_heads * heads.head_dim;
    let cells = &mut out[..step.n_tokens * cols];
    let mut grids = [Grid { cells, cols, row_step, col_step: width }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        let AttentionScratch { page, near, far, out, states } = &mut scratch.attention;
        let kv_head = block.cols.start / width;
        let tokens = block.rows.clone();
        let n_rows = tokens.len() * heads.group();
        rotate_queries(crew, step, queries, (kv_head, tokens.clone()), (near, far));
        out.resize(n_rows * heads.head_dim, 0.0);
        states.resize(n_rows, RowState::EMPTY);
        crew.isa.run(Attend {
            layout: step.layout,
            head: (step.layer, kv_head),
            arithmetic: crew.arithmetic,
            queries: Queries {
                near,
                far,
                group: heads.group(),
                first_index: step.first_index + tokens.start,
            },
            pages: step.pages_of(kv_head),
            offset_angles: step.offset_angles,
            scratch: page.of(step.layout),
            out,
            states,
            page_states: None,
        });
        let rows = out.chunks_exact(width).zip(states.chunks_exact(heads.group()));
        for (token, (values, states)) in tokens.zip(rows) {
            let target = block.row_mut(token).chunks_exact_mut(heads.head_dim);
            for ((target, values), state) in
                target.zip(values.chunks_exact(heads.head_dim)).zip(states)
            {
                let factor = 1.0 / state.sum;
                target.iter_mut().zip(values).for_each(|(target, value)| *target = value * factor);
            }
        }
    });
}

/// Offsets into the partial result of one split and KV head.
#[derive(Clone, Copy)]
struct PartialShape {
    n_rows: usize,
    head_dim: usize,
}

impl PartialShape {
    fn of(step: &HostStep<'_>) -> Self {
        let heads = step.layout.heads;
        Self { n_rows: step.n_tokens * heads.group(), head_dim: heads.head_dim }
    }

    fn len(self) -> usize {
        self.n_rows * (self.head_dim + 2 + 2 * PAGES_A_SPLIT)
    }

    /// Outputs, states, and states of pages.
    fn split(self, cells: &[f32]) -> (&[f32], &[RowState], &[RowState]) {
        let (out, states) = cells.split_at(self.n_rows * self.head_dim);
        let (states, page_states) = bytemuck::cast_slice(states).split_at(self.n_rows);
        (out, states, page_states)
    }

    fn split_mut(self, cells: &mut [f32]) -> (&mut [f32], &mut [RowState], &mut [RowState]) {
        let (out, states) = cells.split_at_mut(self.n_rows * self.head_dim);
        let (states, page_states) = bytemuck::cast_slice_mut(states).split_at_mut(self.n_rows);
        (out, states, page_states)
    }
}

/// Few tokens: a task is a run of pages of one KV head and sees all tokens.
fn attend_split(crew: &Crew, partials: &mut Partials, step: &HostStep<'_>, queries: &[f32]) {
    let heads = step.layout.heads;
    let shape = PartialShape::of(step);
    let n_splits = step.pages_a_set().div_ceil(PAGES_A_SPLIT);
    partials.resize(n_splits * heads.n_kv_heads * shape.len(), 0.0);
    let mut grids =
        [Grid { cells: partials, cols: shape.len(), row_step: 1, col_step: shape.len() }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        let AttentionScratch { page, near, far, .. } = &mut scratch.attention;
        let row = block.rows.start;
        let (split, kv_head) = (row / heads.n_kv_heads, row % heads.n_kv_heads);
        rotate_queries(crew, step, queries, (kv_head, 0..step.n_tokens), (near, far));
        let pages = step.pages_of(kv_head);
        let last = ((split + 1) * PAGES_A_SPLIT).min(pages.len());
        let pages = &pages[split * PAGES_A_SPLIT..last];
        let (out, states, page_states) = shape.split_mut(block.row_mut(row));
        crew.isa.run(Attend {
            layout: step.layout,
            head: (step.layer, kv_head),
            arithmetic: crew.arithmetic,
            queries: Queries { near, far, group: heads.group(), first_index: step.first_index },
            pages,
            offset_angles: step.offset_angles,
            scratch: page.of(step.layout),
            out,
            states,
            page_states: Some(page_states),
        });
    });
}

/// Merges the splits of each row by their maxima and sums.
fn merge(step: &HostStep<'_>, partials: &Partials, out: &mut [f32]) {
    let heads = step.layout.heads;
    let shape = PartialShape::of(step);
    out[..step.n_tokens * heads.n_heads * heads.head_dim].fill(0.0);
    for kv_head in 0..heads.n_kv_heads {
        for row in 0..shape.n_rows {
            let total = total_of_row(step, partials, kv_head, row);
            let (token, head) = (row / heads.group(), row % heads.group());
            let at = (token * heads.n_heads + kv_head * heads.group() + head) * heads.head_dim;
            let target = &mut out[at..][..heads.head_dim];
            for cells in splits_of(heads, shape, partials, kv_head) {
                let (values, states, _) = shape.split(cells);
                if states[row].sum == 0.0 {
                    continue;
                }
                let factor = (states[row].max - total.max).exp() / total.sum;
                let values = &values[row * heads.head_dim..][..heads.head_dim];
                target.iter_mut().zip(values).for_each(|(target, x)| *target += factor * x);
            }
        }
    }
}

fn splits_of(
    heads: HeadShape,
    shape: PartialShape,
    partials: &Partials,
    kv_head: usize,
) -> impl Iterator<Item = &[f32]> {
    partials.chunks_exact(shape.len()).skip(kv_head).step_by(heads.n_kv_heads)
}

fn total_of_row(step: &HostStep<'_>, partials: &Partials, kv_head: usize, row: usize) -> RowState {
    let shape = PartialShape::of(step);
    let mut total = RowState::EMPTY;
    for cells in splits_of(step.layout.heads, shape, partials, kv_head) {
        total.merge(shape.split(cells).1[row]);
    }
    total
}

/// `masses[set][page]`: the squared share of softmax that each page received, summed over rows.
fn sum_masses(step: &HostStep<'_>, partials: &Partials, masses: &mut [f32]) {
    let heads = step.layout.heads;
    let shape = PartialShape::of(step);
    masses[..step.pages.len()].fill(0.0);
    for kv_head in 0..heads.n_kv_heads {
        let masses = &mut masses[set_of(kv_head, step.n_sets) * step.pages_a_set()..];
        let masses = &mut masses[..step.pages_a_set()];
        for row in 0..shape.n_rows {
            let total = total_of_row(step, partials, kv_head, row);
            for (split, cells) in splits_of(heads, shape, partials, kv_head).enumerate() {
                let (_, _, page_states) = shape.split(cells);
                let masses = masses[split * PAGES_A_SPLIT..].iter_mut();
                for (mass, states) in masses.zip(page_states.chunks_exact(shape.n_rows)) {
                    let state = states[row];
                    if state.sum > 0.0 {
                        let share = state.sum * (state.max - total.max).exp() / total.sum;
                        *mass += share * share;
                    }
                }
            }
        }
    }
}

/// Adds the share of softmax that each key received, summed over the rows of its KV head.
fn add_key_masses(
    crew: &Crew,
    (step, partials): (&HostStep<'_>, &Partials),
    queries: &[f32],
    KeyMasses { first_page, masses }: KeyMasses<'_>,
) {
    let (heads, page_len) = (step.layout.heads, step.layout.page_len);
    let n_pages = step.pages_a_set() - first_page;
    let mut grids = [Grid { cells: masses, cols: page_len, row_step: 1, col_step: page_len }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        let AttentionScratch { page, near, far, states, .. } = &mut scratch.attention;
        let row = block.rows.start;
        let (kv_head, place) = (row / n_pages, first_page + row % n_pages);
        rotate_queries(crew, step, queries, (kv_head, 0..step.n_tokens), (near, far));
        let n_rows = PartialShape::of(step).n_rows;
        states.clear();
        states.extend((0..n_rows).map(|row| total_of_row(step, partials, kv_head, row)));
        crew.isa.run(AddKeyMasses {
            layout: step.layout,
            head: (step.layer, kv_head),
            queries: Queries { near, far, group: heads.group(), first_index: step.first_index },
            totals: states,
            page: step.pages_of(kv_head)[place],
            offset_angles: step.offset_angles,
            scratch: page.of(step.layout),
            masses: block.row_mut(row),
        });
    });
}

/// The rows `[token][head of the group]` of one KV head, rotated to their places and, when some
/// page is far, to the far distance; scaled.
fn rotate_queries(
    crew: &Crew,
    step: &HostStep<'_>,
    queries: &[f32],
    (kv_head, tokens): (usize, std::ops::Range<usize>),
    (near, far): (&mut Vec<f32>, &mut Vec<f32>),
) {
    let heads = step.layout.heads;
    let width = heads.group() * heads.head_dim;
    let scale = step.scale;
    let any_far = step.pages.iter().any(|page| matches!(page.placement, Placement::Far));
    near.resize(tokens.len() * width, 0.0);
    far.resize(if any_far { tokens.len() * width } else { 0 }, 0.0);
    for (row, token) in tokens.enumerate() {
        let at = token * heads.n_heads * heads.head_dim + kv_head * width;
        let x = &queries[at..][..width];
        let angles = &step.near_angles[token * 2 * heads.n_pairs..][..2 * heads.n_pairs];
        let out = &mut near[row * width..][..width];
        crew.isa.run(RotateRows { x, head_dim: heads.head_dim, angles, scale, out });
        if any_far {
            let (angles, out) = (step.far_angles, &mut far[row * width..][..width]);
            crew.isa.run(RotateRows { x, head_dim: heads.head_dim, angles, scale, out });
        }
    }
}

/// Writes keys and values of some tokens into a page.
pub fn write_page(
    crew: &Crew,
    target: HostTarget<'_>,
    (keys, values): (&[f32], &[f32]),
    tokens: std::ops::Range<usize>,
) {
    let HostTarget { layout, layer, page, first_slot, slot_angles } = target;
    let HeadShape { n_kv_heads, head_dim, n_pairs, .. } = layout.heads;
    let mut turned = [0.0; MAX_HEAD_DIM];
    let turned = &mut turned[..head_dim];
    for kv_head in 0..n_kv_heads {
        let mut view = layout.view_mut(page, layer, kv_head);
        for (slot, token) in (first_slot..).zip(tokens.clone()) {
            let at = (token * n_kv_heads + kv_head) * head_dim;
            let x = &keys[at..][..head_dim];
            let angles = &slot_angles[slot * 2 * n_pairs..][..2 * n_pairs];
            crew.isa.run(RotateRows { x, head_dim, angles, scale: 1.0, out: turned });
            write_slot(crew, &mut view, slot, (turned, &values[at..][..head_dim]));
        }
    }
}

/// Writes one key and its value into slot `slot` of a page.
fn write_slot(
    crew: &Crew,
    page: &mut HeadPageMut<'_>,
    slot: usize,
    (key, value): (&[f32], &[f32]),
) {
    let head_dim = key.len();
    match page {
        HeadPageMut::F16 { keys, values } => {
            let mut halves = [0u16; MAX_HEAD_DIM];
            let halves = &mut halves[..head_dim];
            crew.isa.run(ToHalf { x: key, out: halves });
            let columns = keys.chunks_exact_mut(keys.len() / head_dim);
            columns.zip(&*halves).for_each(|(column, half)| column[slot] = *half);
            crew.isa.run(ToHalf { x: value, out: &mut values[slot * head_dim..][..head_dim] });
        }
        HeadPageMut::Int8 { keys, key_scales, values, value_scales } => {
            let mut bytes = [0i8; MAX_HEAD_DIM];
            let bytes = &mut bytes[..head_dim];
            let mut scales = [0u16; MAX_HEAD_DIM / KEY_GROUP];
            let scales = &mut scales[..head_dim / KEY_GROUP];
            crew.isa.run(QuantizeGroups { x: key, q: bytes, scales });
            let page_len = key_scales.len() / scales.len();
            for (row, scale) in key_scales.chunks_exact_mut(page_len).zip(&*scales) {
                row[slot] = *scale;
            }
            let rows = keys.chunks_exact_mut(2 * page_len);
            for (row, pair) in rows.zip(bytes.chunks_exact(2)) {
                row[2 * slot..][..2].copy_from_slice(pair);
            }
            (value_scales[slot], _) = crew.isa.run(QuantizeRow { x: value, q: bytes });
            let row = &mut values[slot / 2 * 2 * head_dim..][..2 * head_dim];
            for (pair, byte) in row.chunks_exact_mut(2).zip(&*bytes) {
                pair[slot % 2] = *byte;
            }
        }
        HeadPageMut::Int4 { .. } => unreachable!("keys come in as bytes, see KvType::near"),
    }
}

/// Widest head supported.
pub const MAX_HEAD_DIM: usize = 512;
