//! Launchers of `cuda/dense.cu` and `cuda/dense_many.cu`: few rows, or many, times weights of 16
//! bits.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DevicePointer, grid_depth, grid_size};
use crate::error::DeviceError;
use crate::launch::few_rows::{OUTPUTS_A_BLOCK, OutputMode, Piece, Programs, pieces};
use crate::launch::{Kernel, launch, room, size};
use crate::source::ProgramSource;

const EACH: usize = 8;
/// From so many rows on tensor cores multiply, tile by tile.
pub const MANY_ROWS: usize = 32;
/// Rows, and outputs, of a tile; its columns at once; tiles under way.
const TILE: usize = 128;
const DEPTH: usize = 32;
const STAGES: usize = 4;

/// How a weight of 16 bits is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightFormat {
    /// IEEE's half.
    Half,
    /// The upper half of a float.
    Bfloat,
}

/// A matrix `[output][cols]` of weights of 16 bits.
pub struct DenseMatrix<D: Device> {
    format: WeightFormat,
    n_outputs: usize,
    n_cols: usize,
    weights: Array<D, u16>,
}

impl<D: Device> DenseMatrix<D> {
    /// A copy on the device of `weights`, `[output][cols]`.
    ///
    /// # Errors
    /// When the sizes do not fit one another or columns are not whole eights, or the device has no
    /// room.
    pub fn new(
        device: &D,
        (format, n_outputs): (WeightFormat, usize),
        weights: &[u16],
    ) -> Result<Self, DeviceError> {
        let is_whole = n_outputs > 0 && weights.len().is_multiple_of(n_outputs);
        let n_cols = if is_whole { weights.len() / n_outputs } else { 0 };
        if n_cols == 0 || !n_cols.is_multiple_of(EACH) {
            let supported = "as many weights for each output, a multiple of 8";
            let (what, size) = ("a matrix", weights.len());
            return Err(DeviceError::Unsupported { what, size, supported });
        }
        Ok(Self { format, n_outputs, n_cols, weights: Array::of(device, weights)? })
    }

    /// Columns: as long as a row that it is multiplied with.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// What products read.
    pub fn view(&self) -> DenseView<'_, D> {
        let Self { format, n_outputs, n_cols, ref weights } = *self;
        DenseView { format, n_outputs, n_cols, weights }
    }
}

/// Weights of 16 bits, `[output][cols]`, wherever they lie.
pub struct DenseView<'a, D: Device> {
    pub(super) format: WeightFormat,
    pub(super) n_outputs: usize,
    pub(super) n_cols: usize,
    pub(super) weights: &'a Array<D, u16>, // at least as long
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct DenseParams {
    weights: DevicePointer,
    x: DevicePointer,
    out: DevicePointer,
    n_outputs: u32,
    n_cols: u32,
    n_rows: u32,
    adds: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct NarrowParams {
    x: DevicePointer,
    out: DevicePointer,
    units: DevicePointer,
    n_cols: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TileParams {
    weights: DevicePointer,
    x: DevicePointer,
    units: DevicePointer,
    out: DevicePointer,
    n_outputs: u32,
    n_cols: u32,
    n_rows: u32,
    adds: u32,
    shared_bytes: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct EmbedParams {
    weights: DevicePointer,
    ids: DevicePointer,
    out: DevicePointer,
    n_cols: u32,
    n_rows: u32,
}

/// The kernels, each compiled when it is first used, with room for narrowed activations.
pub struct DenseKernels<D: Device> {
    programs: Programs<D, (WeightFormat, usize)>,
    narrow: Option<Array<D, u16>>,
    units: Option<Array<D, f32>>,
}

impl<D: Device> Default for DenseKernels<D> {
    fn default() -> Self {
        Self { programs: Programs::default(), narrow: None, units: None }
    }
}

impl<D: Device> DenseKernels<D> {
    /// Products of the first `n_rows` rows of `x`, `[row][cols]`, with `matrix`: `out` is
    /// `[row][output]`.
    ///
    /// # Errors
    /// When an array is too short, or the device fails.
    pub fn multiply(
        &mut self,
        device: &D,
        (x, n_rows): (&Array<D, f32>, usize),
        matrix: &DenseView<'_, D>,
        (out, mode): (&mut Array<D, f32>, OutputMode),
    ) -> Result<(), DeviceError> {
        let x = x.first(n_rows * matrix.n_cols, "rows to multiply")?;
        let out = out.first(n_rows * matrix.n_outputs, "products")?;
        if n_rows >= MANY_ROWS {
            return self.multiply_tiles(device, (x, n_rows), matrix, (out, mode));
        }
        for Piece { first, n_rows: n, compiled } in pieces(n_rows) {
            let skip = |at: DevicePointer, width: usize| {
                DevicePointer(at.0 + (first * width * size_of::<f32>()) as u64)
            };
            let params = DenseParams {
                weights: matrix.weights.first(matrix.n_outputs * matrix.n_cols, "weights")?,
                x: skip(x, matrix.n_cols),
                out: skip(out, matrix.n_outputs),
                n_outputs: size("outputs", matrix.n_outputs)?,
                n_cols: size("columns", matrix.n_cols)?,
                n_rows: size("rows", n)?,
                adds: u32::from(mode == OutputMode::Add),
            };
            let n_blocks = grid_size(matrix.n_outputs.div_ceil(OUTPUTS_A_BLOCK))?;
            let kernel = Kernel::new("multiply_dense", [n_blocks, 1, 1], 128);
            let program = self.program(device, matrix.format, compiled)?;
            // SAFETY: the structure is that of the kernel; the matrix has whole rows, the arrays
            // are as long as all rows, and outputs are written by one lane each.
            unsafe { launch(device, program, kernel, &params)? };
        }
        Ok(())
    }

    /// Products of many rows. `x` and `out` are long enough.
    fn multiply_tiles(
        &mut self,
        device: &D,
        (x, n_rows): (DevicePointer, usize),
        matrix: &DenseView<'_, D>,
        (out, mode): (DevicePointer, OutputMode),
    ) -> Result<(), DeviceError> {
        let n_cols = size("columns", matrix.n_cols)?;
        let narrow = room(device, &mut self.narrow, n_rows * matrix.n_cols)?;
        let units = room(device, &mut self.units, n_rows)?;
        let params = NarrowParams { x, out: narrow, units, n_cols, padding: 0 };
        let kernel = Kernel::new("narrow_rows", [grid_size(n_rows)?, 1, 1], 256);
        let program = self.program(device, matrix.format, 0)?;
        // SAFETY: the structure is that of the kernel, and the arrays are as long as all rows.
        unsafe { launch(device, program, kernel, &params)? };
        let shared_bytes = size("shared memory", STAGES * 2 * TILE * DEPTH * size_of::<u16>())?;
        let params = TileParams {
            weights: matrix.weights.first(matrix.n_outputs * matrix.n_cols, "weights")?,
            x: narrow,
            units,
            out,
            n_outputs: size("outputs", matrix.n_outputs)?,
            n_cols,
            n_rows: size("rows", n_rows)?,
            adds: u32::from(mode == OutputMode::Add),
            shared_bytes,
            padding: 0,
        };
        let tiles = |n: usize| n.div_ceil(TILE);
        let grid = [grid_size(tiles(matrix.n_outputs))?, grid_depth(tiles(n_rows))?, 1];
        let kernel = Kernel::new("multiply_tiles", grid, 256).with_shared_bytes(shared_bytes);
        // SAFETY: the structure is that of the kernel; what is beyond rows, outputs and columns is
        // neither read nor written, the arrays are as long as all rows, and each place of the
        // output is one lane's.
        unsafe { launch(device, program, kernel, &params) }
    }

    /// Rows `ids` of `table`: `out` is `[row][cols]`.
    ///
    /// # Errors
    /// When there is no such row, `out` is too short, or the device fails.
    pub fn embed(
        &mut self,
        device: &D,
        (table, ids): (&DenseMatrix<D>, &[u32]),
        out: &mut Array<D, f32>,
    ) -> Result<(), DeviceError> {
        if let Some(id) = ids.iter().find(|id| **id as usize >= table.n_outputs) {
            let supported = "rows that the table has";
            return Err(DeviceError::Unsupported { what: "a row", size: *id as usize, supported });
        }
        let out = out.first(ids.len() * table.n_cols, "embeddings")?;
        let on_device = Array::of(device, ids)?;
        let params = EmbedParams {
            weights: table.weights.first(table.weights.len(), "weights")?,
            ids: on_device.first(ids.len(), "ids")?,
            out,
            n_cols: size("columns", table.n_cols)?,
            n_rows: size("rows", ids.len())?,
        };
        let grid = [grid_size(ids.len())?, grid_depth(table.n_cols.div_ceil(256))?, 1];
        let kernel = Kernel::new("embed_dense", grid, 256);
        let program = self.program(device, table.format, 1)?;
        // SAFETY: the structure is that of the kernel, ids are rows of the table, and the array is
        // as long as all of them.
        unsafe { launch(device, program, kernel, &params) }
    }

    /// The kernels for up to `tokens` rows; for many, where there are none.
    fn program(
        &mut self,
        device: &D,
        format: WeightFormat,
        tokens: usize,
    ) -> Result<&D::Program, DeviceError> {
        self.programs.get(device, (format, tokens), || {
            let number = ("FORMAT", usize::from(format == WeightFormat::Bfloat));
            match tokens {
                0 => ProgramSource::new("dense_many.cu", &[number]),
                _ => ProgramSource::new("dense.cu", &[number, ("TOKENS", tokens)]),
            }
        })
    }
}
