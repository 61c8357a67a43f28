//! Launchers of `cuda/rows.cu`: what is done to rows beside products and attention.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DevicePointer, grid_size};
use crate::error::DeviceError;
use crate::launch::{Kernel, launch, size};
use crate::source::ProgramSource;

const THREADS: usize = 256;
const WARPS: usize = 8;

/// The kernels of rows, compiled.
pub struct RowKernels<D: Device> {
    program: D::Program,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct NormParams {
    x: DevicePointer,
    delta: DevicePointer,
    gain: DevicePointer,
    out: DevicePointer,
    width: u32,
    epsilon: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct HeadNormParams {
    x: DevicePointer,
    gain: DevicePointer,
    n_rows: u32,
    width: u32,
    epsilon: f32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SwigluParams {
    gate: DevicePointer,
    up: DevicePointer,
    len: u64,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct BiasParams {
    x: DevicePointer,
    bias: DevicePointer,
    len: u64,
    width: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PairParams {
    x: DevicePointer,
    n_rows: u32,
    head_dim: u32,
    n_pairs: u32,
    padding: u32,
}

/// Rows of a residual stream and their norm.
pub struct Norm<'a, D: Device> {
    /// `[row][width]`
    pub x: &'a mut Array<D, f32>,
    /// `[row][width]`: what is added to `x` first.
    pub delta: Option<&'a Array<D, f32>>,
    /// `[width]`
    pub gain: &'a Array<D, f32>,
    /// Added to the mean square.
    pub epsilon: f32,
    /// `[row][width]`
    pub out: &'a mut Array<D, f32>,
}

impl<D: Device> RowKernels<D> {
    /// Compiles them.
    ///
    /// # Errors
    /// When the device has no compiler, or it refuses.
    pub fn new(device: &D) -> Result<Self, DeviceError> {
        Ok(Self { program: device.program(&ProgramSource::new("rows.cu", &[]))? })
    }

    /// RMSNorm of the first `n_rows` rows, see [`rms_norm`](crate::naive::rms_norm).
    ///
    /// # Errors
    /// When an array is too short, or the device fails.
    pub fn rms_norm(
        &self,
        device: &D,
        n_rows: usize,
        norm: Norm<'_, D>,
    ) -> Result<(), DeviceError> {
        let width = norm.gain.len();
        let len = n_rows * width;
        let params = NormParams {
            x: norm.x.first(len, "rows to normalise")?,
            delta: match norm.delta {
                Some(delta) => delta.first(len, "what is added to rows")?,
                None => DevicePointer(0),
            },
            gain: norm.gain.first(width, "gains")?,
            out: norm.out.first(len, "normalised rows")?,
            width: size("width of rows", width)?,
            epsilon: norm.epsilon,
        };
        let n_blocks = n_rows;
        self.launch(device, ("rms_norm", n_blocks), &params)
    }

    /// RMSNorm of rows `rows` of `x`, which stays as it is: the first of them is the first of
    /// `out`.
    ///
    /// # Errors
    /// When an array is too short, or the device fails.
    pub fn norm_rows(
        &self,
        device: &D,
        (x, rows): (&Array<D, f32>, Range<usize>),
        (gain, epsilon): (&Array<D, f32>, f32),
        out: &mut Array<D, f32>,
    ) -> Result<(), DeviceError> {
        let width = gain.len();
        let x = x.first(rows.end * width, "rows to normalise")?;
        let params = NormParams {
            x: DevicePointer(x.0 + (rows.start * width * size_of::<f32>()) as u64),
            delta: DevicePointer(0), // without it, `x` is read only
            gain: gain.first(width, "gains")?,
            out: out.first(rows.len() * width, "normalised rows")?,
            width: size("width of rows", width)?,
            epsilon,
        };
        self.launch(device, ("rms_norm", rows.len()), &params)
    }

    /// RMSNorm of each of the first `n_rows` heads, in place.
    ///
    /// # Errors
    /// When an array is too short, or the device fails.
    pub fn norm_heads(
        &self,
        device: &D,
        (x, n_rows): (&mut Array<D, f32>, usize),
        (gain, epsilon): (&Array<D, f32>, f32),
    ) -> Result<(), DeviceError> {
        let width = gain.len();
        let params = HeadNormParams {
            x: x.first(n_rows * width, "heads to normalise")?,
            gain: gain.first(width, "gains")?,
            n_rows: size("heads", n_rows)?,
            width: size("width of heads", width)?,
            epsilon,
            padding: 0,
        };
        let n_blocks = n_rows.div_ceil(WARPS);
        self.launch(device, ("norm_heads", n_blocks), &params)
    }

    /// `gate = silu(gate) * up` over the first `len` elements, see
    /// [`swiglu`](crate::naive::swiglu).
    ///
    /// # Errors
    /// When an array is too short, or the device fails.
    pub fn swiglu(
        &self,
        device: &D,
        (gate, up): (&mut Array<D, f32>, &Array<D, f32>),
        len: usize,
    ) -> Result<(), DeviceError> {
        let params = SwigluParams {
            gate: gate.first(len, "gates")?,
            up: up.first(len, "what gates let through")?,
            len: len as u64,
        };
        let n_blocks = len.div_ceil(4 * THREADS);
        self.launch(device, ("swiglu", n_blocks), &params)
    }

    /// Adds `bias` to each of the first `n_rows` rows.
    ///
    /// # Errors
    /// When an array is too short, or the device fails.
    pub fn add_bias(
        &self,
        device: &D,
        (x, n_rows): (&mut Array<D, f32>, usize),
        bias: &Array<D, f32>,
    ) -> Result<(), DeviceError> {
        let len = n_rows * bias.len();
        let params = BiasParams {
            x: x.first(len, "rows to add to")?,
            bias: bias.first(bias.len(), "bias")?,
            len: len as u64,
            width: size("width of rows", bias.len())?,
            padding: 0,
        };
        let n_blocks = len.div_ceil(THREADS);
        self.launch(device, ("add_bias", n_blocks), &params)
    }

    /// Reorders the rotated part of each of the first `n_rows` heads from pairs `(2i, 2i + 1)` to
    /// pairs `(i, i + n_pairs)`.
    ///
    /// # Errors
    /// When an array is too short, there are more than 128 pairs, or the device fails.
    pub fn split_pairs(
        &self,
        device: &D,
        (x, n_rows): (&mut Array<D, f32>, usize),
        (head_dim, n_pairs): (usize, usize),
    ) -> Result<(), DeviceError> {
        if n_pairs > 128 || 2 * n_pairs > head_dim {
            let supported = "up to 128, and not more than half of a head";
            return Err(DeviceError::Unsupported { what: "pairs", size: n_pairs, supported });
        }
        let params = PairParams {
            x: x.first(n_rows * head_dim, "heads to reorder")?,
            n_rows: size("heads", n_rows)?,
            head_dim: size("width of heads", head_dim)?,
            n_pairs: size("pairs", n_pairs)?,
            padding: 0,
        };
        let n_blocks = n_rows.div_ceil(WARPS);
        self.launch(device, ("split_pairs", n_blocks), &params)
    }

    fn launch<P: Pod>(
        &self,
        device: &D,
        (kernel, n_blocks): (&'static str, usize),
        params: &P,
    ) -> Result<(), DeviceError> {
        let kernel = Kernel::new(kernel, [grid_size(n_blocks)?, 1, 1], THREADS);
        // SAFETY: the structures above are those of the kernels, field by field; every method here
        // has asked each array for as many elements as the kernel touches in this geometry, and
        // threads write places of their own.
        unsafe { launch(device, &self.program, kernel, params) }
    }
}
