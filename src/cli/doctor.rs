//! `mneme doctor`: what is there to compute with, what will be used, and what is missing?

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::DoctorArgs;
use super::failure::Failure;
use super::output::{harmless, print, print_json};
use super::settings::Settings;
use super::{numbers, opening};
use crate::backend::any::DeviceChoice;
use crate::backend::cpu::CpuBackend;
use crate::backend::cuda::GpuReport;
use crate::backend::{Backend, BackendError};
use crate::hub;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    processor: String,
    memory: Option<Room>,
    models: Folder,
    contexts: Folder,
    driver: Found,
    compiler: Found,
    library: Found,
    gpus: Vec<GpuLine>,
    /// The GPU that a kernel ran on.
    gpu: Found,
    /// What `device` stands for here.
    computes_on: Found,
}

/// Bytes.
#[derive(Debug, Serialize)]
struct Room {
    free_bytes: u64,
    total_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Folder {
    path: PathBuf,
    /// Of its disk; null where the system does not say.
    free_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct GpuLine {
    name: String,
    capability: String,
    memory_bytes: usize,
}

/// Something that is there, or what is missing and how to get it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Found {
    Found(String),
    Missing(String),
}

impl Found {
    fn of<T>(found: &Result<T, BackendError>, show: impl Fn(&T) -> String) -> Self {
        match found {
            Ok(found) => Self::Found(show(found)),
            Err(error) => Self::Missing(error.to_string()),
        }
    }
}

pub(super) fn run(args: DoctorArgs) -> Result<(), Failure> {
    let settings = args.run.settings()?;
    let report = report(&settings)?;
    let missing = match &report.computes_on {
        Found::Missing(what) => Some(what.clone()),
        Found::Found(_) => None,
    };
    if args.json {
        print_json(&report)?
    } else {
        print(&report.table())?
    }
    missing.map_or(Ok(()), |what| Err(Failure::failed(what)))
}

fn report(settings: &Settings) -> Result<Report, Failure> {
    let options = settings.engine_options();
    let gpu = GpuReport::new();
    let cpu = CpuBackend::new(options.n_threads, options.precision).description();
    let version = |version: &(i32, i32)| format!("{}.{}", version.0, version.1);
    let on_gpu = Found::of(&gpu.usable, String::clone);
    let computes_on = match (settings.device, &gpu.usable) {
        (DeviceChoice::Cpu, _) | (DeviceChoice::Auto, Err(_)) => Found::Found(cpu.clone()),
        (DeviceChoice::Auto | DeviceChoice::Cuda, Ok(gpu)) => Found::Found(gpu.clone()),
        (DeviceChoice::Cuda, Err(error)) => Found::Missing(error.to_string()),
        (DeviceChoice::Emulated, _) => {
            Found::Found("host emulation of a GPU, for tests".to_owned())
        }
    };
    Ok(Report {
        processor: cpu,
        memory: memory(),
        models: folder(hub::cache_folder()?),
        contexts: folder(opening::store_dir(settings)?),
        driver: Found::of(&gpu.driver, |driver| format!("takes CUDA up to {}", version(driver))),
        compiler: Found::of(&gpu.compiler, |compiler| format!("NVRTC {}", version(compiler))),
        library: Found::of(&gpu.library, |library| format!("cuBLASLt {library}")),
        gpus: gpu
            .gpus
            .into_iter()
            .map(|gpu| GpuLine {
                name: gpu.name,
                capability: version(&gpu.capability),
                memory_bytes: gpu.n_bytes,
            })
            .collect(),
        gpu: on_gpu,
        computes_on,
    })
}

impl Report {
    fn table(&self) -> String {
        let mut rows = vec![
            ["processor".to_owned(), self.processor.clone()],
            ["memory".to_owned(), shown_room(self.memory.as_ref())],
            ["models".to_owned(), self.models.shown()],
            ["contexts".to_owned(), self.contexts.shown()],
            ["NVIDIA driver".to_owned(), self.driver.shown()],
            ["GPU compiler".to_owned(), self.compiler.shown()],
            ["GPU products".to_owned(), self.library.shown()],
        ];
        for gpu in &self.gpus {
            let memory = numbers::bytes(gpu.memory_bytes as u64);
            let what = format!("{}, {memory}, compute capability {}", gpu.name, gpu.capability);
            rows.push(["GPU".to_owned(), what]);
        }
        if !self.gpus.is_empty() {
            rows.push(["kernels run on".to_owned(), self.gpu.shown()]);
        }
        rows.push(["computes on".to_owned(), self.computes_on.shown()]);
        harmless(&numbers::columns(&rows, &[0, 1]))
    }
}

impl Found {
    fn shown(&self) -> String {
        match self {
            Self::Found(what) => what.clone(),
            Self::Missing(what) => format!("missing: {what}"),
        }
    }
}

impl Folder {
    fn shown(&self) -> String {
        let path = self.path.display();
        match self.free_bytes {
            Some(free) => format!("{path}, {} free on its disk", numbers::bytes(free)),
            None => path.to_string(),
        }
    }
}

fn shown_room(room: Option<&Room>) -> String {
    match room {
        Some(Room { free_bytes, total_bytes }) => {
            format!("{} free of {}", numbers::bytes(*free_bytes), numbers::bytes(*total_bytes))
        }
        None => "the system does not say".to_owned(),
    }
}

fn folder(path: PathBuf) -> Folder {
    // What is not there yet will be on the disk of what is.
    let there = path.ancestors().find(|folder| folder.exists());
    Folder { free_bytes: there.and_then(free_bytes), path }
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let room = rustix::fs::statvfs(folder).ok()?;
    Some(room.f_bavail.saturating_mul(room.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// The host's memory, where the system has it in a file.
fn memory() -> Option<Room> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Room { free_bytes: of("MemAvailable:")?, total_bytes: of("MemTotal:")? })
}
