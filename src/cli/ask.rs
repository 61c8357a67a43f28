//! `mneme ask`: what does a document say? It is read, the answer is streamed, and what the answer
//! was read from is shown.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::AskArgs;
use super::failure::Failure;
use super::input::NotText;
use super::interrupt::{Interrupt, Watch};
use super::meter::{Meter, Unit};
use super::output::{note, print, print_json, print_words};
use super::passages::{self, Excerpt};
use super::{numbers, opening};
use crate::engine::{FinishReason, GenerateOptions, Passage, Progress, Session};

/// Passages shown with an answer.
const N_PASSAGES: usize = 4;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'d> {
    answer: String,
    prompt_tokens: usize,
    completion_tokens: usize,
    prefill_seconds: f64,
    decode_seconds: f64,
    memory_units: usize,
    attended_tokens_max: usize,
    evidence: Vec<Evidence<'d>>,
    finish_reason: &'static str,
}

/// A passage that the answer attended to.
#[derive(Debug, Serialize)]
struct Evidence<'d> {
    /// First byte in the document.
    start: usize,
    /// One past its last byte.
    end: usize,
    text: &'d str,
    weight: f32,
}

/// An answer, and what it took.
#[derive(Debug)]
struct Answered {
    text: String,
    prompt_tokens: usize,
    completion_tokens: usize,
    prefill: Duration,
    decode: Duration,
    finish: FinishReason,
    passages: Vec<Passage>,
}

/// Who gets the pieces of an answer as they come.
type PieceFn<'a> = dyn FnMut(&str) -> Result<(), Failure> + 'a;

pub(super) fn run(args: AskArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let question = args.question.join(" ");
    if question.trim().is_empty() {
        return Err(Failure::usage("the question is empty; say what you want to know"));
    }
    let settings = args.run.settings_with(&args.answer)?;
    let document = args.document.read(NotText::from(args.lossy))?;
    let session = opening::open(&settings, interrupt)?;
    let mut show: Box<PieceFn> =
        if args.json { Box::new(|_| Ok(())) } else { Box::new(print_words) };
    let mut task = Task { session, document: &document, watch: interrupt.watch() };
    let answered = task.run(&question, settings.answer.options(), &mut show)?;
    let excerpts: Vec<Excerpt> =
        answered.passages.iter().map(|passage| passages::excerpt(&document, *passage)).collect();
    if args.json {
        return print_json(&report(answered, &task.session, &excerpts));
    }
    print("\n")?;
    note(&format!("\n{}", account(&answered, &task.session, &excerpts)));
    Ok(())
}

struct Task<'a> {
    session: Session,
    document: &'a str,
    watch: Watch<'a>,
}

impl Task<'_> {
    fn run(
        &mut self,
        question: &str,
        options: GenerateOptions,
        show: &mut PieceFn<'_>,
    ) -> Result<Answered, Failure> {
        let begun = Instant::now();
        let mut meter = Meter::new("reading", Unit::Tokens);
        let asked = self.session.ask(self.document, question, &mut |step: Progress| {
            meter.show(step.done_tokens, step.total_tokens);
            self.watch.flow()
        })?;
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
        Ok(Answered {
            text,
            prompt_tokens: asked.prompt_tokens,
            completion_tokens,
            prefill,
            decode: begun.elapsed(),
            finish: finish.unwrap_or(FinishReason::Stop),
            passages: self.session.take_evidence(N_PASSAGES),
        })
    }
}

fn report<'d>(answered: Answered, session: &Session, excerpts: &[Excerpt<'d>]) -> Report<'d> {
    let evidence = |excerpt: &Excerpt<'d>| Evidence {
        start: excerpt.span.start,
        end: excerpt.span.end,
        text: excerpt.text,
        weight: excerpt.weight,
    };
    Report {
        answer: answered.text,
        prompt_tokens: answered.prompt_tokens,
        completion_tokens: answered.completion_tokens,
        prefill_seconds: answered.prefill.as_secs_f64(),
        decode_seconds: answered.decode.as_secs_f64(),
        memory_units: session.memory().n_units(),
        attended_tokens_max: session.memory().max_attended_tokens(),
        evidence: excerpts.iter().map(evidence).collect(),
        finish_reason: answered.finish.as_str(),
    }
}

/// What stands below an answer.
fn account(answered: &Answered, session: &Session, excerpts: &[Excerpt<'_>]) -> String {
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
    let (n_prompt, n_answer) = (answered.prompt_tokens, answered.completion_tokens);
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
