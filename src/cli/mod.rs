//! What does a person at a terminal say to mneme, and what do they see? Commands, flags,
//! configuration files, progress bars, messages and exit codes. What is computed is not known here.
//!
//! ```text
//! args ── settings (flags over file over defaults) ── opening (pull, load) ── one file a command
//! ```
//!
//! Answers and `--json` go to stdout, all else to stderr. Exit codes: 0 done, 1 failed, 2 asked for
//! what cannot be, 130 stopped by Ctrl-C.
//!
//! Invariant: whatever moment Ctrl-C or a closed pipe comes at, no half object is on stdout and no
//! half file on the disk.

mod args;
mod ask;
mod bench;
mod chat;
mod compare;
mod context_args;
mod contexts;
mod doctor;
mod eval;
mod failure;
mod ingest;
mod input;
mod inspect;
mod interrupt;
mod line_input;
mod memory_flags;
mod meter;
mod numbers;
mod opening;
mod output;
mod passages;
mod pull;
mod recall;
mod repair;
mod run_flags;
mod score;
mod serve;
mod serve_flags;
mod settings;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Command;
use failure::Failure;
use interrupt::Interrupt;

/// Runs the command that `words` say, the program's own name first; prints what there is to say.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match args::parse(words) {
        Ok(command) => command,
        Err(refusal) => {
            let _ = refusal.print(); // a reader that has left reads no help either
            return ExitCode::from(refusal.exit_code() as u8);
        }
    };
    let done = Interrupt::install().and_then(|interrupt| dispatch(command, &interrupt));
    let Err(failure) = done else { return ExitCode::SUCCESS };
    let (message, code) = failure.verdict();
    if let Some(message) = message {
        output::note(&format!("mneme: {message}"));
    }
    ExitCode::from(code)
}

fn dispatch(command: Command, interrupt: &Interrupt) -> Result<(), Failure> {
    match command {
        Command::Ask(args) => ask::run(args, interrupt),
        Command::Ingest(args) => ingest::run(args, interrupt),
        Command::Contexts(args) => contexts::run(args, interrupt),
        Command::Chat(args) => chat::run(args, interrupt),
        Command::Serve(args) => serve::run(args, interrupt),
        Command::Key { tenant } => serve::make_key(&tenant),
        Command::Score(args) => score::run(args, interrupt),
        Command::Bench(args) => bench::run(args, interrupt),
        Command::Eval(args) => eval::run(args, interrupt),
        Command::Recall(args) => recall::run(args, interrupt),
        Command::Inspect(args) => inspect::run(args, interrupt),
        Command::Doctor(args) => doctor::run(args),
        Command::Pull(args) => pull::run(args, interrupt),
    }
}
