//! How does a file of kernels become code of a device? By NVRTC, a library that is looked for when
//! the program runs: nothing of CUDA is needed to build it. What was compiled is kept in a folder,
//! by everything that it depends on.

use std::ffi::{CString, c_char};
use std::fs;
use std::path::{Path, PathBuf};

use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;

use crate::error::DeviceError;
use crate::files::{hash_of, write_whole};
use crate::source::ProgramSource;

/// A kind of device, by its compute capability: 8.0 is `{ major: 8, minor: 0 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// Before the point.
    pub major: u32,
    /// After it.
    pub minor: u32,
}

impl Capability {
    /// The least that the kernels are written for.
    pub const LEAST: Self = Self { major: 8, minor: 0 };

    fn number(self) -> u32 {
        self.major * 10 + self.minor
    }
}

/// What comes of compiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Machine code of devices of this capability.
    Cubin(Capability),
    /// Text that a driver compiles for devices of this capability and later ones.
    Ptx(Capability),
}

impl Target {
    fn option(self) -> String {
        match self {
            Self::Cubin(capability) => format!("--gpu-architecture=sm_{}", capability.number()),
            Self::Ptx(capability) => format!("--gpu-architecture=compute_{}", capability.number()),
        }
    }
}

/// NVRTC, found.
#[derive(Clone, Debug)]
pub struct Compiler {
    version: (i32, i32),
    folder: Option<PathBuf>,
}

/// What NVRTC made of a program.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The code.
    pub code: Vec<u8>,
    /// What the compiler said: with the assembler's account of registers, shared memory and spills.
    /// Empty where it was compiled before.
    pub log: String,
}

impl Compiler {
    /// Looks for NVRTC where the system looks for libraries. What is compiled is kept in `folder`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn find(folder: Option<&Path>) -> Result<Self, DeviceError> {
        // SAFETY: loading NVRTC runs nothing but its own constructors.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::NoCompiler(
                "NVRTC, CUDA's run-time compiler, was not found (libnvrtc.so): install it, or the \
                 Python package nvidia-cuda-nvrtc, and name its folder in LD_LIBRARY_PATH"
                    .to_owned(),
            ));
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both point to numbers that live until the call returns.
        let asked = unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result();
        asked.map_err(|error| {
            DeviceError::NoCompiler(format!("NVRTC was found, but not its version: {error}"))
        })?;
        Ok(Self { version: (major, minor), folder: folder.map(Path::to_owned) })
    }

    /// Which one it is, major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles a program, or takes it from the folder.
    ///
    /// # Errors
    /// When NVRTC refuses it, with what it said.
    pub fn compile(&self, source: &ProgramSource, target: Target) -> Result<Compiled, DeviceError> {
        let text = source.text();
        let options = [
            target.option(),
            "--std=c++17".to_owned(),
            "--use_fast_math".to_owned(),
            "--extra-device-vectorization".to_owned(),
            "--ptxas-options=--verbose".to_owned(),
        ];
        let kept = self.folder.as_deref().map(|folder| self.place(folder, &text, &options));
        if let Some(code) = kept.as_deref().and_then(read_kept) {
            return Ok(Compiled { code, log: String::new() });
        }
        let compiled = compile(source, &text, (&options, target))?;
        if let Some(path) = kept {
            let sum = hash_of(&[&compiled.code]);
            let bytes = [&sum.to_le_bytes()[..], &compiled.code].concat();
            // Where it cannot be kept it is compiled again the next time.
            let _ = path.parent().map_or(Ok(()), fs::create_dir_all);
            let _ = write_whole(&path, &bytes);
        }
        Ok(compiled)
    }

    fn place(&self, folder: &Path, text: &str, options: &[String]) -> PathBuf {
        let version = format!("{}.{}", self.version.0, self.version.1);
        let options = options.join(" ");
        let hash = hash_of(&[text.as_bytes(), options.as_bytes(), version.as_bytes()]);
        folder.join(format!("{hash:016x}.kernels"))
    }
}

/// Code that was kept, if it is what was written.
fn read_kept(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (sum, code) = bytes.split_first_chunk::<8>()?;
    (hash_of(&[code]) == u64::from_le_bytes(*sum)).then(|| code.to_vec())
}

/// A program of NVRTC, until it is dropped.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `create_program`, destroyed once, here.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn compile(
    source: &ProgramSource,
    text: &str,
    (options, target): (&[String], Target),
) -> Result<Compiled, DeviceError> {
    let failed =
        |log: String| DeviceError::Compile { program: source.name(), target: target.option(), log };
    let said = |error: NvrtcError| failed(error.to_string());
    let text = CString::new(text).map_err(|error| failed(error.to_string()))?;
    let name = CString::new(source.file()).map_err(|error| failed(error.to_string()))?;
    let program = Program(result::create_program(&text, Some(&name)).map_err(said)?);
    // SAFETY: the program was made above and lives until the end of this function, text and name
    // with it.
    let (compiled, log) = unsafe {
        let compiled = result::compile_program(program.0, options);
        (compiled, result::get_program_log(program.0).map_err(said)?)
    };
    let log = text_of(&log);
    if compiled.is_err() {
        return Err(failed(log));
    }
    // SAFETY: as above; a call fills as many bytes as the one before it said.
    let code = unsafe {
        match target {
            Target::Cubin(_) => code_of(&program, sys::nvrtcGetCUBINSize, sys::nvrtcGetCUBIN),
            Target::Ptx(_) => code_of(&program, sys::nvrtcGetPTXSize, sys::nvrtcGetPTX),
        }
    };
    Ok(Compiled { code: code.map_err(said)?, log })
}

/// # Safety
/// `fill` must write as many bytes as `size` says.
unsafe fn code_of(
    program: &Program,
    size: unsafe fn(sys::nvrtcProgram, *mut usize) -> sys::nvrtcResult,
    fill: unsafe fn(sys::nvrtcProgram, *mut c_char) -> sys::nvrtcResult,
) -> Result<Vec<u8>, NvrtcError> {
    let mut len = 0;
    // SAFETY: the program lives; `len` is a number of ours.
    unsafe { size(program.0, &mut len) }.result()?;
    let mut code = vec![0u8; len];
    // SAFETY: the caller's promise.
    unsafe { fill(program.0, code.as_mut_ptr().cast()) }.result()?;
    Ok(code)
}

fn text_of(chars: &[c_char]) -> String {
    let bytes: Vec<u8> = chars.iter().map(|c| *c as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the assembler says of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelUse {
    /// Its name.
    pub name: String,
    /// Registers a thread.
    pub registers: u32,
    /// Bytes of shared memory, without what is dynamic.
    pub shared_bytes: u32,
    /// Bytes that did not fit into registers and are stored.
    pub spilled_bytes: u32,
}

/// The kernels' use of a device, from the log of [`Compiler::compile`].
pub fn kernel_uses(log: &str) -> Vec<KernelUse> {
    let mut uses: Vec<KernelUse> = Vec::new();
    let number_before = |line: &str, what: &str| -> u32 {
        let before = line.split(what).next().filter(|before| before.len() < line.len());
        let word = before.and_then(|before| before.split_whitespace().last());
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            let name = name.split('\'').next().unwrap_or_default().to_owned();
            uses.push(KernelUse { name, registers: 0, shared_bytes: 0, spilled_bytes: 0 });
        } else if let Some(last) = uses.last_mut() {
            if line.contains("spill stores") {
                last.spilled_bytes = number_before(line, " bytes spill stores");
            }
            if let Some(at) = line.find("Used ") {
                last.registers = number_before(&line[at..], " registers");
                last.shared_bytes = number_before(line, " bytes smem");
            }
        }
    }
    uses
}
