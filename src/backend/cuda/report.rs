//! Is there a GPU to compute on, and if not, what is missing?

use kernels::{AnyDevice, Array, Compiler, Cuda, RowKernels};

use super::gpu::failed;
use super::{CudaBackend, GpuMemory};
use crate::backend::BackendError;

/// What was found of a GPU and what it needs.
#[derive(Debug)]
pub struct GpuReport {
    /// The latest CUDA that the driver takes, or why there is no driver.
    pub driver: Result<(i32, i32), BackendError>,
    /// The version of NVRTC, which compiles the kernels, or why there is none.
    pub compiler: Result<(i32, i32), BackendError>,
    /// The version of cuBLASLt, which multiplies many rows, or why a kernel of our own does.
    pub library: Result<String, BackendError>,
    /// The GPUs that the driver shows.
    pub gpus: Vec<GpuFound>,
    /// The first of them, when a kernel has run on it and computed what it should, or why none has.
    pub usable: Result<String, BackendError>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuFound {
    /// Its name.
    pub name: String,
    /// Its compute capability, major and minor.
    pub capability: (i32, i32),
    /// Its memory.
    pub n_bytes: usize,
}

impl GpuReport {
    /// Looks for all of it, and tries a kernel.
    pub fn new() -> Self {
        let found = |gpu: kernels::Gpu| GpuFound {
            name: gpu.name,
            capability: gpu.capability,
            n_bytes: gpu.n_bytes,
        };
        Self {
            driver: Cuda::driver_version().map_err(failed),
            compiler: Compiler::find(None).map(|compiler| compiler.version()).map_err(failed),
            library: Cuda::library_version().map_err(failed),
            gpus: Cuda::gpus().unwrap_or_default().into_iter().map(found).collect(),
            usable: CudaBackend::find(0, (GpuMemory::default(), 1), None).and_then(|gpu| {
                gpu.try_kernel()?;
                Ok(gpu.device_name())
            }),
        }
    }
}

impl Default for GpuReport {
    fn default() -> Self {
        Self::new()
    }
}

impl CudaBackend {
    /// What the device is.
    fn device_name(&self) -> String {
        kernels::Device::description(&self.device)
    }

    /// Runs a kernel and looks at what it has computed.
    ///
    /// # Errors
    /// When it does not run, or computes something else.
    pub fn try_kernel(&self) -> Result<(), BackendError> {
        let norm = |device: &AnyDevice| {
            let x: Vec<f32> = (0..1000).map(|i| (i % 7) as f32 - 3.0).collect();
            let mut out = Array::of(device, &vec![f32::NAN; x.len()])?;
            let (gain, on_device) = (Array::of(device, &[2.0; 100])?, Array::of(device, &x)?);
            RowKernels::new(device)?.norm_rows(
                device,
                (&on_device, 0..10),
                (&gain, 1e-5),
                &mut out,
            )?;
            Ok((x, out.to_vec(device)?))
        };
        let (x, out) = norm(&self.device).map_err(failed)?;
        let is_right = x.chunks(100).zip(out.chunks(100)).all(|(x, out)| {
            let expected = kernels::naive::rms_norm(x, &[2.0; 100], 1e-5);
            out.iter().zip(expected).all(|(out, expected)| (out - expected).abs() < 1e-4)
        });
        match is_right {
            true => Ok(()),
            false => Err(BackendError::Device {
                what: "a kernel ran and computed something else than it should; try a newer driver"
                    .to_owned(),
            }),
        }
    }
}
