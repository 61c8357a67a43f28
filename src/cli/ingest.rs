//! `mneme ingest`: a document is read once, and remembered for ever.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::context_args::IngestArgs;
use super::failure::Failure;
use super::input::{NotText, Source};
use super::interrupt::{Interrupt, Watch};
use super::meter::{Meter, Unit};
use super::numbers;
use super::opening::{self, TENANT};
use super::output::{note, print_json};
use crate::engine::{Context, Contexts, EngineError, Progress};
use crate::memory::MemoryConfig;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    context: &'a str,
    tokens: usize,
    /// Of these, tokens that had been read before.
    cached_tokens: usize,
    text_bytes: usize,
    memory_units: usize,
    disk_bytes: u64,
    /// Of reading and saving, until all is on the disk.
    seconds: f64,
}

/// What reading a text came to.
pub(super) struct Ingested {
    pub context: Context,
    /// Tokens that had been read before.
    pub cached_tokens: usize,
    /// Until all was on the disk.
    pub time: Duration,
}

/// A text to be read into a context.
pub(super) struct Reading<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub source: String,
    pub config: &'a MemoryConfig,
    /// Tokens.
    pub save_every: usize,
}

pub(super) fn run(args: IngestArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut settings = args.run.settings()?;
    args.store.change(&mut settings);
    let text = args.document.read(NotText::from(args.lossy))?;
    let store = opening::open_store(&settings)?;
    let engine = opening::open_engine(&settings, interrupt)?;
    let contexts = Contexts::new(engine, store, TENANT);
    let watch = interrupt.watch();
    let Ingested { context, cached_tokens, time } = if args.append {
        append(&contexts, (&args.context, &text), &watch)?
    } else {
        let source = source_name(&args.document);
        let reading = Reading {
            name: &args.context,
            text: &text,
            source,
            config: &settings.memory,
            save_every: args.save_every,
        };
        read_into(&contexts, reading, &watch)?
    };
    let session = context.session();
    let summary = contexts.store().show(TENANT, &args.context)?;
    let report = Report {
        context: &args.context,
        tokens: session.n_tokens(),
        cached_tokens,
        text_bytes: session.text_bytes(),
        memory_units: session.memory().n_units(),
        disk_bytes: summary.map_or(0, |summary| summary.disk_bytes),
        seconds: time.as_secs_f64(),
    };
    if args.json {
        return print_json(&report);
    }
    let n_read = report.tokens - report.cached_tokens;
    if report.cached_tokens > 0 {
        let cached = numbers::count_of(report.cached_tokens, "token");
        note(&format!("{cached} had been read before."));
    }
    note(&format!(
        "Read {} in {} ({} tokens/s); {} holds {} in {} on the disk.",
        numbers::count_of(n_read, "token"),
        numbers::duration(time),
        numbers::rate(n_read, time),
        report.context,
        numbers::count_of(report.tokens, "token"),
        numbers::bytes(report.disk_bytes),
    ));
    Ok(())
}

/// How a context names where its text came from.
pub(super) fn source_name(source: &Source) -> String {
    match source {
        Source::File(path) => {
            std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
        }
        Source::Stdin => source.to_string(),
    }
}

/// The context of this name after it has read the text, or the rest of it.
pub(super) fn read_into(
    contexts: &Contexts,
    reading: Reading<'_>,
    watch: &Watch<'_>,
) -> Result<Ingested, Failure> {
    let Reading { name, text, source, config, save_every } = reading;
    let document = contexts.engine().document_prompt(text)?;
    let mut context = contexts.to_read(name, config, (&document, &source))?;
    context.save_every(save_every);
    let before = context.session().n_tokens();
    let begun = Instant::now();
    let mut meter = Meter::new("reading", Unit::Tokens).after(before);
    let cached = context.read_document(&document, &mut |step: Progress| {
        meter.show(step.done_tokens, step.total_tokens);
        watch.flow()
    });
    drop(meter);
    let cached_tokens = cached.map_err(|error| stopped(error, name))?;
    Ok(Ingested { context, cached_tokens, time: begun.elapsed() })
}

fn append(
    contexts: &Contexts,
    (name, text): (&str, &str),
    watch: &Watch<'_>,
) -> Result<Ingested, Failure> {
    let mut context = contexts.open(name)?;
    let cached_tokens = context.session().n_tokens();
    let begun = Instant::now();
    let mut meter = Meter::new("reading", Unit::Tokens);
    let appended = context.append(text, &mut |step: Progress| {
        meter.show(step.done_tokens, step.total_tokens);
        watch.flow()
    });
    appended.map_err(|error| match error {
        EngineError::Stopped { done_tokens, total_tokens } => Failure::Interrupted(format!(
            "stopped after {} of {}; {name} is as it was, and the same command begins anew",
            numbers::count(done_tokens),
            numbers::count_of(total_tokens, "token"),
        )),
        error => error.into(),
    })?;
    drop(meter);
    Ok(Ingested { context, cached_tokens, time: begun.elapsed() })
}

/// What was kept when reading was stopped.
fn stopped(error: EngineError, name: &str) -> Failure {
    match error {
        EngineError::Stopped { done_tokens, total_tokens } => Failure::Interrupted(format!(
            "stopped after {} of {}; {name} holds them, and the same command goes on from there",
            numbers::count(done_tokens),
            numbers::count_of(total_tokens, "token"),
        )),
        error => error.into(),
    }
}
