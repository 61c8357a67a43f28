//! What lies in a model file? Element types, rows of weights mapped from files, and the two
//! containers that hold them (GGUF, safetensors). Knows no architecture.

mod dequant;
mod dtype;
pub mod gguf;
mod mapped;
pub mod safetensors;

pub use dequant::dequantize_row;
pub use dtype::DType;
pub use mapped::{MappedBytes, MappedFile};

/// A tensor's place in a mapped file. Outermost axis first; the last axis is contiguous
/// (GGUF writes its axes the other way round, the reader turns them).
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Axes, outermost first.
    pub shape: Vec<usize>,
    /// Exactly `shape.product() / block_len * block_bytes` bytes.
    pub bytes: MappedBytes,
}

impl Tensor {
    /// The tensor as a matrix, if it has two axes.
    pub fn matrix(&self) -> Option<Matrix> {
        let &[rows, cols] = self.shape.as_slice() else { return None };
        let fits = self.bytes.len() == rows * self.dtype.row_bytes(cols);
        fits.then(|| Matrix { dtype: self.dtype, rows, cols, bytes: self.bytes.clone() })
    }

    /// Elements of all axes together.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// All elements, dequantised.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut elements = vec![0.0; self.n_elements()];
        dequantize_row(self.dtype, &self.bytes, &mut elements);
        elements
    }
}

/// A weight matrix, row-major: one row per output feature, `cols` input features.
/// `bytes.len() == rows * dtype.row_bytes(cols)`, checked when made.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// Element type.
    pub dtype: DType,
    /// Output features.
    pub rows: usize,
    /// Input features; a multiple of the type's block length.
    pub cols: usize,
    /// The rows, one after another.
    pub bytes: MappedBytes,
}

impl Matrix {
    /// The bytes of row `row`.
    pub fn row(&self, row: usize) -> &[u8] {
        let row_bytes = self.dtype.row_bytes(self.cols);
        &self.bytes[row * row_bytes..][..row_bytes]
    }
}
