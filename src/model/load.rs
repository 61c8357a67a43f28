//! How does a path become a model? A file is read as GGUF, a folder as Hugging Face writes it.

mod assemble;
mod gguf;
mod sizes;

use std::path::Path;

use super::config::ModelConfig;
use super::error::ModelError;
use super::weights::Weights;
use crate::tensor::gguf::GgufFile;

/// A model: its shape, its weights, and the files they came from.
#[derive(Clone, Debug)]
pub struct Model {
    /// Sizes and constants.
    pub config: ModelConfig,
    /// Views of the mapped files.
    pub weights: Weights,
    /// For the tokenizer, and for `inspect`.
    pub source: ModelSource,
}

/// Where a model came from.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// One file that holds everything, the tokenizer too.
    Gguf(GgufFile),
}

impl ModelSource {
    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Gguf(file) => file.path(),
        }
    }
}

impl Model {
    /// Opens a GGUF file, or a folder with config.json and safetensors.
    ///
    /// # Errors
    /// When something is missing, broken or not supported; the message names file and field.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = GgufFile::open(path)?;
        let (config, weights) = gguf::load(&file)?;
        Ok(Self { config, weights, source: ModelSource::Gguf(file) })
    }
}
