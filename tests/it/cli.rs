//! Does the command do what its help says? The real binary, its output, its messages and its exit
//! codes.

mod ask;
mod bench;
mod chat;
mod config;
mod contexts;
mod doctor;
mod eval;
mod help;
mod inspect;
mod interrupt;
mod pipes;
mod pull;
mod recall;
mod score;

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use crate::fixtures::default_model;

const VOYAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/voyage.txt");

/// Small sizes, so that a short text has units too.
const SMALL: [&str; 10] = [
    "--sink-tokens",
    "16",
    "--window-tokens",
    "128",
    "--unit-tokens",
    "32",
    "--retrieved-units",
    "2",
    "--chunk-tokens",
    "128",
];

/// The binary, with nothing to read on stdin, and the default model in place.
fn mneme(words: &[&str]) -> Command {
    default_model();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mneme"));
    // Nobody's own contexts.
    let store = concat!(env!("CARGO_TARGET_TMPDIR"), "/no-store");
    command.args(words).stdin(Stdio::null()).env("MNEME_STORE", store);
    command
}

/// What a run came to.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self { code: output.status.code(), stdout, stderr }
    }
}

impl Ran {
    /// The object that `--json` printed.
    fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

fn run(words: &[&str]) -> Ran {
    mneme(words).output().unwrap().into()
}

/// With `input` on stdin.
fn run_with(words: &[&str], input: &[u8]) -> Ran {
    let mut child = spawn(mneme(words).stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let ran = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    ran
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Refused with this code, these words on stderr, and nothing on stdout.
fn check_refused(words: &[&str], code: i32, expected: &[&str]) {
    let ran = run(words);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{words:?}: {}", ran.stderr);
    for word in expected {
        assert!(ran.stderr.contains(word), "{:?} does not say {word:?}", ran.stderr);
    }
}

/// The beginning of the voyage: some `n_bytes`.
fn voyage(n_bytes: usize) -> String {
    let text = std::fs::read_to_string(VOYAGE).unwrap();
    let end = (n_bytes..).find(|at| text.is_char_boundary(*at)).unwrap();
    text[..end].to_owned()
}
