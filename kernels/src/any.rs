//! Which device is it? Found when the program runs: a GPU, or the host emulation of one.

use std::sync::Arc;

use crate::budget::{Budget, Share};
use crate::cuda::{Cuda, CudaBuffer, CudaProgram};
use crate::device::{Device, DeviceBuffer, DevicePointer, Geometry, HalfProduct};
use crate::emulated::{Emulated, EmulatedBuffer, EmulatedProgram};
use crate::error::DeviceError;
use crate::source::ProgramSource;

/// Either device, so that whoever uses one is written once, and how much of its memory is to be used.
pub struct AnyDevice {
    kind: Kind,
    budget: Arc<Budget>,
}

enum Kind {
    Emulated(Emulated),
    Cuda(Box<Cuda>),
}

/// Its memory.
pub struct AnyBuffer {
    bytes: Bytes,
    _share: Share, // given back after them
}

enum Bytes {
    Emulated(EmulatedBuffer),
    Cuda(CudaBuffer),
}

impl From<Emulated> for AnyDevice {
    fn from(device: Emulated) -> Self {
        Self { kind: Kind::Emulated(device), budget: Budget::unlimited() }
    }
}

impl From<Cuda> for AnyDevice {
    fn from(device: Cuda) -> Self {
        Self { kind: Kind::Cuda(Box::new(device)), budget: Budget::unlimited() }
    }
}

impl AnyDevice {
    /// The emulation, where it is one.
    pub fn emulation(&self) -> Option<&Emulated> {
        match &self.kind {
            Kind::Emulated(device) => Some(device),
            Kind::Cuda(_) => None,
        }
    }

    /// From now on its buffers may take `n_bytes` together; those that are there stay.
    pub fn set_budget(&self, n_bytes: usize) {
        self.budget.set_limit(n_bytes);
    }

    /// Bytes that its buffers take.
    pub fn taken_bytes(&self) -> usize {
        self.budget.taken()
    }
}

/// Its programs.
pub enum AnyProgram {
    /// Of the emulation.
    Emulated(EmulatedProgram),
    /// Of a GPU.
    Cuda(Arc<CudaProgram>),
}

impl Device for AnyDevice {
    type Buffer = AnyBuffer;
    type Program = AnyProgram;

    fn description(&self) -> String {
        match &self.kind {
            Kind::Emulated(device) => device.description(),
            Kind::Cuda(device) => device.description(),
        }
    }

    fn n_multiprocessors(&self) -> usize {
        match &self.kind {
            Kind::Emulated(device) => device.n_multiprocessors(),
            Kind::Cuda(device) => device.n_multiprocessors(),
        }
    }

    fn free_bytes(&self) -> Option<usize> {
        let free = match &self.kind {
            Kind::Emulated(device) => device.free_bytes(),
            Kind::Cuda(device) => device.free_bytes(),
        };
        [free, self.budget.left()].into_iter().flatten().min()
    }

    fn allocate(&self, n_bytes: usize) -> Result<AnyBuffer, DeviceError> {
        let _share = self.budget.take(n_bytes)?;
        let bytes = match &self.kind {
            Kind::Emulated(device) => Bytes::Emulated(device.allocate(n_bytes)?),
            Kind::Cuda(device) => Bytes::Cuda(device.allocate(n_bytes)?),
        };
        Ok(AnyBuffer { bytes, _share })
    }

    fn write(&self, to: &mut AnyBuffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        match (&self.kind, &mut to.bytes) {
            (Kind::Emulated(device), Bytes::Emulated(to)) => device.write(to, at, bytes),
            (Kind::Cuda(device), Bytes::Cuda(to)) => device.write(to, at, bytes),
            _ => panic!("a buffer of another device"),
        }
    }

    fn read(&self, from: &AnyBuffer, at: usize, out: &mut [u8]) -> Result<(), DeviceError> {
        match (&self.kind, &from.bytes) {
            (Kind::Emulated(device), Bytes::Emulated(from)) => device.read(from, at, out),
            (Kind::Cuda(device), Bytes::Cuda(from)) => device.read(from, at, out),
            _ => panic!("a buffer of another device"),
        }
    }

    fn copy(
        &self,
        (from, at): (&AnyBuffer, usize),
        (to, to_at): (&mut AnyBuffer, usize),
        n_bytes: usize,
    ) -> Result<(), DeviceError> {
        match (&self.kind, &from.bytes, &mut to.bytes) {
            (Kind::Emulated(device), Bytes::Emulated(from), Bytes::Emulated(to)) => {
                device.copy((from, at), (to, to_at), n_bytes)
            }
            (Kind::Cuda(device), Bytes::Cuda(from), Bytes::Cuda(to)) => {
                device.copy((from, at), (to, to_at), n_bytes)
            }
            _ => panic!("a buffer of another device"),
        }
    }

    fn program(&self, source: &ProgramSource) -> Result<AnyProgram, DeviceError> {
        Ok(match &self.kind {
            Kind::Emulated(device) => AnyProgram::Emulated(device.program(source)?),
            Kind::Cuda(device) => AnyProgram::Cuda(device.program(source)?),
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
            match (&self.kind, program) {
                (Kind::Emulated(device), AnyProgram::Emulated(program)) => {
                    device.launch(program, kernel, geometry, params)
                }
                (Kind::Cuda(device), AnyProgram::Cuda(program)) => {
                    device.launch(program, kernel, geometry, params)
                }
                _ => panic!("a program of another device"),
            }
        }
    }

    unsafe fn multiply_halves(&self, product: &HalfProduct) -> Result<bool, DeviceError> {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            match &self.kind {
                Kind::Emulated(device) => device.multiply_halves(product),
                Kind::Cuda(device) => device.multiply_halves(product),
            }
        }
    }
}

impl DeviceBuffer for AnyBuffer {
    fn pointer(&self) -> DevicePointer {
        match &self.bytes {
            Bytes::Emulated(buffer) => buffer.pointer(),
            Bytes::Cuda(buffer) => buffer.pointer(),
        }
    }

    fn n_bytes(&self) -> usize {
        match &self.bytes {
            Bytes::Emulated(buffer) => buffer.n_bytes(),
            Bytes::Cuda(buffer) => buffer.n_bytes(),
        }
    }
}
