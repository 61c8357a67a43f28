//! Which settings hold? Flags over the configuration file over the defaults. The file is TOML; a
//! key that nobody knows is an error that names file, line and key.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::{Deserialize, Serialize};

use super::failure::Failure;
use crate::api::{LogFormat, LogLevel, ServeConfig};
use crate::backend::any::DeviceChoice;
use crate::backend::cuda::GpuMemory;
use crate::backend::{KvType, Precision, Vote};
use crate::engine::serve::SchedulePolicy;
use crate::engine::{EngineOptions, GenerateOptions, Sampling};
use crate::eval::Task;
use crate::hub::{self, DEFAULT_MODEL};
use crate::memory::{
    AttentionMode, LookupPolicy, MemoryConfig, PinSides, Positions, Sets, UnitCuts,
};

/// Everything that can be set, as a configuration file has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Settings {
    /// A path, a known name or `hf:owner/name`.
    pub model: String,
    /// A config.json of whose shape a model is made, with random weights; empty for `model`.
    pub random_weights: PathBuf,
    /// Threads that compute; 0 is one for each core.
    pub threads: usize,
    pub activations: Activations,
    pub device: DeviceChoice,
    /// Bytes of a GPU's memory that are used; 0 for all that is free.
    pub gpu_bytes: usize,
    /// Of them, for units and for what stands for them; 0 for a quarter of what is free.
    pub gpu_unit_bytes: usize,
    pub gpu_index_bytes: usize,
    /// The folder of the store; empty for mneme in the platform's data folder.
    pub store: PathBuf,
    /// Bytes of the store on the disk at most; 0 for no limit.
    pub store_max_bytes: u64,
    pub memory: MemoryConfig,
    pub answer: AnswerSettings,
    pub serve: ServeConfig,
}

/// How products with quantised weights are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Activations {
    /// Rounded to 12 bits: as good as f32, and faster
    #[default]
    Int16,
    /// Rounded to 8 bits: the fastest, with some noise
    Int8,
    /// Not rounded: the reference
    F32,
}

/// How answers are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct AnswerSettings {
    pub max_tokens: usize,
    pub temperature: f32,
    pub top_p: f32,
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: DEFAULT_MODEL.to_owned(),
            random_weights: PathBuf::new(),
            threads: 0,
            activations: Activations::default(),
            device: DeviceChoice::default(),
            gpu_bytes: 0,
            gpu_unit_bytes: 0,
            gpu_index_bytes: 0,
            store: PathBuf::new(),
            store_max_bytes: 0,
            memory: MemoryConfig::default(),
            answer: AnswerSettings::default(),
            serve: ServeConfig::default(),
        }
    }
}

impl Default for AnswerSettings {
    fn default() -> Self {
        let GenerateOptions { max_tokens, sampling, .. } = GenerateOptions::default();
        let Sampling { temperature, top_p, seed, .. } = sampling;
        Self { max_tokens, temperature, top_p, seed }
    }
}

impl Settings {
    /// The defaults, changed by a file.
    pub fn from_file(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot read the configuration", path.display()))
            .map_err(Failure::Failed)?;
        Self::parse(&text).with_context(|| path.display().to_string()).map_err(Failure::Usage)
    }

    /// `memory`, changed by what a file says of it.
    pub fn memory_over(path: &Path, memory: MemoryConfig) -> Result<MemoryConfig, Failure> {
        Self::from_file(path)?; // so that all of it is understood
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot read the configuration", path.display()))
            .map_err(Failure::Failed)?;
        let overlaid = || -> anyhow::Result<MemoryConfig> {
            let file: toml::Table = toml::from_str(&text)?;
            let mut table = serde_json::to_value(memory)?;
            for (key, value) in
                file.get("memory").and_then(|it| it.as_table()).into_iter().flatten()
            {
                table[key] = serde_json::to_value(value)?;
            }
            Ok(serde_json::from_value(table)?)
        };
        overlaid().with_context(|| path.display().to_string()).map_err(Failure::Usage)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let settings: Self = toml::from_str(text)?;
        settings.answer.check()?;
        if let Some((key, what)) = settings.serve.faults().first() {
            anyhow::bail!("{}serve.{key} {what}", line_of(text, key));
        }
        Ok(settings)
    }

    /// What the model is called in reports.
    pub fn model_name(&self) -> String {
        match self.random_weights.as_os_str().is_empty() {
            true => self.model.clone(),
            false => format!("random weights of {}", self.random_weights.display()),
        }
    }

    /// How to run the model.
    pub fn engine_options(&self) -> EngineOptions {
        let given = |bytes: usize| Some(bytes).filter(|bytes| *bytes > 0);
        let mut options = EngineOptions {
            precision: self.activations.into(),
            device: self.device,
            gpu_memory: GpuMemory {
                total_bytes: given(self.gpu_bytes),
                unit_bytes: given(self.gpu_unit_bytes),
                index_bytes: given(self.gpu_index_bytes),
            },
            kernels: hub::cache_folder().ok().map(|cache| cache.join("kernels")),
            ..Default::default()
        };
        if self.threads > 0 {
            options.n_threads = self.threads;
        }
        options
    }
}

impl AnswerSettings {
    /// How to draw an answer.
    pub fn options(&self) -> GenerateOptions {
        let Self { max_tokens, temperature, top_p, seed } = *self;
        let sampling = Sampling { temperature, top_p, seed, ..Sampling::default() };
        GenerateOptions { max_tokens, sampling, ..GenerateOptions::default() }
    }

    /// Flags are checked as they are read; this is for files.
    fn check(&self) -> anyhow::Result<()> {
        temperature(&self.temperature.to_string())
            .map_err(|fault| anyhow::anyhow!("answer.temperature {fault}"))?;
        share(&self.top_p.to_string()).map_err(|fault| anyhow::anyhow!("answer.top-p {fault}"))?;
        anyhow::ensure!(self.max_tokens > 0, "answer.max-tokens must be at least 1");
        Ok(())
    }
}

/// Where a file sets `key`, for messages.
fn line_of(text: &str, key: &str) -> String {
    let sets = |line: &str| line.split('=').next().is_some_and(|left| left.trim() == key);
    text.lines().position(sets).map_or(String::new(), |line| format!("line {}: ", line + 1))
}

/// A temperature as a flag gives it.
pub(super) fn temperature(text: &str) -> Result<f32, String> {
    number_where(text, "must be a number from 0 on", |value| value >= 0.0)
}

/// A share as a flag gives it.
pub(super) fn share(text: &str) -> Result<f32, String> {
    number_where(text, "must be above 0 and at most 1", |value| value > 0.0 && value <= 1.0)
}

fn number_where(text: &str, demand: &str, holds: impl Fn(f32) -> bool) -> Result<f32, String> {
    let number = text.parse().ok().filter(|value: &f32| value.is_finite() && holds(*value));
    number.ok_or_else(|| demand.to_owned())
}

impl From<Activations> for Precision {
    fn from(activations: Activations) -> Self {
        match activations {
            Activations::Int16 => Self::Int16,
            Activations::Int8 => Self::Int8,
            Activations::F32 => Self::F32,
        }
    }
}

impl ValueEnum for DeviceChoice {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Cpu, Self::Cuda, Self::Auto, Self::Emulated]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Cpu => PossibleValue::new("cpu").help("The processor"),
            Self::Cuda => PossibleValue::new("cuda")
                .help("The first NVIDIA GPU that CUDA_VISIBLE_DEVICES shows"),
            Self::Auto => {
                PossibleValue::new("auto").help("A GPU, or the processor where none can be used")
            }
            Self::Emulated => PossibleValue::new("emulated")
                .help("A GPU's kernels on the host: slow and strict, for tests"),
        })
    }
}

impl ValueEnum for AttentionMode {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Retrieval, Self::Window, Self::Full, Self::Clipped]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Retrieval => PossibleValue::new("retrieval")
                .help("First tokens, recent tokens, and the units that matter to the query"),
            Self::Window => {
                PossibleValue::new("window").help("First and recent tokens only (StreamingLLM)")
            }
            Self::Full => PossibleValue::new("full")
                .help("Every token; slows down as the text grows, and fails beyond trained length"),
            Self::Clipped => PossibleValue::new("clipped")
                .help("Every token, none as further away than clip-tokens; slows down as well"),
        })
    }
}

impl ValueEnum for LookupPolicy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::TwoStage, Self::Segments, Self::AttentionMass, Self::Bound, Self::Exact, Self::None]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::TwoStage => PossibleValue::new("two-stage")
                .help("Segments' mean keys name candidates, of which the best exact key decides"),
            Self::Segments => PossibleValue::new("segments").help("Segments' mean keys alone"),
            Self::AttentionMass => PossibleValue::new("attention-mass")
                .help("The keys that received most attention when they were near (InfLLM)"),
            Self::Bound => {
                PossibleValue::new("bound").help("What no key of a segment exceeds (Quest)")
            }
            Self::Exact => {
                PossibleValue::new("exact").help("The best exact key of every unit; reads all keys")
            }
            Self::None => PossibleValue::new("none").help("Nothing is retrieved (StreamingLLM)"),
        })
    }
}

impl ValueEnum for Task {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for Vote {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Soft, Self::Raw]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Soft => PossibleValue::new("soft")
                .help("Each query's softmax over units, so that no head drowns the others"),
            Self::Raw => PossibleValue::new("raw").help("The scores themselves (InfLLM)"),
        })
    }
}

impl ValueEnum for SchedulePolicy {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Feedback, Self::FirstCome]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Feedback => PossibleValue::new("feedback")
                .help("Who has been served least: short requests do not wait for long ones"),
            Self::FirstCome => PossibleValue::new("first-come").help("Who came first"),
        })
    }
}

impl ValueEnum for LogFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Text => PossibleValue::new("text").help("For people"),
            Self::Json => PossibleValue::new("json").help("For programs"),
        })
    }
}

impl ValueEnum for LogLevel {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Error, Self::Warn, Self::Info, Self::Debug]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }))
    }
}

impl ValueEnum for UnitCuts {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Fixed, Self::Sentence, Self::Surprise]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Fixed => PossibleValue::new("fixed").help("After unit-tokens"),
            Self::Sentence => PossibleValue::new("sentence")
                .help("With a line, a sentence or a clause, up to a quarter earlier"),
            Self::Surprise => PossibleValue::new("surprise")
                .help("Before what surprised the model most, up to a quarter earlier (EM-LLM)"),
        })
    }
}

impl ValueEnum for PinSides {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Both, Self::Words]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Both => PossibleValue::new("both").help("Before and after"),
            Self::Words => {
                PossibleValue::new("words").help("On the side where the question's words stand")
            }
        })
    }
}

impl ValueEnum for Sets {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Layer, Self::KvHead]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Layer => {
                PossibleValue::new("layer").help("All heads of a layer vote for one set of units")
            }
            Self::KvHead => PossibleValue::new("kv-head")
                .help("The query heads of each KV head vote for their own"),
        })
    }
}

impl ValueEnum for Positions {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Question => PossibleValue::new("question")
                .help("In document order just before the question; contiguous where there is none"),
            Self::Contiguous => PossibleValue::new("contiguous")
                .help("In document order between first and recent tokens, as one short text"),
            Self::Edge => PossibleValue::new("edge").help("Each just beyond the window's far edge"),
            Self::Fixed => {
                PossibleValue::new("fixed").help("All keys at one far distance (InfLLM)")
            }
        })
    }
}

impl ValueEnum for KvType {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Int4 => "Units as nibbles: half of what bytes take; the window as bytes",
            Self::Int8 => "Bytes with scales: half the memory of f16",
            Self::F16 => "Halves",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = include_str!("../../configs/reference.toml");

    #[test]
    fn the_reference_configuration_names_every_setting_with_its_default() {
        let named: toml::Value = toml::from_str(REFERENCE).unwrap();
        let named = serde_json::to_value(named).unwrap();
        let defaults = serde_json::to_value(Settings::default()).unwrap();
        assert_eq!(named, defaults);
        assert_eq!(Settings::parse(REFERENCE).unwrap(), Settings::default());
    }

    #[test]
    fn the_cpu_configuration_fits_the_default_model() {
        let cpu = Settings::parse(include_str!("../../configs/cpu.toml")).unwrap();
        assert_eq!(cpu.memory.validate(8192), Ok(()));
    }

    #[test]
    fn a_file_changes_what_it_names_and_nothing_else() {
        let found = Settings::parse("threads = 3\n[memory]\nwindow-tokens = 1024\n").unwrap();
        let mut expected = Settings { threads: 3, ..Settings::default() };
        expected.memory.window_tokens = 1024;
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_with_line_and_key() {
        let refused = [
            ("[memory]\nwindow = 12\n", ["line 2", "window-tokens"]),
            ("threads = 2\nmodle = \"x\"\n", ["line 2", "modle"]),
            ("[memory]\n\nunit-tokens = \"many\"\n", ["line 3", "unit-tokens"]),
            ("[memory]\npositions = \"true\"\n", ["line 2", "contiguous"]),
            ("threads = \n", ["line 1", "threads"]),
            ("[answer]\ntop-p = 1.5\n", ["answer.top-p", "at most 1"]),
            ("[serve]\nlisten = \"here\"\n", ["line 2", "listen"]),
            ("[serve]\n\nmax-requests = 0\n", ["line 3", "serve.max-requests"]),
        ];
        for (text, words) in refused {
            let message = format!("{:#}", Settings::parse(text).unwrap_err());
            for word in words {
                assert!(message.contains(word), "{message} lacks {word}");
            }
        }
    }
}
