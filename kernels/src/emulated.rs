//! How are kernels run where there is no GPU? The same sources are compiled for the host, with the
//! address and undefined-behaviour sanitizers, and run by fibres in a process of their own
//! (`emulation/`), which holds the buffers and takes commands by its standard input. For tests: it
//! is slow, and it stops at the first thing that a kernel must not do.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use half::{bf16, f16};

use crate::device::{Device, DeviceBuffer, DevicePointer, Geometry, HalfProduct, WeightFormat};
use crate::error::DeviceError;
use crate::files::{hash_of, unique, write_whole};
use crate::naive;
use crate::source::ProgramSource;

const HEADER: &str = include_str!("../emulation/emulation.h");
const RUNNER: &str = include_str!("../emulation/emulation.cpp");

const OPTIONS: [&str; 7] = [
    "-std=c++17",
    "-O1",
    "-g1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Werror",
];

/// In which order an emulated block runs its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadOrder {
    /// From the first to the last.
    Forward,
    /// From the last to the first, blocks as well.
    Backward,
    /// Another one each round, by this seed.
    Shuffled(u32),
}

/// What an emulated device has in place of cuBLASLt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmulatedLibrary {
    /// Nothing.
    Missing,
    /// Plain loops.
    Right,
    /// Something that computes something else.
    Wrong,
}

/// A process that runs kernels on the host.
pub struct Emulated {
    process: Arc<Process>,
    order: AtomicU32,
    library: Mutex<EmulatedLibrary>,
}

struct Process {
    folder: PathBuf,
    log: PathBuf,
    state: Mutex<State>,
}

struct State {
    child: Child,
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
}

/// A module that the process has loaded.
pub struct EmulatedProgram {
    module: u64,
}

/// Bytes in the process.
pub struct EmulatedBuffer {
    process: Arc<Process>,
    address: u64,
    n_bytes: usize,
}

impl Emulated {
    /// Starts a process. What is compiled is kept in `folder` and taken from there the next time.
    ///
    /// # Errors
    /// When there is no C++ compiler (`$CXX`, or `c++`) with sanitizers, or the folder is of no
    /// use.
    pub fn start(folder: &Path) -> Result<Self, DeviceError> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(folder).map_err(DeviceError::io(format!("cannot make {folder:?}")))?;
        let header = include_folder(folder);
        fs::create_dir_all(&header).map_err(DeviceError::io(format!("cannot make {header:?}")))?;
        write_whole(&header.join("emulation.h"), HEADER.as_bytes())
            .map_err(DeviceError::io("cannot write emulation.h"))?;
        let options = ["-rdynamic", "-ldl"];
        let runner = compiled(folder, "runner", RUNNER, &options)?;
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = folder.join(format!("log-{}-{number}", std::process::id()));
        let stderr = fs::File::create(&log).map_err(DeviceError::io("cannot keep a log"))?;
        let mut child = Command::new(runner)
            .env("UBSAN_OPTIONS", "print_stacktrace=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(DeviceError::io("cannot start the emulation"))?;
        let commands = child.stdin.take().expect("because it is a pipe");
        let replies = child.stdout.take().expect("because it is a pipe");
        let state = Mutex::new(State { child, commands, replies: BufReader::new(replies) });
        let process = Arc::new(Process { folder: folder.to_owned(), log, state });
        let library = Mutex::new(EmulatedLibrary::Missing);
        Ok(Self { process, order: AtomicU32::new(0), library })
    }

    /// Ends the process, as if a GPU was lost: for tests of what comes of that.
    pub fn lose(&self) {
        let _ = self.process.locked().child.kill(); // where it has ended, it is lost already
    }

    /// What multiplies in place of cuBLASLt from now on.
    pub fn set_library(&self, library: EmulatedLibrary) {
        *self.library.lock().unwrap_or_else(PoisonError::into_inner) = library;
    }

    fn read_at(&self, address: u64, out: &mut [u8]) -> Result<(), DeviceError> {
        let mut state = self.process.locked();
        let command = [b"R", &address.to_le_bytes()[..], &word(out.len())];
        let read = state.tell(&command).and_then(|()| state.replies.read_exact(out));
        drop(state);
        read.map_err(|_| self.process.stopped())
    }

    fn write_at(&self, address: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let command = [b"W", &address.to_le_bytes()[..], &word(bytes.len()), bytes];
        self.process.locked().tell(&command).map_err(|_| self.process.stopped())
    }

    /// In which order blocks run their threads from now on.
    pub fn set_order(&self, order: ThreadOrder) {
        let order = match order {
            ThreadOrder::Forward => 0,
            ThreadOrder::Backward => 1,
            ThreadOrder::Shuffled(seed) => seed.saturating_add(2),
        };
        self.order.store(order, Ordering::Relaxed);
    }
}

impl Device for Emulated {
    type Buffer = EmulatedBuffer;
    type Program = EmulatedProgram;

    fn description(&self) -> String {
        format!("host emulation of a GPU, in {}", self.process.folder.display())
    }

    fn n_multiprocessors(&self) -> usize {
        2
    }

    fn free_bytes(&self) -> Option<usize> {
        None
    }

    fn allocate(&self, n_bytes: usize) -> Result<EmulatedBuffer, DeviceError> {
        let address = self.process.ask(&[b"A", &word(n_bytes)])?;
        Ok(EmulatedBuffer { process: Arc::clone(&self.process), address, n_bytes })
    }

    fn write(&self, to: &mut EmulatedBuffer, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write_at(to.place(at, bytes.len())?, bytes)
    }

    fn read(&self, from: &EmulatedBuffer, at: usize, out: &mut [u8]) -> Result<(), DeviceError> {
        self.read_at(from.place(at, out.len())?, out)
    }

    fn copy(
        &self,
        (from, at): (&EmulatedBuffer, usize),
        (to, to_at): (&mut EmulatedBuffer, usize),
        n_bytes: usize,
    ) -> Result<(), DeviceError> {
        let (from, to) = (from.place(at, n_bytes)?, to.place(to_at, n_bytes)?);
        let command = [b"C", &from.to_le_bytes()[..], &to.to_le_bytes(), &word(n_bytes)];
        self.process.locked().tell(&command).map_err(|_| self.process.stopped())
    }

    fn program(&self, source: &ProgramSource) -> Result<EmulatedProgram, DeviceError> {
        let text = source.text();
        let name = source.file().replace('.', "-");
        let options = ["-DMNEME_EMULATED", "-shared", "-fPIC"];
        let module = compiled(&self.process.folder, &name, &text, &options)?;
        let path = module.to_string_lossy().into_owned();
        let module = self.process.ask(&[b"M", &word(path.len()), path.as_bytes()])?;
        Ok(EmulatedProgram { module })
    }

    unsafe fn launch(
        &self,
        program: &EmulatedProgram,
        kernel: &'static str,
        geometry: Geometry,
        params: &[u8],
    ) -> Result<(), DeviceError> {
        let sizes = geometry.grid.into_iter().chain(geometry.block).flat_map(u32::to_le_bytes);
        let sizes: Vec<u8> = sizes.collect();
        let order = self.order.load(Ordering::Relaxed);
        self.process.ask(&[
            b"L",
            &program.module.to_le_bytes(),
            &word(kernel.len()),
            kernel.as_bytes(),
            &sizes,
            &word(geometry.shared_bytes as usize),
            &word(order as usize),
            &word(params.len()),
            params,
        ])?;
        Ok(())
    }

    unsafe fn multiply_halves(&self, product: &HalfProduct) -> Result<bool, DeviceError> {
        let library = *self.library.lock().unwrap_or_else(PoisonError::into_inner);
        let HalfProduct { format, weights, x, out, n_outputs, n_cols, n_rows, adds } = *product;
        if library == EmulatedLibrary::Missing {
            return Ok(false);
        }
        let widened = |at: DevicePointer, n: usize| {
            let mut bits = vec![0u16; n];
            self.read_at(at.0, bytemuck::cast_slice_mut(&mut bits))?;
            let float = |bits: &u16| match format {
                WeightFormat::Half => f16::from_bits(*bits).to_f32(),
                WeightFormat::Bfloat => bf16::from_bits(*bits).to_f32(),
            };
            Ok::<Vec<f32>, DeviceError>(bits.iter().map(float).collect())
        };
        let (x, weights) = (widened(x, n_rows * n_cols)?, widened(weights, n_outputs * n_cols)?);
        let mut products = naive::product(&x, &weights, n_cols);
        if library == EmulatedLibrary::Wrong {
            products.reverse();
        }
        if adds {
            let mut there = vec![0.0f32; products.len()];
            self.read_at(out.0, bytemuck::cast_slice_mut(&mut there))?;
            products.iter_mut().zip(there).for_each(|(product, there)| *product += there);
        }
        self.write_at(out.0, bytemuck::cast_slice(&products))?;
        Ok(true)
    }
}

impl DeviceBuffer for EmulatedBuffer {
    fn pointer(&self) -> DevicePointer {
        DevicePointer(self.address)
    }

    fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

impl EmulatedBuffer {
    fn place(&self, at: usize, n_bytes: usize) -> Result<u64, DeviceError> {
        match at.checked_add(n_bytes) {
            Some(end) if end <= self.n_bytes => Ok(self.address + at as u64),
            _ => Err(DeviceError::OutOfBounds { at, n_bytes, len: self.n_bytes }),
        }
    }
}

impl Drop for EmulatedBuffer {
    fn drop(&mut self) {
        let command = [b"F", &self.address.to_le_bytes()[..]];
        let _ = self.process.locked().tell(&command); // where it has ended, so has the buffer
    }
}

impl Process {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a command and waits for the number that is the answer.
    fn ask(&self, command: &[&[u8]]) -> Result<u64, DeviceError> {
        let mut answer = [0; 8];
        let mut state = self.locked();
        let asked = state.tell(command).and_then(|()| state.replies.read_exact(&mut answer));
        drop(state);
        asked.map(|()| u64::from_le_bytes(answer)).map_err(|_| self.stopped())
    }

    /// What the process said before it ended.
    fn stopped(&self) -> DeviceError {
        let status = self.locked().child.wait();
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        DeviceError::Emulation { log: format!("{said}({status})") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = state.child.kill();
        let _ = state.child.wait();
        let _ = fs::remove_file(&self.log);
    }
}

impl State {
    fn tell(&mut self, command: &[&[u8]]) -> std::io::Result<()> {
        for part in command {
            self.commands.write_all(part)?;
        }
        self.commands.flush()
    }
}

fn word(n: usize) -> [u8; 8] {
    (n as u64).to_le_bytes()
}

/// Where the header of the emulation is.
fn include_folder(folder: &Path) -> PathBuf {
    folder.join(format!("include-{:016x}", hash_of(&[HEADER.as_bytes()])))
}

/// `text` compiled with `options`, or what an earlier run compiled.
fn compiled(
    folder: &Path,
    name: &str,
    text: &str,
    options: &[&str],
) -> Result<PathBuf, DeviceError> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let all = [OPTIONS.join(" "), options.join(" "), compiler.clone()];
    let parts = [text, HEADER, &all[0], &all[1], &all[2]].map(str::as_bytes);
    let hash = hash_of(&parts);
    let path = folder.join(format!("{name}-{hash:016x}"));
    if path.exists() {
        return Ok(path);
    }
    let source = path.with_extension("cpp");
    write_whole(&source, text.as_bytes())
        .map_err(DeviceError::io(format!("cannot write {source:?}")))?;
    let part = unique(&path);
    let header = format!("-I{}", include_folder(folder).display());
    let made = Command::new(&compiler)
        .args(OPTIONS)
        .args([header.as_str(), "-o"])
        .arg(&part)
        .arg(&source)
        .args(options)
        .output()
        .map_err(DeviceError::io(format!(
            "cannot run {compiler}, which compiles kernels for tests"
        )))?;
    if !made.status.success() {
        let log = String::from_utf8_lossy(&made.stderr).into_owned();
        return Err(DeviceError::Compile { program: name.to_owned(), target: compiler, log });
    }
    fs::rename(&part, &path).map_err(DeviceError::io(format!("cannot keep {path:?}")))?;
    Ok(path)
}
