//! Which device computes? Found when the program runs. What is above the engine's handle need not
//! know; a buffer of one device that came to another would be a mistake of ours, and stops.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::convert::{targets_of, with_steps};
use super::cpu::{CpuBackend, HostBytes};
use super::cuda::{CudaBackend, CudaBuffer, CudaPage, CudaWeight, GpuMemory};
use super::{
    AttendStep, Backend, BackendError, BlocksView, BringFn, Candidates, CoarseVotes, HeadShape,
    KvType, ListedSegments, LookupQueries, LookupStep, MemoryNeeds, NamedBlocks, Norm, PageLayout,
    PageTarget, Precision, Projection, RowDraw, SegmentRun, Write,
};
use crate::ids::TokenId;
use crate::tensor::Matrix;

/// Which device is to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceChoice {
    /// The processor.
    #[default]
    Cpu,
    /// The first GPU that the driver shows (`CUDA_VISIBLE_DEVICES` says which).
    Cuda,
    /// A GPU, or the processor where none can be used.
    Auto,
    /// The host emulation of a GPU: slow, and strict; for tests.
    Emulated,
}

/// How to run a model: what computes, and what it may use.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// What computes.
    pub device: DeviceChoice,
    /// Threads of the host that compute.
    pub n_threads: usize,
    /// How products with quantised weights are computed on the processor.
    pub precision: Precision,
    /// What a GPU's memory is used for.
    pub gpu_memory: GpuMemory,
    /// The folder in which kernels compiled for a GPU are kept, so that they are compiled once.
    pub kernels: Option<PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::default(),
            n_threads: std::thread::available_parallelism().map_or(1, usize::from),
            precision: Precision::default(),
            gpu_memory: GpuMemory::default(),
            kernels: None,
        }
    }
}

/// Something of the processor's, or of a GPU's.
#[derive(Clone, Copy, Debug)]
pub enum Either<C, G> {
    /// The processor's.
    Cpu(C),
    /// A GPU's.
    Cuda(G),
}

/// The processor, or a GPU.
pub type AnyBackend = Either<CpuBackend, CudaBackend>;
/// Activations.
pub type AnyBuffer = Either<Vec<f32>, CudaBuffer>;
/// A weight matrix.
pub type AnyWeight = Either<Matrix, CudaWeight>;
/// A page of sinks or window.
pub type AnyPage = Either<HostBytes, CudaPage>;

impl<C, G> Either<C, G> {
    fn cpu(&self) -> &C {
        match self {
            Self::Cpu(of) => of,
            Self::Cuda(_) => another_device(),
        }
    }

    fn cpu_mut(&mut self) -> &mut C {
        match self {
            Self::Cpu(of) => of,
            Self::Cuda(_) => another_device(),
        }
    }

    fn cuda(&self) -> &G {
        match self {
            Self::Cuda(of) => of,
            Self::Cpu(_) => another_device(),
        }
    }

    fn cuda_mut(&mut self) -> &mut G {
        match self {
            Self::Cuda(of) => of,
            Self::Cpu(_) => another_device(),
        }
    }
}

fn another_device() -> ! {
    unreachable!("all that is computed with is of the engine's own device")
}

impl AnyBackend {
    /// The device of `options`, and why it is not the GPU, where one would have been welcome.
    ///
    /// # Errors
    /// When a GPU is asked for and there is none to be used: what is missing, and how to get it.
    pub fn open(options: &EngineOptions) -> Result<(Self, Option<BackendError>), BackendError> {
        let EngineOptions { n_threads, precision, gpu_memory, .. } = *options;
        let sizes = (gpu_memory, n_threads);
        let cpu = || Self::Cpu(CpuBackend::new(n_threads, precision));
        let cuda = || CudaBackend::find(0, sizes, options.kernels.as_deref()).map(Self::Cuda);
        Ok(match options.device {
            DeviceChoice::Cpu => (cpu(), None),
            DeviceChoice::Cuda => (cuda()?, None),
            DeviceChoice::Auto => match cuda() {
                Ok(cuda) => (cuda, None),
                Err(error) => (cpu(), Some(error)),
            },
            DeviceChoice::Emulated => {
                let folder = options.kernels.clone();
                let folder = folder.unwrap_or_else(|| std::env::temp_dir().join("mneme-kernels"));
                (CudaBackend::emulated(&folder, sizes).map(Self::Cuda)?, None)
            }
        })
    }
}

/// A norm whose gain is `gain`.
fn norm_of<'a, B: Backend>(norm: &Norm<'_, AnyBackend>, gain: &'a B::Buffer) -> Norm<'a, B> {
    Norm { gain, epsilon: norm.epsilon, rows: norm.rows.clone() }
}

impl Backend for AnyBackend {
    type Buffer = AnyBuffer;
    type Weight = AnyWeight;
    type Page = AnyPage;

    fn description(&self) -> String {
        match self {
            Self::Cpu(backend) => backend.description(),
            Self::Cuda(backend) => backend.description(),
        }
    }

    fn check(&self) -> Result<(), BackendError> {
        match self {
            Self::Cpu(backend) => backend.check(),
            Self::Cuda(backend) => backend.check(),
        }
    }

    fn begin_pass(&self) {
        match self {
            Self::Cpu(backend) => backend.begin_pass(),
            Self::Cuda(backend) => backend.begin_pass(),
        }
    }

    fn plan_windows(
        &self,
        needs: &MemoryNeeds,
        window_bytes: Option<usize>,
    ) -> Result<Option<usize>, BackendError> {
        match self {
            Self::Cpu(backend) => backend.plan_windows(needs, window_bytes),
            Self::Cuda(backend) => backend.plan_windows(needs, window_bytes),
        }
    }

    fn prepare(&self, matrix: &Matrix) -> Result<AnyWeight, BackendError> {
        Ok(match self {
            Self::Cpu(backend) => Either::Cpu(backend.prepare(matrix)?),
            Self::Cuda(backend) => Either::Cuda(backend.prepare(matrix)?),
        })
    }

    fn buffer(&self, len: usize) -> Result<AnyBuffer, BackendError> {
        Ok(match self {
            Self::Cpu(backend) => Either::Cpu(backend.buffer(len)?),
            Self::Cuda(backend) => Either::Cuda(backend.buffer(len)?),
        })
    }

    fn upload(&self, values: &[f32]) -> Result<AnyBuffer, BackendError> {
        Ok(match self {
            Self::Cpu(backend) => Either::Cpu(backend.upload(values)?),
            Self::Cuda(backend) => Either::Cuda(backend.upload(values)?),
        })
    }

    fn page(&self, n_bytes: usize) -> Result<AnyPage, BackendError> {
        Ok(match self {
            Self::Cpu(backend) => Either::Cpu(backend.page(n_bytes)?),
            Self::Cuda(backend) => Either::Cuda(backend.page(n_bytes)?),
        })
    }

    fn copy_page(&self, page: &AnyPage) -> Result<AnyPage, BackendError> {
        Ok(match self {
            Self::Cpu(backend) => Either::Cpu(backend.copy_page(page.cpu())?),
            Self::Cuda(backend) => Either::Cuda(backend.copy_page(page.cuda())?),
        })
    }

    fn fill_page(&self, page: &mut AnyPage, bytes: &[u8]) {
        match self {
            Self::Cpu(backend) => backend.fill_page(page.cpu_mut(), bytes),
            Self::Cuda(backend) => backend.fill_page(page.cuda_mut(), bytes),
        }
    }

    fn page_bytes<'a>(&self, page: &'a AnyPage, room: &'a mut Vec<u32>) -> &'a [u8] {
        match self {
            Self::Cpu(backend) => backend.page_bytes(page.cpu(), room),
            Self::Cuda(backend) => backend.page_bytes(page.cuda(), room),
        }
    }

    fn copy_rows(
        &self,
        (from, rows): (&AnyBuffer, Range<usize>),
        (to, first): (&mut AnyBuffer, usize),
        width: usize,
    ) {
        match self {
            Self::Cpu(backend) => {
                backend.copy_rows((from.cpu(), rows), (to.cpu_mut(), first), width);
            }
            Self::Cuda(backend) => {
                backend.copy_rows((from.cuda(), rows), (to.cuda_mut(), first), width);
            }
        }
    }

    fn keep_rows(&self, buffer: &mut AnyBuffer, rows: Range<usize>, width: usize) {
        match self {
            Self::Cpu(backend) => backend.keep_rows(buffer.cpu_mut(), rows, width),
            Self::Cuda(backend) => backend.keep_rows(buffer.cuda_mut(), rows, width),
        }
    }

    fn download(&self, (buffer, first): (&AnyBuffer, usize), out: &mut [f32]) {
        match self {
            Self::Cpu(backend) => backend.download((buffer.cpu(), first), out),
            Self::Cuda(backend) => backend.download((buffer.cuda(), first), out),
        }
    }

    fn embed(&self, table: &AnyWeight, tokens: &[TokenId], out: &mut AnyBuffer) {
        match self {
            Self::Cpu(backend) => backend.embed(table.cpu(), tokens, out.cpu_mut()),
            Self::Cuda(backend) => backend.embed(table.cuda(), tokens, out.cuda_mut()),
        }
    }

    fn rms_norm(&self, x: &AnyBuffer, norm: Norm<'_, Self>, out: &mut AnyBuffer) {
        match self {
            Self::Cpu(backend) => {
                backend.rms_norm(x.cpu(), norm_of(&norm, norm.gain.cpu()), out.cpu_mut());
            }
            Self::Cuda(backend) => {
                backend.rms_norm(x.cuda(), norm_of(&norm, norm.gain.cuda()), out.cuda_mut());
            }
        }
    }

    fn project(
        &self,
        input: &AnyBuffer,
        n_tokens: usize,
        outputs: &mut [Projection<'_, Self>],
        write: Write,
    ) {
        match self {
            Self::Cpu(backend) => {
                let mut outputs: Vec<_> = outputs
                    .iter_mut()
                    .map(|Projection { weight, out }| Projection {
                        weight: weight.cpu(),
                        out: out.cpu_mut(),
                    })
                    .collect();
                backend.project(input.cpu(), n_tokens, &mut outputs, write);
            }
            Self::Cuda(backend) => {
                let mut outputs: Vec<_> = outputs
                    .iter_mut()
                    .map(|Projection { weight, out }| Projection {
                        weight: weight.cuda(),
                        out: out.cuda_mut(),
                    })
                    .collect();
                backend.project(input.cuda(), n_tokens, &mut outputs, write);
            }
        }
    }

    fn expect(&self, weight: &AnyWeight) {
        match self {
            Self::Cpu(backend) => backend.expect(weight.cpu()),
            Self::Cuda(backend) => backend.expect(weight.cuda()),
        }
    }

    fn add_bias(&self, x: &mut AnyBuffer, bias: &AnyBuffer, n_rows: usize) {
        match self {
            Self::Cpu(backend) => backend.add_bias(x.cpu_mut(), bias.cpu(), n_rows),
            Self::Cuda(backend) => backend.add_bias(x.cuda_mut(), bias.cuda(), n_rows),
        }
    }

    fn norm_heads(&self, x: &mut AnyBuffer, norm: Norm<'_, Self>) {
        match self {
            Self::Cpu(backend) => backend.norm_heads(x.cpu_mut(), norm_of(&norm, norm.gain.cpu())),
            Self::Cuda(backend) => {
                backend.norm_heads(x.cuda_mut(), norm_of(&norm, norm.gain.cuda()));
            }
        }
    }

    fn split_pairs(&self, x: &mut AnyBuffer, n_rows: usize, heads: HeadShape) {
        match self {
            Self::Cpu(backend) => backend.split_pairs(x.cpu_mut(), n_rows, heads),
            Self::Cuda(backend) => backend.split_pairs(x.cuda_mut(), n_rows, heads),
        }
    }

    fn swiglu(&self, gate: &mut AnyBuffer, up: &AnyBuffer, len: usize) {
        match self {
            Self::Cpu(backend) => backend.swiglu(gate.cpu_mut(), up.cpu(), len),
            Self::Cuda(backend) => backend.swiglu(gate.cuda_mut(), up.cuda(), len),
        }
    }

    fn share_out(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        match self {
            Self::Cpu(backend) => backend.share_out(n, task),
            Self::Cuda(backend) => backend.share_out(n, task),
        }
    }

    fn write_pages(
        &self,
        targets: &mut [PageTarget<'_, AnyPage>],
        keys: &AnyBuffer,
        values: &AnyBuffer,
    ) {
        match self {
            Self::Cpu(backend) => {
                let mut targets = targets_of(targets, AnyPage::cpu_mut);
                backend.write_pages(&mut targets, keys.cpu(), values.cpu());
            }
            Self::Cuda(backend) => {
                let mut targets = targets_of(targets, AnyPage::cuda_mut);
                backend.write_pages(&mut targets, keys.cuda(), values.cuda());
            }
        }
    }

    fn pack_page(&self, layout: PageLayout, page: &[u8], kv_type: KvType, out: &mut [u8]) {
        match self {
            Self::Cpu(backend) => backend.pack_page(layout, page, kv_type, out),
            Self::Cuda(backend) => backend.pack_page(layout, page, kv_type, out),
        }
    }

    fn attend(
        &self,
        steps: &mut [AttendStep<'_, AnyPage>],
        queries: &AnyBuffer,
        out: &mut AnyBuffer,
    ) {
        match self {
            Self::Cpu(backend) => with_steps(steps, AnyPage::cpu, |steps| {
                backend.attend(steps, queries.cpu(), out.cpu_mut());
            }),
            Self::Cuda(backend) => with_steps(steps, AnyPage::cuda, |steps| {
                backend.attend(steps, queries.cuda(), out.cuda_mut());
            }),
        }
    }

    fn prepare_lookup(&self, step: LookupStep<'_>, queries: &AnyBuffer, out: &mut LookupQueries) {
        match self {
            Self::Cpu(backend) => backend.prepare_lookup(step, queries.cpu(), out),
            Self::Cuda(backend) => backend.prepare_lookup(step, queries.cuda(), out),
        }
    }

    fn draws(&self) -> bool {
        match self {
            Self::Cpu(backend) => backend.draws(),
            Self::Cuda(backend) => backend.draws(),
        }
    }

    fn draw(
        &self,
        (logits, vocab): (&mut AnyBuffer, usize),
        draws: &[RowDraw<'_>],
        tokens: &mut Vec<TokenId>,
    ) -> bool {
        match self {
            Self::Cpu(backend) => backend.draw((logits.cpu_mut(), vocab), draws, tokens),
            Self::Cuda(backend) => backend.draw((logits.cuda_mut(), vocab), draws, tokens),
        }
    }

    fn look_up(
        &self,
        step: LookupStep<'_>,
        queries: &AnyBuffer,
        index: (NamedBlocks<'_>, usize),
        (bring, votes): (&mut BringFn<'_>, &mut Vec<f32>),
    ) -> bool {
        match self {
            Self::Cpu(backend) => backend.look_up(step, queries.cpu(), index, (bring, votes)),
            Self::Cuda(backend) => backend.look_up(step, queries.cuda(), index, (bring, votes)),
        }
    }

    fn vote_by_segments(&self, queries: &LookupQueries, index: BlocksView<'_>, votes: &mut [f32]) {
        match self {
            Self::Cpu(backend) => backend.vote_by_segments(queries, index, votes),
            Self::Cuda(backend) => backend.vote_by_segments(queries, index, votes),
        }
    }

    fn score_segments(
        &self,
        queries: &LookupQueries,
        runs: &[SegmentRun<'_>],
        scores: &mut Vec<f32>,
    ) {
        match self {
            Self::Cpu(backend) => backend.score_segments(queries, runs, scores),
            Self::Cuda(backend) => backend.score_segments(queries, runs, scores),
        }
    }

    fn vote_by_lists(
        &self,
        queries: &LookupQueries,
        lists: ListedSegments<'_>,
        votes: &mut CoarseVotes,
    ) {
        match self {
            Self::Cpu(backend) => backend.vote_by_lists(queries, lists, votes),
            Self::Cuda(backend) => backend.vote_by_lists(queries, lists, votes),
        }
    }

    fn vote_by_keys(&self, queries: &LookupQueries, candidates: Candidates<'_>, votes: &mut [f32]) {
        match self {
            Self::Cpu(backend) => backend.vote_by_keys(queries, candidates, votes),
            Self::Cuda(backend) => backend.vote_by_keys(queries, candidates, votes),
        }
    }
}
