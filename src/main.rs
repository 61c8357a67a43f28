//! The `mneme` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    mneme::cli::run(std::env::args_os())
}
