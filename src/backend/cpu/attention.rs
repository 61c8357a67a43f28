//! How is attention shared out over threads? By KV head and blocks of query tokens; when the tokens
//! are few, by runs of pages (`split.rs`). What a task is depends on sizes alone, so the result is the
//! same whatever the number of threads, and whichever texts attend beside.

use std::sync::Mutex;

use super::crew::{AttentionScratch, Crew};
use super::host::{HostStep, HostTarget};
use super::pool::{Grid, lock};
use super::simd::attend::{Attend, Queries};
use super::simd::softmax::RowState;
use super::simd::write::WriteSlots;
use super::split::{self, Partials, rotate_queries};

/// Query rows of a task: some 100 KB of queries and outputs, and the widening of a page amortised.
const ROWS_A_TASK: usize = 192;

/// Up to so many query tokens of a text the pages are shared out as well.
const MAX_SPLIT_TOKENS: usize = 16;

/// Attention of one layer. `queries` and `out` are `[token][head][head_dim]`.
pub fn attend(
    crew: &Crew,
    partials: &mut Partials,
    steps: &mut [HostStep<'_>],
    queries: &[f32],
    out: &mut [f32],
) {
    let is_few = |step: &HostStep<'_>| step.n_tokens <= MAX_SPLIT_TOKENS;
    // Steps of few tokens that follow one another share a loop.
    for steps in steps.chunk_by_mut(|a, b| is_few(a) && is_few(b)) {
        let step = &steps[0];
        let asks = step.page_masses.is_some() || step.key_masses.is_some();
        if is_few(step) || asks {
            split::attend(crew, partials, steps, queries, out);
        } else {
            attend_blocks(crew, step, queries, out);
        }
    }
}

/// Many tokens: a task is a block of tokens of one KV head and sees all pages.
fn attend_blocks(crew: &Crew, step: &HostStep<'_>, queries: &[f32], out: &mut [f32]) {
    let heads = step.layout.heads;
    let width = heads.group() * heads.head_dim;
    let row_step = (ROWS_A_TASK / heads.group()).max(1);
    let cols = heads.n_heads * heads.head_dim;
    let cells = &mut out[step.first_row * cols..][..step.n_tokens * cols];
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
            after: &[],
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

/// Writes keys and values into pages, which are shared out where they are some; heads are as well, when
/// the tokens are many.
pub fn write_pages(crew: &Crew, targets: &mut [HostTarget<'_>], (keys, values): (&[f32], &[f32])) {
    /// Targets that are not worth sharing out.
    const SERIAL: usize = 3;
    let is_few = targets.iter().map(|target| target.rows.len()).sum::<usize>() <= MAX_SPLIT_TOKENS;
    let n_serial = if is_few { SERIAL } else { 0 };
    let parts_of = |target| parts_of(target, is_few, (keys, values));
    if targets.len() <= n_serial {
        targets.iter_mut().flat_map(parts_of).for_each(|part| crew.isa.run(part));
        return;
    }
    let parts: Vec<_> =
        targets.iter_mut().flat_map(parts_of).map(|part| Mutex::new(Some(part))).collect();
    crew.pool.run(parts.len(), &|_, part| {
        let part = lock(&parts[part]).take();
        crew.isa.run(part.expect("because each is taken once"));
    });
}

/// All heads of a target at once, or one by one.
fn parts_of<'a>(
    target: &'a mut HostTarget<'_>,
    at_once: bool,
    (keys, values): (&'a [f32], &'a [f32]),
) -> impl Iterator<Item = WriteSlots<'a>> {
    let HostTarget { layout, layer, page, first_slot, rows, slot_angles } = target;
    let (layout, first_slot) = (*layout, *first_slot);
    let first = layout.head(*layer, 0);
    let of_layer = &mut page[first.start..][..layout.heads.n_kv_heads * first.len()];
    let n_bytes = if at_once { of_layer.len() } else { first.len() };
    of_layer.chunks_exact_mut(n_bytes).enumerate().map(move |(first_head, heads)| {
        let tokens = rows.clone();
        WriteSlots { layout, heads, first_head, first_slot, slot_angles, keys, values, tokens }
    })
}
