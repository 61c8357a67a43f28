//! What do the small files beside `tokenizer.json` say? Which tokens begin and end a text, and how
//! a conversation is written. Every one of these files may be missing.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::tokenizer::error::{TokenizerError, VocabularyFault};

/// What they say together.
pub(super) struct Settings {
    /// The text of the token that begins a text.
    pub bos: Option<String>,
    /// The text of the token that ends a text.
    pub eos: Option<String>,
    /// Whether a text is to begin with `bos`, where the file says.
    pub adds_bos: Option<bool>,
    /// Whether a text is to end with `eos`, where the file says.
    pub adds_eos: Option<bool>,
    /// The id of the token that begins a text, from the model's configuration.
    pub bos_id: Option<u64>,
    /// Ids that end a generation, from the model's configurations.
    pub end_ids: Vec<u64>,
    /// The chat template's source.
    pub template: Option<String>,
}

impl Settings {
    /// Reads the files of `folder`.
    pub fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let tokenizer = json(folder.join("tokenizer_config.json"))?;
        let generation = json(folder.join("generation_config.json"))?;
        let model = json(folder.join("config.json"))?;
        let end_ids = ids(&generation["eos_token_id"]).chain(ids(&model["eos_token_id"])).collect();
        let bos_id = ids(&generation["bos_token_id"]).chain(ids(&model["bos_token_id"])).next();
        Ok(Self {
            bos: token_text(&tokenizer["bos_token"]),
            eos: token_text(&tokenizer["eos_token"]),
            adds_bos: tokenizer["add_bos_token"].as_bool(),
            adds_eos: tokenizer["add_eos_token"].as_bool(),
            bos_id,
            end_ids,
            template: template(folder, &tokenizer["chat_template"])?,
        })
    }
}

/// The template: a file of its own goes before the tokenizer's configuration.
fn template(folder: &Path, configured: &Value) -> Result<Option<String>, TokenizerError> {
    if let Some(template) = text(&folder.join("chat_template.jinja"))? {
        return Ok(Some(template));
    }
    if let Some(template) = default_template(configured) {
        return Ok(Some(template));
    }
    Ok(default_template(&json(folder.join("chat_template.json"))?["chat_template"]))
}

/// A template alone, or the default of a list of named ones, or the first of them.
fn default_template(value: &Value) -> Option<String> {
    let source = match value {
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            &default.or(named.first())?["template"]
        }
        other => other,
    };
    source.as_str().map(str::to_owned)
}

/// A token is written as its text or as an object that has it.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or(value["content"].as_str()).map(str::to_owned)
}

/// One id or a list of them.
fn ids(value: &Value) -> impl Iterator<Item = u64> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_u64)
}

/// A file's JSON, `null` where there is no such file.
fn json(path: PathBuf) -> Result<Value, TokenizerError> {
    let Some(text) = text(&path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text).map_err(|error| {
        let fault = VocabularyFault::Json { message: error.to_string() };
        TokenizerError::Vocabulary { path, fault }
    })
}

fn text(path: &Path) -> Result<Option<String>, TokenizerError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read { path: path.to_owned(), source }),
    }
}
