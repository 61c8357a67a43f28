//! Which device is it? Found when the program runs: a GPU, or the host emulation of one.

use std::sync::Arc;

use crate::cuda::{Cuda, CudaBuffer, CudaProgram};
use crate::device::{Device, DeviceBuffer, DevicePointer, Geometry};
use crate::emulated::{Emulated, EmulatedBuffer, EmulatedProgram};
use crate::error::DeviceError;
use crate::source::ProgramSource;

/// Either device, so that whoever uses one is written once.
pub enum AnyDevice {
    /// The host emulation.
    Emulated(Emulated),
    /// A GPU.
    Cuda(Cuda),
}

/// Its memory.
pub enum AnyBuffer {
    /// Of the emulation.
    Emulated(EmulatedBuffer),
    /// Of a GPU.
    Cuda(CudaBuffer),
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

    fn free_bytes(&self) -> Option<usize> {
        match self {
            Self::Emulated(device) => device.free_bytes(),
            Self::Cuda(device) => device.free_bytes(),
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

    fn copy(
        &self,
        (from, at): (&AnyBuffer, usize),
        (to, to_at): (&mut AnyBuffer, usize),
        n_bytes: usize,
    ) -> Result<(), DeviceError> {
        match (self, from, to) {
            (Self::Emulated(device), AnyBuffer::Emulated(from), AnyBuffer::Emulated(to)) => {
                device.copy((from, at), (to, to_at), n_bytes)
            }
            (Self::Cuda(device), AnyBuffer::Cuda(from), AnyBuffer::Cuda(to)) => {
                device.copy((from, at), (to, to_at), n_bytes)
            }
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
