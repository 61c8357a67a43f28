//! How does this processor run a transformer? Weights stay in the mapped model file, inner loops
//! are chosen for the instruction set found at run time, and a pool of threads shares each loop.

mod attention;
mod crew;
mod host;
mod listed;
mod lookup;
mod pack;
mod pool;
mod project;
mod shares;
pub mod simd;
mod split;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::crew::Crew;
pub use self::host::HostBytes;
use self::host::{HostStep, HostTarget};
use self::listed::ListedBuffers;
use self::lookup::VoteBuffers;
use self::pool::Grid;
use self::project::{Inputs, QuantizedBuffer, takes_bytes};
pub use self::shares::{TokenShares, log_sum_exp};
use self::simd::Isa;
use self::simd::attend::Arithmetic;
use self::simd::quantize::RowLayout;
use self::simd::rows::{Add, RmsNorm, SwiGlu, WidenRow};
use self::simd::write::MAX_HEAD_DIM;
use self::split::Partials;
use super::{
    Backend, BackendError, BlocksView, Candidates, CoarseVotes, HeadShape, KvType, ListedSegments,
    LookupQueries, LookupStep, Norm, PageLayout, Precision, Projection, SegmentRun, Write,
};
use crate::ids::TokenId;
use crate::tensor::Matrix;

/// The processor.
pub struct CpuBackend {
    crew: Crew,
    precision: Precision,
    shared: Mutex<SharedScratch>,
}

/// What all threads work on together in one operation.
#[derive(Debug, Default)]
struct SharedScratch {
    quantized: QuantizedBuffer,
    expected: Option<Matrix>,
    partials: Partials,
    votes: VoteBuffers,
    listed: ListedBuffers,
}

impl CpuBackend {
    /// The best instruction set found, with `n_threads` threads.
    pub fn new(n_threads: usize, precision: Precision) -> Self {
        Self::with_isa(Isa::detect(), n_threads, precision)
    }

    /// A given instruction set, for comparing them.
    pub fn with_isa(isa: Isa, n_threads: usize, precision: Precision) -> Self {
        let arithmetic = match precision {
            Precision::F32 => Arithmetic::Float,
            Precision::Int16 | Precision::Int8 => Arithmetic::Integer,
        };
        Self { crew: Crew::new(isa, arithmetic, n_threads), precision, shared: Mutex::default() }
    }

    fn shared(&self) -> MutexGuard<'_, SharedScratch> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `body` on each of the first `n_rows` rows of `x`, shared out when they are many.
    fn for_rows(
        &self,
        x: &mut [f32],
        cols: usize,
        n_rows: usize,
        body: &(dyn Fn(usize, &mut [f32]) + Sync),
    ) {
        /// Floats below which a loop is not worth sharing out.
        const SERIAL: usize = 8 * 1024;
        let cells = &mut x[..n_rows * cols];
        let row_step = if n_rows * cols <= SERIAL { n_rows.max(1) } else { (SERIAL / cols).max(1) };
        let mut grids = [Grid { cells, cols, row_step, col_step: cols }];
        self.crew.pool.run_blocks(&mut grids, &|_, mut block| {
            for row in block.rows.clone() {
                body(row, block.row_mut(row));
            }
        });
    }
}

impl fmt::Debug for CpuBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuBackend({})", self.description())
    }
}

impl Backend for CpuBackend {
    type Buffer = Vec<f32>;
    type Weight = Matrix;
    type Page = HostBytes;

    fn description(&self) -> String {
        format!("cpu, {}, {} threads", self.crew.isa.name(), self.crew.pool.n_threads())
    }

    fn prepare(&self, matrix: &Matrix) -> Result<Matrix, BackendError> {
        Ok(matrix.clone())
    }

    fn buffer(&self, len: usize) -> Result<Vec<f32>, BackendError> {
        Ok(vec![0.0; len])
    }

    fn upload(&self, values: &[f32]) -> Result<Vec<f32>, BackendError> {
        Ok(values.to_vec())
    }

    fn page(&self, n_bytes: usize) -> Result<HostBytes, BackendError> {
        HostBytes::zeroed(n_bytes)
    }

    fn copy_page(&self, page: &HostBytes) -> Result<HostBytes, BackendError> {
        page.try_clone()
    }

    fn fill_page(&self, page: &mut HostBytes, bytes: &[u8]) {
        page.copy_from_slice(bytes);
    }

    fn page_bytes<'a>(&self, page: &'a HostBytes, _room: &'a mut Vec<u32>) -> &'a [u8] {
        page
    }

    fn download(&self, (buffer, first): (&Vec<f32>, usize), out: &mut [f32]) {
        /// Floats of a task: a vocabulary's logits are worth sharing out.
        const PIECE: usize = 16 * 1024;
        let from = &buffer[first..first + out.len()];
        let cols = out.len().max(1);
        let mut grids = [Grid { cells: out, cols, row_step: 1, col_step: PIECE }];
        self.crew.pool.run_blocks(&mut grids, &|_, mut block| {
            let from = &from[block.cols.clone()];
            block.row_mut(0).copy_from_slice(from);
        });
    }

    fn copy_rows(
        &self,
        (from, rows): (&Vec<f32>, Range<usize>),
        (to, first): (&mut Vec<f32>, usize),
        width: usize,
    ) {
        let n = rows.len() * width;
        to[first * width..][..n].copy_from_slice(&from[rows.start * width..][..n]);
    }

    fn keep_rows(&self, buffer: &mut Vec<f32>, rows: Range<usize>, width: usize) {
        buffer.copy_within(rows.start * width..rows.end * width, 0);
    }

    fn embed(&self, table: &Matrix, tokens: &[TokenId], out: &mut Vec<f32>) {
        self.for_rows(out, table.cols, tokens.len(), &|row, out| {
            self.crew.isa.run(WidenRow { matrix: table, row: tokens[row].0 as usize, out });
        });
    }

    fn rms_norm(&self, x: &Vec<f32>, norm: Norm<'_, Self>, out: &mut Vec<f32>) {
        let Norm { gain, epsilon, rows } = norm;
        self.for_rows(out, gain.len(), rows.len(), &|row, out| {
            let x = &x[(rows.start + row) * gain.len()..][..gain.len()];
            self.crew.isa.run(RmsNorm { x, gain, epsilon, out });
        });
    }

    fn project(
        &self,
        input: &Vec<f32>,
        n_tokens: usize,
        outputs: &mut [Projection<'_, Self>],
        write: Write,
    ) {
        let Some(cols) = outputs.first().map(|output| output.weight.cols) else { return };
        let mut shared = self.shared();
        let x = &input[..n_tokens * cols];
        if outputs.iter().any(|output| takes_bytes(output.weight, self.precision)) {
            let n_terms = if self.precision == Precision::Int8 { 1 } else { 2 };
            shared.quantized.fill(&self.crew, x, RowLayout { cols, n_terms });
        }
        let SharedScratch { quantized, expected, .. } = &*shared;
        let (precision, expected) = (self.precision, expected.as_ref());
        let inputs = Inputs { x, quantized, n_tokens, precision, expected };
        project::project(&self.crew, &inputs, outputs, write);
    }

    fn share_out(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        self.crew.pool.run(n, &|_, i| task(i));
    }

    fn expect(&self, weight: &Matrix) {
        self.shared().expected = Some(weight.clone());
    }

    fn add_bias(&self, x: &mut Vec<f32>, bias: &Vec<f32>, n_rows: usize) {
        self.for_rows(x, bias.len(), n_rows, &|_, out| self.crew.isa.run(Add { out, x: bias }));
    }

    fn norm_heads(&self, x: &mut Vec<f32>, norm: Norm<'_, Self>) {
        let Norm { gain, epsilon, rows } = norm;
        self.for_rows(x, gain.len(), rows.end, &|_, head| {
            let mut copy = [0.0; MAX_HEAD_DIM];
            let copy = &mut copy[..head.len()];
            copy.copy_from_slice(head);
            self.crew.isa.run(RmsNorm { x: copy, gain, epsilon, out: head });
        });
    }

    fn split_pairs(&self, x: &mut Vec<f32>, n_rows: usize, heads: HeadShape) {
        self.for_rows(x, heads.head_dim, n_rows, &|_, head| {
            let mut copy = [0.0; MAX_HEAD_DIM];
            let copy = &mut copy[..2 * heads.n_pairs];
            copy.copy_from_slice(&head[..2 * heads.n_pairs]);
            for (i, pair) in copy.chunks_exact(2).enumerate() {
                head[i] = pair[0];
                head[i + heads.n_pairs] = pair[1];
            }
        });
    }

    fn swiglu(&self, gate: &mut Vec<f32>, up: &Vec<f32>, len: usize) {
        const PIECE: usize = 1024;
        let (pieces, tail) = (len / PIECE, len % PIECE);
        self.for_rows(gate, PIECE, pieces, &|piece, gate| {
            let up = &up[piece * PIECE..][..PIECE];
            self.crew.isa.run(SwiGlu { gate, up });
        });
        let (gate, up) = (&mut gate[len - tail..len], &up[len - tail..len]);
        self.crew.isa.run(SwiGlu { gate, up });
    }

    fn write_pages(&self, targets: &mut [HostTarget<'_>], keys: &Vec<f32>, values: &Vec<f32>) {
        attention::write_pages(&self.crew, targets, (keys, values));
    }

    fn pack_page(&self, layout: PageLayout, page: &[u8], kv_type: KvType, out: &mut [u8]) {
        pack::pack_page(layout, page, kv_type, out);
    }

    fn attend(&self, steps: &mut [HostStep<'_>], queries: &Vec<f32>, out: &mut Vec<f32>) {
        attention::attend(&self.crew, &mut self.shared().partials, steps, queries, out);
    }

    fn prepare_lookup(&self, step: LookupStep<'_>, queries: &Vec<f32>, out: &mut LookupQueries) {
        let first = step.first_row * step.heads.n_heads * step.heads.head_dim;
        lookup::prepare(&self.crew, step, &queries[first..], out);
    }

    fn vote_by_segments(&self, queries: &LookupQueries, index: BlocksView<'_>, votes: &mut [f32]) {
        let buffers = &mut self.shared().votes;
        lookup::vote_by_segments(&self.crew, buffers, queries, index, votes);
    }

    fn vote_by_lists(
        &self,
        queries: &LookupQueries,
        lists: ListedSegments<'_>,
        votes: &mut CoarseVotes,
    ) {
        let buffers = &mut self.shared().listed;
        listed::vote_by_lists(&self.crew, buffers, queries, lists, votes);
    }

    fn score_segments(
        &self,
        queries: &LookupQueries,
        runs: &[SegmentRun<'_>],
        scores: &mut Vec<f32>,
    ) {
        let buffers = &mut self.shared().votes;
        lookup::score_segments(&self.crew, buffers, queries, (runs, scores));
    }

    fn vote_by_keys(&self, queries: &LookupQueries, candidates: Candidates<'_>, votes: &mut [f32]) {
        let buffers = &mut self.shared().votes;
        lookup::vote_by_keys(&self.crew, buffers, queries, candidates, votes);
    }
}
