//! `mneme inspect`: what is in a model's files?

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::args::InspectArgs;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::output::{harmless, print, print_json};
use super::{numbers, opening};
use crate::backend::{KvType, PageLayout};
use crate::memory::MemoryConfig;
use crate::model::{ChatTemplate, Model, ModelConfig, ModelError, ModelSummary};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    path: PathBuf,
    container: &'static str,
    name: String,
    architecture: String,
    layers: usize,
    hidden_size: usize,
    intermediate_size: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    trained_tokens: usize,
    /// Width of the model's own sliding window, null where it has none.
    sliding_window: Option<usize>,
    parameters: u64,
    weight_bytes: u64,
    /// Element types, the largest share first.
    types: Vec<Share>,
    /// Of all layers, by `--kv-type`.
    key_value_bytes_per_token: BTreeMap<&'static str, usize>,
    chat_template: bool,
}

#[derive(Debug, Serialize)]
struct Share {
    dtype: String,
    tensors: usize,
    bytes: u64,
}

pub(super) fn run(args: InspectArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let path = opening::fetch(&args.model, interrupt)?;
    let failed = |error: ModelError| Failure::Failed(error.into());
    let summary = Model::open(&path).and_then(|model| model.summary()).map_err(failed)?;
    let report = report(summary);
    if args.json { print_json(&report) } else { print(&report.table()) }
}

fn report(summary: ModelSummary) -> Report {
    let config = summary.config;
    let key_value =
        KvType::ALL.map(|kv_type| (kv_type.name(), layout(&config, kv_type).bytes_per_token()));
    let types = summary.types.iter().map(|share| Share {
        dtype: share.dtype.to_string(),
        tensors: share.n_tensors,
        bytes: share.bytes,
    });
    Report {
        path: summary.path,
        container: summary.container,
        name: config.name,
        architecture: config.architecture.to_string(),
        layers: config.n_layers,
        hidden_size: config.hidden_size,
        intermediate_size: config.intermediate_size,
        heads: config.n_heads,
        kv_heads: config.n_kv_heads,
        head_dim: config.head_dim,
        vocab_size: config.vocab_size,
        trained_tokens: config.trained_tokens,
        sliding_window: config.sliding_window,
        parameters: summary.n_parameters,
        weight_bytes: summary.weight_bytes,
        types: types.collect(),
        key_value_bytes_per_token: key_value.into(),
        chat_template: summary.chat_template == ChatTemplate::Present,
    }
}

fn layout(config: &ModelConfig, kv_type: KvType) -> PageLayout {
    PageLayout {
        heads: config.heads(),
        n_layers: config.n_layers,
        page_len: MemoryConfig::default().unit_tokens,
        kv_type,
    }
}

impl Report {
    fn table(&self) -> String {
        let window = self.sliding_window.map_or(String::new(), |window| {
            format!(", sliding window of {}", numbers::count(window))
        });
        let template = if self.chat_template { "present" } else { "missing: completes text only" };
        let key_value = self.key_value_bytes_per_token.iter();
        let key_value: Vec<_> =
            key_value.map(|(name, n)| format!("{} as {name}", numbers::bytes(*n as u64))).collect();
        let key_value = key_value.join(", ");
        let mut table = format!(
            "model          {} ({}, {})\n\
             file           {}\n\
             trained for    {}{window}\n\
             layers         {} of width {}, inner width {}\n\
             heads          {} for queries, {} for keys and values, of {} dimensions\n\
             vocabulary     {}\n\
             key/value      {} a token\n\
             chat template  {template}\n\
             weights        {} parameters, {}\n",
            harmless(&self.name),
            self.architecture,
            self.container,
            self.path.display(),
            numbers::count_of(self.trained_tokens, "token"),
            self.layers,
            self.hidden_size,
            self.intermediate_size,
            self.heads,
            self.kv_heads,
            self.head_dim,
            numbers::count_of(self.vocab_size, "token"),
            key_value,
            numbers::count(self.parameters as usize),
            numbers::bytes(self.weight_bytes),
        );
        for share in &self.types {
            let tensors = numbers::count_of(share.tensors, "tensor");
            let bytes = numbers::bytes(share.bytes);
            table += &format!("               {:<5} {bytes:>9} in {tensors}\n", share.dtype);
        }
        table
    }
}
