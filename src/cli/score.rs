//! `mneme score`: how well does the model predict a text?

use std::time::Instant;

use serde::Serialize;

use super::args::ScoreArgs;
use super::failure::Failure;
use super::input::NotText;
use super::interrupt::{Interrupt, Watch};
use super::meter::{Meter, Unit};
use super::output::{print, print_json};
use super::{numbers, opening};
use crate::engine::{EngineError, Progress, Session};
use crate::ids::TokenId;
use crate::tokenizer::SpecialTokens;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Tokens read.
    token_ids: Vec<u32>,
    /// Index in the text of the first token read.
    start_token: usize,
    /// Index in the text of the first token scored.
    from_token: usize,
    /// Negative log-likelihood in nats of the tokens from `from_token` on.
    nll: Vec<f32>,
    mean_nll: f64,
    perplexity: f64,
    /// The likeliest tokens after the text, with their logits.
    last_logits_top: Vec<(u32, f32)>,
    seconds: f64,
    tokens_per_second: f64,
}

/// Which tokens of a text are read, and which of them scored; counted from the text's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: usize,
    from: usize,
    to: usize,
}

pub(super) fn run(args: ScoreArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let text = args.text.read(NotText::from(args.lossy))?;
    let mut session = opening::open(&args.run.settings()?, interrupt)?;
    let tokenizer = session.engine().tokenizer();
    let mut ids: Vec<TokenId> = tokenizer.text_start().into_iter().collect();
    ids.extend(tokenizer.encode(&text, SpecialTokens::Parse));
    let range = range(&args, ids.len())?;
    let report = score(&mut session, &ids, range, &interrupt.watch())?;
    if args.json {
        return print_json(&report);
    }
    let (n_read, n_scored) = (report.token_ids.len(), report.nll.len());
    let speed = format!("{:.0} tokens/s", report.tokens_per_second);
    print(&format!(
        "perplexity  {:.3}\nmean nll    {:.4} nats a token\nscored      {} of {} read, {speed}\n",
        report.perplexity,
        report.mean_nll,
        numbers::count(n_scored),
        numbers::count_of(n_read, "token"),
    ))
}

/// Checks what was asked against the text's length.
fn range(args: &ScoreArgs, n_tokens: usize) -> Result<Range, Failure> {
    let start = args.start_token;
    let to = args.to_token.unwrap_or(n_tokens);
    let from = args.from_token.unwrap_or(start + 1);
    if to > n_tokens {
        return Err(Failure::usage(format!(
            "--to-token {to} is beyond the text's end: it has {}",
            numbers::count_of(n_tokens, "token")
        )));
    }
    if from <= start || from >= to {
        return Err(Failure::usage(format!(
            "there is no token to score: reading begins at token {start}, scoring at {from} (the \
             first token read cannot be scored), and the end is at {to}"
        )));
    }
    Ok(Range { start, from, to })
}

fn score(
    session: &mut Session,
    ids: &[TokenId],
    range: Range,
    watch: &Watch<'_>,
) -> Result<Report, Failure> {
    let Range { start, from, to } = range;
    let n_read = to - start;
    // Whole chunks before the first token of interest are only read, which is faster; the chunks
    // are those that scoring all would make.
    let chunk_tokens = session.memory().config().chunk_tokens;
    let n_before = (from - start - 1) / chunk_tokens * chunk_tokens;
    let mut meter = Meter::new("scoring", Unit::Tokens);
    let mut done_before = 0;
    let mut progress = |step: Progress| {
        meter.show(done_before + step.done_tokens, n_read);
        watch.flow()
    };
    let stopped = |error, done_before| match error {
        EngineError::Stopped { done_tokens, .. } => {
            EngineError::Stopped { done_tokens: done_before + done_tokens, total_tokens: n_read }
        }
        error => error,
    };
    let begun = Instant::now();
    let before = &ids[start..start + n_before];
    session.read_tokens(before, &mut progress).map_err(|error| stopped(error, 0))?;
    done_before = n_before;
    let mut progress = |step: Progress| {
        meter.show(done_before + step.done_tokens, n_read);
        watch.flow()
    };
    let scored = session.score(&ids[start + n_before..to], &mut progress);
    let mut score = scored.map_err(|error| stopped(error, n_before))?;
    let elapsed = begun.elapsed();
    score.nll.drain(..from - start - n_before - 1);
    let mean_nll = score.mean_nll();
    Ok(Report {
        token_ids: ids[start..to].iter().map(|id| id.0).collect(),
        start_token: start,
        from_token: from,
        mean_nll,
        perplexity: mean_nll.exp(),
        nll: score.nll,
        last_logits_top: score.last_logits_top.iter().map(|(id, logit)| (id.0, *logit)).collect(),
        seconds: elapsed.as_secs_f64(),
        tokens_per_second: numbers::per_second(n_read, elapsed),
    })
}
