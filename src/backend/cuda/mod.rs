//! How does a GPU run a transformer and its memory? Weights, buffers, sinks and window are in its
//! memory, and so are the units attended to last and, while there is room, what stands for units,
//! where it looks them up; all other units are the host's. The kernels are those of the `kernels`
//! crate, on a GPU or in their host emulation.
//!
//! Operations are only begun here; what goes wrong is kept and said by [`Backend::check`].

mod gpu;
mod index;
mod paged;
mod parts;
mod plan;
mod report;
mod slots;
mod uploaded;
mod weights;

use std::ops::Range;

use kernels::{
    AnyDevice, Array, Device, DeviceError, DrawKernels, LogitEdit, MANY_ROWS, OutputMode, naive,
};

pub use self::gpu::CudaBackend;
use self::gpu::{State, failed};
use self::index::looks_up;
pub use self::paged::CudaPage;
use self::paged::{StepError, sizes, unsupported};
pub use self::plan::{GpuMemory, GpuUse, MemoryPlan};
pub use self::report::{GpuFound, GpuReport};
pub use self::slots::SlotCounts;
pub use self::weights::CudaWeight;
use super::{
    AttendStep, Backend, BackendError, BlocksView, BringFn, Candidates, CoarseVotes, Draw,
    HeadShape, KvType, ListedSegments, LookupQueries, LookupStep, MemoryNeeds, NamedBlocks, Norm,
    PageLayout, PageTarget, Projection, RowDraw, SegmentRun, Write,
};
use crate::ids::TokenId;
use crate::tensor::Matrix;

/// Activations on the device.
pub type CudaBuffer = Array<AnyDevice, f32>;

fn mode(write: Write) -> OutputMode {
    match write {
        Write::Set => OutputMode::Set,
        Write::Add => OutputMode::Add,
    }
}

impl Backend for CudaBackend {
    type Buffer = CudaBuffer;
    type Weight = CudaWeight;
    type Page = CudaPage;

    fn description(&self) -> String {
        format!("cuda, {}; lookups: {}", self.device.description(), self.host.description())
    }

    fn check(&self) -> Result<(), BackendError> {
        self.told().map_or(Ok(()), Err)
    }

    fn begin_pass(&self) {
        self.forgive();
    }

    fn plan_windows(
        &self,
        needs: &MemoryNeeds,
        window_bytes: Option<usize>,
    ) -> Result<Option<usize>, BackendError> {
        sizes(needs.layout).check().map_err(failed)?;
        if needs.far_pages {
            let what = "positions = \"fixed\" and attention = \"clipped\"; choose others";
            return Err(unsupported(what));
        }
        if needs.key_masses {
            return Err(unsupported("lookup = \"attention-mass\"; choose another"));
        }
        Ok(self.make_room(needs, window_bytes)?.window_bytes)
    }

    fn prepare(&self, matrix: &Matrix) -> Result<CudaWeight, BackendError> {
        CudaWeight::new(&self.device, matrix).map_err(|error| match failed(error) {
            error @ BackendError::NoRoom { .. } => {
                let what =
                    format!("the model's weights do not fit: {error}, or take a smaller model");
                BackendError::DoesNotFit { what }
            }
            error => error,
        })
    }

    fn buffer(&self, len: usize) -> Result<CudaBuffer, BackendError> {
        self.upload(&vec![0.0; len])
    }

    fn upload(&self, values: &[f32]) -> Result<CudaBuffer, BackendError> {
        Array::of(&self.device, values).map_err(failed)
    }

    fn page(&self, n_bytes: usize) -> Result<CudaPage, BackendError> {
        let mut buffer = self.device.allocate(n_bytes).map_err(failed)?;
        self.device.write(&mut buffer, 0, &vec![0; n_bytes]).map_err(failed)?;
        Ok(CudaPage { buffer, n_bytes })
    }

    fn copy_page(&self, page: &CudaPage) -> Result<CudaPage, BackendError> {
        let mut buffer = self.device.allocate(page.n_bytes).map_err(failed)?;
        let copied = self.device.copy((&page.buffer, 0), (&mut buffer, 0), page.n_bytes);
        copied.map_err(failed)?;
        Ok(CudaPage { buffer, n_bytes: page.n_bytes })
    }

    fn fill_page(&self, page: &mut CudaPage, bytes: &[u8]) {
        self.run(|_| self.device.write(&mut page.buffer, 0, bytes));
    }

    fn page_bytes<'a>(&self, page: &'a CudaPage, room: &'a mut Vec<u32>) -> &'a [u8] {
        room.resize(page.n_bytes.div_ceil(4), 0);
        let bytes = &mut bytemuck::cast_slice_mut(room)[..page.n_bytes];
        self.run(|_| self.device.read(&page.buffer, 0, bytes));
        bytes
    }

    fn copy_rows(
        &self,
        (from, rows): (&CudaBuffer, Range<usize>),
        (to, first): (&mut CudaBuffer, usize),
        width: usize,
    ) {
        let part = (rows.start * width, rows.len() * width);
        self.run(|_| from.copy_to(&self.device, part, (to, first * width)));
    }

    fn keep_rows(&self, buffer: &mut CudaBuffer, rows: Range<usize>, width: usize) {
        self.run(|_| {
            // Where they go may be where they are.
            let n = rows.len() * width;
            let mut aside = Array::undefined(&self.device, n)?;
            buffer.copy_to(&self.device, (rows.start * width, n), (&mut aside, 0))?;
            aside.copy_to(&self.device, (0, n), (buffer, 0))
        });
    }

    fn download(&self, (buffer, first): (&CudaBuffer, usize), out: &mut [f32]) {
        self.run(|_| buffer.read(&self.device, first, out));
    }

    fn draws(&self) -> bool {
        true
    }

    fn draw(
        &self,
        (logits, vocab): (&mut CudaBuffer, usize),
        draws: &[RowDraw<'_>],
        tokens: &mut Vec<TokenId>,
    ) -> bool {
        tokens.clear();
        tokens.resize(draws.len(), TokenId(0));
        if !DrawKernels::<AnyDevice>::can_draw(vocab) {
            return false;
        }
        let edits = draws.iter().flat_map(|RowDraw { row, draw }| {
            let edit = |(token, by): &(TokenId, f32)| (*row, token.0 as usize, *by);
            draw.edits.iter().map(edit)
        });
        let edits: Vec<_> = edits.map(|(row, token, by)| LogitEdit { row, token, by }).collect();
        let draw_of = |RowDraw { row, draw }: &RowDraw<'_>| {
            let &Draw { temperature, min_p, top_k, top_p, random, .. } = *draw;
            (*row, naive::Draw { temperature, min_p, top_k, top_p, random })
        };
        let draws: Vec<_> = draws.iter().map(draw_of).collect();
        self.run(|state| {
            state.draws.edit(&self.device, (logits, vocab), &edits)?;
            let mut drawn = Vec::new();
            state.draws.draw(&self.device, (logits, vocab), &draws, &mut drawn)?;
            tokens.iter_mut().zip(drawn).for_each(|(token, drawn)| *token = TokenId(drawn));
            Ok::<_, DeviceError>(())
        });
        true
    }

    fn embed(&self, table: &CudaWeight, tokens: &[TokenId], out: &mut CudaBuffer) {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        self.run(|state| match table {
            CudaWeight::Quantized(table) => state.products.embed(&self.device, (table, &ids), out),
            CudaWeight::Dense(table) => state.dense.embed(&self.device, (table, &ids), out),
        });
    }

    fn rms_norm(&self, x: &CudaBuffer, norm: Norm<'_, Self>, out: &mut CudaBuffer) {
        let Norm { gain, epsilon, rows } = norm;
        self.run(|state| state.rows.norm_rows(&self.device, (x, rows), (gain, epsilon), out));
    }

    fn project(
        &self,
        input: &CudaBuffer,
        n_tokens: usize,
        outputs: &mut [Projection<'_, Self>],
        write: Write,
    ) {
        self.run(|state| {
            let (device, rows) = (&self.device, (input, n_tokens));
            let mut is_rounded = false; // once for all weights
            for Projection { weight, out } in outputs {
                let out = (&mut **out, mode(write));
                let matrix = match weight {
                    CudaWeight::Dense(matrix) => {
                        state.dense.multiply(device, rows, &matrix.view(), out)?;
                        continue;
                    }
                    CudaWeight::Quantized(matrix) => matrix,
                };
                let widened = match n_tokens >= MANY_ROWS {
                    true => state.products.widened(device, matrix)?,
                    false => None,
                };
                if let Some(matrix) = widened {
                    state.dense.multiply(device, rows, &matrix, out)?;
                    continue;
                }
                if !std::mem::replace(&mut is_rounded, true) {
                    state.products.round(device, input, (n_tokens, weight.n_cols()))?;
                }
                state.products.multiply(device, matrix, out)?;
            }
            self.warn_of_library(state.dense.library());
            Ok::<_, DeviceError>(())
        });
    }

    fn add_bias(&self, x: &mut CudaBuffer, bias: &CudaBuffer, n_rows: usize) {
        self.run(|state| state.rows.add_bias(&self.device, (x, n_rows), bias));
    }

    fn norm_heads(&self, x: &mut CudaBuffer, norm: Norm<'_, Self>) {
        let Norm { gain, epsilon, rows } = norm;
        self.run(|state| state.rows.norm_heads(&self.device, (x, rows.end), (gain, epsilon)));
    }

    fn split_pairs(&self, x: &mut CudaBuffer, n_rows: usize, heads: HeadShape) {
        let sizes = (heads.head_dim, heads.n_pairs);
        self.run(|state| state.rows.split_pairs(&self.device, (x, n_rows), sizes));
    }

    fn swiglu(&self, gate: &mut CudaBuffer, up: &CudaBuffer, len: usize) {
        self.run(|state| state.rows.swiglu(&self.device, (gate, up), len));
    }

    fn share_out(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        self.host.share_out(n, task);
    }

    fn write_pages(
        &self,
        targets: &mut [PageTarget<'_, CudaPage>],
        keys: &CudaBuffer,
        values: &CudaBuffer,
    ) {
        self.run(|state| {
            for targets in targets.chunk_by(paged::are_written_together) {
                let paged = self.paged(state, targets[0].layout)?;
                paged.write(&self.device, targets, (keys, values))?;
            }
            Ok::<_, DeviceError>(())
        });
    }

    fn pack_page(&self, layout: PageLayout, page: &[u8], kv_type: KvType, out: &mut [u8]) {
        self.host.pack_page(layout, page, kv_type, out);
    }

    fn attend(
        &self,
        steps: &mut [AttendStep<'_, CudaPage>],
        queries: &CudaBuffer,
        out: &mut CudaBuffer,
    ) {
        self.run(|state| {
            if steps.iter().any(|step| step.key_masses.is_some()) {
                let what = "the attention that single keys receive; measure on the CPU";
                return Err(StepError::Backend(unsupported(what)));
            }
            for steps in steps.chunk_by_mut(|a, b| a.layout == b.layout) {
                let mut pages = steps.iter().flat_map(|step| &step.pages);
                let has_nibbles = pages.any(|page| page.kv_type == KvType::Int4);
                let layout = steps[0].layout;
                let kv_type = if has_nibbles { KvType::Int4 } else { layout.kv_type };
                let paged = self.paged(state, layout.of_type(kv_type))?;
                paged.attend(&self.device, steps, (queries, &mut *out))?;
            }
            Ok(())
        });
    }

    fn prepare_lookup(&self, step: LookupStep<'_>, queries: &CudaBuffer, out: &mut LookupQueries) {
        let width = step.heads.n_heads * step.heads.head_dim;
        let mut rows = std::mem::take(&mut self.state().queries);
        rows.clear();
        rows.resize(step.n_tokens * width, 0.0);
        self.run(|_| queries.read(&self.device, step.first_row * width, &mut rows));
        self.host.prepare_lookup(LookupStep { first_row: 0, ..step }, &rows, out);
        self.state().queries = rows;
    }

    fn look_up(
        &self,
        step: LookupStep<'_>,
        queries: &CudaBuffer,
        (index, n): (NamedBlocks<'_>, usize),
        (bring, votes): (&mut BringFn<'_>, &mut Vec<f32>),
    ) -> bool {
        let mut was_done = false;
        // Both stages under one lock: what was prepared for the first is the second's.
        self.run(|state| {
            let fits = self.paged(state, index.layout)?.n_units() >= n * step.n_sets;
            let Some(block) = index.view.blocks.first().filter(|_| fits && looks_up(&step)) else {
                return Ok(());
            };
            self.index(state, (index.layout, block.len()))?;
            let State { paged: Some(paged), index: Some(device_index), .. } = state else {
                unreachable!("both were just made")
            };
            let ask = (step, queries);
            let Some(named) = device_index.name_candidates(&self.device, ask, (index, n))? else {
                return Ok(());
            };
            was_done = true;
            votes.clear();
            votes.resize(named.len(), 0.0);
            let mut voted = Ok(());
            bring(&named, &mut |candidates| {
                let of_keys = device_index.vote_by_keys(&self.device, paged, &candidates);
                voted = of_keys.map(|of_keys| votes.copy_from_slice(&of_keys));
            });
            voted
        });
        was_done
    }

    fn vote_by_segments(&self, queries: &LookupQueries, index: BlocksView<'_>, votes: &mut [f32]) {
        self.host.vote_by_segments(queries, index, votes);
    }

    fn score_segments(
        &self,
        queries: &LookupQueries,
        runs: &[SegmentRun<'_>],
        scores: &mut Vec<f32>,
    ) {
        self.host.score_segments(queries, runs, scores);
    }

    fn vote_by_lists(
        &self,
        queries: &LookupQueries,
        lists: ListedSegments<'_>,
        votes: &mut CoarseVotes,
    ) {
        self.host.vote_by_lists(queries, lists, votes);
    }

    fn vote_by_keys(&self, queries: &LookupQueries, candidates: Candidates<'_>, votes: &mut [f32]) {
        self.host.vote_by_keys(queries, candidates, votes);
    }
}
