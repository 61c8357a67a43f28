//! What does the backend hold of a GPU? The device, the kernels with what they keep from launch to launch,
//! room for units, and what went wrong first.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kernels::{
    AnyDevice, Cuda, DenseKernels, Device, DeviceError, DrawKernels, Emulated, Library,
    ProductKernels, RowKernels,
};

use super::index::DeviceIndex;
use super::paged::{Paged, StepError, sizes};
use super::plan::{GpuMemory, GpuUse, MemoryPlan};
use super::slots::SlotCounts;
use crate::backend::cpu::CpuBackend;
use crate::backend::{BackendError, MemoryNeeds, PageLayout, Precision};

/// A GPU.
pub struct CudaBackend {
    pub(super) device: AnyDevice,
    /// Looks up.
    pub(super) host: CpuBackend,
    /// What of the device's memory is for what.
    memory: GpuMemory,
    state: Mutex<State>,
    failure: Mutex<Option<Failure>>,
    has_warned: AtomicBool, // of a library that does not multiply
}

/// What went wrong first.
struct Failure {
    error: BackendError,
    was_told: bool,
}

/// Kernels, with what they keep from launch to launch.
pub(super) struct State {
    pub rows: RowKernels<AnyDevice>,
    pub products: ProductKernels<AnyDevice>,
    pub dense: DenseKernels<AnyDevice>,
    pub draws: DrawKernels<AnyDevice>,
    pub paged: Option<Paged>,
    pub index: Option<DeviceIndex>,
    plan: Option<MemoryPlan>,
    pub queries: Vec<f32>, // of a lookup, on the host
}

impl CudaBackend {
    /// GPU number `ordinal`, whose memory is for what `memory` says. `n_threads` of the host look up.
    /// Compiled kernels are kept in `kernels`.
    ///
    /// # Errors
    /// When there is no such GPU, or what it needs is missing: what, and how to get it.
    pub fn find(
        ordinal: usize,
        (memory, n_threads): (GpuMemory, usize),
        kernels: Option<&Path>,
    ) -> Result<Self, BackendError> {
        let cuda = Cuda::find(ordinal, kernels).map_err(failed)?;
        Self::on(cuda.into(), (memory, n_threads))
    }

    /// The host emulation of a GPU, which keeps what it compiles in `folder`: for tests.
    ///
    /// # Errors
    /// When there is no C++ compiler, or the folder is of no use.
    pub fn emulated(
        folder: &Path,
        (memory, n_threads): (GpuMemory, usize),
    ) -> Result<Self, BackendError> {
        let emulated = Emulated::start(folder).map_err(failed)?;
        Self::on(emulated.into(), (memory, n_threads))
    }

    fn on(
        device: AnyDevice,
        (memory, n_threads): (GpuMemory, usize),
    ) -> Result<Self, BackendError> {
        if let Some(n_bytes) = memory.total_bytes.or_else(|| device.free_bytes()) {
            device.set_budget(n_bytes);
        }
        let state = State {
            rows: RowKernels::new(&device).map_err(failed)?,
            products: ProductKernels::default(),
            dense: DenseKernels::default(),
            draws: DrawKernels::default(),
            paged: None,
            index: None,
            plan: None,
            queries: Vec::new(),
        };
        Ok(Self {
            device,
            host: CpuBackend::new(n_threads, Precision::Int16),
            memory,
            state: Mutex::new(state),
            failure: Mutex::default(),
            has_warned: AtomicBool::new(false),
        })
    }

    /// What computes.
    pub fn device(&self) -> &AnyDevice {
        &self.device
    }

    /// Which units were on the device when they were attended to, and which were not.
    pub fn unit_counts(&self) -> SlotCounts {
        self.state().paged.as_ref().map(Paged::counts).unwrap_or_default()
    }

    /// The same of blocks of the index; none where the host has looked up.
    pub fn block_counts(&self) -> SlotCounts {
        self.state().index.as_ref().map(DeviceIndex::counts).unwrap_or_default()
    }

    /// What the device's memory is used for, once a memory was made.
    pub fn usage(&self) -> Option<GpuUse> {
        let plan = self.state().plan?;
        let taken_bytes = self.device.taken_bytes();
        Some(GpuUse { plan, taken_bytes, units: self.unit_counts(), blocks: self.block_counts() })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong first, which is hereby told.
    pub(super) fn told(&self) -> Option<BackendError> {
        self.failure().as_mut().map(|failure| {
            failure.was_told = true;
            failure.error.clone()
        })
    }

    /// Forgets a failure that was told, if a smaller pass may do without.
    pub(super) fn forgive(&self) {
        let mut failure = self.failure();
        let lacks_room = |failure: &Failure| matches!(failure.error, BackendError::NoRoom { .. });
        if failure.as_ref().is_some_and(|failure| failure.was_told && lacks_room(failure)) {
            *failure = None;
        }
    }

    /// Says once in the log why the device's library does not multiply.
    pub(super) fn warn_of_library(&self, library: &Library) {
        if let Library::Refused(why) = library
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!("cuBLASLt is not used, a kernel of our own multiplies: {why}");
        }
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation, unless one has failed before.
    pub(super) fn run<E: Into<StepError>>(&self, begin: impl FnOnce(&mut State) -> Result<(), E>) {
        if self.failure().is_some() {
            return;
        }
        if let Err(error) = begin(&mut self.state()) {
            let error = match error.into() {
                StepError::Device(error) => failed(error),
                StepError::Backend(error) => error,
            };
            self.failure().get_or_insert(Failure { error, was_told: false }); // the first one counts
        }
    }

    /// The kernels for pages of `layout`, as `state` has them or made anew.
    pub(super) fn paged<'a>(
        &self,
        state: &'a mut State,
        layout: PageLayout,
    ) -> Result<&'a mut Paged, DeviceError> {
        let paged = match state.paged.take().filter(|paged| paged.is_for(layout)) {
            Some(paged) => paged,
            None => Paged::new(&self.device, layout, state.planned(|plan| plan.unit_bytes))?,
        };
        Ok(state.paged.insert(paged))
    }

    /// The index of units of `layout`, with blocks of so many bytes, as `state` has it or made anew.
    pub(super) fn index<'a>(
        &self,
        state: &'a mut State,
        (layout, block_bytes): (PageLayout, usize),
    ) -> Result<&'a mut DeviceIndex, DeviceError> {
        let sizes = sizes(layout);
        let index = match state.index.take().filter(|index| index.is_for(&sizes, block_bytes)) {
            Some(index) => index,
            None => {
                let bytes = (block_bytes, state.planned(|plan| plan.index_bytes));
                DeviceIndex::new(&self.device, sizes, bytes)?
            }
        };
        Ok(state.index.insert(index))
    }

    /// Makes room for the units of memories that need this, and for what stands for them.
    pub(super) fn make_room(
        &self,
        needs: &MemoryNeeds,
        window_bytes: Option<usize>,
    ) -> Result<MemoryPlan, BackendError> {
        let mut state = self.state();
        let state = &mut *state;
        let (layout, block_bytes) = (needs.layout, needs.index_bytes);
        let is_there = state.paged.as_ref().is_some_and(|paged| paged.is_for(layout))
            && match &state.index {
                Some(index) => block_bytes == 0 || index.is_for(&sizes(layout), block_bytes),
                None => block_bytes == 0,
            };
        if let (true, None, Some(plan)) = (is_there, window_bytes, state.plan) {
            // What is free by now is less by other texts' windows, which were planned for.
            return plan.check(needs).map(|()| plan);
        }
        if !is_there {
            // What was there for others makes room.
            (state.paged, state.index) = (None, None);
        }
        let taken = |bytes: Option<usize>| bytes.filter(|_| is_there);
        let unit_bytes = taken(state.paged.as_ref().map(Paged::unit_bytes));
        let index_bytes = taken(state.index.as_ref().map(DeviceIndex::n_bytes));
        let of_plan = unit_bytes.unwrap_or(0) + index_bytes.unwrap_or(0);
        let free = self.device.free_bytes().map(|free| free + of_plan);
        let stated = GpuMemory {
            unit_bytes: unit_bytes.or(self.memory.unit_bytes),
            index_bytes: index_bytes.or(self.memory.index_bytes),
            ..self.memory
        };
        let plan = MemoryPlan::new(free, (&stated, window_bytes), needs)?;
        state.plan = Some(plan);
        if !is_there {
            self.paged(state, layout).map_err(failed)?;
            if block_bytes > 0 {
                self.index(state, (layout, block_bytes)).map_err(failed)?;
            }
        }
        Ok(plan)
    }
}

impl State {
    /// Bytes that are planned for something: none where no memory has told its needs, since it has no
    /// units then.
    fn planned(&self, bytes: impl Fn(&MemoryPlan) -> usize) -> usize {
        self.plan.as_ref().map_or(0, bytes)
    }
}

/// A failure of the device, as the backend tells it.
pub(super) fn failed(error: DeviceError) -> BackendError {
    match error {
        DeviceError::OutOfMemory { n_bytes, free_bytes, total_bytes } => {
            BackendError::NoRoom { n_bytes, free_bytes, total_bytes }
        }
        error => BackendError::Device { what: error.to_string() },
    }
}
