//! `mneme recall`: how much of what matters do lookups find, and at which price?

use super::args::RecallArgs;
use super::compare::{policies, read};
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::meter::{Meter, Unit};
use super::output::{note, print, write_json_line};
use super::{numbers, opening};
use crate::engine::{EngineError, Progress};
use crate::eval::{EvalError, Haystack, RecallLine, RecallPlan};

/// What the columns are.
const LEGEND: &str = "\
\nunits: share of the exact oracle's units that were retrieved; mass: share of the queries' attention \
to\nall units that those retrieved have (oracle: that the oracle's have); a lookup is of one layer.";

pub(super) fn run(args: RecallArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let settings = args.run.settings()?;
    let policies = policies(&args.compare, &args.run, &settings)?;
    let (name, text) = read(&args.haystack)?;
    let engine = opening::open_engine(&settings, interrupt)?;
    let haystack = Haystack::new(name, text, engine.tokenizer());
    let longest = args.lengths.iter().copied().max().unwrap_or(0);
    let is_short = args.repeat && haystack.n_tokens() < longest;
    let plan = RecallPlan {
        engine: &engine,
        policies: &policies,
        haystack: &if is_short { haystack.repeated(longest) } else { haystack },
        lengths: &args.lengths,
        seed: args.seed,
    };
    let watch = interrupt.watch();
    let mut lines = Vec::new();
    let mut meter = Meter::new("reading", Unit::Tokens);
    let ran = plan.run(
        &mut |line| {
            if args.json {
                write_json_line(&line)?;
            }
            lines.push(line);
            Ok(())
        },
        &mut |step: Progress| {
            meter.show(step.done_tokens, step.total_tokens);
            watch.flow()
        },
    );
    drop(meter);
    if !args.json && !lines.is_empty() {
        print(&table(&lines))?;
        note(LEGEND);
    }
    match ran {
        Err(EvalError::Engine(EngineError::Stopped { .. })) if watch.is_requested() => {
            let n = numbers::count_of(lines.len(), "result");
            Err(Failure::Interrupted(format!("stopped after {n}")))
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

/// A row a length and policy.
fn table(lines: &[RecallLine]) -> String {
    let head =
        ["tokens", "policy", "units", "mass", "oracle", "ms a lookup", "read", "index a token"];
    let mut rows = vec![head.map(str::to_owned)];
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    rows.extend(lines.iter().map(|line| {
        [
            numbers::count(line.tokens),
            line.policy.clone(),
            percent(line.overlap),
            percent(line.mass),
            percent(line.oracle_mass),
            format!("{:.3}", 1000.0 * line.seconds),
            numbers::bytes(line.bytes as u64),
            numbers::bytes(line.index_bytes_per_token as u64),
        ]
    }));
    numbers::columns(&rows, &[1])
}
