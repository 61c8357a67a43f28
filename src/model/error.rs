//! Why can a model not be opened? Each variant names the file and the field, what was found and
//! what would have been understood.

use std::path::PathBuf;

use super::arch::Architecture;
use super::rope::SUPPORTED_SCALINGS;
use crate::tensor::gguf::GgufError;
use crate::tensor::safetensors::SafetensorsError;

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The GGUF file itself is broken.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The safetensors files themselves are broken.
    #[error(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// As the system says.
        source: std::io::Error,
    },
    /// A model cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// As the system says.
        source: std::io::Error,
    },
    /// The making of a model was stopped.
    #[error("{}: stopped while it was written; nothing was left behind", path.display())]
    Stopped {
        /// The folder.
        path: PathBuf,
    },
    /// A folder, but not one of a model.
    #[error("{}: {what}", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
        /// What is missing, and what to do.
        what: String,
    },
    /// A config.json that cannot be parsed.
    #[error("{}: not a JSON object: {fault}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// As the parser says.
        fault: String,
    },
    /// A model of another kind.
    #[error(
        "{}: {field} is {found:?}; supported architectures are {}",
        path.display(), Architecture::supported()
    )]
    UnknownArchitecture {
        /// The file.
        path: PathBuf,
        /// Where it says so.
        field: &'static str,
        /// What it says.
        found: String,
    },
    /// A rotary scaling of another kind.
    #[error(
        "{}: {field} is {found:?}; supported rotary scalings are {SUPPORTED_SCALINGS}",
        path.display()
    )]
    UnknownScaling {
        /// The file.
        path: PathBuf,
        /// Where it says so.
        field: String,
        /// What it says.
        found: String,
    },
    /// A field that every model needs.
    #[error("{}: {field} is missing; {expected} is expected", path.display())]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A field with a value that makes no sense, or that we cannot follow.
    #[error("{}: {field} is {found}; {expected} is expected", path.display())]
    BadField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// Its value.
        found: String,
        /// What it should hold.
        expected: String,
    },
    /// A tensor that the architecture needs.
    #[error("{}: the tensor {tensor:?} is missing", path.display())]
    MissingTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape than the sizes demand.
    #[error(
        "{}: the tensor {tensor:?} has the shape {found:?} where {expected:?} is expected \
         (outermost axis first)", path.display()
    )]
    WrongShape {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the sizes.
        expected: Vec<usize>,
    },
    /// A tensor that holds something other than numbers in a row that must be finite.
    #[error("{}: the tensor {tensor:?} holds {found}; {expected} is expected", path.display())]
    BadTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The value.
        found: f32,
        /// What it should hold.
        expected: &'static str,
    },
    /// Tensors that would be left out of the computation.
    #[error(
        "{}: tensors without a place in the architecture {architecture}: {n_tensors}, for example \
         {example:?}; leaving them out would make the numbers wrong", path.display()
    )]
    UnusedTensors {
        /// The file that holds the example.
        path: PathBuf,
        /// Whose table does not know them.
        architecture: Architecture,
        /// How many there are.
        n_tensors: usize,
        /// One of them.
        example: String,
    },
}
