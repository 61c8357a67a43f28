//! `mneme eval`: how well does a memory find what is asked for?

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::args::EvalArgs;
use super::compare::{policies, read, twice};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::meter::{Meter, Unit};
use super::output::{note, print, write_json_line};
use super::{numbers, opening};
use crate::engine::{EngineError, Progress};
use crate::eval::{
    EvalError, Evaluation, Haystack, Key, KvCase, Line, Paragraph, Plan, PlotFolder, Policy,
    Record, Task, summarize,
};
use crate::tokenizer::Tokenizer;

/// What the columns are.
const LEGEND: &str = "\
\nfound: a greedy answer is right; log p: mean log-probability of the right answer, in nats (ppl: \
perplexity);\nsought: some layer retrieved what holds the answer, of those out of view; F1: words in \
common.";

pub(super) fn run(args: EvalArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let settings = args.run.settings()?;
    let policies = policies(&args.compare, &args.run, &settings)?;
    let texts = args.haystack.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(name) = twice(texts.iter().map(|(name, _)| name)) {
        return Err(Failure::usage(format!("--haystack names {name} twice; rename a file")));
    }
    let kv_cases = args.kv_file.as_deref().map(read_kv_cases).transpose()?;
    let paragraphs = args.qa_file.as_deref().map(read_paragraphs).transpose()?;
    let engine = opening::open_engine(&settings, interrupt)?;
    if engine.tokenizer().chat_template().is_none() {
        note("The model has no chat template: questions are put as plain text.");
    }
    let plan = Plan {
        haystacks: haystacks(&args, &texts, engine.tokenizer()),
        tasks: args.task.clone(),
        lengths: args.lengths.clone(),
        depths: args.depths.clone(),
        seed: args.seed,
        n_samples: args.samples,
        kv_cases: kv_cases.unwrap_or_default(),
        paragraphs: paragraphs.unwrap_or_default(),
    };
    let folder = args.plot.as_deref().map(PlotFolder::open).transpose();
    let folder = folder.map_err(|error| Failure::Failed(error.into()))?;
    let mut results = Results::open(args.out.as_deref(), &policies, &settings.model_name())?;
    let evaluation = Evaluation {
        engine: &engine,
        model: &settings.model_name(),
        policies: &policies,
        plan: &plan,
        done: &results.done(),
    };
    let outcome = evaluate(&evaluation, &mut results, args.json, interrupt);
    let drawn = folder.map_or(Ok(()), |folder| draw(&folder, &results.records));
    if !args.json && !results.records.is_empty() {
        print(&table(&summarize(&results.records)))?;
        note(LEGEND);
    }
    match (outcome, drawn) {
        (Err(ended), Err(not_drawn)) => {
            not_drawn.verdict().0.iter().for_each(|message| note(message));
            Err(ended)
        }
        (outcome, drawn) => outcome.and(drawn),
    }
}

/// Draws the results that there are, however the evaluation ended.
fn draw(folder: &PlotFolder, records: &[Record]) -> Result<(), Failure> {
    let files = folder.write(records).map_err(|error| Failure::Failed(error.into()))?;
    files.iter().for_each(|file| note(&format!("Drawn: {}", file.display())));
    Ok(())
}

fn evaluate(
    evaluation: &Evaluation<'_>,
    results: &mut Results,
    json: bool,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let watch = interrupt.watch();
    let mut meter = Meter::new("evaluating", Unit::Tokens);
    let ran = evaluation.run(
        &mut |record| {
            if json {
                write_json_line(&record)?;
            }
            results.add(record)
        },
        &mut |step: Progress| {
            meter.show(step.done_tokens, step.total_tokens);
            watch.flow()
        },
    );
    drop(meter);
    match ran {
        Err(EvalError::Engine(EngineError::Stopped { .. })) if watch.is_requested() => {
            let n = numbers::count_of(results.records.len(), "result");
            Err(Failure::Interrupted(match &results.path {
                Some(path) => format!(
                    "stopped; {n} are in {}, and the same command goes on from there",
                    path.display()
                ),
                None => format!("stopped after {n}; --out FILE keeps them, to go on from there"),
            }))
        }
        Err(EvalError::Sink(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Failure::OutputClosed)
        }
        Err(error @ (EvalError::Engine(_) | EvalError::Sink(_))) => {
            Err(Failure::Failed(error.into()))
        }
        Err(error) => Err(Failure::Usage(error.into())),
        Ok(()) => Ok(()),
    }
}

fn haystacks(args: &EvalArgs, texts: &[(String, String)], tokenizer: &Tokenizer) -> Vec<Haystack> {
    if !args.task.iter().any(|task| task.takes_haystack()) {
        return Vec::new();
    }
    let longest = args.lengths.iter().copied().max().unwrap_or(0);
    let haystack = |(name, text): &(String, String)| {
        let haystack = Haystack::new(name, text, tokenizer);
        let is_short = haystack.n_tokens() < longest;
        if args.repeat && is_short { haystack.repeated(longest) } else { haystack }
    };
    texts.iter().map(haystack).collect()
}

fn read_paragraphs(path: &Path) -> Result<Vec<Paragraph>, Failure> {
    let (_, text) = read(path)?;
    Paragraph::parse_squad(&text)
        .with_context(|| format!("{}: is not in SQuAD's form", path.display()))
        .map_err(Failure::Failed)
}

/// Lines of JSON, as they are or compressed with gzip.
fn read_kv_cases(path: &Path) -> Result<Vec<KvCase>, Failure> {
    let parsed = (|| {
        let bytes = std::fs::read(path).context("cannot be read")?;
        let mut text = String::new();
        match bytes.starts_with(b"\x1f\x8b") {
            true => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text),
            false => (&bytes[..]).read_to_string(&mut text),
        }
        .context("is neither text nor compressed with gzip")?;
        let lines = text.lines().filter(|line| !line.trim().is_empty()).enumerate();
        let case = |(i, line)| {
            serde_json::from_str(line).with_context(|| format!("line {}: not a case", i + 1))
        };
        lines.map(case).collect::<anyhow::Result<Vec<KvCase>>>()
    })();
    let cases = parsed.with_context(|| path.display().to_string()).map_err(Failure::Failed)?;
    if cases.is_empty() {
        return Err(Failure::failed(format!("{}: has no cases", path.display())));
    }
    Ok(cases)
}

/// Results, in memory and in a file.
struct Results {
    path: Option<PathBuf>,
    file: Option<File>,
    records: Vec<Record>,
}

impl Results {
    /// What `path` has of these policies.
    fn open(path: Option<&Path>, policies: &[Policy], model: &str) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self { path: None, file: None, records: Vec::new() });
        };
        let (file, all) = open_records(path)
            .with_context(|| path.display().to_string())
            .map_err(Failure::Failed)?;
        let prints: HashSet<String> =
            policies.iter().map(|policy| policy.fingerprint(model)).collect();
        let records: Vec<Record> =
            all.into_iter().filter(|record| prints.contains(&record.fingerprint)).collect();
        if !records.is_empty() {
            let n = numbers::count_of(records.len(), "result");
            note(&format!("{n} of these settings are in {} already.", path.display()));
        }
        Ok(Self { path: Some(path.to_owned()), file: Some(file), records })
    }

    fn done(&self) -> HashSet<Key> {
        self.records.iter().map(Record::key).collect()
    }

    /// A line at once, so that what was done is never lost.
    fn add(&mut self, record: Record) -> std::io::Result<()> {
        if let Some(file) = &mut self.file {
            let mut line = serde_json::to_vec(&record)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        self.records.push(record);
        Ok(())
    }
}

/// The file, open for more, and what is in it. A last line that was cut off is taken away.
fn open_records(path: &Path) -> anyhow::Result<(File, Vec<Record>)> {
    let mut file = OpenOptions::new().create(true).append(true).read(true).open(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text).context("is not text")?;
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    if whole < text.len() {
        note(&format!("{}: the last line was cut off; it is done again.", path.display()));
        file.set_len(whole as u64)?;
    }
    let record = |(i, line)| {
        serde_json::from_str(line)
            .with_context(|| format!("line {} is not a result of mneme eval", i + 1))
    };
    let records = text[..whole].lines().enumerate().map(record).collect::<anyhow::Result<_>>()?;
    Ok((file, records))
}

/// A row a task, length and policy.
fn table(lines: &[Line]) -> String {
    let head = ["task", "tokens", "policy", "cases", "found", "log p", "sought", "F1", "s a case"];
    let mut rows = vec![head.map(str::to_owned)];
    for line in lines {
        let is_text = line.task == Task::Perplexity;
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        let log_probability = match is_text {
            true => format!("ppl {:.3}", (-line.log_probability).exp()),
            false => format!("{:.2}", line.log_probability),
        };
        rows.push([
            line.task.to_string(),
            if line.length == 0 { "alone".to_owned() } else { numbers::count(line.length) },
            line.policy.clone(),
            numbers::count(line.n_cases),
            if is_text { "-".to_owned() } else { percent(line.found) },
            log_probability,
            or_dash(line.sought.map(percent)),
            or_dash(line.f1.map(percent)),
            format!("{:.2}", line.answer_seconds),
        ]);
    }
    numbers::columns(&rows, &[0, 2])
}
