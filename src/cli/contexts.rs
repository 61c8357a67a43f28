//! `mneme contexts`: what is remembered, and what becomes of it?

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::context_args::{ContextsArgs, ContextsCommand, OfStore, RewindArgs, TimeToLive};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::meter::{Meter, Unit};
use super::numbers;
use super::opening::{self, TENANT};
use super::output::{note, print, print_json};
use super::repair;
use super::settings::Settings;
use crate::engine::{ContextNotes, Contexts, EngineError};
use crate::memory::store::{ContextSummary, Pinned, Store};

/// A context as `--json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    /// What it is; null where its notes cannot be read.
    kind: Option<&'static str>,
    tokens: u64,
    turns: usize,
    /// Whether its document was read to the end.
    whole: bool,
    source: String,
    model: String,
    /// The settings that it was read with.
    settings: serde_json::Value,
    units: u64,
    disk_bytes: u64,
    /// Of these, bytes that no other context has.
    own_bytes: u64,
    /// Seconds since 1970.
    created: u64,
    used: u64,
    expires: Option<u64>,
    pinned: bool,
    forked_from: Option<String>,
}

/// What a change did, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Done<'a> {
    context: &'a str,
    done: &'static str,
}

pub(super) fn run(args: ContextsArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    match args.command {
        ContextsCommand::List(of) => list(&of),
        ContextsCommand::Show(one) => show(&one.of, &one.name),
        ContextsCommand::Fork { name, to, of } => {
            open(&of)?.fork(TENANT, &name, &to)?;
            done(&of, &to, "forked")
        }
        ContextsCommand::Rewind(args) => rewind(&args, interrupt),
        ContextsCommand::Pin { of: one, off } => {
            let (pinned, what) =
                if off { (Pinned::No, "unpinned") } else { (Pinned::Yes, "pinned") };
            open(&one.of)?.set_pinned(TENANT, &one.name, pinned)?;
            done(&one.of, &one.name, what)
        }
        ContextsCommand::Expire { of: one, after: TimeToLive(after) } => {
            let at = after.map(|after| now().saturating_add(after));
            open(&one.of)?.set_expiry(TENANT, &one.name, at)?;
            let what = if after.is_some() { "will expire" } else { "will not expire" };
            done(&one.of, &one.name, what)
        }
        ContextsCommand::Delete(one) => {
            open(&one.of)?.delete(TENANT, &one.name)?;
            done(&one.of, &one.name, "deleted")
        }
        ContextsCommand::Export { name, file, of } => export(&of, &name, &file),
        ContextsCommand::Import { file, name, of } => import(&of, name.as_deref(), &file),
        ContextsCommand::Compact(of) => compact(&of),
        ContextsCommand::Verify(of) => verify(&of),
        ContextsCommand::Repair { json, store, run } => {
            let mut settings = run.settings()?;
            store.change(&mut settings);
            repair::run(&settings, json, interrupt)
        }
    }
}

fn open(of: &OfStore) -> Result<Store, Failure> {
    let file = of.config.as_deref().map(Settings::from_file).transpose()?;
    let mut settings = file.unwrap_or_default();
    of.store.change(&mut settings);
    opening::open_store(&settings)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn done(of: &OfStore, context: &str, done: &'static str) -> Result<(), Failure> {
    if of.json {
        return print_json(&Done { context, done });
    }
    note(&format!("{context}: {done}"));
    Ok(())
}

fn list(of: &OfStore) -> Result<(), Failure> {
    let contexts: Vec<Shown> = open(of)?.list(TENANT)?.into_iter().map(shown).collect();
    if of.json {
        return print_json(&contexts);
    }
    if contexts.is_empty() {
        note("There are none yet: mneme ingest --context NAME FILE reads one.");
        return Ok(());
    }
    let head = ["name", "what", "tokens", "turns", "disk", "its own", "used"].map(str::to_owned);
    let rows = contexts.iter().map(|context| {
        [
            context.name.clone(),
            what(context),
            numbers::count(context.tokens as usize),
            numbers::count(context.turns),
            numbers::bytes(context.disk_bytes),
            numbers::bytes(context.own_bytes),
            ago(context.used),
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    print(&numbers::columns(&rows, &[0, 1]))
}

fn what(context: &Shown) -> String {
    let kind = context.kind.unwrap_or("not readable");
    let part = if context.kind == Some(DOCUMENT) && !context.whole { ", in part" } else { "" };
    let pinned = if context.pinned { ", pinned" } else { "" };
    format!("{kind}{part}{pinned}")
}

fn ago(then: u64) -> String {
    match now().saturating_sub(then) {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} ago", numbers::count_of((seconds / 86_400) as usize, "day")),
    }
}

const DOCUMENT: &str = "document";

fn shown(context: ContextSummary) -> Shown {
    let notes = ContextNotes::of(&context).ok();
    let kind = notes.as_ref().map(|notes| match notes.conversation {
        Some(_) => "conversation",
        None => DOCUMENT,
    });
    let turns = notes.as_ref().map_or(0, |notes| notes.turns.len().saturating_sub(1));
    let config = notes.as_ref().and_then(|notes| notes.config().ok());
    Shown {
        kind,
        tokens: context.length,
        turns,
        whole: notes.as_ref().is_some_and(|notes| notes.is_whole),
        source: notes.as_ref().map_or(String::new(), |notes| notes.source.clone()),
        model: notes.map_or(String::new(), |notes| notes.model),
        settings: serde_json::to_value(config).unwrap_or_default(),
        units: context.records.first().copied().unwrap_or(0),
        disk_bytes: context.disk_bytes,
        own_bytes: context.own_bytes,
        created: context.created,
        used: context.used,
        expires: context.expires,
        pinned: context.pinned == Pinned::Yes,
        forked_from: context.parent,
        name: context.name,
    }
}

fn show(of: &OfStore, name: &str) -> Result<(), Failure> {
    let summary = open(of)?.show(TENANT, name)?;
    let summary = summary.ok_or_else(|| Failure::failed(no_such(name)))?;
    let shown = shown(summary);
    if of.json {
        return print_json(&shown);
    }
    let mut lines = vec![
        format!("{}: {}", shown.name, what(&shown)),
        format!("read from      {}", shown.source),
        format!("read by        {}", shown.model),
        format!("tokens         {}", numbers::count(shown.tokens as usize)),
        format!("turns          {}", numbers::count(shown.turns)),
        format!("units kept     {}", numbers::count(shown.units as usize)),
        format!(
            "on the disk    {}, of which {} are its own",
            numbers::bytes(shown.disk_bytes),
            numbers::bytes(shown.own_bytes)
        ),
        format!("made           {}", ago(shown.created)),
        format!("used           {}", ago(shown.used)),
    ];
    if let Some(parent) = &shown.forked_from {
        lines.push(format!("forked from    {parent}"));
    }
    if let Some(expires) = shown.expires {
        let left = std::time::Duration::from_secs(expires.saturating_sub(now()));
        lines.push(format!("expires in     {}", numbers::duration(left)));
    }
    print(&(lines.join("\n") + "\n"))
}

fn no_such(name: &str) -> String {
    format!("there is no context {name:?} in this store; mneme contexts list shows those there are")
}

fn rewind(args: &RewindArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut settings = args.run.settings()?;
    args.store.change(&mut settings);
    let store = opening::open_store(&settings)?;
    let engine = opening::open_engine(&settings, interrupt)?;
    let mut context = Contexts::new(engine, store, TENANT).open(&args.name)?;
    let n_tokens = match (args.turn, args.tokens) {
        (Some(turn), _) => context.tokens_of_turn(turn).map_err(EngineError::from)?,
        (None, tokens) => tokens.unwrap_or(0),
    };
    let watch = interrupt.watch();
    let mut meter = Meter::new("reading again", Unit::Tokens); // shows nothing where it is not needed
    let rewound = context.rewind_or_read_again(n_tokens, &mut |step| {
        meter.show(step.done_tokens, step.total_tokens);
        watch.flow()
    });
    drop(meter);
    rewound.map_err(|error| match error {
        EngineError::Stopped { .. } => {
            Failure::Interrupted(format!("stopped; {} is as it was", args.name))
        }
        error => error.into(),
    })?;
    context.save()?;
    context.sync()?;
    let n_tokens = context.session().n_tokens();
    if args.json {
        return print_json(&serde_json::json!({ "context": args.name, "tokens": n_tokens }));
    }
    note(&format!("{} is as after its first {}", args.name, numbers::count_of(n_tokens, "token")));
    Ok(())
}

fn export(of: &OfStore, name: &str, path: &Path) -> Result<(), Failure> {
    let store = open(of)?;
    let fault = |error: std::io::Error| {
        let what = match error.kind() {
            ErrorKind::AlreadyExists => "is there already; name another, or remove it".to_owned(),
            _ => error.to_string(),
        };
        Failure::failed(format!("{}: {what}", path.display()))
    };
    let file = File::options().write(true).create_new(true).open(path).map_err(fault)?;
    let mut out = BufWriter::new(file);
    let written = store.export(TENANT, name, &mut out).map_err(Failure::from).and_then(|summary| {
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(fault)?;
        Ok(summary)
    });
    let summary = written.inspect_err(|_| {
        let _ = std::fs::remove_file(path); // half a context is none
    })?;
    if of.json {
        return print_json(&shown(summary));
    }
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    note(&format!("{name} is in {} ({})", path.display(), numbers::bytes(size)));
    Ok(())
}

fn import(of: &OfStore, name: Option<&str>, path: &Path) -> Result<(), Failure> {
    let fault = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut file = BufReader::new(File::open(path).map_err(fault)?);
    let summary = open(of)?.import(TENANT, name, &mut file)?;
    if of.json {
        return print_json(&shown(summary));
    }
    let tokens = numbers::count_of(summary.length as usize, "token");
    note(&format!("{} holds {tokens} now", summary.name));
    Ok(())
}

fn compact(of: &OfStore) -> Result<(), Failure> {
    let compacted = open(of)?.compact()?;
    if of.json {
        return print_json(&serde_json::json!({
            "files_removed": compacted.segments_removed,
            "files_written": compacted.segments_written,
            "bytes_before": compacted.bytes_before,
            "bytes_after": compacted.bytes_after,
        }));
    }
    let (before, after) = (compacted.bytes_before, compacted.bytes_after);
    let files = numbers::count_of(compacted.segments_removed as usize, "file");
    let sizes = format!("{} before, {} now", numbers::bytes(before), numbers::bytes(after));
    note(&format!("{files} became {}; {sizes}", compacted.segments_written));
    Ok(())
}

fn verify(of: &OfStore) -> Result<(), Failure> {
    let store = open(of)?;
    let mut meter = Meter::new("checking", Unit::Bytes);
    let report = store.verify(&mut |checked| {
        meter.show(checked.bytes as usize, checked.total_bytes as usize);
    })?;
    drop(meter);
    let damaged = report.damaged_contexts.iter().filter(|(tenant, _)| tenant == TENANT);
    let damaged: Vec<&String> = damaged.map(|(_, name)| name).collect();
    if of.json {
        let object = serde_json::json!({
            "clean": report.is_clean(),
            "bytes": report.bytes,
            "damaged_files": report.damaged_files,
            "damaged_contexts": damaged,
        });
        print_json(&object)?;
    } else {
        note(&format!("{} checked", numbers::bytes(report.bytes)));
        report.damaged_files.iter().for_each(|line| note(line));
        damaged.iter().for_each(|name| note(&format!("context {name:?} has damaged parts")));
    }
    if report.is_clean() {
        if !of.json {
            note("Nothing is damaged.");
        }
        return Ok(());
    }
    Err(Failure::failed(
        "the store has damaged parts, which are not served; mneme contexts repair removes them",
    ))
}
