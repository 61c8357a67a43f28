//! `mneme ask`: what does a document say? It is read, the answer is streamed, and what the answer
//! was read from is shown.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::AskArgs;
use super::failure::Failure;
use super::ingest::{self, Reading};
use super::input::NotText;
use super::interrupt::{Interrupt, Watch};
use super::meter::{Meter, Unit};
use super::numbers;
use super::opening::{self, TENANT};
use super::output::{note, print, print_json, print_words};
use super::passages::{self, Excerpt};
use super::settings::Settings;
use crate::engine::{
    AskPrompt, Asked, Context, Contexts, Engine, FinishReason, GenerateOptions, Progress,
    SAVE_EVERY_TOKENS, Session,
};
use crate::ids::TokenId;

/// Passages shown with an answer.
const N_PASSAGES: usize = 4;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    answer: String,
    prompt_tokens: usize,
    /// Of these, tokens that had been read before.
    cached_tokens: usize,
    completion_tokens: usize,
    prefill_seconds: f64,
    decode_seconds: f64,
    memory_units: usize,
    attended_tokens_max: usize,
    evidence: Vec<Evidence<'a>>,
    finish_reason: &'static str,
}

/// A passage that the answer attended to.
#[derive(Debug, Serialize)]
struct Evidence<'a> {
    /// First byte in the document.
    start: usize,
    /// One past its last byte.
    end: usize,
    text: &'a str,
    weight: f32,
}

/// An answer, and what it took.
#[derive(Debug)]
struct Answered {
    text: String,
    asked: Asked,
    completion_tokens: usize,
    prefill: Duration,
    decode: Duration,
    finish: FinishReason,
    excerpts: Vec<Excerpt>,
}

/// Who gets the pieces of an answer as they come.
type PieceFn<'a> = dyn FnMut(&str) -> Result<(), Failure> + 'a;

pub(super) fn run(args: AskArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let question = args.question.join(" ");
    if question.trim().is_empty() {
        return Err(Failure::usage("the question is empty; say what you want to know"));
    }
    let mut settings = args.run.settings_with(&args.answer)?;
    args.store.change(&mut settings);
    let not_text = NotText::from(args.lossy);
    let document = args.document.as_ref().map(|document| document.read(not_text)).transpose()?;
    let mut show: Box<PieceFn> =
        if args.json { Box::new(|_| Ok(())) } else { Box::new(print_words) };
    let options = settings.answer.options();
    let (session, answered) = match (&args.context, &document) {
        (Some(name), document) => {
            let context = read_context(&args, (name, document.as_deref()), &settings, interrupt)?;
            let config = args.run.change_stored(context.notes().config()?)?;
            let session = context.to_ask(&config)?;
            let mut task = Task { session, watch: interrupt.watch() };
            let answered = task.run(Subject::Read(&question), options, &mut show)?;
            (task.session, answered)
        }
        (None, Some(document)) => {
            let engine = opening::open_engine(&settings, interrupt)?;
            let prompt = engine.ask_prompt(document, &question, &[])?;
            let known = known_prefix(&engine, prompt.document_ids(), &settings)?;
            let n_read = known.as_ref().map_or(0, Session::n_tokens);
            let session = known.map_or_else(|| engine.session(&settings.memory), Ok)?;
            let mut task = Task { session, watch: interrupt.watch() };
            let answered = task.run(Subject::Document(&prompt, n_read), options, &mut show)?;
            (task.session, answered)
        }
        (None, None) => return Err(Failure::usage("name a --document, or a --context")),
    };
    if args.json {
        return print_json(&report(&answered, &session));
    }
    print("\n")?;
    note(&format!("\n{}", account(&answered, &session)));
    Ok(())
}

/// The context of this name, after it has read the document where one is named.
fn read_context(
    args: &AskArgs,
    (name, document): (&str, Option<&str>),
    settings: &Settings,
    interrupt: &Interrupt,
) -> Result<Context, Failure> {
    let store = opening::open_store(settings)?;
    let engine = opening::open_engine(settings, interrupt)?;
    let contexts = Contexts::new(engine, store, TENANT);
    let (Some(text), Some(source)) = (document, &args.document) else {
        let context = contexts.open(name)?;
        if !context.notes().is_whole {
            let source = &context.notes().source;
            note(&format!("(the end of {source} is not read yet: mneme ingest goes on with it)"));
        }
        return Ok(context);
    };
    let reading = Reading {
        name,
        text,
        source: ingest::source_name(source),
        config: &settings.memory,
        save_every: SAVE_EVERY_TOKENS,
    };
    Ok(ingest::read_into(&contexts, reading, &interrupt.watch())?.context)
}

/// A session that has read the beginning of `ids` already, from a context of the store that has.
fn known_prefix(
    engine: &Engine,
    ids: &[TokenId],
    settings: &Settings,
) -> Result<Option<Session>, Failure> {
    if !opening::store_dir(settings)?.exists() {
        return Ok(None);
    }
    let known = || -> Result<Option<Session>, Failure> {
        let store = opening::open_store(settings)?;
        let contexts = Contexts::new(engine.clone(), store, TENANT);
        let known = contexts.longest_prefix(&settings.memory, ids)?;
        Ok(known.map(|context| context.session().fork(&settings.memory)).transpose()?)
    };
    // Whatever is wrong with the store: it would only have saved time.
    Ok(known().unwrap_or_else(|failure| {
        let why = failure.verdict().0.unwrap_or_default();
        note(&format!("(contexts read before are not used: {why})"));
        None
    }))
}

/// What the question is about.
enum Subject<'a> {
    /// A document of which so many tokens were read before, and the question.
    Document(&'a AskPrompt, usize),
    /// What the session has read; the question.
    Read(&'a str),
}

struct Task<'a> {
    session: Session,
    watch: Watch<'a>,
}

impl Task<'_> {
    fn run(
        &mut self,
        subject: Subject<'_>,
        options: GenerateOptions,
        show: &mut PieceFn<'_>,
    ) -> Result<Answered, Failure> {
        let begun = Instant::now();
        let mut meter = Meter::new("reading", Unit::Tokens).after(self.session.n_tokens());
        let mut progress = |step: Progress| {
            meter.show(step.done_tokens, step.total_tokens);
            self.watch.flow()
        };
        let asked = match subject {
            Subject::Document(prompt, n) => self.session.ask_rest(prompt, n, &mut progress)?,
            Subject::Read(question) => self.session.ask_about(question, &mut progress)?,
        };
        drop(meter);
        let prefill = begun.elapsed();
        let begun = Instant::now();
        let mut text = String::new();
        let mut pieces = self.session.generate(options);
        while let Some(piece) = pieces.next() {
            let piece = piece?;
            show(&piece.text)?;
            text += &piece.text;
            if self.watch.is_requested() {
                let n_tokens = numbers::count_of(pieces.n_tokens(), "token");
                return Err(Failure::Interrupted(format!(
                    "stopped after {n_tokens} of the answer"
                )));
            }
        }
        let (completion_tokens, finish) = (pieces.n_tokens(), pieces.finish_reason());
        let decode = begun.elapsed();
        let passages = self.session.take_evidence(N_PASSAGES)?;
        let excerpts = passages.iter().map(|passage| passages::excerpt(&self.session, *passage));
        Ok(Answered {
            text,
            asked,
            completion_tokens,
            prefill,
            decode,
            finish: finish.unwrap_or(FinishReason::Stop),
            excerpts: excerpts.collect::<Result<_, _>>()?,
        })
    }
}

fn report<'a>(answered: &'a Answered, session: &Session) -> Report<'a> {
    let evidence = |excerpt: &'a Excerpt| Evidence {
        start: excerpt.span.start,
        end: excerpt.span.end,
        text: &excerpt.text,
        weight: excerpt.weight,
    };
    Report {
        answer: answered.text.clone(),
        prompt_tokens: answered.asked.prompt_tokens,
        cached_tokens: answered.asked.cached_tokens,
        completion_tokens: answered.completion_tokens,
        prefill_seconds: answered.prefill.as_secs_f64(),
        decode_seconds: answered.decode.as_secs_f64(),
        memory_units: session.memory().n_units(),
        attended_tokens_max: session.memory().max_attended_tokens(),
        evidence: answered.excerpts.iter().map(evidence).collect(),
        finish_reason: answered.finish.as_str(),
    }
}

/// What stands below an answer.
fn account(answered: &Answered, session: &Session) -> String {
    let Answered { asked, excerpts, .. } = answered;
    let mut lines = Vec::new();
    if answered.finish == FinishReason::Length {
        let n_tokens = answered.completion_tokens;
        lines.push(format!("(cut at {n_tokens} tokens; --max-tokens allows more)\n"));
    }
    if session.memory().n_units() == 0 {
        lines.push("Nothing was looked up: all that was read was in view.\n".to_owned());
    } else if !excerpts.is_empty() {
        lines.push("Passages read for this answer, with their share of its attention:".to_owned());
        lines.push(passages::show(excerpts));
    }
    if asked.cached_tokens > 0 {
        let cached = numbers::count_of(asked.cached_tokens, "token");
        lines.push(format!("{cached} had been read before."));
    }
    let n_prompt = asked.prompt_tokens - asked.cached_tokens;
    let n_answer = answered.completion_tokens;
    lines.push(format!(
        "Read {} in {} ({} tokens/s).\nAnswered {} in {} ({} tokens/s).",
        numbers::count_of(n_prompt, "token"),
        numbers::duration(answered.prefill),
        numbers::rate(n_prompt, answered.prefill),
        numbers::count_of(n_answer, "token"),
        numbers::duration(answered.decode),
        numbers::rate(n_answer, answered.decode),
    ));
    lines.push(format!(
        "{} in memory; no token attended to more than {} of {}.",
        numbers::count_of(session.memory().n_units(), "unit"),
        numbers::count(session.memory().max_attended_tokens()),
        numbers::count_of(session.n_tokens(), "token"),
    ));
    lines.join("\n")
}
