//! `mneme pull`: is the model here? It is fetched when it is missing; where it lies is printed.

use super::args::PullArgs;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::opening;
use super::output::print;

pub(super) fn run(args: PullArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let path = opening::fetch(&args.model, interrupt)?;
    print(&format!("{}\n", path.display()))
}
