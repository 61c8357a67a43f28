//! What is in a model's files, in numbers? For `mneme inspect`; printing is not here.

use std::path::PathBuf;

use super::config::ModelConfig;
use super::error::ModelError;
use super::load::{Model, ModelSource, folder_has_chat_template};
use crate::tensor::DType;

/// What is in a model's files.
#[derive(Clone, Debug)]
pub struct ModelSummary {
    /// The file or folder.
    pub path: PathBuf,
    /// How it is written: `GGUF` or `safetensors`.
    pub container: &'static str,
    /// Sizes, name and architecture.
    pub config: ModelConfig,
    /// Elements of all tensors.
    pub n_parameters: u64,
    /// Bytes of all tensors.
    pub weight_bytes: u64,
    /// Which element types take how much, largest first.
    pub types: Vec<TypeShare>,
    /// Whether the files say how a conversation becomes text.
    pub chat_template: ChatTemplate,
}

/// The tensors of one element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeShare {
    /// The type.
    pub dtype: DType,
    /// Tensors of this type.
    pub n_tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Whether a model's files hold a chat template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatTemplate {
    /// They do.
    Present,
    /// They do not: the model completes text, it does not converse.
    Missing,
}

impl Model {
    /// Sums up what the files hold.
    ///
    /// # Errors
    /// When the files that may hold a chat template cannot be read.
    pub fn summary(&self) -> Result<ModelSummary, ModelError> {
        let (container, has_template) = match &self.source {
            ModelSource::Gguf(file) => ("GGUF", file.string("tokenizer.chat_template")?.is_some()),
            ModelSource::Folder(folder) => {
                ("safetensors", folder_has_chat_template(folder.path())?)
            }
        };
        let types = self.types();
        Ok(ModelSummary {
            path: self.source.path().to_owned(),
            container,
            config: self.config.clone(),
            n_parameters: self.source.tensors().iter().map(|t| t.n_elements() as u64).sum(),
            weight_bytes: types.iter().map(|share| share.bytes).sum(),
            types,
            chat_template: if has_template { ChatTemplate::Present } else { ChatTemplate::Missing },
        })
    }

    fn types(&self) -> Vec<TypeShare> {
        let share = |dtype: DType| {
            let tensors = self.source.tensors().iter().filter(|tensor| tensor.dtype == dtype);
            let lengths = tensors.map(|tensor| tensor.bytes.len() as u64);
            TypeShare { dtype, n_tensors: lengths.clone().count(), bytes: lengths.sum() }
        };
        let mut types: Vec<_> =
            DType::ALL.into_iter().map(share).filter(|share| share.n_tensors > 0).collect();
        types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
        types
    }
}
