//! How is attention of few tokens shared out over threads? By runs of pages, of all texts of a step
//! at once; what a row finds in each run is merged by log-sum-exp (flash-decoding).

use std::sync::Mutex;

use super::crew::{AttentionScratch, Crew};
use super::host::HostStep;
use super::pool::{Grid, lock};
use super::simd::attend::{Attend, Queries, part_of};
use super::simd::key_mass::AddKeyMasses;
use super::simd::rows::RotateRows;
use super::simd::softmax::RowState;
use crate::backend::{HeadShape, KeyMasses, Placement, emptied, set_of};

/// Pages of a run: so few that a single token has work for all threads.
const PAGES_A_RUN: usize = 4;

/// Tasks for each thread, where there are runs enough: what a task rotates serves all of its runs of
/// a head.
const TASKS_A_THREAD: usize = 8;

/// What passes between the halves of a step's attention; allocations to use again.
#[derive(Debug, Default)]
pub struct Partials {
    /// `[step][kv_head][run]`: outputs `[row][head_dim]`, states `[row]`, and states of single pages
    /// `[page][row]`.
    cells: Vec<f32>,
    firsts: Vec<usize>,                                   // as of `Shapes`
    tasks: Vec<Mutex<Merged<'static, 'static, 'static>>>, // empty between steps
}

/// Attention of some steps, as [`attend`](super::attention::attend).
pub fn attend(
    crew: &Crew,
    partials: &mut Partials,
    steps: &mut [HostStep<'_>],
    queries: &[f32],
    out: &mut [f32],
) {
    let shapes = Shapes::of(steps, std::mem::take(&mut partials.firsts));
    attend_runs(crew, &shapes, (steps, &mut partials.cells), queries);
    partials.tasks = {
        let tasks = merged(&shapes, (steps, &partials.cells), (out, &mut partials.tasks));
        // A task a step: the rows of one are few.
        crew.pool.run(tasks.len(), &|_, task| lock(&tasks[task]).run());
        emptied(tasks)
    };
    for (i, step) in steps.iter_mut().enumerate() {
        if let Some(mut masses) = step.key_masses.take() {
            let parts = shapes.of_step(i, &partials.cells);
            add_key_masses(crew, step, (parts, queries), &mut masses);
            step.key_masses = Some(masses);
        }
    }
    partials.firsts = shapes.firsts;
}

/// Where the parts of all steps are.
struct Shapes {
    /// `[step]`: runs before the step's.
    firsts: Vec<usize>,
    n_runs: usize,
    /// Floats of a run's part, the same for all.
    cols: usize,
}

impl Shapes {
    /// Those of `steps`, in an allocation to use again.
    fn of(steps: &[HostStep<'_>], mut firsts: Vec<usize>) -> Self {
        let mut n_runs = 0;
        firsts.clear();
        for step in steps {
            firsts.push(n_runs);
            n_runs += step.layout.heads.n_kv_heads * runs_of(step);
        }
        let lens = steps.iter().map(|step| PartShape::of(step).len());
        Self { firsts, n_runs, cols: lens.max().unwrap_or(0) }
    }

    /// Of which step and KV head a run is, and its first page.
    fn find(&self, steps: &[HostStep<'_>], run: usize) -> (usize, usize, usize) {
        let step = self.firsts.partition_point(|first| *first <= run) - 1;
        let (in_step, runs) = (run - self.firsts[step], runs_of(&steps[step]));
        (step, in_step / runs, in_step % runs * PAGES_A_RUN)
    }

    /// What a run reads first; nothing where there is no such run.
    fn first_part<'a>(&self, steps: &[HostStep<'a>], run: usize) -> &'a [u8] {
        if run >= self.n_runs {
            return &[];
        }
        let (step, kv_head, first_page) = self.find(steps, run);
        let step = &steps[step];
        let page = &step.pages_of(kv_head)[first_page];
        part_of(step.layout, (step.layer, kv_head), page)
    }

    /// The parts of step `step`.
    fn of_step<'a>(&self, step: usize, cells: &'a [f32]) -> Parts<'a> {
        let end = self.firsts.get(step + 1).copied().unwrap_or(self.n_runs);
        let cells = &cells[self.firsts[step] * self.cols..end * self.cols];
        Parts { cells, cols: self.cols }
    }
}

/// Runs of pages of a KV head.
fn runs_of(step: &HostStep<'_>) -> usize {
    step.pages_a_set().div_ceil(PAGES_A_RUN)
}

/// What lies where in the part of one run.
#[derive(Clone, Copy)]
struct PartShape {
    n_rows: usize,
    head_dim: usize,
}

impl PartShape {
    fn of(step: &HostStep<'_>) -> Self {
        let heads = step.layout.heads;
        Self { n_rows: step.n_tokens * heads.group(), head_dim: heads.head_dim }
    }

    fn len(self) -> usize {
        self.n_rows * (self.head_dim + 2 + 2 * PAGES_A_RUN)
    }

    /// Outputs, states, and states of pages.
    fn split(self, cells: &[f32]) -> (&[f32], &[RowState], &[RowState]) {
        let (out, states) = cells[..self.len()].split_at(self.n_rows * self.head_dim);
        let (states, page_states) = bytemuck::cast_slice(states).split_at(self.n_rows);
        (out, states, page_states)
    }

    fn split_mut(self, cells: &mut [f32]) -> (&mut [f32], &mut [RowState], &mut [RowState]) {
        let (out, states) = cells[..self.len()].split_at_mut(self.n_rows * self.head_dim);
        let (states, page_states) = bytemuck::cast_slice_mut(states).split_at_mut(self.n_rows);
        (out, states, page_states)
    }
}

/// The parts of a step, `[kv_head][run]`.
#[derive(Clone, Copy, Debug)]
struct Parts<'a> {
    cells: &'a [f32],
    cols: usize,
}

impl<'a> Parts<'a> {
    /// Those of a KV head.
    fn of_head(self, heads: HeadShape, kv_head: usize) -> impl Iterator<Item = &'a [f32]> + Clone {
        let n = self.cells.len() / heads.n_kv_heads;
        self.cells[kv_head * n..][..n].chunks_exact(self.cols)
    }

    /// The softmax state of a row over all runs.
    fn total(self, step: &HostStep<'_>, kv_head: usize, row: usize) -> RowState {
        let shape = PartShape::of(step);
        let mut total = RowState::EMPTY;
        for cells in self.of_head(step.layout.heads, kv_head) {
            total.merge(shape.split(cells).1[row]);
        }
        total
    }
}

/// Attends to each run of pages by itself.
fn attend_runs(
    crew: &Crew,
    shapes: &Shapes,
    (steps, cells): (&[HostStep<'_>], &mut Vec<f32>),
    queries: &[f32],
) {
    cells.resize(shapes.n_runs * shapes.cols, 0.0);
    let cols = shapes.cols;
    let n_threads = crew.pool.n_threads();
    let row_step = (shapes.n_runs / (TASKS_A_THREAD * n_threads)).max(1);
    let mut grids = [Grid { cells, cols, row_step, col_step: cols }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        let AttentionScratch { page, near, far, .. } = &mut scratch.attention;
        let mut rotated = None;
        for run in block.rows.clone() {
            let (of_step, kv_head, first_page) = shapes.find(steps, run);
            let step = &steps[of_step];
            let heads = step.layout.heads;
            // The next of this task, or of the thread's next task if all take as long.
            let is_last = run + 1 == block.rows.end;
            let next = if is_last { block.rows.start + row_step * n_threads } else { run + 1 };
            if rotated.replace((of_step, kv_head)) != Some((of_step, kv_head)) {
                rotate_queries(crew, step, queries, (kv_head, 0..step.n_tokens), (near, far));
            }
            let pages = step.pages_of(kv_head);
            let last = (first_page + PAGES_A_RUN).min(pages.len());
            let (out, states, page_states) = PartShape::of(step).split_mut(block.row_mut(run));
            crew.isa.run(Attend {
                layout: step.layout,
                head: (step.layer, kv_head),
                arithmetic: crew.arithmetic,
                queries: Queries { near, far, group: heads.group(), first_index: step.first_index },
                pages: &pages[first_page..last],
                after: shapes.first_part(steps, next),
                offset_angles: step.offset_angles,
                scratch: page.of(step.layout),
                out,
                states,
                page_states: step.page_masses.is_some().then_some(page_states),
            });
        }
    });
}

/// A step whose runs are merged, each row's by their maxima and sums.
#[derive(Debug)]
struct Merged<'a, 's, 'p> {
    step: &'a mut HostStep<'s>,
    parts: Parts<'p>,
    out: &'a mut [f32], // [token][head][head_dim]
}

/// All steps, each with its rows of `out`, in an allocation to use again.
fn merged<'a, 's, 'p>(
    shapes: &Shapes,
    (steps, cells): (&'a mut [HostStep<'s>], &'p [f32]),
    (out, room): (&'a mut [f32], &mut Vec<Mutex<Merged<'static, 'static, 'static>>>),
) -> Vec<Mutex<Merged<'a, 's, 'p>>> {
    let mut tasks = emptied(std::mem::take(room));
    let (mut rest, mut row) = (out, 0);
    for (i, step) in steps.iter_mut().enumerate() {
        let heads = step.layout.heads;
        let (width, rows) = (heads.n_heads * heads.head_dim, step.rows());
        let (of_step, after) =
            rest[(rows.start - row) * width..].split_at_mut(step.n_tokens * width);
        (rest, row) = (after, rows.end);
        let parts = shapes.of_step(i, cells);
        tasks.push(Mutex::new(Merged { step, parts, out: of_step }));
    }
    tasks
}

impl Merged<'_, '_, '_> {
    fn run(&mut self) {
        let Self { step, parts, out } = self;
        let mut masses = step.page_masses.take();
        let (heads, shape) = (step.layout.heads, PartShape::of(step));
        out.fill(0.0);
        masses.iter_mut().for_each(|masses| masses.fill(0.0));
        for kv_head in 0..heads.n_kv_heads {
            for row in 0..shape.n_rows {
                let total = parts.total(step, kv_head, row);
                let (token, head) = (row / heads.group(), row % heads.group());
                let at = (token * heads.n_heads + kv_head * heads.group() + head) * heads.head_dim;
                let target = &mut out[at..][..heads.head_dim];
                for (run, cells) in parts.of_head(heads, kv_head).enumerate() {
                    let (values, states, page_states) = shape.split(cells);
                    if states[row].sum == 0.0 {
                        continue;
                    }
                    let factor = (states[row].max - total.max).exp() / total.sum;
                    let values = &values[row * heads.head_dim..][..heads.head_dim];
                    target.iter_mut().zip(values).for_each(|(target, x)| *target += factor * x);
                    if let Some(masses) = &mut masses {
                        let pages_a_set = step.pages_a_set();
                        let masses = &mut masses[set_of(kv_head, step.n_sets) * pages_a_set..]
                            [..pages_a_set];
                        let states = page_states[row..].iter().step_by(shape.n_rows);
                        add_masses(&mut masses[run * PAGES_A_RUN..], states, total);
                    }
                }
            }
        }
        step.page_masses = masses;
    }
}

/// Adds the squared share of softmax that each page of a run received.
fn add_masses<'a>(masses: &mut [f32], states: impl Iterator<Item = &'a RowState>, total: RowState) {
    for (mass, state) in masses.iter_mut().zip(states).take(PAGES_A_RUN) {
        if state.sum > 0.0 {
            let share = state.sum * (state.max - total.max).exp() / total.sum;
            *mass += share * share;
        }
    }
}

/// Adds the share of softmax that each key received, summed over the rows of its KV head.
fn add_key_masses(
    crew: &Crew,
    step: &HostStep<'_>,
    (parts, queries): (Parts<'_>, &[f32]),
    KeyMasses { first_page, masses }: &mut KeyMasses,
) {
    let (heads, page_len) = (step.layout.heads, step.layout.page_len);
    let first_page = *first_page;
    let n_pages = step.pages_a_set() - first_page;
    let n_rows = PartShape::of(step).n_rows;
    // Once for all pages: each is over all runs.
    let of_heads =
        (0..heads.n_kv_heads).flat_map(|kv_head| (0..n_rows).map(move |row| (kv_head, row)));
    let totals: Vec<RowState> =
        of_heads.map(|(kv_head, row)| parts.total(step, kv_head, row)).collect();
    let mut grids = [Grid { cells: masses, cols: page_len, row_step: 1, col_step: page_len }];
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let mut scratch = crew.scratch(worker);
        let AttentionScratch { page, near, far, .. } = &mut scratch.attention;
        let row = block.rows.start;
        let (kv_head, place) = (row / n_pages, first_page + row % n_pages);
        rotate_queries(crew, step, queries, (kv_head, 0..step.n_tokens), (near, far));
        crew.isa.run(AddKeyMasses {
            layout: step.layout,
            head: (step.layer, kv_head),
            queries: Queries { near, far, group: heads.group(), first_index: step.first_index },
            totals: &totals[kv_head * n_rows..][..n_rows],
            page: step.pages_of(kv_head)[place],
            offset_angles: step.offset_angles,
            scratch: page.of(step.layout),
            masses: block.row_mut(row),
        });
    });
}

/// The rows `[token][head of the group]` of one KV head, rotated to their places and, when some
/// page is far, to the far distance; scaled.
pub(super) fn rotate_queries(
    crew: &Crew,
    step: &HostStep<'_>,
    queries: &[f32],
    (kv_head, tokens): (usize, std::ops::Range<usize>),
    (near, far): (&mut Vec<f32>, &mut Vec<f32>),
) {
    let heads = step.layout.heads;
    let width = heads.group() * heads.head_dim;
    let queries = &queries[step.first_row * heads.n_heads * heads.head_dim..];
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
