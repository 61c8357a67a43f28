//! How does a path become a model? A file is read as GGUF, a folder as Hugging Face writes it.

mod assemble;
mod gguf;
pub(super) mod hugging_face;
mod json;
mod sizes;

use std::path::Path;

use super::config::ModelConfig;
use super::error::ModelError;
use super::weights::Weights;
use crate::tensor::Tensor;
use crate::tensor::gguf::GgufFile;
use crate::tensor::safetensors::SafetensorsFolder;

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
    /// A folder as Hugging Face writes it; the tokenizer has files of its own there.
    Folder(SafetensorsFolder),
}

impl ModelSource {
    /// The file or folder.
    pub fn path(&self) -> &Path {
        match self {
            Self::Gguf(file) => file.path(),
            Self::Folder(folder) => folder.path(),
        }
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> &[Tensor] {
        match self {
            Self::Gguf(file) => file.tensors(),
            Self::Folder(folder) => folder.tensors(),
        }
    }
}

impl Model {
    /// Opens a GGUF file, or a folder with config.json and safetensors.
    ///
    /// # Errors
    /// When something is missing, broken or not supported; the message names file and field.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            check_folder(path)?;
            let (config, weights, files) = hugging_face::load(path)?;
            return Ok(Self { config, weights, source: ModelSource::Folder(files) });
        }
        let file = GgufFile::open(path)?;
        let (config, weights) = gguf::load(&file)?;
        Ok(Self { config, weights, source: ModelSource::Gguf(file) })
    }
}

fn check_folder(path: &Path) -> Result<(), ModelError> {
    if path.join(hugging_face::CONFIG_FILE).exists() {
        return Ok(());
    }
    let what = "a folder without config.json, so not a model as Hugging Face writes it; \
                to open a GGUF file, name the file itself";
    Err(ModelError::NotAModel { path: path.to_owned(), what: what.to_owned() })
}

/// Whether a folder holds a chat template, in a file of its own or in the tokenizer's.
pub(super) fn folder_has_chat_template(folder: &Path) -> Result<bool, ModelError> {
    if ["chat_template.jinja", "chat_template.json"].iter().any(|file| folder.join(file).exists()) {
        return Ok(true);
    }
    let file = folder.join("tokenizer_config.json");
    Ok(file.exists() && json::JsonObject::read(&file)?.has("chat_template"))
}
