//! How are kernels launched? One file beside each file of kernels: it says in which geometry, and
//! makes sure that nothing is touched outside of the arrays given. That is what each launch's
//! safety rests on.

pub mod ask;
pub mod attend_few;
pub mod attend_many;
pub mod dense;
pub mod draw;
pub mod few_rows;
pub mod lookup;
pub mod paged;
pub mod pages;
pub mod products;
pub mod rows;

use bytemuck::Pod;

use crate::device::{Array, Device, DevicePointer, Geometry};
use crate::error::DeviceError;

/// A kernel and how many threads run it.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    name: &'static str,
    geometry: Geometry,
}

impl Kernel {
    /// Without dynamic shared memory.
    fn new(name: &'static str, grid: [u32; 3], n_threads: usize) -> Self {
        let block = [n_threads as u32, 1, 1];
        Self { name, geometry: Geometry { grid, block, shared_bytes: 0 } }
    }

    fn with_shared_bytes(self, shared_bytes: u32) -> Self {
        Self { geometry: Geometry { shared_bytes, ..self.geometry }, ..self }
    }
}

/// Runs a kernel; where there is nothing to do, which no device takes as a launch, it does nothing.
///
/// # Safety
/// As of [`Device::launch`].
unsafe fn launch<D: Device, P: Pod>(
    device: &D,
    program: &D::Program,
    Kernel { name, geometry }: Kernel,
    params: &P,
) -> Result<(), DeviceError> {
    if geometry.grid.contains(&0) {
        return Ok(());
    }
    // SAFETY: the caller's promise, handed on.
    unsafe { device.launch(program, name, geometry, bytemuck::bytes_of(params)) }
}

/// A size as kernels take it.
fn size(what: &'static str, n: usize) -> Result<u32, DeviceError> {
    let supported = "up to 4,294,967,295";
    u32::try_from(n).map_err(|_| DeviceError::Unsupported { what, size: n, supported })
}

/// An array of at least `len` elements, made anew where the one there is shorter.
fn room<D: Device, T: Pod>(
    device: &D,
    array: &mut Option<Array<D, T>>,
    len: usize,
) -> Result<DevicePointer, DeviceError> {
    if array.as_ref().is_none_or(|array| array.len() < len) {
        *array = None; // before the next one, so that both are never there at once
        *array = Some(Array::undefined(device, len)?);
    }
    array.as_ref().expect("because it was just made").first(len, "room between kernels")
}

/// Writes `elements` to an array that is there for them, made anew where it is shorter.
fn fill<D: Device, T: Pod>(
    device: &D,
    array: &mut Option<Array<D, T>>,
    elements: &[T],
) -> Result<DevicePointer, DeviceError> {
    let pointer = room(device, array, elements.len())?;
    if let Some(array) = array {
        array.write(device, 0, elements)?;
    }
    Ok(pointer)
}
