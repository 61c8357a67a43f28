//! How is a product with a weight matrix shared out? By weight rows: each task takes some rows and
//! runs all tokens past them, so that a weight is read from memory once and every sum is computed
//! the same way whatever the number of threads.

use std::ops::Range;

use super::crew::{Crew, ProjectScratch};
use super::pool::{Block, Grid, MAX_GRIDS};
use super::simd::Isa;
use super::simd::multiply::{MultiplyRows, padded_rows};
use super::simd::quantize::{Quantize, QuantizedRows, RowLayout};
use super::simd::rows::{Dot, WidenRow};
use super::simd::tile::{Product, Start};
use super::simd::unpack::group_of;
use crate::backend::{Backend, Precision, Projection, Write};
use crate::tensor::Matrix;

/// Up to so many tokens plain weights are multiplied row by row; above, widening them into panels
/// pays. It also is the most tokens whose tasks are long.
const MAX_FEW_TOKENS: usize = 16;

/// Most weight rows of a task of few tokens. It is a long run of memory, since short runs keep the
/// prefetchers from getting up to speed: where the matrix is small, one a thread.
const MAX_LONG_TASK_ROWS: usize = 512;

/// Weight rows of a task of many tokens.
const SHORT_TASK_ROWS: usize = 32;

/// Weight rows in an f32 panel, which is a task of many tokens.
const WIDE_PANEL_ROWS: usize = 64;

/// Activations as bytes, made once for all products of a layer's inputs.
#[derive(Debug, Default)]
pub struct QuantizedBuffer {
    layout: RowLayout,
    n_tokens: usize,
    lines: Vec<CacheLine>, // [token][layout.words()]
}

/// Sixteen words where a cache line begins: tiles of bytes that cross lines are read at half the speed.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

impl QuantizedBuffer {
    /// Quantises `[token][layout.cols]` floats.
    pub fn fill(&mut self, crew: &Crew, x: &[f32], layout: RowLayout) {
        /// Floats below which a loop is not worth sharing out, and tokens of a task at most.
        const SERIAL: usize = 8 * 1024;
        const TOKENS: usize = 16;
        (self.layout, self.n_tokens) = (layout, x.len() / layout.cols);
        let needed = self.n_tokens * layout.words();
        if self.lines.len() < needed / 16 {
            self.lines.resize(needed / 16, CacheLine::default());
        }
        let cells = bytemuck::cast_slice_mut(&mut self.lines[..needed / 16]);
        let cols = layout.words();
        let row_step = (SERIAL / layout.cols).clamp(1, TOKENS);
        let mut grids = [Grid { cells, cols, row_step, col_step: cols }];
        crew.pool.run_blocks(&mut grids, &|_, mut block| {
            for token in block.rows.clone() {
                let x = &x[token * layout.cols..][..layout.cols];
                crew.isa.run(Quantize { x, layout, out: block.row_mut(token) });
            }
        });
    }

    fn rows(&self) -> QuantizedRows<'_> {
        let lines = &self.lines[..self.n_tokens * self.layout.words() / 16];
        QuantizedRows { layout: self.layout, words: bytemuck::cast_slice(lines) }
    }
}

/// The inputs of a product, in both forms.
pub struct Inputs<'a> {
    /// `[token][cols]`
    pub x: &'a [f32],
    /// The same as bytes, where any weight wants them.
    pub quantized: &'a QuantizedBuffer,
    /// Tokens.
    pub n_tokens: usize,
    /// How products are computed.
    pub precision: Precision,
    /// The first weight of the product after this one, where it is known.
    pub expected: Option<&'a Matrix>,
}

/// Whether products with `matrix` take quantised activations.
pub fn takes_bytes(matrix: &Matrix, precision: Precision) -> bool {
    precision != Precision::F32 && group_of(matrix.dtype).is_some()
}

/// `out[token][row] (+)= weight[row] . x[token]` for each weight and its output.
pub fn project<B: Backend<Buffer = Vec<f32>, Weight = Matrix>>(
    crew: &Crew,
    inputs: &Inputs<'_>,
    outputs: &mut [Projection<'_, B>],
    write: Write,
) {
    let precision = inputs.precision;
    let n_tokens = inputs.n_tokens;
    let expected = inputs.expected.map(|matrix| (matrix, rows_of_a_long_task(crew, matrix)));
    let n_threads = crew.pool.n_threads();
    let mut tasks = Tasks { weights: [None; MAX_GRIDS], expected, n_threads };
    let mut grids = std::array::from_fn::<_, MAX_GRIDS, _>(|_| Grid::empty());
    for (i, Projection { weight, out }) in outputs.iter_mut().enumerate() {
        let col_step = rows_of_a_task(crew, weight, n_tokens, precision);
        tasks.weights[i] = Some((*weight, col_step));
        grids[i] = Grid {
            cells: &mut out[..n_tokens * weight.rows],
            cols: weight.rows,
            row_step: n_tokens.max(1),
            col_step,
        };
    }
    crew.pool.run_blocks(&mut grids, &|worker, mut block| {
        let (matrix, _) = tasks.weights[block.grid].expect("because each grid has its weight");
        let next = tasks.after(block.task);
        let mut scratch = crew.scratch(worker);
        let scratch = &mut scratch.project;
        let stride = multiply(crew.isa, inputs, (matrix, &block.cols, next), scratch);
        deliver(&scratch.out, stride, &mut block, write);
    });
}

/// The tasks of a product, weight after weight, and of the product after it.
#[derive(Clone, Copy)]
pub struct Tasks<'a> {
    /// Each with the rows of a task.
    pub weights: [Option<(&'a Matrix, usize)>; MAX_GRIDS],
    /// The first weight of the product after it, where it is known.
    pub expected: Option<(&'a Matrix, usize)>,
    /// Threads that take part.
    pub n_threads: usize,
}

impl<'a> Tasks<'a> {
    /// What a thread reads after task `task` of its share: the weights of the share's next task,
    /// or those that it begins the product after this one with.
    pub fn after(&self, task: usize) -> &'a [u8] {
        let mut next = task + self.n_threads;
        for (matrix, n_rows) in self.weights.iter().flatten() {
            let n_tasks = matrix.rows.div_ceil(*n_rows);
            if next < n_tasks {
                return bytes_of_task(matrix, *n_rows, next);
            }
            next -= n_tasks;
        }
        let thread = task % self.n_threads;
        self.expected.map_or(&[], |(matrix, n_rows)| bytes_of_task(matrix, n_rows, thread))
    }
}

/// The weights of task `task`, of `n_rows` rows each; none where there is no such task.
fn bytes_of_task(matrix: &Matrix, n_rows: usize, task: usize) -> &[u8] {
    let row_bytes = matrix.bytes.len() / matrix.rows;
    let row = |task: usize| (task * n_rows).min(matrix.rows);
    &matrix.bytes[row(task) * row_bytes..row(task + 1) * row_bytes]
}

fn rows_of_a_task(crew: &Crew, matrix: &Matrix, n_tokens: usize, precision: Precision) -> usize {
    match (takes_bytes(matrix, precision), n_tokens <= MAX_FEW_TOKENS) {
        (_, true) => rows_of_a_long_task(crew, matrix),
        (true, false) => SHORT_TASK_ROWS,
        (false, false) => WIDE_PANEL_ROWS,
    }
}

fn rows_of_a_long_task(crew: &Crew, matrix: &Matrix) -> usize {
    let n_threads = crew.pool.n_threads();
    // As many tasks for each thread, or one waits for the other; whole vectors of rows.
    let n_tasks = n_threads * matrix.rows.div_ceil(n_threads * MAX_LONG_TASK_ROWS);
    matrix.rows.div_ceil(n_tasks).next_multiple_of(16)
}

/// Computes a task's rows into `scratch.out`, `[token][stride]`, and returns the stride.
fn multiply(
    isa: Isa,
    inputs: &Inputs<'_>,
    (matrix, rows, next): (&Matrix, &Range<usize>, &[u8]),
    scratch: &mut ProjectScratch,
) -> usize {
    let are_few = inputs.n_tokens <= MAX_FEW_TOKENS;
    let are_bytes = takes_bytes(matrix, inputs.precision);
    let stride = match (are_bytes, are_few) {
        (true, _) => padded_rows(rows.len()),
        (false, true) => rows.len(),
        (false, false) => rows.len().next_multiple_of(16),
    };
    let needed = inputs.n_tokens * stride;
    if scratch.out.len() < needed {
        scratch.out.resize(needed, 0.0);
    }
    match (are_bytes, are_few) {
        (true, _) => isa.run(MultiplyRows {
            matrix,
            rows: rows.clone(),
            x: inputs.quantized.rows(),
            out: &mut scratch.out[..needed],
            next,
            tiles: isa.tiles(),
            scratch: &mut scratch.multiply,
        }),
        (false, true) => dot_floats(isa, inputs, matrix, rows, scratch),
        (false, false) => multiply_floats(isa, inputs, matrix, rows, scratch),
    }
    stride
}

fn dot_floats(
    isa: Isa,
    inputs: &Inputs<'_>,
    matrix: &Matrix,
    rows: &Range<usize>,
    scratch: &mut ProjectScratch,
) {
    scratch.row.resize(matrix.cols, 0.0);
    for (i, row) in rows.clone().enumerate() {
        isa.run(WidenRow { matrix, row, out: &mut scratch.row });
        for (token, x) in inputs.x.chunks_exact(matrix.cols).enumerate() {
            scratch.out[token * rows.len() + i] = isa.run(Dot { a: &scratch.row, b: x });
        }
    }
}

fn multiply_floats(
    isa: Isa,
    inputs: &Inputs<'_>,
    matrix: &Matrix,
    rows: &Range<usize>,
    scratch: &mut ProjectScratch,
) {
    let cols = matrix.cols;
    scratch.row.resize(cols, 0.0);
    scratch.wide_panel.resize(cols * WIDE_PANEL_ROWS, 0.0);
    for (i, row) in rows.clone().enumerate() {
        isa.run(WidenRow { matrix, row, out: &mut scratch.row });
        let places = scratch.wide_panel.chunks_exact_mut(WIDE_PANEL_ROWS);
        for (places, weight) in places.zip(&scratch.row) {
            places[i] = *weight;
        }
    }
    let n_cols = rows.len().next_multiple_of(16);
    isa.run(Product {
        n_rows: inputs.n_tokens,
        depth: cols,
        n_cols,
        a: inputs.x,
        a_stride: cols,
        b: &scratch.wide_panel,
        b_stride: WIDE_PANEL_ROWS,
        c: &mut scratch.out,
        c_stride: n_cols,
        start: Start::Zero,
        next: &[],
    });
}

/// Hands a task's sums over.
fn deliver(sums: &[f32], stride: usize, block: &mut Block<'_>, write: Write) {
    for row in block.rows.clone() {
        let out = block.row_mut(row);
        let sums = &sums[row * stride..][..out.len()];
        match write {
            Write::Set => out.copy_from_slice(sums),
            Write::Add => out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum),
        }
    }
}
