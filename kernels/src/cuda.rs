//! How do kernels get to a GPU? Through the driver, which is looked for when the program runs. One
//! context, one stream: launches and copies happen in the order in which they are asked for.

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError, result,
    sys,
};
use cudarc::nvrtc::Ptx;

use crate::compile::{Capability, Compiler, Target};
use crate::cublas::{Cublas, Place};
use crate::device::{Device, DeviceBuffer, DevicePointer, Geometry, HalfProduct};
use crate::error::DeviceError;
use crate::source::ProgramSource;

/// Shared memory that a launch gets without asking for more.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

/// What cuBLASLt may take for what its kernels pass on: what NVIDIA recommends for Hopper.
const CUBLAS_BYTES: usize = 32 << 20;

/// A GPU.
pub struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    compiler: Compiler,
    capability: Capability,
    n_multiprocessors: usize,
    /// The library and what it passes on, where it is there; or why it is of no use.
    cublas: Result<Option<(Cublas, CudaSlice<u8>)>, String>,
    modules: Mutex<HashMap<ProgramSource, Arc<CudaProgram>>>,
}

/// What the driver says of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its compute capability, major and minor.
    pub capability: (i32, i32),
    /// Its memory.
    pub n_bytes: usize,
}

impl Gpu {
    fn ask(ordinal: i32) -> Result<Self, DeviceError> {
        let device = result::device::get(ordinal).map_err(failed("find the GPU"))?;
        let name = result::device::get_name(device).map_err(failed("ask for the GPU's name"))?;
        let attribute = |attribute| {
            // SAFETY: the driver gave the device's number above.
            let asked = unsafe { result::device::get_attribute(device, attribute) };
            asked.map_err(failed("ask for the GPU's kind"))
        };
        let capability = (
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        // SAFETY: as above.
        let n_bytes = unsafe { result::device::total_mem(device) };
        let n_bytes = n_bytes.map_err(failed("ask for the GPU's memory"))?;
        Ok(Self { name, capability, n_bytes })
    }
}

/// A module on the GPU, and its kernels by their names.
pub struct CudaProgram {
    module: Arc<CudaModule>,
    kernels: Mutex<HashMap<&'static str, CudaFunction>>,
}

/// Bytes in a GPU's memory.
pub struct CudaBuffer {
    bytes: CudaSlice<u8>,
    stream: Arc<CudaStream>,
}

impl Cuda {
    /// GPU number `ordinal`; compiled kernels are kept in `kernels`.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, no compiler, or one of them is too old: what is
    /// missing, and how to get it.
    pub fn find(ordinal: usize, kernels: Option<&Path>) -> Result<Self, DeviceError> {
        let driver = Self::driver_version()?;
        let n_gpus = CudaContext::device_count().map_err(failed("count GPUs"))?;
        if ordinal >= n_gpus as usize {
            return Err(DeviceError::NoDevice(format!(
                "there is no GPU {ordinal}: the driver knows {n_gpus}, numbered from 0"
            )));
        }
        let context = CudaContext::new(ordinal).map_err(failed("open the GPU"))?;
        let (major, minor) =
            context.compute_capability().map_err(failed("ask for the GPU's kind"))?;
        let capability = Capability { major: major as u32, minor: minor as u32 };
        if capability < Capability::LEAST {
            let name = context.name().map_err(failed("ask for the GPU's name"))?;
            return Err(DeviceError::NoDevice(format!(
                "{name} has compute capability {major}.{minor}; the kernels are for 8.0 and later"
            )));
        }
        let compiler = Compiler::find(kernels)?;
        if compiler.version().0 > driver.0 {
            let ((major, minor), (driver_major, driver_minor)) = (compiler.version(), driver);
            return Err(DeviceError::NoCompiler(format!(
                "NVRTC {major}.{minor} is newer than the driver, which takes CUDA \
                 {driver_major}.{driver_minor} at most: install NVRTC {driver_major} or a newer \
                 driver"
            )));
        }
        let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let n_multiprocessors =
            context.attribute(count).map_err(failed("ask for the GPU's size"))?;
        let stream = context.new_stream().map_err(failed("make a stream"))?;
        let with_workspace = |cublas: Cublas| {
            // SAFETY: only the library reads it, and what it wrote there before.
            let workspace = unsafe { stream.alloc::<u8>(CUBLAS_BYTES) };
            Ok((cublas, workspace.map_err(failed("allocate memory for cuBLASLt"))?))
        };
        // A GPU is of use without it: our own kernel multiplies, and it is told why.
        let cublas = Cublas::find().and_then(|cublas| cublas.map(with_workspace).transpose());
        let cublas = cublas.map_err(|error: DeviceError| error.to_string());
        Ok(Self {
            context,
            stream,
            compiler,
            capability,
            n_multiprocessors: n_multiprocessors as usize,
            cublas,
            modules: Mutex::default(),
        })
    }

    /// The latest CUDA that the driver takes, major and minor.
    ///
    /// # Errors
    /// When there is no driver, or it does not start.
    pub fn driver_version() -> Result<(i32, i32), DeviceError> {
        // SAFETY: loading the driver's library runs nothing but its own constructors.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::NoDevice(
                "no NVIDIA driver was found (libcuda.so): install it, or mount it into the \
                 container"
                    .to_owned(),
            ));
        }
        result::init().map_err(failed("start the driver"))?;
        let mut version = 0;
        // SAFETY: it points to a number that lives until the call returns.
        let asked = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
        asked.map_err(failed("ask for the driver's version"))?;
        Ok((version / 1000, version % 1000 / 10))
    }

    /// The GPUs that the driver shows, in its order; none of them is opened.
    ///
    /// # Errors
    /// When there is no driver, or it does not answer.
    pub fn gpus() -> Result<Vec<Gpu>, DeviceError> {
        Self::driver_version()?;
        let count = result::device::get_count().map_err(failed("count GPUs"))?;
        (0..count).map(Gpu::ask).collect()
    }

    /// The version of cuBLASLt, which multiplies many rows where it is there; else our kernel does.
    ///
    /// # Errors
    /// When it is not there: how to get it.
    pub fn library_version() -> Result<String, DeviceError> {
        match Cublas::version() {
            0 => Err(DeviceError::NoDevice(
                "no cuBLASLt was found (libcublasLt.so): install CUDA's libraries, or the Python \
                 package nvidia-cublas and its folder in LD_LIBRARY_PATH; without it many rows are \
                 multiplied by a kernel of our own"
                    .to_owned(),
            )),
            version => Ok(format!("{}.{}", version / 10_000, version / 100 % 100)),
        }
    }

    /// Bytes of the GPU's memory that are free, and all of them.
    ///
    /// # Errors
    /// When the GPU does not answer.
    pub fn memory(&self) -> Result<(usize, usize), DeviceError> {
        self.context.bind_to_thread().map_err(failed("open the GPU"))?;
        result::mem_get_info().map_err(failed("ask for the GPU's memory"))
    }

    /// The compiler in use.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// Waits until all that was asked for is done.
    ///
    /// # Errors
    /// When something of it failed.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.stream.synchronize().map_err(failed("run kernels"))
    }
}

impl Device for Cuda {
    type Buffer = CudaBuffer;
    type Program = Arc<CudaProgram>;

    fn description(&self) -> String {
        let name = self.context.name().unwrap_or_else(|_| "a GPU".to_owned());
        let Capability { major, minor } = self.capability;
        let (nvrtc_major, nvrtc_minor) = self.compiler.version();
        format!("{name} (compute capability {major}.{minor}, NVRTC {nvrtc_major}.{nvrtc_minor})")
    }

    fn n_multiprocessors(&self) -> usize {
        self.n_multiprocessors
    }

    fn free_bytes(&self) -> Option<usize> {
        self.memory().ok().map(|(free, _)| free)
    }

    fn allocate(&self, n_bytes: usize) -> Result<CudaBuffer, DeviceError> {
        // SAFETY: bytes of undefined content are what is asked for; who reads them has to write
        // them first.
        let bytes = unsafe { self.stream.alloc::<u8>(n_bytes.max(1)) };
        let bytes = bytes.map_err(|error| {
            if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
                let (free_bytes, total_bytes) = self.memory().unwrap_or_default();
                return DeviceError::OutOfMemory { n_bytes, free_bytes, total_bytes };
            }
            failed("allocate memory")(error)
        })?;
        Ok(CudaBuffer { bytes, stream: Arc::clone(&self.stream) })
    }

    fn write(&self, to: &mut CudaBuffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        let range = to.range(at, bytes.len())?;
        if range.is_empty() {
            return Ok(());
        }
        let mut target = to.bytes.slice_mut(range);
        self.stream.memcpy_htod(bytes, &mut target).map_err(failed("copy to the GPU"))
    }

    fn read(&self, from: &CudaBuffer, at: usize, out: &mut [u8]) -> Result<(), DeviceError> {
        let range = from.range(at, out.len())?;
        if range.is_empty() {
            return Ok(());
        }
        self.stream
            .memcpy_dtoh(&from.bytes.slice(range), out)
            .and_then(|()| self.stream.synchronize())
            .map_err(failed("copy from the GPU"))
    }

    fn copy(
        &self,
        (from, at): (&CudaBuffer, usize),
        (to, to_at): (&mut CudaBuffer, usize),
        n_bytes: usize,
    ) -> Result<(), DeviceError> {
        let (from_range, to_range) = (from.range(at, n_bytes)?, to.range(to_at, n_bytes)?);
        if n_bytes == 0 {
            return Ok(());
        }
        let mut target = to.bytes.slice_mut(to_range);
        let copied = self.stream.memcpy_dtod(&from.bytes.slice(from_range), &mut target);
        copied.map_err(failed("copy on the GPU"))
    }

    fn program(&self, source: &ProgramSource) -> Result<Arc<CudaProgram>, DeviceError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = modules.get(source) {
            return Ok(Arc::clone(program));
        }
        let compiled = self.compiler.compile(source, Target::Cubin(self.capability))?;
        let module = self.context.load_module(Ptx::from_binary(compiled.code));
        let module = module.map_err(failed("load kernels"))?;
        let program = Arc::new(CudaProgram { module, kernels: Mutex::default() });
        modules.insert(source.clone(), Arc::clone(&program));
        Ok(program)
    }

    unsafe fn launch(
        &self,
        program: &Arc<CudaProgram>,
        kernel: &'static str,
        geometry: Geometry,
        params: &[u8],
    ) -> Result<(), DeviceError> {
        let function = program.kernel(kernel)?;
        let Geometry { grid, block, shared_bytes } = geometry;
        if shared_bytes > PLAIN_SHARED_BYTES {
            let most =
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function
                .set_attribute(most, shared_bytes as i32)
                .map_err(failed("ask for shared memory"))?;
        }
        self.context.bind_to_thread().map_err(failed("open the GPU"))?;
        let mut args = [params.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the function is of a module that `program` keeps; the driver reads as many bytes
        // of the parameters as the kernel takes, before the call returns. The rest is the caller's
        // promise.
        let launched = unsafe {
            result::launch_kernel(
                function.cu_function(),
                grid.into(),
                block.into(),
                shared_bytes,
                self.stream.cu_stream(),
                &mut args,
            )
        };
        launched.map_err(failed(format!("launch {kernel}")))
    }

    unsafe fn multiply_halves(&self, product: &HalfProduct) -> Result<bool, DeviceError> {
        let (cublas, workspace) = match &self.cublas {
            Ok(Some(cublas)) => (&cublas.0, &cublas.1),
            Ok(None) => return Ok(false),
            Err(why) => return Err(DeviceError::NoDevice(why.clone())),
        };
        self.context.bind_to_thread().map_err(failed("open the GPU"))?;
        let place = Place {
            stream: self.stream.cu_stream().cast(),
            workspace: workspace.device_ptr(&self.stream).0,
            workspace_bytes: workspace.len(),
        };
        // SAFETY: the caller's promise, handed on; the workspace is this device's, whose stream does
        // one thing after another.
        unsafe { cublas.multiply(product, place) }
    }
}

impl CudaProgram {
    fn kernel(&self, name: &'static str) -> Result<CudaFunction, DeviceError> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = kernels.get(name) {
            return Ok(kernel.clone());
        }
        let kernel = self.module.load_function(name).map_err(failed(format!("find {name}")))?;
        kernels.insert(name, kernel.clone());
        Ok(kernel)
    }
}

impl DeviceBuffer for CudaBuffer {
    fn pointer(&self) -> DevicePointer {
        DevicePointer(self.bytes.device_ptr(&self.stream).0)
    }

    fn n_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl CudaBuffer {
    fn range(&self, at: usize, n_bytes: usize) -> Result<std::ops::Range<usize>, DeviceError> {
        match at.checked_add(n_bytes) {
            Some(end) if end <= self.bytes.len() => Ok(at..end),
            _ => Err(DeviceError::OutOfBounds { at, n_bytes, len: self.bytes.len() }),
        }
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(DriverError) -> DeviceError {
    let what = what.into();
    move |error| DeviceError::Driver { what, error: error.to_string() }
}
