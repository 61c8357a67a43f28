//! Where does a forward pass compute? In buffers that are made once.

use super::loaded::Engine;
use crate::backend::cpu::CpuBackend;
use crate::model::Workspace;

/// The buffers of forward passes.
pub(super) struct Runner {
    pub workspace: Workspace<CpuBackend>,
    pub logits: Vec<f32>, // [row][vocab]
}

impl Runner {
    /// For passes of up to `max_tokens` tokens.
    pub fn new(engine: &Engine, max_tokens: usize) -> Self {
        Self { workspace: engine.transformer().workspace(max_tokens), logits: Vec::new() }
    }
}
