//! How does a shape become a model that runs? Random weights and a tokenizer of bytes, as files in
//! the cache: all else works as with any model.

use std::path::{Path, PathBuf};

use super::error::EngineError;
use crate::model::{ModelError, RandomProgressFn, write_random};
use crate::tokenizer::write_byte_level;

/// The folder of a model of the shape that the file `config` (a config.json) describes, below
/// `cache`: made there, unless it was made before. What is stopped or fails leaves nothing behind.
///
/// # Errors
/// When it is not a configuration of a model, the folder cannot be written, or `progress` says to
/// stop.
pub fn random_model(
    config: &Path,
    cache: &Path,
    progress: &mut RandomProgressFn<'_>,
) -> Result<PathBuf, EngineError> {
    let read = |source| ModelError::Io { path: config.to_owned(), source };
    let bytes = std::fs::read(config).map_err(read)?;
    let hash = blake3::hash(&bytes).to_hex();
    let folder = cache.join("random").join(&hash[..16]);
    if folder.exists() {
        return Ok(folder);
    }
    let part = Part(folder.with_extension(format!("part-{}", std::process::id())));
    let shape = write_random(config, &part.0, progress)?;
    let written = |source| ModelError::Write { path: part.0.clone(), source };
    write_byte_level(&part.0, shape.vocab_size).map_err(written)?;
    match std::fs::rename(&part.0, &folder) {
        Err(_) if folder.exists() => {} // another process was faster
        renamed => renamed.map_err(written)?,
    }
    Ok(folder)
}

/// A folder that is gone when it was not renamed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
