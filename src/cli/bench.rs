//! `mneme bench`: how fast does it read and answer, and in how much memory?

use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::BenchArgs;
use super::failure::Failure;
use super::input::NotText;
use super::interrupt::{Interrupt, Watch};
use super::meter::{Meter, Unit};
use super::output::{print, print_json};
use super::settings::{Activations, Settings};
use super::{numbers, opening};
use crate::backend::cuda::GpuUse;
use crate::engine::{AtEnd, GenerateOptions, Progress, Session};
use crate::ids::TokenId;
use crate::memory::MemoryConfig;
use crate::tokenizer::SpecialTokens;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: f64,
    /// The most memory the process had at any time; null where the system does not say.
    peak_rss_bytes: Option<u64>,
    prompt_tokens: usize,
    decode_tokens: usize,
    prefill_seconds: f64,
    decode_seconds: f64,
    memory_units: usize,
    attended_tokens_max: usize,
    model: String,
    device: String,
    threads: usize,
    activations: Activations,
    /// What a GPU's memory was used for; null where none computed.
    gpu: Option<GpuUse>,
    memory: MemoryConfig,
}

pub(super) fn run(args: BenchArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    if args.prompt_tokens == 0 || args.decode_tokens == 0 {
        return Err(Failure::usage("--prompt-tokens and --decode-tokens must be at least 1"));
    }
    let settings = args.run.settings()?;
    let text = args.prompt_file.read(NotText::Refuse)?;
    let mut session = opening::open(&settings, interrupt)?;
    let ids = session.engine().tokenizer().encode(&text, SpecialTokens::AsText);
    let prompt = ids.get(..args.prompt_tokens).ok_or_else(|| {
        Failure::usage(format!(
            "{} has {}; --prompt-tokens {} asks for more",
            args.prompt_file,
            numbers::count_of(ids.len(), "token"),
            args.prompt_tokens
        ))
    })?;
    let watch = interrupt.watch();
    let prefill = read(&mut session, prompt, &watch)?;
    let decode = generate(&mut session, args.decode_tokens, &watch)?;
    let report = report(&session, settings, (prompt.len(), prefill), (args.decode_tokens, decode));
    if args.json { print_json(&report) } else { print(&report.table()) }
}

/// Reads all but the last token as a document, and the last so that an answer can begin.
fn read(session: &mut Session, ids: &[TokenId], watch: &Watch<'_>) -> Result<Duration, Failure> {
    let mut meter = Meter::new("reading", Unit::Tokens);
    let begun = Instant::now();
    let (document, last) = ids.split_at(ids.len() - 1);
    session.read_tokens(document, &mut |step: Progress| {
        meter.show(step.done_tokens, ids.len());
        watch.flow()
    })?;
    session.prompt_tokens(last)?;
    Ok(begun.elapsed())
}

fn generate(
    session: &mut Session,
    n_tokens: usize,
    watch: &Watch<'_>,
) -> Result<Duration, Failure> {
    let mut meter = Meter::new("generating", Unit::Tokens);
    let options =
        GenerateOptions { max_tokens: n_tokens, at_end: AtEnd::GoOn, ..Default::default() };
    let begun = Instant::now();
    for (i, piece) in session.generate(options).enumerate() {
        piece?;
        meter.show(i, n_tokens);
        if watch.is_requested() {
            let stopped = format!("stopped after {i} of {n_tokens} tokens generated");
            return Err(Failure::Interrupted(stopped));
        }
    }
    Ok(begun.elapsed())
}

fn report(
    session: &Session,
    settings: Settings,
    (prompt_tokens, prefill): (usize, Duration),
    (decode_tokens, decode): (usize, Duration),
) -> Report {
    Report {
        prefill_tokens_per_second: numbers::per_second(prompt_tokens, prefill),
        decode_tokens_per_second: numbers::per_second(decode_tokens, decode),
        peak_rss_bytes: peak_rss_bytes(),
        prompt_tokens,
        decode_tokens,
        prefill_seconds: prefill.as_secs_f64(),
        decode_seconds: decode.as_secs_f64(),
        memory_units: session.memory().n_units(),
        attended_tokens_max: session.memory().max_attended_tokens(),
        device: session.engine().device(),
        gpu: session.engine().gpu_use(),
        threads: settings.engine_options().n_threads,
        model: settings.model_name(),
        activations: settings.activations,
        memory: settings.memory,
    }
}

impl Report {
    fn table(&self) -> String {
        let peak = self.peak_rss_bytes.map_or("unknown".to_owned(), numbers::bytes);
        format!(
            "prefill      {:.1} tokens/s ({} in {:.2} s)\n\
             decode       {:.1} tokens/s ({} in {:.2} s)\n\
             peak memory  {peak}\n\
             attended     {} at most\n\
             device       {}, {}\n\
             model        {}\n",
            self.prefill_tokens_per_second,
            numbers::count_of(self.prompt_tokens, "token"),
            self.prefill_seconds,
            self.decode_tokens_per_second,
            numbers::count_of(self.decode_tokens, "token"),
            self.decode_seconds,
            numbers::count_of(self.attended_tokens_max, "token"),
            self.device,
            numbers::count_of(self.threads, "thread"),
            self.model,
        )
    }
}

/// `VmHWM` of /proc/self/status.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
