//! What does Ctrl-C do? Where a task watches for it, the task ends itself, and says how far it
//! came; anywhere else nothing is lost by ending on the spot. A second Ctrl-C never waits.

use std::ops::ControlFlow;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::failure::{EXIT_INTERRUPTED, Failure};
use super::output::note;

/// Nobody watches: Ctrl-C ends the program.
const UNWATCHED: u8 = 0;
/// A task watches: Ctrl-C asks it to end.
const WATCHED: u8 = 1;
/// Ctrl-C came while a task watched.
const REQUESTED: u8 = 2;

/// Whether Ctrl-C came.
#[derive(Clone, Debug)]
pub(super) struct Interrupt {
    state: Arc<AtomicU8>,
}

/// While this lives, Ctrl-C is a request.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    state: &'a AtomicU8,
}

impl Interrupt {
    /// Takes Ctrl-C over from the system.
    pub fn install() -> Result<Self, Failure> {
        let interrupt = Self { state: Arc::new(AtomicU8::new(UNWATCHED)) };
        let state = Arc::clone(&interrupt.state);
        let installed = ctrlc::set_handler(move || {
            let asked =
                state.compare_exchange(WATCHED, REQUESTED, Ordering::Relaxed, Ordering::Relaxed);
            if asked.is_err() {
                leave();
            }
        });
        installed.map_err(|error| Failure::failed(format!("cannot handle Ctrl-C: {error}")))?;
        Ok(interrupt)
    }

    /// From now on Ctrl-C is a request that [`is_requested`](Watch::is_requested) tells of.
    pub fn watch(&self) -> Watch<'_> {
        self.state.store(WATCHED, Ordering::Relaxed);
        Watch { state: &self.state }
    }
}

impl Watch<'_> {
    /// Whether Ctrl-C came since the watch began.
    pub fn is_requested(&self) -> bool {
        self.state.load(Ordering::Relaxed) == REQUESTED
    }

    /// The same for those who ask whether to go on.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.state.store(UNWATCHED, Ordering::Relaxed);
    }
}

/// Ends the program here.
pub(super) fn leave() -> ! {
    note("\nmneme: stopped");
    process::exit(i32::from(EXIT_INTERRUPTED))
}
