//! How does a Hugging Face folder become a model? Fields of config.json to a configuration,
//! tensors to weights.

use std::path::Path;

use super::assemble::{TensorShelf, Tying};
use super::json::JsonObject;
use super::sizes::{self, Field, Heads};
use crate::model::arch::{Architecture, WindowRule};
use crate::model::config::ModelConfig;
use crate::model::error::ModelError;
use crate::model::rope::{RopeConfig, RopeLayout, RopeScaling, UnscaledRope, Yarn, yarn_magnitude};
use crate::model::weights::Weights;
use crate::tensor::safetensors::SafetensorsFolder;

pub(in crate::model) const CONFIG_FILE: &str = "config.json";
const DEFAULT_THETA: f64 = 10_000.0;
const DEFAULT_EPSILON: f64 = 1e-6;

pub(super) fn load(folder: &Path) -> Result<(ModelConfig, Weights, SafetensorsFolder), ModelError> {
    let json = JsonObject::read(&folder.join(CONFIG_FILE))?;
    let config = config(&json)?;
    let tying = match json.boolean("tie_word_embeddings")? {
        Some(true) => Tying::Tied,
        Some(false) => Tying::Separate,
        None => Tying::TiedWhereMissing,
    };
    let files = SafetensorsFolder::open(folder)?;
    let names = config.architecture.entry().folder_tensors;
    let shelf = TensorShelf::new(folder, names, files.tensors().iter());
    let weights = shelf.weights(&config, tying)?;
    Ok((config, weights, files))
}

/// The shape that a config.json describes, and whether the output matrix is the embedding.
///
/// # Errors
/// When it is none of a model.
pub(in crate::model) fn read_config(path: &Path) -> Result<(ModelConfig, bool), ModelError> {
    let json = JsonObject::read(path)?;
    Ok((config(&json)?, json.boolean("tie_word_embeddings")?.unwrap_or(false)))
}

fn config(json: &JsonObject) -> Result<ModelConfig, ModelError> {
    let architecture = architecture(json)?;
    match json.string("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(_) => return Err(json.bad("hidden_act", "\"silu\"")),
    }
    let hidden_size = json.required_size("hidden_size")?;
    let n_heads = json.required_size("num_attention_heads")?;
    let field = Field { path: json.path(), name: "head_dim" };
    let head_dim = json.size("head_dim")?;
    let head_dim = Heads { hidden_size, n_heads, head_dim, field }.head_dim()?;
    let (rope, trained_tokens) = rope(json, head_dim)?;
    let n_layers = json.required_size("num_hidden_layers")?;
    let config = ModelConfig {
        architecture,
        name: name(json)?,
        n_layers,
        hidden_size,
        intermediate_size: json.required_size("intermediate_size")?,
        n_heads,
        n_kv_heads: json.size("num_key_value_heads")?.unwrap_or(n_heads),
        head_dim,
        vocab_size: json.required_size("vocab_size")?,
        trained_tokens,
        rms_epsilon: json.positive("rms_norm_eps")?.unwrap_or(DEFAULT_EPSILON) as f32,
        rope,
        sliding_window: sliding_window(json, architecture.entry().folder_window, n_layers)?,
    };
    let kv_heads = Field { path: json.path(), name: "num_key_value_heads" };
    sizes::check_config(&config, &kv_heads)?;
    Ok(config)
}

fn architecture(json: &JsonObject) -> Result<Architecture, ModelError> {
    let model_type = json.string("model_type")?;
    let classes = json.strings("architectures")?.unwrap_or_default();
    let (field, found) = match model_type {
        Some(model_type) => ("model_type", model_type.to_owned()),
        None => ("architectures", classes.join(", ")),
    };
    Architecture::from_folder(model_type, &classes).ok_or_else(|| ModelError::UnknownArchitecture {
        path: json.path().to_owned(),
        field,
        found,
    })
}

/// The name that the file gives, else that of its folder.
fn name(json: &JsonObject) -> Result<String, ModelError> {
    let given = json.string("_name_or_path")?.filter(|name| !name.is_empty());
    let folder = json.path().parent().and_then(Path::file_name);
    let folder = folder.map(|name| name.to_string_lossy().into_owned());
    Ok(given.map(str::to_owned).or(folder).unwrap_or_default())
}

/// Rotation, and the number of tokens it reaches.
fn rope(json: &JsonObject, head_dim: usize) -> Result<(RopeConfig, usize), ModelError> {
    let trained_tokens = json.required_size("max_position_embeddings")?;
    // transformers 5 writes everything about rotation into one object.
    let parameters = match json.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => json.object("rope_scaling")?,
    };
    let either = |key: &str| -> Result<Option<f64>, ModelError> {
        let inner = parameters.as_ref().map(|parameters| parameters.positive(key)).transpose()?;
        Ok(inner.flatten().or(json.positive(key)?))
    };
    let part = either("partial_rotary_factor")?.unwrap_or(1.0);
    let rotated = (head_dim as f64 * part) as usize;
    let field = Field { path: json.path(), name: "partial_rotary_factor (times head_dim)" };
    let unscaled = UnscaledRope {
        theta: either("rope_theta")?.unwrap_or(DEFAULT_THETA),
        rotated: sizes::check_rotated(&field, rotated, head_dim)?,
        layout: RopeLayout::Half,
    };
    let scaling = match &parameters {
        Some(parameters) => rope_scaling(parameters, trained_tokens)?,
        None => RopeScaling::None,
    };
    let reach = match scaling {
        RopeScaling::Yarn(yarn) => trained_tokens.max(yarn.reach()),
        _ => trained_tokens,
    };
    Ok((unscaled.scaled(None, scaling), reach))
}

fn rope_scaling(json: &JsonObject, trained_tokens: usize) -> Result<RopeScaling, ModelError> {
    let key = if json.has("rope_type") { "rope_type" } else { "type" };
    match json.string(key)?.unwrap_or("default") {
        "default" | "none" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: json.required_positive("factor")? }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: json.required_positive("factor")?,
            low_frequency_factor: json.required_positive("low_freq_factor")?,
            high_frequency_factor: json.required_positive("high_freq_factor")?,
            original_tokens: json.required_positive("original_max_position_embeddings")?,
        }),
        "yarn" => yarn(json, trained_tokens as f64).map(RopeScaling::Yarn),
        found => Err(ModelError::UnknownScaling {
            path: json.path().to_owned(),
            field: json.name(key),
            found: found.to_owned(),
        }),
    }
}

/// As `_compute_yarn_parameters` of transformers reads it.
fn yarn(json: &JsonObject, trained_tokens: f64) -> Result<Yarn, ModelError> {
    let original = json.positive("original_max_position_embeddings")?;
    let original_tokens = original.unwrap_or(trained_tokens);
    let factor = match (json.positive("factor")?, original) {
        (Some(factor), _) => factor,
        (None, Some(original)) => trained_tokens / original,
        (None, None) => json.required_positive("factor")?,
    };
    let magnitude = match json.positive("attention_factor")? {
        Some(given) => given,
        None => match (json.positive("mscale")?, json.positive("mscale_all_dim")?) {
            (Some(one), Some(all)) => yarn_magnitude(factor, one) / yarn_magnitude(factor, all),
            _ => yarn_magnitude(factor, 1.0),
        },
    };
    Ok(Yarn {
        factor,
        original_tokens,
        beta_fast: json.positive("beta_fast")?.unwrap_or(32.0),
        beta_slow: json.positive("beta_slow")?.unwrap_or(1.0),
        rounds_borders: json.boolean("truncate")?.unwrap_or(true),
        magnitude,
    })
}

/// One window for all layers or none; a mixture is refused.
fn sliding_window(
    json: &JsonObject,
    rule: WindowRule,
    n_layers: usize,
) -> Result<Option<usize>, ModelError> {
    let kinds = json.strings("layer_types")?.unwrap_or_default();
    if kinds.iter().any(|kind| *kind != kinds[0])
        || !matches!(kinds.first(), None | Some(&("full_attention" | "sliding_attention")))
    {
        let expected = "full_attention of every layer or sliding_attention of every layer";
        return Err(json.bad("layer_types", expected));
    }
    let window = || json.size("sliding_window");
    match rule {
        WindowRule::Never => Ok(None),
        WindowRule::WhereGiven => window(),
        WindowRule::WhereSwitchedOn if !json.boolean("use_sliding_window")?.unwrap_or(false) => {
            Ok(None)
        }
        WindowRule::WhereSwitchedOn => {
            let expected = format_args!("0 or at least {n_layers} (one window for all layers)");
            match json.integer("max_window_layers")? {
                Some(0) => window(),
                Some(first) if first >= n_layers as u64 => Ok(None),
                _ => Err(json.bad("max_window_layers", expected)),
            }
        }
    }
}
