//! What is a loaded model? Weights on a device, and the tokenizer that goes with them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::error::EngineError;
use super::forms::Forms;
use super::identity;
use super::words::Words;
use crate::backend::any::{AnyBackend, EngineOptions};
use crate::backend::cuda::GpuUse;
use crate::backend::{Backend, BackendError, Precision};
use crate::model::{Model, ModelConfig, ModelSource, Transformer};
use crate::tokenizer::Tokenizer;

/// A loaded model, shared by its sessions.
#[derive(Clone)]
pub struct Engine {
    loaded: Arc<Loaded>,
}

struct Loaded {
    tokenizer: Tokenizer,
    transformer: Transformer<AnyBackend>,
    source: ModelSource,
    precision: Precision,
    no_gpu: Option<BackendError>,
    identity: OnceLock<[u8; 32]>,
    forms: OnceLock<Forms>,
    words: OnceLock<Words>,
}

impl Engine {
    /// Opens the model at `path`: a GGUF file, or a folder as Hugging Face lays it out. Weights
    /// are mapped, not read.
    ///
    /// # Errors
    /// When the files are not a model that we can run; the message says which file, which field,
    /// and what would be right.
    pub fn load(path: &Path, options: &EngineOptions) -> Result<Self, EngineError> {
        let model = Model::open(path)?;
        let tokenizer = Tokenizer::open(path)?;
        Self::from_parts(&model, tokenizer, options)
    }

    /// An engine from a model and a tokenizer that are open already.
    ///
    /// # Errors
    /// When the model's shape is beyond what the kernels do, the two do not fit each other, or the
    /// device cannot be used.
    pub fn from_parts(
        model: &Model,
        tokenizer: Tokenizer,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        check_shape(&model.config)?;
        let (backend, no_gpu) = AnyBackend::open(options)?;
        let transformer = Transformer::new(Arc::new(backend), model)?;
        let loaded = Loaded {
            tokenizer,
            transformer,
            source: model.source.clone(),
            precision: options.precision,
            no_gpu,
            identity: OnceLock::new(),
            forms: OnceLock::new(),
            words: OnceLock::new(),
        };
        Ok(Self { loaded: Arc::new(loaded) })
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.loaded.transformer.config()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.loaded.tokenizer
    }

    /// The file or folder that the model was loaded from.
    pub fn path(&self) -> &Path {
        self.loaded.source.path()
    }

    /// The model's identity: of its files and of how it is computed. They are read for it once.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn identity(&self) -> Result<[u8; 32], EngineError> {
        if let Some(identity) = self.loaded.identity.get() {
            return Ok(*identity);
        }
        let (source, precision) = (&self.loaded.source, self.loaded.precision);
        let is_gpu = matches!(**self.transformer().backend(), AnyBackend::Cuda(_));
        let identity = identity::of_model(source, precision, is_gpu).map_err(|error| {
            EngineError::Identity { path: source.path().to_owned(), what: error.to_string() }
        })?;
        Ok(*self.loaded.identity.get_or_init(|| identity))
    }

    /// What grammars are made with.
    pub(super) fn forms(&self) -> Result<&Forms, EngineError> {
        if let Some(forms) = self.loaded.forms.get() {
            return Ok(forms);
        }
        let forms = Forms::new(self.tokenizer())?;
        Ok(self.loaded.forms.get_or_init(|| forms))
    }

    /// Which of its tokens are the same word.
    pub(super) fn words(&self) -> &Words {
        self.loaded.words.get_or_init(|| Words::new(self.tokenizer()))
    }

    /// Why no GPU computes, where one was to be used if there were any.
    pub fn no_gpu(&self) -> Option<&BackendError> {
        self.loaded.no_gpu.as_ref()
    }

    /// What computes, for reports.
    pub fn device(&self) -> String {
        self.transformer().backend().description()
    }

    /// What a GPU's memory is used for, where one computes and a session was made.
    pub fn gpu_use(&self) -> Option<GpuUse> {
        match &**self.transformer().backend() {
            AnyBackend::Cuda(backend) => backend.usage(),
            AnyBackend::Cpu(_) => None,
        }
    }

    pub(super) fn transformer(&self) -> &Transformer<AnyBackend> {
        &self.loaded.transformer
    }

    /// The length up to which the model can tell positions apart.
    pub(super) fn trained_tokens(&self) -> usize {
        let config = self.config();
        config.sliding_window.unwrap_or(usize::MAX).min(config.trained_tokens)
    }
}

fn check_shape(config: &ModelConfig) -> Result<(), EngineError> {
    let head_dim = config.head_dim;
    if !head_dim.is_multiple_of(16) || head_dim > 512 {
        let what = format!("heads of {head_dim} dimensions; a multiple of 16 up to 512 is needed");
        return Err(EngineError::Unsupported { what });
    }
    if config.n_kv_heads > 256 {
        let what = format!("{} key/value heads; up to 256 are supported", config.n_kv_heads);
        return Err(EngineError::Unsupported { what });
    }
    Ok(())
}
