//! Launchers of `cuda/dense.cu` and `cuda/dense_many.cu`: few rows, or many, times weights of 16
//! bits. Many rows are a library's affair where the device has one (cuBLASLt), once it has been seen to
//! compute what our kernel computes.

use bytemuck::{Pod, Zeroable};

use crate::device::{
    Array, Device, DevicePointer, HalfProduct, WeightFormat, grid_depth, grid_size,
};
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
struct ScaleParams {
    out: DevicePointer,
    units: DevicePointer,
    n_outputs: u32,
    divides: u32,
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

/// What is known of the device's library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Library {
    /// It has not been used yet.
    Unknown,
    /// There is none.
    Missing,
    /// Its first product was that of our kernel.
    Used,
    /// It failed at its first product, or computed something else: what. Our kernel multiplies.
    Refused(String),
}

/// The kernels, each compiled when it is first used, with room for narrowed activations.
pub struct DenseKernels<D: Device> {
    programs: Programs<D, (WeightFormat, usize)>,
    library: Library,
    narrow: Option<Array<D, u16>>,
    units: Option<Array<D, f32>>,
}

impl<D: Device> Default for DenseKernels<D> {
    fn default() -> Self {
        let programs = Programs::default();
        Self { programs, library: Library::Unknown, narrow: None, units: None }
    }
}

/// Rows of 16 bits, and what each is worth.
#[derive(Clone, Copy)]
struct Narrowed {
    x: DevicePointer,
    units: DevicePointer,
    n_rows: usize,
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
            return self.multiply_many(device, (x, n_rows), matrix, (out, mode));
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

    /// What is known of the device's library.
    pub fn library(&self) -> &Library {
        &self.library
    }

    /// Products of many rows. `x` and `out` are long enough.
    fn multiply_many(
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
        let rows = Narrowed { x: narrow, units, n_rows };
        if self.library == Library::Unknown {
            self.library = self.try_library(device, rows, matrix)?;
        }
        let uses = self.library == Library::Used;
        if uses && self.multiply_by_library(device, rows, matrix, (out, mode))? {
            return Ok(());
        }
        self.multiply_tiles(device, rows, matrix, (out, mode))
    }

    /// Has the library compute a product that our kernel computes as well.
    fn try_library(
        &mut self,
        device: &D,
        rows: Narrowed,
        matrix: &DenseView<'_, D>,
    ) -> Result<Library, DeviceError> {
        let n = rows.n_rows * matrix.n_outputs;
        let out: Array<D, f32> = Array::undefined(device, n)?;
        let at = (out.first(n, "products")?, OutputMode::Set);
        match self.multiply_by_library(device, rows, matrix, at) {
            Ok(true) => {}
            Ok(false) => return Ok(Library::Missing),
            Err(error) => return Ok(Library::Refused(error.to_string())),
        }
        let theirs = match out.to_vec(device) {
            Ok(theirs) => theirs,
            Err(error) => return Ok(Library::Refused(error.to_string())),
        };
        self.multiply_tiles(device, rows, matrix, at)?;
        let ours = out.to_vec(device)?;
        let rows = theirs.chunks(matrix.n_outputs).zip(ours.chunks(matrix.n_outputs));
        for (row, (theirs, ours)) in rows.enumerate() {
            // Both add up the same products of 16 bits, in another order.
            let largest = ours.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let is_close = |(theirs, ours): (&f32, &f32)| (theirs - ours).abs() <= 1e-3 * largest;
            if let Some(col) = theirs.iter().zip(ours).position(|pair| !is_close(pair)) {
                let (theirs, ours) = (theirs[col], ours[col]);
                return Ok(Library::Refused(format!(
                    "product {col} of row {row} was {theirs} by the library and {ours} by our \
                     kernel; try another version of it"
                )));
            }
        }
        Ok(Library::Used)
    }

    /// Says whether there is a library that did.
    fn multiply_by_library(
        &mut self,
        device: &D,
        Narrowed { x, units, n_rows }: Narrowed,
        matrix: &DenseView<'_, D>,
        (out, mode): (DevicePointer, OutputMode),
    ) -> Result<bool, DeviceError> {
        let DenseView { format, n_outputs, n_cols, weights } = *matrix;
        let adds = mode == OutputMode::Add;
        let weights = weights.first(n_outputs * n_cols, "weights")?;
        let product = HalfProduct { format, weights, x, out, n_outputs, n_cols, n_rows, adds };
        if adds {
            self.scale_rows(device, (out, units), &product, true)?;
        }
        // SAFETY: the arrays are as long as all rows, outputs and columns, and live in `self`, the
        // caller's output and its matrix; a device does one thing after another.
        let was_done = unsafe { device.multiply_halves(&product)? };
        if was_done || adds {
            self.scale_rows(device, (out, units), &product, false)?; // or what was there is again
        }
        Ok(was_done)
    }

    /// Multiplies the outputs of a product by their rows' units, or divides them.
    fn scale_rows(
        &mut self,
        device: &D,
        (out, units): (DevicePointer, DevicePointer),
        &HalfProduct { format, n_outputs, n_rows, .. }: &HalfProduct,
        divides: bool,
    ) -> Result<(), DeviceError> {
        let n_outputs = size("outputs", n_outputs)?;
        let params = ScaleParams { out, units, n_outputs, divides: u32::from(divides) };
        let kernel = Kernel::new("scale_rows", [grid_size(n_rows)?, 1, 1], 256);
        let program = self.program(device, format, 0)?;
        // SAFETY: the structure is that of the kernel, the arrays are as long as all rows, and each
        // row is one block's.
        unsafe { launch(device, program, kernel, &params) }
    }

    /// Products of narrowed rows by our own kernel.
    fn multiply_tiles(
        &mut self,
        device: &D,
        Narrowed { x, units, n_rows }: Narrowed,
        matrix: &DenseView<'_, D>,
        (out, mode): (DevicePointer, OutputMode),
    ) -> Result<(), DeviceError> {
        let shared_bytes = size("shared memory", STAGES * 2 * TILE * DEPTH * size_of::<u16>())?;
        let params = TileParams {
            weights: matrix.weights.first(matrix.n_outputs * matrix.n_cols, "weights")?,
            x,
            units,
            out,
            n_outputs: size("outputs", matrix.n_outputs)?,
            n_cols: size("columns", matrix.n_cols)?,
            n_rows: size("rows", n_rows)?,
            adds: u32::from(mode == OutputMode::Add),
            shared_bytes,
            padding: 0,
        };
        let tiles = |n: usize| n.div_ceil(TILE);
        let grid = [grid_size(tiles(matrix.n_outputs))?, grid_depth(tiles(n_rows))?, 1];
        let kernel = Kernel::new("multiply_tiles", grid, 256).with_shared_bytes(shared_bytes);
        let program = self.program(device, matrix.format, 0)?;
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
