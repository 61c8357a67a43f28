//! How is a field of config.json read? With its name at hand for the error, `null` as missing.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::sizes::Field;
use crate::model::error::ModelError;

/// A config.json is a few kilobytes long, a tokenizer_config.json up to a few hundred.
const BYTES_MAX: u64 = 4 << 20;

/// An object of a JSON file.
pub(super) struct JsonObject {
    path: PathBuf,
    /// Stands before the names of fields in messages: empty, or `rope_scaling.`.
    prefix: String,
    fields: Map<String, Value>,
}

impl JsonObject {
    /// Reads a file that holds one object.
    pub(super) fn read(path: &Path) -> Result<Self, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let json = |fault: String| ModelError::Json { path: path.to_owned(), fault };
        let length = std::fs::metadata(path).map_err(io)?.len();
        if length > BYTES_MAX {
            return Err(json(format!("{length} bytes are more than the {BYTES_MAX} allowed")));
        }
        let text = std::fs::read(path).map_err(io)?;
        let fields = serde_json::from_slice(&text).map_err(|error| json(error.to_string()))?;
        Ok(Self { path: path.to_owned(), prefix: String::new(), fields })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name of a field in messages.
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// The error for a field that does not hold what is expected.
    pub(super) fn bad(&self, key: &str, expected: impl std::fmt::Display) -> ModelError {
        let found = match self.value(key) {
            None => "missing".to_owned(),
            Some(Value::Array(_)) => "an array".to_owned(),
            Some(Value::Object(_)) => "an object".to_owned(),
            Some(value) => value.to_string(),
        };
        Field { path: &self.path, name: &self.name(key) }.bad(found, expected)
    }

    fn convert<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.bad(key, expected))
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>, ModelError> {
        self.convert(key, "a non-negative integer", Value::as_u64)
    }

    /// A size of at least one.
    pub(super) fn size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(found) = self.convert(key, "a positive integer", Value::as_u64)? else {
            return Ok(None);
        };
        Field { path: &self.path, name: &self.name(key) }.size(found).map(Some)
    }

    pub(super) fn required_size(&self, key: &str) -> Result<usize, ModelError> {
        self.size(key)?.ok_or_else(|| self.missing(key, "a positive integer"))
    }

    /// A number above zero.
    pub(super) fn positive(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(found) = self.convert(key, "a positive number", Value::as_f64)? else {
            return Ok(None);
        };
        Field { path: &self.path, name: &self.name(key) }.positive(found).map(Some)
    }

    pub(super) fn required_positive(&self, key: &str) -> Result<f64, ModelError> {
        self.positive(key)?.ok_or_else(|| self.missing(key, "a positive number"))
    }

    fn missing(&self, key: &str, expected: &'static str) -> ModelError {
        Field { path: &self.path, name: &self.name(key) }.missing(expected)
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.convert(key, "a string", Value::as_str)
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.convert(key, "true or false", Value::as_bool)
    }

    pub(super) fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, ModelError> {
        self.convert(key, "an array of strings", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// Whether a field is there at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Self>, ModelError> {
        let fields = self.convert(key, "an object", |value| value.as_object().cloned())?;
        Ok(fields.map(|fields| Self {
            path: self.path.clone(),
            prefix: format!("{}{key}.", self.prefix),
            fields,
        }))
    }
}
