//! On which devices does a test run? In the host emulation, with its threads in two orders;
//! with `MNEME_TEST_DEVICE=cuda` on a GPU, which fails where there is none.

use std::path::Path;

use kernels::{
    Cuda, Device, DeviceBuffer, DeviceError, DevicePointer, Emulated, Geometry, ProgramSource,
    ThreadOrder,
};

/// Either device, so that a test is one body.
pub enum AnyDevice {
    Emulated(Emulated),
    Cuda(Cuda),
}

pub enum AnyBuffer {
    Emulated(<Emulated as Device>::Buffer),
    Cuda(<Cuda as Device>::Buffer),
}

pub enum AnyProgram {
    Emulated(<Emulated as Device>::Program),
    Cuda(<Cuda as Device>::Program),
}

impl Device for AnyDevice {
    type Buffer = AnyBuffer;
    type Program = AnyProgram;

    fn description(&self) -> String {
        match self {
            Self::Emulated(device) => device.description(),
            Self::Cuda(device) => device.description(),
        }
    }

    fn n_multiprocessors(&self) -> usize {
        match self {
            Self::Emulated(device) => device.n_multiprocessors(),
            Self::Cuda(device) => device.n_multiprocessors(),
        }
    }

    fn allocate(&self, n_bytes: usize) -> Result<AnyBuffer, DeviceError> {
        Ok(match self {
            Self::Emulated(device) => AnyBuffer::Emulated(device.allocate(n_bytes)?),
            Self::Cuda(device) => AnyBuffer::Cuda(device.allocate(n_bytes)?),
        })
    }

    fn write(&self, to: &mut AnyBuffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        match (self, to) {
            (Self::Emulated(device), AnyBuffer::Emulated(to)) => device.write(to, at, bytes),
            (Self::Cuda(device), AnyBuffer::Cuda(to)) => device.write(to, at, bytes),
            _ => panic!("a buffer of another device"),
        }
    }

    fn read(&self, from: &AnyBuffer, at: usize, out: &mut [u8]) -> Result<(), DeviceError> {
        match (self, from) {
            (Self::Emulated(device), AnyBuffer::Emulated(from)) => device.read(from, at, out),
            (Self::Cuda(device), AnyBuffer::Cuda(from)) => device.read(from, at, out),
            _ => panic!("a buffer of another device"),
        }
    }

    fn program(&self, source: &ProgramSource) -> Result<AnyProgram, DeviceError> {
        Ok(match self {
            Self::Emulated(device) => AnyProgram::Emulated(device.program(source)?),
            Self::Cuda(device) => AnyProgram::Cuda(device.program(source)?),
        })
    }

    unsafe fn launch(
        &self,
        program: &AnyProgram,
        kernel: &'static str,
        geometry: Geometry,
        params: &[u8],
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            match (self, program) {
                (Self::Emulated(device), AnyProgram::Emulated(program)) => {
                    device.launch(program, kernel, geometry, params)
                }
                (Self::Cuda(device), AnyProgram::Cuda(program)) => {
                    device.launch(program, kernel, geometry, params)
                }
                _ => panic!("a program of another device"),
            }
        }
    }
}

impl DeviceBuffer for AnyBuffer {
    fn pointer(&self) -> DevicePointer {
        match self {
            Self::Emulated(buffer) => buffer.pointer(),
            Self::Cuda(buffer) => buffer.pointer(),
        }
    }

    fn n_bytes(&self) -> usize {
        match self {
            Self::Emulated(buffer) => buffer.n_bytes(),
            Self::Cuda(buffer) => buffer.n_bytes(),
        }
    }
}

/// Runs `body` on the device; what it returns must be the same bits in every order of threads.
pub fn on_devices<R: PartialEq + std::fmt::Debug>(body: impl Fn(&AnyDevice) -> R) -> R {
    if std::env::var_os("MNEME_TEST_DEVICE").is_some_and(|device| device == "cuda") {
        let device = AnyDevice::Cuda(Cuda::find(0, None).unwrap());
        let first = body(&device);
        assert!(body(&device) == first, "the result depends on the order of threads");
        return first;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    let device = AnyDevice::Emulated(Emulated::start(&folder).unwrap());
    let first = body(&device);
    let AnyDevice::Emulated(emulated) = &device else { unreachable!("it was made above") };
    emulated.set_order(ThreadOrder::Shuffled(7)); // and blocks backwards
    assert!(body(&device) == first, "the result depends on the order of threads");
    assert!(device.description().contains("emulation"));
    first
}

/// Reproducible numbers between -1 and 1.
pub fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

pub fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(actual.len(), expected.len());
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        let bound = tolerance * e.abs().max(1.0);
        assert!((a - e).abs() <= bound, "element {i}: {a} is not {e} within {bound}");
    }
}

#[test]
fn where_there_is_no_gpu_it_is_told_and_nothing_panics() {
    match Cuda::find(99, None) {
        Ok(_) => panic!("nobody has a hundred GPUs"),
        Err(error @ (DeviceError::NoDevice(_) | DeviceError::Driver { .. })) => {
            let told = error.to_string();
            assert!(told.contains("driver"), "{told}");
        }
        Err(error) => panic!("another error: {error}"),
    }
}
