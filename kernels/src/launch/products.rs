//! Launchers of `cuda/products.cu`: few rows times quantised weights, and these in 16 bits for many.

use bytemuck::{Pod, Zeroable};
use half::f16;

use crate::device::{Array, Device, DevicePointer, WeightFormat, grid_depth, grid_size};
use crate::error::DeviceError;
use crate::launch::dense::DenseView;
use crate::launch::few_rows::{OUTPUTS_A_BLOCK, OutputMode, Piece, Programs, pieces};
use crate::launch::{Kernel, launch, room, size};
use crate::source::ProgramSource;

const BLOCK: usize = 32;

/// Bits of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightBits {
    /// From 0 to 15.
    Four,
    /// From -128 to 127.
    Eight,
}

impl WeightBits {
    /// The number.
    pub fn number(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// A matrix `[output][cols]` of weights with a scale and a shift for each 32 of them: a weight is
/// `scale * q + shift`.
pub struct QuantizedMatrix<D: Device> {
    bits: WeightBits,
    n_outputs: usize,
    n_blocks: usize, // of an output
    fits_halves: bool,
    weights: Array<D, u8>,
    scales: Array<D, [u16; 2]>,
}

impl<D: Device> QuantizedMatrix<D> {
    /// A copy on the device. `weights` has `[output][cols / 32]` blocks: of four bits 16 bytes,
    /// byte `i` with weight `i` in its lower nibble and weight `i + 16` in the upper one; of eight
    /// bits 32 signed bytes. `scales` has the scale and the shift of each as halves.
    ///
    /// # Errors
    /// When the sizes do not fit one another, or the device has no room.
    pub fn new(
        device: &D,
        (bits, n_outputs): (WeightBits, usize),
        weights: &[u8],
        scales: &[[u16; 2]],
    ) -> Result<Self, DeviceError> {
        let fits = weights.len() == scales.len() * bits.number() * 4
            && n_outputs > 0
            && scales.len().is_multiple_of(n_outputs)
            && !scales.is_empty();
        if !fits {
            let supported = "whole blocks of 32, as many for each output, with a scale each";
            let (what, size) = ("a matrix", weights.len());
            return Err(DeviceError::Unsupported { what, size, supported });
        }
        Ok(Self {
            bits,
            n_outputs,
            n_blocks: scales.len() / n_outputs,
            fits_halves: scales.iter().all(|scale| fits_halves(bits, *scale)),
            weights: Array::of(device, weights)?,
            scales: Array::of(device, scales)?,
        })
    }

    /// Columns: as long as a row that it is multiplied with.
    pub fn n_cols(&self) -> usize {
        self.n_blocks * BLOCK
    }
}

/// Whether no weight with this scale and shift is beyond what halves hold.
fn fits_halves(bits: WeightBits, scale: [u16; 2]) -> bool {
    let most = match bits {
        WeightBits::Four => 15.0,
        WeightBits::Eight => 128.0,
    };
    let [scale, shift] = scale.map(|half| f16::from_bits(half).to_f32().abs());
    scale * most + shift < f16::MAX.to_f32()
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct RoundParams {
    x: DevicePointer,
    terms: DevicePointer,
    units: DevicePointer,
    n_blocks: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MultiplyParams {
    weights: DevicePointer,
    scales: DevicePointer,
    terms: DevicePointer,
    units: DevicePointer,
    out: DevicePointer,
    n_outputs: u32,
    n_blocks: u32,
    n_rows: u32,
    adds: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct WidenParams {
    weights: DevicePointer,
    scales: DevicePointer,
    out: DevicePointer,
    n_blocks: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbedParams {
    weights: DevicePointer,
    scales: DevicePointer,
    ids: DevicePointer,
    out: DevicePointer,
    n_blocks: u32,
    n_rows: u32,
}

/// The kernels, each compiled when it is first used, with room for rounded activations and for a
/// matrix in 16 bits.
pub struct ProductKernels<D: Device> {
    programs: Programs<D, (WeightBits, usize)>,
    terms: Option<Array<D, i8>>,
    units: Option<Array<D, [f32; 2]>>,
    halves: Option<Array<D, u16>>,
    n_rounded: usize, // rows
    n_blocks: usize,  // of a row
}

impl<D: Device> Default for ProductKernels<D> {
    fn default() -> Self {
        let (programs, n_rounded, n_blocks) = (Programs::default(), 0, 0);
        Self { programs, terms: None, units: None, halves: None, n_rounded, n_blocks }
    }
}

impl<D: Device> ProductKernels<D> {
    /// Rounds `n_rows` rows of `x`, `[row][cols]`, for the products that follow.
    ///
    /// # Errors
    /// When `x` is too short or its rows no whole blocks of 32, or the device fails.
    pub fn round(
        &mut self,
        device: &D,
        x: &Array<D, f32>,
        (n_rows, n_cols): (usize, usize),
    ) -> Result<(), DeviceError> {
        if !n_cols.is_multiple_of(BLOCK) {
            let supported = "multiples of 32";
            return Err(DeviceError::Unsupported { what: "columns", size: n_cols, supported });
        }
        let n_blocks = n_rows * n_cols / BLOCK;
        let params = RoundParams {
            x: x.first(n_rows * n_cols, "rows to round")?,
            terms: room(device, &mut self.terms, n_blocks * 2 * BLOCK)?,
            units: room(device, &mut self.units, n_blocks)?,
            n_blocks: size("blocks", n_blocks)?,
            padding: 0,
        };
        (self.n_rounded, self.n_blocks) = (n_rows, n_cols / BLOCK);
        let kernel = Kernel::new("round_rows", [grid_size(n_blocks.div_ceil(8))?, 1, 1], 256);
        let program = self.program(device, WeightBits::Four, 1)?;
        // SAFETY: the structure is that of the kernel, and the arrays are as long as all blocks.
        unsafe { launch(device, program, kernel, &params) }
    }

    /// Products of the rows that were rounded last with `matrix`: `out` is `[row][output]`.
    ///
    /// # Errors
    /// When these rows are of another length, `out` is too short, or the device fails.
    pub fn multiply(
        &mut self,
        device: &D,
        matrix: &QuantizedMatrix<D>,
        (out, mode): (&mut Array<D, f32>, OutputMode),
    ) -> Result<(), DeviceError> {
        if matrix.n_blocks != self.n_blocks {
            let supported = "rows as long as the matrix has columns";
            let (what, size) = ("a row", self.n_blocks * BLOCK);
            return Err(DeviceError::Unsupported { what, size, supported });
        }
        let n_rows = self.n_rounded;
        let out = out.first(n_rows * matrix.n_outputs, "products")?;
        let terms = room(device, &mut self.terms, n_rows * self.n_blocks * 2 * BLOCK)?;
        let units = room(device, &mut self.units, n_rows * self.n_blocks)?;
        for Piece { first, n_rows: n, compiled } in pieces(n_rows) {
            let skip =
                |at: DevicePointer, bytes: usize| DevicePointer(at.0 + (first * bytes) as u64);
            let params = MultiplyParams {
                weights: matrix.weights.first(matrix.weights.len(), "weights")?,
                scales: matrix.scales.first(matrix.scales.len(), "scales")?,
                terms: skip(terms, self.n_blocks * 2 * BLOCK),
                units: skip(units, self.n_blocks * size_of::<[f32; 2]>()),
                out: skip(out, matrix.n_outputs * size_of::<f32>()),
                n_outputs: size("outputs", matrix.n_outputs)?,
                n_blocks: size("blocks", matrix.n_blocks)?,
                n_rows: size("rows", n)?,
                adds: u32::from(mode == OutputMode::Add),
            };
            let n_blocks = grid_size(matrix.n_outputs.div_ceil(OUTPUTS_A_BLOCK))?;
            let kernel = Kernel::new("multiply_rows", [n_blocks, 1, 1], 128);
            let program = self.program(device, matrix.bits, compiled)?;
            // SAFETY: the structure is that of the kernel; the matrix was made of whole blocks, the
            // arrays are as long as all rows, and outputs are written by one lane each.
            unsafe { launch(device, program, kernel, &params)? };
        }
        Ok(())
    }

    /// `matrix` in 16 bits, until another is widened: for products of many rows, each of which would
    /// unpack it again. None where halves do not hold all that its weights stand for.
    ///
    /// # Errors
    /// When the device fails, or has no room.
    pub fn widened(
        &mut self,
        device: &D,
        matrix: &QuantizedMatrix<D>,
    ) -> Result<Option<DenseView<'_, D>>, DeviceError> {
        if !matrix.fits_halves {
            return Ok(None);
        }
        let n_blocks = matrix.n_outputs * matrix.n_blocks;
        let params = WidenParams {
            weights: matrix.weights.first(matrix.weights.len(), "weights")?,
            scales: matrix.scales.first(matrix.scales.len(), "scales")?,
            out: room(device, &mut self.halves, n_blocks * BLOCK)?,
            n_blocks: size("blocks", n_blocks)?,
            padding: 0,
        };
        let kernel = Kernel::new("widen_weights", [grid_size(n_blocks.div_ceil(64))?, 1, 1], 256);
        let program = self.program(device, matrix.bits, 1)?;
        // SAFETY: the structure is that of the kernel, the matrix was made of whole blocks, and the
        // array is as long as all of them.
        unsafe { launch(device, program, kernel, &params)? };
        let weights = self.halves.as_ref().expect("because there was room for it");
        let (n_outputs, n_cols) = (matrix.n_outputs, matrix.n_cols());
        Ok(Some(DenseView { format: WeightFormat::Half, n_outputs, n_cols, weights }))
    }

    /// Rows `ids` of `table`: `out` is `[row][cols]`.
    ///
    /// # Errors
    /// When there is no such row, `out` is too short, or the device fails.
    pub fn embed(
        &mut self,
        device: &D,
        (table, ids): (&QuantizedMatrix<D>, &[u32]),
        out: &mut Array<D, f32>,
    ) -> Result<(), DeviceError> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= table.n_outputs) {
            let supported = "rows that the table has";
            return Err(DeviceError::Unsupported { what: "a row", size: *id as usize, supported });
        }
        let out = out.first(ids.len() * table.n_cols(), "embeddings")?;
        let on_device = Array::of(device, ids)?;
        let params = EmbedParams {
            weights: table.weights.first(table.weights.len(), "weights")?,
            scales: table.scales.first(table.scales.len(), "scales")?,
            ids: on_device.first(ids.len(), "ids")?,
            out,
            n_blocks: size("blocks", table.n_blocks)?,
            n_rows: size("rows", ids.len())?,
        };
        let grid = [grid_size(ids.len())?, grid_depth(table.n_blocks.div_ceil(8))?, 1];
        let kernel = Kernel::new("embed_rows", grid, 256);
        let program = self.program(device, table.bits, 1)?;
        // SAFETY: the structure is that of the kernel, ids are rows of the table, and the array is
        // as long as all of them.
        unsafe { launch(device, program, kernel, &params) }
    }

    fn program(
        &mut self,
        device: &D,
        bits: WeightBits,
        tokens: usize,
    ) -> Result<&D::Program, DeviceError> {
        self.programs.get(device, (bits, tokens), || {
            let sizes = [("BITS", bits.number()), ("TOKENS", tokens)];
            ProgramSource::new("products.cu", &sizes)
        })
    }
}
