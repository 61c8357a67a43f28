//! How does a GGUF file become a model? Metadata keys to a configuration, tensors to weights.

use std::path::Path;

use super::assemble::{TensorShelf, Tying};
use super::sizes::{self, Field, Heads};
use crate::model::arch::{Architecture, GgufConvention};
use crate::model::config::ModelConfig;
use crate::model::error::ModelError;
use crate::model::rope::{RopeConfig, RopeScaling, UnscaledRope, Yarn, yarn_magnitude};
use crate::model::weights::Weights;
use crate::tensor::Tensor;
use crate::tensor::gguf::GgufFile;

const ARCHITECTURE_KEY: &str = "general.architecture";
const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const DEFAULT_THETA: f64 = 10_000.0;

pub(super) fn load(file: &GgufFile) -> Result<(ModelConfig, Weights), ModelError> {
    let keys = Keys::new(file)?;
    let names = keys.architecture.entry().gguf_tensors;
    let mut shelf = TensorShelf::new(file.path(), names, file.tensors().iter());
    let embedding = shelf.require(names.embedding)?;
    let divisors = names.rope_divisors.and_then(|name| shelf.find(name));
    let config = keys.config(embedding, divisors)?;
    let weights = shelf.weights(&config, Tying::TiedWhereMissing)?;
    Ok((config, weights))
}

/// The metadata keys of one architecture: `llama.block_count` and so on.
struct Keys<'a> {
    file: &'a GgufFile,
    architecture: Architecture,
    convention: GgufConvention,
}

impl<'a> Keys<'a> {
    fn new(file: &'a GgufFile) -> Result<Self, ModelError> {
        let found = file.string(ARCHITECTURE_KEY)?.ok_or_else(|| {
            let field = Field { path: file.path(), name: ARCHITECTURE_KEY };
            field.missing("the name of an architecture")
        })?;
        let (architecture, convention) =
            Architecture::from_gguf(found).ok_or_else(|| ModelError::UnknownArchitecture {
                path: file.path().to_owned(),
                field: ARCHITECTURE_KEY,
                found: found.to_owned(),
            })?;
        Ok(Self { file, architecture, convention })
    }

    fn path(&self) -> &'a Path {
        self.file.path()
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.convention.name)
    }

    /// A size of at least one, if given.
    fn size(&self, suffix: &str) -> Result<Option<usize>, ModelError> {
        let key = self.key(suffix);
        let Some(found) = self.file.u64(&key)? else { return Ok(None) };
        Field { path: self.path(), name: &key }.size(found).map(Some)
    }

    fn required_size(&self, suffix: &str) -> Result<usize, ModelError> {
        self.size(suffix)?.ok_or_else(|| {
            Field { path: self.path(), name: &self.key(suffix) }.missing("a positive number")
        })
    }

    /// A positive number, if given.
    fn positive(&self, suffix: &str) -> Result<Option<f64>, ModelError> {
        let key = self.key(suffix);
        let Some(found) = self.file.f64(&key)? else { return Ok(None) };
        Field { path: self.path(), name: &key }.positive(found).map(Some)
    }

    fn bad(&self, suffix: &str, found: impl std::fmt::Display, expected: &str) -> ModelError {
        Field { path: self.path(), name: &self.key(suffix) }.bad(found, expected)
    }

    fn config(
        &self,
        embedding: &Tensor,
        divisors: Option<&Tensor>,
    ) -> Result<ModelConfig, ModelError> {
        self.refuse_what_is_not_computed()?;
        let hidden_size = self.required_size("embedding_length")?;
        let n_heads = self.required_size("attention.head_count")?;
        let head_dim = self.head_dim(hidden_size, n_heads)?;
        let trained_tokens = self.required_size("context_length")?;
        let epsilon = "attention.layer_norm_rms_epsilon";
        let rms_epsilon = self.positive(epsilon)?.ok_or_else(|| {
            Field { path: self.path(), name: &self.key(epsilon) }.missing("a positive number")
        })?;
        let (rope, reach) = self.rope(head_dim, trained_tokens, divisors)?;
        let config = ModelConfig {
            architecture: self.architecture,
            name: self.file.string("general.name")?.unwrap_or(self.convention.name).to_owned(),
            n_layers: self.required_size("block_count")?,
            hidden_size,
            intermediate_size: self.required_size("feed_forward_length")?,
            n_heads,
            n_kv_heads: self.size("attention.head_count_kv")?.unwrap_or(n_heads),
            head_dim,
            vocab_size: self.vocab_size(embedding)?,
            trained_tokens: reach,
            rms_epsilon: rms_epsilon as f32,
            rope,
            sliding_window: self.sliding_window()?,
        };
        let kv_heads = self.key("attention.head_count_kv");
        sizes::check_config(&config, &Field { path: self.path(), name: &kv_heads })?;
        Ok(config)
    }

    /// Keys that llama.cpp's other variants of these architectures set.
    fn refuse_what_is_not_computed(&self) -> Result<(), ModelError> {
        let experts = self.file.u64(&self.key("expert_count"))?.unwrap_or(0);
        if experts > 0 {
            return Err(self.bad(
                "expert_count",
                experts,
                "0 (a mixture of experts is not supported)",
            ));
        }
        if self.file.boolean(&self.key("attention.causal"))? == Some(false) {
            return Err(self.bad("attention.causal", false, "true"));
        }
        Ok(())
    }

    fn head_dim(&self, hidden_size: usize, n_heads: usize) -> Result<usize, ModelError> {
        let name = self.key("attention.key_length");
        let field = Field { path: self.path(), name: &name };
        let given = self.size("attention.key_length")?;
        let head_dim = Heads { hidden_size, n_heads, head_dim: given, field }.head_dim()?;
        match self.size("attention.value_length")? {
            Some(found) if found != head_dim => {
                let expected = format!("the width of the keys, {head_dim},");
                Err(self.bad("attention.value_length", found, &expected))
            }
            _ => Ok(head_dim),
        }
    }

    /// Rows of the embedding; the tokenizer must not know more tokens.
    fn vocab_size(&self, embedding: &Tensor) -> Result<usize, ModelError> {
        let rows = embedding.shape[0];
        match self.file.array_len(TOKENS_KEY) {
            Some(n_tokens) if n_tokens > rows => Err(Field { path: self.path(), name: TOKENS_KEY }
                .bad(
                    format_args!("an array of {n_tokens}"),
                    format_args!("at most one token for each of the {rows} rows of the embedding"),
                )),
            _ => Ok(rows),
        }
    }

    fn sliding_window(&self) -> Result<Option<usize>, ModelError> {
        let key = self.key("attention.sliding_window");
        match self.file.u64(&key)? {
            None | Some(0) => Ok(None),
            Some(found) => Field { path: self.path(), name: &key }.size(found).map(Some),
        }
    }

    /// Rotation, and the number of tokens it reaches.
    fn rope(
        &self,
        head_dim: usize,
        trained_tokens: usize,
        divisors: Option<&Tensor>,
    ) -> Result<(RopeConfig, usize), ModelError> {
        let key = self.key("rope.dimension_count");
        let rotated = self.size("rope.dimension_count")?.unwrap_or(head_dim);
        let field = Field { path: self.path(), name: &key };
        let unscaled = UnscaledRope {
            theta: self.positive("rope.freq_base")?.unwrap_or(DEFAULT_THETA),
            rotated: sizes::check_rotated(&field, rotated, head_dim)?,
            layout: self.convention.rope,
        };
        let divisors = divisors.map(|tensor| self.divisors(tensor, rotated / 2)).transpose()?;
        let scaling = self.rope_scaling(trained_tokens)?;
        let reach = match scaling {
            RopeScaling::Yarn(yarn) => trained_tokens.max(yarn.reach()),
            _ => trained_tokens,
        };
        Ok((unscaled.scaled(divisors.as_deref(), scaling), reach))
    }

    fn divisors(&self, tensor: &Tensor, n_pairs: usize) -> Result<Vec<f32>, ModelError> {
        let (path, tensor_name) = (self.path().to_owned(), tensor.name.clone());
        if tensor.shape != [n_pairs] {
            return Err(ModelError::WrongShape {
                path,
                tensor: tensor_name,
                found: tensor.shape.clone(),
                expected: vec![n_pairs],
            });
        }
        let divisors = tensor.to_f32();
        match divisors.iter().find(|divisor| !divisor.is_normal() || **divisor < 0.0) {
            None => Ok(divisors),
            Some(&found) => Err(ModelError::BadTensor {
                path,
                tensor: tensor_name,
                found,
                expected: "a positive number",
            }),
        }
    }

    fn rope_scaling(&self, trained_tokens: usize) -> Result<RopeScaling, ModelError> {
        let key = self.key("rope.scaling.type");
        let legacy = self.positive("rope.scale_linear")?;
        let factor = self.positive("rope.scaling.factor")?.or(legacy).unwrap_or(1.0);
        let default = if legacy.is_some() { "linear" } else { "none" };
        match self.file.string(&key)?.unwrap_or(default) {
            "none" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "yarn" => self.yarn(factor, trained_tokens).map(RopeScaling::Yarn),
            found => Err(ModelError::UnknownScaling {
                path: self.path().to_owned(),
                field: key,
                found: found.to_owned(),
            }),
        }
    }

    /// As llama.cpp computes it: the magnitude follows from the factor.
    fn yarn(&self, factor: f64, trained_tokens: usize) -> Result<Yarn, ModelError> {
        let given = |suffix: &str| self.positive(&format!("rope.scaling.{suffix}"));
        if let Some(found) = given("yarn_ext_factor")?.filter(|&found| found != 1.0) {
            return Err(self.bad("rope.scaling.yarn_ext_factor", found, "1"));
        }
        let original = self.size("rope.scaling.original_context_length")?.unwrap_or(trained_tokens);
        let magnitude = given("attn_factor")?.unwrap_or(1.0)
            * given("yarn_attn_factor")?.unwrap_or(1.0)
            * yarn_magnitude(factor, 1.0);
        Ok(Yarn {
            factor,
            original_tokens: original as f64,
            beta_fast: given("yarn_beta_fast")?.unwrap_or(32.0),
            beta_slow: given("yarn_beta_slow")?.unwrap_or(1.0),
            rounds_borders: true,
            magnitude,
        })
    }
}
