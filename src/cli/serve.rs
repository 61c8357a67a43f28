//! `mneme serve`: the model answers over the network until it is told to end.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tracing::Level;
use tracing_subscriber::fmt::format::FmtSpan;

use super::args::ServeArgs;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::opening;
use super::output::{note, print};
use super::settings::Settings;
use crate::api::{self, Keys, LogFormat, LogLevel, Parts, ServeConfig, ServeError, Service};
use crate::backend::cuda::{GpuUse, MemoryPlan};
use crate::hub;

/// The variable of the environment that may hold a key in clear.
const KEY_VARIABLE: &str = "MNEME_API_KEY";

pub(super) fn run(args: ServeArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut settings = args.run.settings()?;
    args.store.change(&mut settings);
    args.serve.change(&mut settings);
    if let Some((key, what)) = settings.serve.faults().first() {
        return Err(Failure::usage(format!("--{key} {what}")));
    }
    let keys = keys(&settings.serve.keys)?;
    if args.check_config {
        return check(&settings, &keys);
    }
    let engine = opening::open_engine(&settings, interrupt)?;
    let store = opening::open_store(&settings)?;
    engine.session(&settings.memory)?; // sizes that do not fit are said now
    engine.identity()?;
    log(&settings.serve);
    let config = settings.serve.clone();
    let model = model_name(&settings.model_name());
    let memory = settings.memory.clone();
    let parts = Parts { engine: engine.clone(), model, memory, store, keys, config };
    let service = Service::start(parts)?;
    if let Some(gpu) = engine.gpu_use() {
        let GpuUse { plan, taken_bytes, .. } = gpu;
        let MemoryPlan { unit_bytes, index_bytes, window_bytes, .. } = plan;
        tracing::info!(taken_bytes, unit_bytes, index_bytes, window_bytes, "memory of the GPU");
    }
    drop(engine); // the service's alone from here on
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let told = told(interrupt.clone());
    let served = runtime.block_on(async { api::serve(service, announce, told).await });
    // What still runs has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map_err(|error| match error {
        ServeError::NoKeys { .. } => Failure::Usage(error.into()),
        error => Failure::Failed(error.into()),
    })
}

fn announce(address: SocketAddr) {
    note(&format!(
        "mneme serves http://{address} (the page), http://{address}/v1 (the API). Ctrl-C ends it."
    ));
}

/// Waits for Ctrl-C or SIGTERM. A second Ctrl-C ends the program at once.
async fn told(interrupt: Interrupt) {
    const LOOK: Duration = Duration::from_millis(50);
    let pressed = async {
        let watch = interrupt.watch();
        while !watch.is_requested() {
            tokio::time::sleep(LOOK).await;
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                () = pressed => {}
                _ = terminate.recv() => {}
            }
            note("Ending; requests have their time.");
            return;
        }
    }
    pressed.await;
    note("Ending; requests have their time.");
}

/// The keys of a file and of the environment.
fn keys(path: &Path) -> Result<Keys, Failure> {
    let mut keys = Keys::default();
    if !path.as_os_str().is_empty() {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot read the keys", path.display()))
            .map_err(Failure::Failed)?;
        keys = Keys::parse(&text)
            .map_err(|what| Failure::usage(format!("{}: {what}", path.display())))?;
        if keys.is_empty() {
            let what = "there is no key in it; mneme key makes one";
            return Err(Failure::usage(format!("{}: {what}", path.display())));
        }
    }
    Ok(match std::env::var(KEY_VARIABLE) {
        Ok(key) if !key.is_empty() => keys.with_local(&key),
        _ => keys,
    })
}

/// What the API calls the model.
fn model_name(model: &str) -> String {
    if hub::alias(model).is_some() || model.starts_with("hf:") {
        return model.to_owned();
    }
    let path = Path::new(model);
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or(model.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn check(settings: &Settings, keys: &Keys) -> Result<(), Failure> {
    let address = settings.serve.listen;
    if keys.is_empty() && !address.ip().is_loopback() {
        return Err(Failure::Usage(ServeError::NoKeys { address }.into()));
    }
    note("The settings are sound, as far as they can be checked without the model.");
    Ok(())
}

/// Makes a key.
pub(super) fn make_key(tenant: &str) -> Result<(), Failure> {
    if !api::is_tenant(tenant) {
        let what = "--tenant must be 1 to 64 letters, digits, '-', '_' or '.'";
        return Err(Failure::usage(what));
    }
    let key = new_key()?;
    print(&format!("{key}\n"))?;
    note("This is shown once. For the file of keys (serve.keys):\n");
    let hash = api::hash_in_hex(&key);
    print(&format!("[[key]]\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n"))
}

/// 256 bits of the system's randomness.
fn new_key() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no random bytes: {error}")))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("mn-{digits}"))
}

fn log(config: &ServeConfig) {
    let level = match config.log_level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    };
    // How long spans were open, where it is asked for so much.
    let spans = if level > Level::INFO { FmtSpan::CLOSE } else { FmtSpan::NONE };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_span_events(spans)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal());
    // Only a program that has a log of its own has one before.
    let _ = match config.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
