//! How does a name on the command line become a model that runs? It is fetched when it is missing,
//! with a bar, and loaded.

use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::interrupt::{self, Interrupt};
use super::meter::{Meter, Unit};
use super::numbers;
use super::output::note;
use super::settings::Settings;
use crate::engine::{Engine, Session, random_model};
use crate::hub::{self, PullStage, PullStep};
use crate::memory::store::{OpenReport, Store, StoreOptions};

/// Whose contexts the command line's are.
pub(super) const TENANT: &str = "local";

/// The settings' model, loaded, and a memory for it.
pub(super) fn open(settings: &Settings, interrupt: &Interrupt) -> Result<Session, Failure> {
    Ok(open_engine(settings, interrupt)?.session(&settings.memory)?)
}

/// The settings' model, loaded.
pub(super) fn open_engine(settings: &Settings, interrupt: &Interrupt) -> Result<Engine, Failure> {
    let path = match settings.random_weights.as_os_str().is_empty() {
        true => fetch(&settings.model, interrupt)?,
        false => make_random(&settings.random_weights, interrupt)?,
    };
    let engine = Engine::load(&path, &settings.engine_options())?;
    if let Some(why) = engine.no_gpu() {
        note(&format!("computing on the processor: {why}"));
    }
    Ok(engine)
}

/// The settings' store.
pub(super) fn open_store(settings: &Settings) -> Result<Store, Failure> {
    let dir = store_dir(settings)?;
    let max_disk_bytes = Some(settings.store_max_bytes).filter(|bytes| *bytes > 0);
    let store = Store::open(&dir, StoreOptions { max_disk_bytes, ..Default::default() })?;
    for line in findings(&store.report()) {
        note(&format!("{}: {line}", dir.display()));
    }
    Ok(store)
}

/// What a person should know of how the store was found. What an interrupted process left is not
/// worth a word: it was removed, and nothing was lost by it.
fn findings(report: &OpenReport) -> Vec<String> {
    let mut lines = Vec::new();
    for file in &report.set_aside {
        lines.push(format!("a damaged file was set aside: {file}"));
    }
    if report.catalogue_rebuilt {
        lines.push("the catalogue was damaged; it was made again from the other files".to_owned());
    }
    for (_, name) in report.incomplete.iter().filter(|(tenant, _)| tenant == TENANT) {
        let advice = "mneme contexts repair takes it back to what is there";
        lines.push(format!("context {name:?} misses files; {advice}"));
    }
    lines
}

/// The folder of the settings' store.
pub(super) fn store_dir(settings: &Settings) -> Result<PathBuf, Failure> {
    use etcetera::BaseStrategy;
    if !settings.store.as_os_str().is_empty() {
        return Ok(settings.store.clone());
    }
    let strategy = etcetera::base_strategy::choose_native_strategy().map_err(|_| {
        Failure::failed("there is no home folder to keep contexts in; name one with --store DIR")
    })?;
    Ok(strategy.data_dir().join("mneme"))
}

/// Where the model lies that was made of a shape.
fn make_random(config: &Path, interrupt: &Interrupt) -> Result<PathBuf, Failure> {
    let watch = interrupt.watch();
    let cache = hub::cache_folder()?;
    let mut meter = Meter::new("drawing weights", Unit::Bytes);
    let made = random_model(config, &cache, &mut |done, total| {
        meter.show(done as usize, total as usize);
        watch.flow()
    });
    drop(meter);
    match made {
        Err(error) if watch.is_requested() => Err(Failure::Interrupted(error.to_string())),
        made => Ok(made?),
    }
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
