//! What is a device to those who launch kernels? Memory, programs and launches: a GPU (`cuda.rs`)
//! and the host emulation (`emulated.rs`) are the two, and every launcher and its tests run on
//! either.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};

use crate::error::DeviceError;
use crate::source::ProgramSource;

/// An address in a device's memory, as kernels take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct DevicePointer(pub u64);

/// How many threads run a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of each, whole warps.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of each.
    pub shared_bytes: u32,
}

/// How a weight of 16 bits is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// IEEE's half.
    Half,
    /// The upper half of a float.
    Bfloat,
}

/// `out[row][output]`, in f32, is the sum over columns of `x[row][col] * weights[output][col]`.
#[derive(Clone, Copy, Debug)]
pub struct HalfProduct {
    /// Of both factors.
    pub format: WeightFormat,
    /// `[output][cols]`
    pub weights: DevicePointer,
    /// `[row][cols]`
    pub x: DevicePointer,
    /// `[row][output]`
    pub out: DevicePointer,
    /// Outputs.
    pub n_outputs: usize,
    /// Columns, a multiple of 8.
    pub n_cols: usize,
    /// Rows.
    pub n_rows: usize,
    /// Whether the sums are added to what is there.
    pub adds: bool,
}

/// A size of a grid, which devices count in 31 bits.
pub(crate) fn grid_size(n: usize) -> Result<u32, DeviceError> {
    match u32::try_from(n) {
        Ok(n) if n <= i32::MAX as u32 => Ok(n),
        _ => Err(DeviceError::TooManyBlocks { n_blocks: n }),
    }
}

/// A size of a grid's second or third axis, which devices count in 16 bits.
pub(crate) fn grid_depth(n: usize) -> Result<u32, DeviceError> {
    match u16::try_from(n) {
        Ok(n) => Ok(u32::from(n)),
        Err(_) => Err(DeviceError::TooManyBlocks { n_blocks: n }),
    }
}

/// A device that holds bytes and runs kernels. Launches and copies happen in the order in which
/// they are asked for.
pub trait Device: Sized {
    /// Bytes in the device's memory, given back when dropped.
    type Buffer: DeviceBuffer;
    /// Kernels that are ready to be launched.
    type Program;

    /// What it is, for reports.
    fn description(&self) -> String;
    /// Its multiprocessors: how many blocks run at once, at least.
    fn n_multiprocessors(&self) -> usize;
    /// Bytes of its memory that are free, where that is known.
    fn free_bytes(&self) -> Option<usize>;
    /// Bytes of undefined content.
    ///
    /// # Errors
    /// When there is not so much memory.
    fn allocate(&self, n_bytes: usize) -> Result<Self::Buffer, DeviceError>;
    /// Copies `bytes` to the device, to `at` in the buffer.
    ///
    /// # Errors
    /// When they do not fit there, or the device fails.
    fn write(&self, to: &mut Self::Buffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Copies bytes from `at` in the buffer on to the host.
    ///
    /// # Errors
    /// When there are not so many, or the device fails.
    fn read(&self, from: &Self::Buffer, at: usize, out: &mut [u8]) -> Result<(), DeviceError>;
    /// Copies `n_bytes` from `from.1` of one buffer on to `to.1` of another.
    ///
    /// # Errors
    /// When there are not so many in either, or the device fails.
    fn copy(
        &self,
        from: (&Self::Buffer, usize),
        to: (&mut Self::Buffer, usize),
        n_bytes: usize,
    ) -> Result<(), DeviceError>;
    /// Compiles a program, or takes it from where compiled ones are kept.
    ///
    /// # Errors
    /// When it cannot be compiled for this device.
    fn program(&self, source: &ProgramSource) -> Result<Self::Program, DeviceError>;
    /// Runs a kernel of `program`, whose only parameter has these bytes.
    ///
    /// # Safety
    /// The parameters must be what the kernel takes; what it reads and writes by them, in this
    /// geometry, must lie in buffers that live until the launch is done, and no two threads may
    /// write one place.
    ///
    /// # Errors
    /// When there is no such kernel, or the device fails.
    unsafe fn launch(
        &self,
        program: &Self::Program,
        kernel: &'static str,
        geometry: Geometry,
        params: &[u8],
    ) -> Result<(), DeviceError>;
    /// Begins a product by a library that knows this device, where there is one with a kernel for it.
    /// Says whether it did.
    ///
    /// # Safety
    /// The matrices must lie in buffers that live until it is done, as long as it says, and nothing
    /// else may write to `out` meanwhile.
    ///
    /// # Errors
    /// When the library fails.
    unsafe fn multiply_halves(&self, _product: &HalfProduct) -> Result<bool, DeviceError> {
        Ok(false)
    }
}

/// Memory of a device.
pub trait DeviceBuffer {
    /// Where it begins: a multiple of 256.
    fn pointer(&self) -> DevicePointer;
    /// How long it is.
    fn n_bytes(&self) -> usize;
}

/// `len` elements in a device's memory.
pub struct Array<D: Device, T> {
    buffer: D::Buffer,
    len: usize,
    element: PhantomData<T>,
}

impl<D: Device, T: Pod> Array<D, T> {
    /// Elements of undefined content.
    ///
    /// # Errors
    /// When there is not so much memory.
    pub fn undefined(device: &D, len: usize) -> Result<Self, DeviceError> {
        let buffer = device.allocate(len * size_of::<T>())?;
        Ok(Self { buffer, len, element: PhantomData })
    }

    /// A copy of `elements` on the device.
    ///
    /// # Errors
    /// When there is not so much memory, or the device fails.
    pub fn of(device: &D, elements: &[T]) -> Result<Self, DeviceError> {
        let mut array = Self::undefined(device, elements.len())?;
        array.write(device, 0, elements)?;
        Ok(array)
    }

    /// Copies `elements` to the device, from element `at` of the array on.
    ///
    /// # Errors
    /// When they do not fit there, or the device fails.
    pub fn write(&mut self, device: &D, at: usize, elements: &[T]) -> Result<(), DeviceError> {
        device.write(&mut self.buffer, at * size_of::<T>(), bytemuck::cast_slice(elements))
    }

    /// Copies `n` elements from element `at` on to element `to.1` of another array.
    ///
    /// # Errors
    /// When either has not so many, or the device fails.
    pub fn copy_to(
        &self,
        device: &D,
        (at, n): (usize, usize),
        to: (&mut Self, usize),
    ) -> Result<(), DeviceError> {
        let size = size_of::<T>();
        device.copy((&self.buffer, at * size), (&mut to.0.buffer, to.1 * size), n * size)
    }

    /// Elements from element `at` on, to the host.
    ///
    /// # Errors
    /// When there are not so many, or the device fails.
    pub fn read(&self, device: &D, at: usize, out: &mut [T]) -> Result<(), DeviceError> {
        device.read(&self.buffer, at * size_of::<T>(), bytemuck::cast_slice_mut(out))
    }

    /// All elements, on the host.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_vec(&self, device: &D) -> Result<Vec<T>, DeviceError> {
        let mut out = vec![T::zeroed(); self.len];
        device.read(&self.buffer, 0, bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where they are, for a kernel that touches the first `n` of them.
    ///
    /// # Errors
    /// When there are fewer: the launch would go beyond the array.
    pub(crate) fn first(&self, n: usize, what: &'static str) -> Result<DevicePointer, DeviceError> {
        if n > self.len {
            return Err(DeviceError::TooShort { what, needed: n, len: self.len });
        }
        Ok(self.buffer.pointer())
    }
}
