//! How does a model come from the Hugging Face hub? By `hf-hub`, into the cache that all tools of
//! that hub share (`HF_HOME`), with its token (`HF_TOKEN`) and its mirrors (`HF_ENDPOINT`).
//!
//! A repository with one GGUF file is that file; one with several is a question; one without is a
//! folder of config, tokenizer and safetensors. A note in our own cache remembers what was whole,
//! so that a model once fetched opens without a network.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};

use super::cache::{Cache, io_error, is_disk_full, make_folder};
use super::error::HubError;
use super::progress::{PullFn, PullStage, PullStep};

/// Files of a folder that are fetched where they exist, besides the weights.
const FOLDER_FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
    "added_tokens.json",
];

/// What is asked for: `hf:owner/name` or `hf:owner/name/path/file.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubName {
    /// As the user wrote it.
    name: String,
    /// `owner/name`
    repo: String,
    file: Option<String>,
}

impl HubName {
    /// Reads a name that begins with `hf:`; `None` when it is another kind of name.
    pub fn parse(name: &str) -> Option<Result<Self, HubError>> {
        let rest = name.strip_prefix("hf:")?;
        let parts: Vec<&str> = rest.split('/').collect();
        let is_plain = |part: &&str| !part.is_empty() && !part.starts_with('.');
        if parts.len() < 2 || !parts.iter().all(is_plain) {
            return Some(Err(HubError::MalformedName { name: name.to_owned() }));
        }
        let file = parts[2..].join("/");
        Some(Ok(Self {
            name: name.to_owned(),
            repo: parts[..2].join("/"),
            file: Some(file).filter(|file| !file.is_empty()),
        }))
    }

    /// Where the path of what was fetched is noted.
    fn note(&self, cache: &Cache) -> PathBuf {
        cache.root().join("hub").join(format!("{}.path", self.name[3..].replace('/', "--")))
    }
}

/// Where the hub and its cache are; from the environment unless set.
#[derive(Clone, Debug, Default)]
pub(super) struct HubPlace {
    pub endpoint: Option<String>,
    pub cache: Option<PathBuf>,
}

/// Fetches what `name` asks for, unless it is there.
pub(super) fn pull(
    name: &HubName,
    cache: &Cache,
    place: &HubPlace,
    progress: &mut PullFn<'_>,
) -> Result<PathBuf, HubError> {
    let note = name.note(cache);
    if let Some(path) = noted(&note) {
        return Ok(path);
    }
    let shared = place.shared_cache();
    let api = open(place, &shared).map_err(|error| hub_error(name, error))?;
    let repo = api.model(name.repo.clone());
    let info = repo.info().map_err(|error| hub_error(name, error))?;
    let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
    let wanted = choose(name, &files)?;
    let mut path = PathBuf::new();
    for file in &wanted.files {
        path = match shared.model(name.repo.clone()).get(file) {
            Some(path) => path,
            None => Fetch { name, shared: &shared, repo: &repo }.file(file, progress)?,
        };
    }
    if wanted.is_folder {
        path.pop();
    }
    remember(&note, &path)?;
    Ok(path)
}

impl HubPlace {
    /// The cache that tools of the hub share.
    fn shared_cache(&self) -> hf_hub::Cache {
        self.cache.clone().map_or_else(hf_hub::Cache::from_env, hf_hub::Cache::new)
    }
}

fn open(place: &HubPlace, shared: &hf_hub::Cache) -> Result<Api, ApiError> {
    let mut builder = ApiBuilder::from_env()
        .with_cache_dir(shared.path().clone())
        .with_token(shared.token().or_else(|| std::env::var("HF_TOKEN").ok()))
        .with_progress(false);
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder.build()
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// At least one, the last one directly in the folder where it is one.
    files: Vec<String>,
    is_folder: bool,
}

/// Which files of a repository make the model.
fn choose(name: &HubName, files: &[String]) -> Result<Wanted, HubError> {
    let one = |file: &String| Wanted { files: vec![file.clone()], is_folder: false };
    let of_type = |ending: &'static str| files.iter().filter(move |file| file.ends_with(ending));
    let ggufs: Vec<&String> = of_type(".gguf").collect();
    let found = name.file.as_ref().map(|wanted| ggufs.iter().find(|file| **file == wanted));
    match (found, ggufs.as_slice()) {
        (Some(Some(file)), _) | (None, [file]) => Ok(one(file)),
        (Some(None), []) => Err(HubError::NoModel { name: name.name.clone() }),
        (Some(None), _) | (None, [_, _, ..]) => {
            let choices = ggufs.iter().map(|file| format!("hf:{}/{file}", name.repo));
            Err(HubError::ManyFiles { name: name.name.clone(), choices: choices.collect() })
        }
        (None, []) => {
            let weights = of_type(".safetensors").filter(|file| !file.contains('/'));
            let mut folder: Vec<String> = weights.cloned().collect();
            if folder.is_empty() || !files.iter().any(|file| file == "config.json") {
                return Err(HubError::NoModel { name: name.name.clone() });
            }
            folder
                .extend(FOLDER_FILES.map(str::to_owned).into_iter().filter(|f| files.contains(f)));
            Ok(Wanted { files: folder, is_folder: true })
        }
    }
}

/// What a file is fetched with.
struct Fetch<'a> {
    name: &'a HubName,
    shared: &'a hf_hub::Cache,
    repo: &'a ApiRepo,
}

impl Fetch<'_> {
    /// Fetches one file; its path.
    fn file(&self, file: &str, progress: &mut PullFn<'_>) -> Result<PathBuf, HubError> {
        let (total, stopped) = (Cell::new(None), Cell::new(false));
        let growth = Growth { progress, done: 0, total: &total, stopped: &stopped };
        let path = self.repo.download_with_progress(file, growth).map_err(|error| match error {
            ApiError::IoError(error) if is_disk_full(&error) => HubError::DiskFull {
                folder: self.shared.path().clone(),
                needed_bytes: total.get().unwrap_or(0),
                free_bytes: None,
            },
            other => hub_error(self.name, other),
        })?;
        // A connection that ends early must not leave a short file behind.
        let found = path.metadata().map(|found| found.len()).ok();
        if found == total.get() {
            return if stopped.get() { Err(HubError::Stopped) } else { Ok(path) };
        }
        let blob = path.canonicalize();
        let _ = std::fs::remove_file(&path);
        let _ = blob.map(std::fs::remove_file);
        let message = format!("{file} ended early; it was removed, try again");
        Err(HubError::Hub { name: self.name.name.clone(), message })
    }
}

struct Growth<'a> {
    progress: &'a mut PullFn<'a>,
    done: u64,
    total: &'a Cell<Option<u64>>,
    /// Set when the pull is to stop; `hf-hub` cannot be told so before the file's end.
    stopped: &'a Cell<bool>,
}

impl Progress for Growth<'_> {
    fn init(&mut self, size: usize, _file: &str) {
        self.total.set(Some(size as u64));
        self.done = 0;
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        let total_bytes = self.total.get().unwrap_or(self.done);
        let (stage, done_bytes) = (PullStage::Download, self.done);
        let flow = (self.progress)(&PullStep { stage, done_bytes, total_bytes });
        self.stopped.set(self.stopped.get() || flow.is_break());
    }

    fn finish(&mut self) {}
}

/// What a note says is there, if it still is.
fn noted(note: &Path) -> Option<PathBuf> {
    let path = PathBuf::from(std::fs::read_to_string(note).ok()?);
    path.exists().then_some(path)
}

fn remember(note: &Path, path: &Path) -> Result<(), HubError> {
    // A path that cannot be written as text is looked up again next time.
    let Some(text) = path.to_str() else { return Ok(()) };
    if let Some(folder) = note.parent() {
        make_folder(folder)?;
    }
    let fresh = note.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&fresh, text).map_err(|error| io_error(&fresh, "write", error))?;
    std::fs::rename(&fresh, note).map_err(|error| io_error(note, "move into place", error))
}

fn hub_error(name: &HubName, error: ApiError) -> HubError {
    let status = match &error {
        ApiError::RequestError(error) => match error.as_ref() {
            ureq::Error::StatusCode(status) => Some(*status),
            _ => None,
        },
        _ => None,
    };
    let name = name.name.clone();
    match status {
        Some(status @ 400..=499) => HubError::Refused { name, status },
        _ => HubError::Hub { name, message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> HubName {
        HubName::parse(name).unwrap().unwrap()
    }

    #[test]
    fn names_are_a_repository_and_perhaps_a_file() {
        assert_eq!(parsed("hf:a/b").repo, "a/b");
        assert_eq!(parsed("hf:a/b").file, None);
        assert_eq!(parsed("hf:a/b/q4/c.gguf").file.as_deref(), Some("q4/c.gguf"));
        assert!(HubName::parse("a/b").is_none());
        for malformed in ["hf:", "hf:a", "hf:a/", "hf:/b", "hf:a//c", "hf:a/../c", "hf:../../x"] {
            assert!(HubName::parse(malformed).unwrap().is_err(), "{malformed}");
        }
    }

    fn check(name: &str, files: &[&str], expected: Result<&[&str], &str>) {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        match (choose(&parsed(name), &files), expected) {
            (Ok(wanted), Ok(expected)) => assert_eq!(wanted.files, expected, "{name}"),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }

    #[test]
    fn a_repository_is_one_gguf_file_or_a_folder_or_a_question() {
        check("hf:a/b", &["README.md", "m.gguf"], Ok(&["m.gguf"]));
        check("hf:a/b", &["q4.gguf", "q8.gguf"], Err("hf:a/b/q8.gguf"));
        check("hf:a/b/q8.gguf", &["q4.gguf", "q8.gguf"], Ok(&["q8.gguf"]));
        check("hf:a/b/q5.gguf", &["q4.gguf", "q8.gguf"], Err("hf:a/b/q4.gguf"));
        check("hf:a/b/q5.gguf", &["config.json"], Err("neither"));
        check("hf:a/b", &["README.md"], Err("neither"));
        check("hf:a/b", &["model.safetensors"], Err("neither"));
        let folder =
            ["config.json", "model.safetensors", "onnx/x.safetensors", "tokenizer.json", "x.bin"];
        check("hf:a/b", &folder, Ok(&["model.safetensors", "config.json", "tokenizer.json"]));
    }
}
