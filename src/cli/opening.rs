//! How does a name on the command line become a model that runs? It is fetched when it is missing,
//! with a bar, and loaded.

use std::path::PathBuf;

use super::failure::Failure;
use super::interrupt::{self, Interrupt};
use super::meter::{Meter, Unit};
use super::numbers;
use super::output::note;
use super::settings::Settings;
use crate::engine::{Engine, Session};
use crate::hub::{self, PullStage, PullStep};

/// The settings' model, loaded, and a memory for it.
pub(super) fn open(settings: &Settings, interrupt: &Interrupt) -> Result<Session, Failure> {
    Ok(open_engine(settings, interrupt)?.session(&settings.memory)?)
}

/// The settings' model, loaded.
pub(super) fn open_engine(settings: &Settings, interrupt: &Interrupt) -> Result<Engine, Failure> {
    let path = fetch(&settings.model, interrupt)?;
    Ok(Engine::load(&path, &settings.engine_options())?)
}

/// Where a model lies, after it was fetched if it had to be.
pub(super) fn fetch(model: &str, interrupt: &Interrupt) -> Result<PathBuf, Failure> {
    let watch = interrupt.watch();
    let mut shown: Option<(PullStage, Meter)> = None;
    let mut last = None;
    let mut was_told = false;
    let pulled = hub::resolve(model, &mut |step| {
        if last.is_none() {
            announce(model);
        }
        last = Some(*step);
        let meter = match &mut shown {
            Some((stage, meter)) if *stage == step.stage => meter,
            _ => {
                shown = None; // the bar before goes first
                &mut shown.insert((step.stage, Meter::new(task(step.stage), Unit::Bytes))).1
            }
        };
        meter.show(step.done_bytes as usize, step.total_bytes as usize);
        if watch.is_requested() && std::mem::replace(&mut was_told, true) {
            interrupt::leave(); // this pull cannot stop by itself, see `PullFn`
        }
        watch.flow()
    });
    drop(shown);
    match pulled {
        Err(_) if watch.is_requested() => Err(Failure::Interrupted(stopped(model, last))),
        pulled => Ok(pulled?),
    }
}

fn announce(model: &str) {
    match hub::alias(model) {
        Some(alias) => {
            let size = numbers::bytes(alias.model_bytes);
            note(&format!("Fetching {model} ({size}), once:\n{}", alias.description));
        }
        None => note(&format!("Fetching {model}, once")),
    }
}

fn task(stage: PullStage) -> &'static str {
    match stage {
        PullStage::Download => "downloading",
        PullStage::Unpack => "unpacking",
    }
}

fn stopped(model: &str, last: Option<PullStep>) -> String {
    let doing = last.map_or("fetching", |step| task(step.stage));
    let came = last.map_or(String::new(), |step| {
        let (done, total) = (numbers::bytes(step.done_bytes), numbers::bytes(step.total_bytes));
        format!(" at {done} of {total}")
    });
    let kept = if hub::alias(model).is_some() { "nothing" } else { "no partial file" };
    format!("stopped {doing} {model}{came}; {kept} was left behind")
}
