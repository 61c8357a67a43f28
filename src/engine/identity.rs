//! Which model is it? A number for all that decides what a text becomes in it: two models with one
//! identity give the same keys and values for the same tokens, as far as anybody can tell.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::backend::Precision;
use crate::model::ModelSource;

/// Which numbers this program computes from a model; to be raised whenever a change gives others
/// that differ by more than rounding.
const COMPUTATION: u32 = 1;

/// Kinds of files of a model's folder that decide what it computes.
const KINDS: [&str; 5] = ["json", "jinja", "safetensors", "model", "txt"];

/// The identity of a model: of its files, whatever they are called and wherever they lie.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn of_model(
    source: &ModelSource,
    precision: Precision,
    is_gpu: bool,
) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&COMPUTATION.to_le_bytes());
    hasher.update(&[match precision {
        Precision::F32 => 0,
        Precision::Int16 => 1,
        Precision::Int8 => 2,
    }]);
    if is_gpu {
        // Other rounding: an answer would go on otherwise than it began.
        hasher.update(b"gpu");
    }
    for path in files(source)? {
        // One file's end is never taken for another's beginning.
        hasher.update(&path.metadata()?.len().to_le_bytes());
        hasher.update_reader(File::open(&path)?)?;
    }
    Ok(hasher.finalize().into())
}

fn files(source: &ModelSource) -> io::Result<Vec<PathBuf>> {
    let folder = match source {
        ModelSource::Gguf(file) => return Ok(vec![file.path().to_owned()]),
        ModelSource::Folder(folder) => folder.path(),
    };
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let decides = |path: &Path| {
            let kind = path.extension().and_then(|kind| kind.to_str());
            kind.is_some_and(|kind| KINDS.contains(&kind))
        };
        if path.is_file() && decides(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
