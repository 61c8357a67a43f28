//! What can be wrong with a GGUF file? Each fault names the field, what was found and what would
//! have been understood. Names from the file are printed escaped: they are a stranger's.

use std::path::PathBuf;

use crate::tensor::dtype::DType;

/// A fault, and the file that has it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct GgufError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: GgufFault,
}

/// What is wrong with a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufFault {
    /// The file cannot be opened or mapped.
    #[error("cannot be opened: {0}")]
    Io(#[from] std::io::Error),
    /// The first four bytes are others.
    #[error("not a GGUF file: it starts with {found:?} where \"GGUF\" is expected")]
    NotGguf {
        /// The first bytes, escaped.
        found: String,
    },
    /// Written on a big-endian machine.
    #[error("a big-endian GGUF file (version {version}); only little-endian files are supported")]
    BigEndian {
        /// The version, read the other way round.
        version: u32,
    },
    /// A version that we cannot read.
    #[error("GGUF version {found}; versions 2 and 3 are supported")]
    Version {
        /// The version the file gives.
        found: u32,
    },
    /// The file ends inside a field.
    #[error(
        "the file ends inside the {field}: {needed} bytes are needed at offset {offset}, \
         {remaining} are left"
    )]
    Truncated {
        /// The field.
        field: String,
        /// Where it begins.
        offset: usize,
        /// Its length.
        needed: u64,
        /// What the file still has.
        remaining: usize,
    },
    /// A count that the rest of the file could not hold.
    #[error("the {field} is {count}, but the rest of the file has room for {most} at most")]
    Count {
        /// The field.
        field: String,
        /// The count the file gives.
        count: u64,
        /// The most that would fit.
        most: u64,
    },
    /// A name longer than the format allows.
    #[error("the {field} is {found} bytes long; at most {most} are allowed")]
    NameLength {
        /// The field.
        field: String,
        /// The length the file gives.
        found: u64,
        /// The format's limit.
        most: u64,
    },
    /// Text that is none.
    #[error("the {field} is not UTF-8 (at offset {offset} of the file)")]
    NotUtf8 {
        /// The field.
        field: String,
        /// Where the text begins.
        offset: usize,
    },
    /// A key that occurs twice.
    #[error("the metadata key {key:?} occurs twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A tensor that occurs twice.
    #[error("the tensor {tensor:?} occurs twice")]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// A metadata type that the format does not have.
    #[error("the metadata key {key:?} has the unknown value type {id}; 0 to 12 exist")]
    UnknownValueType {
        /// The key.
        key: String,
        /// The type the file gives.
        id: u32,
    },
    /// Arrays of arrays are not used by any model.
    #[error("the metadata key {key:?} holds an array of arrays, which is not supported")]
    NestedArray {
        /// The key.
        key: String,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("the metadata key {key:?} holds the boolean {found}; 0 and 1 are allowed")]
    Boolean {
        /// The key.
        key: String,
        /// The byte.
        found: u8,
    },
    /// An alignment that no reader could follow.
    #[error("general.alignment is {found}; a power of two is expected")]
    Alignment {
        /// The alignment the file gives.
        found: u64,
    },
    /// Too many axes, or none.
    #[error("the tensor {tensor:?} has {found} axes; 1 to 4 are supported")]
    AxisCount {
        /// The tensor.
        tensor: String,
        /// Its axes.
        found: u32,
    },
    /// An axis of no elements.
    #[error("the tensor {tensor:?} has an axis of length 0: {shape:?} (innermost first)")]
    EmptyAxis {
        /// The tensor.
        tensor: String,
        /// As in the file.
        shape: Vec<u64>,
    },
    /// More elements than can be counted.
    #[error("the tensor {tensor:?} has an impossible shape: {shape:?} (innermost first)")]
    ShapeOverflow {
        /// The tensor.
        tensor: String,
        /// As in the file.
        shape: Vec<u64>,
    },
    /// A type that we cannot read.
    #[error(
        "the tensor {tensor:?} has the unknown element type {id}; supported are {}",
        DType::supported()
    )]
    UnknownTensorType {
        /// The tensor.
        tensor: String,
        /// GGML's number of the type.
        id: u32,
    },
    /// Rows that do not divide into blocks.
    #[error(
        "the tensor {tensor:?} has rows of {cols} elements, not a multiple of the {} that make \
         a block of {dtype}", dtype.block_len()
    )]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Elements in a row.
        cols: u64,
        /// The type.
        dtype: DType,
    },
    /// A place between two multiples of the alignment.
    #[error("the tensor {tensor:?} lies at {offset}, not a multiple of the alignment {alignment}")]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// Its place, counted from the first tensor's.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// A tensor that reaches beyond the file.
    #[error(
        "the tensor {tensor:?} ({bytes} bytes at {offset} of the tensor data) lies outside the \
         file, which has {available} bytes of tensor data; is the file complete?"
    )]
    OutsideFile {
        /// The tensor.
        tensor: String,
        /// Its place, counted from the first tensor's.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// What the file has.
        available: u64,
    },
    /// Two tensors that share bytes.
    #[error("the tensors {first:?} and {second:?} overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// A metadata value of another type.
    #[error("the metadata key {key:?} holds {found}; {expected} is expected")]
    WrongType {
        /// The key.
        key: String,
        /// What it holds.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
}
