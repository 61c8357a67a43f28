//! `mneme contexts repair`: what can still be served of contexts with damaged parts? What was read before
//! the first of them: the same ingest reads the rest again.

use serde::Serialize;

use super::failure::Failure;
use super::interrupt::Interrupt;
use super::meter::{Meter, Unit};
use super::numbers;
use super::opening::{self, TENANT};
use super::output::{note, print_json};
use super::settings::Settings;
use crate::engine::{Contexts, EngineError};

/// What became of a context.
#[derive(Debug, Serialize)]
struct Repaired {
    context: String,
    /// Tokens that it had.
    tokens_before: u64,
    /// Tokens that it has now; none where it had to be removed.
    tokens: Option<usize>,
}

/// Where a context's settings keep no earlier states it is read again up to what is damaged.
fn repair(
    contexts: &Contexts,
    name: &str,
    interrupt: &Interrupt,
) -> Result<Option<usize>, Failure> {
    let watch = interrupt.watch();
    let mut meter = Meter::new("reading again", Unit::Tokens);
    let repaired = contexts.repair(name, &mut |step| {
        meter.show(step.done_tokens, step.total_tokens);
        watch.flow()
    });
    drop(meter);
    repaired.map_err(|error| match error {
        EngineError::Stopped { .. } => {
            Failure::Interrupted(format!("stopped; {name} is as it was, with its damaged parts"))
        }
        error => error.into(),
    })
}

pub(super) fn run(settings: &Settings, json: bool, interrupt: &Interrupt) -> Result<(), Failure> {
    let store = opening::open_store(settings)?;
    let engine = opening::open_engine(settings, interrupt)?;
    let contexts = Contexts::new(engine, store, TENANT);
    let mut repaired = Vec::new();
    let found = contexts.store().verify(&mut |_| {})?;
    for (_, context) in found.damaged_contexts.into_iter().filter(|(tenant, _)| tenant == TENANT) {
        let before = contexts.store().show(TENANT, &context)?.map_or(0, |before| before.length);
        let tokens = repair(&contexts, &context, interrupt)?;
        repaired.push(Repaired { context, tokens_before: before, tokens });
    }
    if json {
        return print_json(&repaired);
    }
    for Repaired { context, tokens_before, tokens } in &repaired {
        let before = numbers::count_of(*tokens_before as usize, "token");
        match tokens {
            Some(tokens) => {
                note(&format!("{context}: {} of {before} kept", numbers::count(*tokens)))
            }
            None => note(&format!("{context}: removed, nothing of its {before} could be kept")),
        }
    }
    if repaired.is_empty() {
        note("No context has damaged parts.");
    }
    Ok(())
}
