//! What can be wrong with a folder of safetensors files?

use std::path::{Path, PathBuf};

/// A fault, and the file that has it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct SafetensorsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: SafetensorsFault,
}

/// What is wrong with a safetensors file or the index of a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsFault {
    /// The file cannot be opened or mapped.
    #[error("cannot be opened: {0}")]
    Io(#[from] std::io::Error),
    /// Neither one file nor an index.
    #[error(
        "missing, and so is model.safetensors; weights in other formats (.bin, .pth) are not \
         supported"
    )]
    NoWeights,
    /// The index is not what an index should be.
    #[error("not an index of shards: {0}")]
    Index(String),
    /// A header or index that no real model has.
    #[error("its header is {found} bytes long; at most {most} are allowed")]
    TooLong {
        /// The length the file gives.
        found: u64,
        /// Our limit.
        most: u64,
    },
    /// The file ends inside its header.
    #[error("the file ends inside its header: {needed} bytes are needed, it has {found}")]
    Truncated {
        /// The end of the header.
        needed: u64,
        /// The end of the file.
        found: u64,
    },
    /// The header is not what a header should be.
    #[error("its header is broken: {0}")]
    Header(String),
    /// The tensors do not fill the file.
    #[error(
        "its header describes {expected} bytes of tensors, the file has {found}; is it complete?"
    )]
    Length {
        /// By the header.
        expected: u64,
        /// By the file's length.
        found: u64,
    },
    /// A tensor that the index promises.
    #[error("the tensor {tensor:?} is missing from this shard, where the index says it is")]
    NotInShard {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that occurs twice.
    #[error("the tensor {tensor:?} occurs twice; it is also in {}", first.display())]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
        /// The other file.
        first: PathBuf,
    },
    /// A type that we cannot read.
    #[error("the tensor {tensor:?} has the element type {found}; supported are F32, F16, BF16")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: String,
    },
}

impl SafetensorsFault {
    /// The error that says where.
    pub(super) fn in_file(self, path: &Path) -> SafetensorsError {
        SafetensorsError { path: path.to_owned(), fault: self }
    }
}
