//! Which flags do commands share that run a model, and which settings hold by them?

use std::path::PathBuf;

use super::failure::Failure;
use super::memory_flags::{MemoryFlags, put};
use super::settings::{Activations, Settings, share, temperature};
use crate::backend::any::DeviceChoice;
use crate::memory::MemoryConfig;

/// How answers are drawn.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Answer")]
pub(super) struct AnswerFlags {
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_tokens: Option<usize>,
    /// 0 takes the likeliest token each time; higher is more varied
    #[arg(long, value_name = "T", value_parser = temperature, allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Draw from the likeliest tokens that together have this share
    #[arg(long, value_name = "P", value_parser = share)]
    top_p: Option<f32>,
    /// Same seed, same answer
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// What runs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunFlags {
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    memory: MemoryFlags,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Model and machine")]
struct ModelFlags {
    /// A GGUF file, a Hugging Face folder, a known name, or hf:OWNER/NAME; fetched when missing
    #[arg(long, value_name = "M")]
    model: Option<String>,
    /// A config.json, of whose shape a model with random weights is made, to measure the speed of
    /// instead of the model's [default: none]
    #[arg(long, value_name = "CONFIG")]
    random_weights: Option<PathBuf>,
    /// Threads that compute; 0 is one for each core
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// How inputs of quantised weights are rounded
    #[arg(long, value_name = "TYPE")]
    activations: Option<Activations>,
    /// What computes
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Bytes of a GPU's memory that are used; 0 is all that is free
    #[arg(long, value_name = "BYTES")]
    gpu_bytes: Option<usize>,
    /// Of them, for units that come from the host; 0 is a quarter of what is free
    #[arg(long, value_name = "BYTES")]
    gpu_unit_bytes: Option<usize>,
    /// Of them, for what stands for units; 0 is a quarter of what is free
    #[arg(long, value_name = "BYTES")]
    gpu_index_bytes: Option<usize>,
    /// Settings in TOML, as in configs/reference.toml; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl RunFlags {
    /// The settings that hold.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let ModelFlags {
            model,
            random_weights,
            threads,
            activations,
            device,
            gpu_bytes,
            gpu_unit_bytes,
            gpu_index_bytes,
            config,
        } = &self.model;
        let file = config.as_deref().map(Settings::from_file).transpose()?;
        let mut settings = file.unwrap_or_default();
        put(&mut settings.model, model);
        put(&mut settings.random_weights, random_weights);
        put(&mut settings.threads, threads);
        put(&mut settings.activations, activations);
        put(&mut settings.device, device);
        put(&mut settings.gpu_bytes, gpu_bytes);
        put(&mut settings.gpu_unit_bytes, gpu_unit_bytes);
        put(&mut settings.gpu_index_bytes, gpu_index_bytes);
        self.memory.change(&mut settings.memory);
        Ok(settings)
    }

    /// Changes settings that a file gave by the flags of the memory.
    pub fn change_memory(&self, memory: &mut MemoryConfig) {
        self.memory.change(memory);
    }

    /// Changes the settings that a context was read with by what the configuration file says of the
    /// memory, then by the flags.
    pub fn change_stored(&self, memory: MemoryConfig) -> Result<MemoryConfig, Failure> {
        let mut memory = match &self.model.config {
            Some(path) => Settings::memory_over(path, memory)?,
            None => memory,
        };
        self.memory.change(&mut memory);
        Ok(memory)
    }

    /// The same, for commands that answer.
    pub fn settings_with(&self, answer: &AnswerFlags) -> Result<Settings, Failure> {
        let mut settings = self.settings()?;
        let AnswerFlags { max_tokens, temperature, top_p, seed } = answer;
        put(&mut settings.answer.max_tokens, max_tokens);
        put(&mut settings.answer.temperature, temperature);
        put(&mut settings.answer.top_p, top_p);
        put(&mut settings.answer.seed, seed);
        Ok(settings)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be a number from 1 on".to_owned())
}
