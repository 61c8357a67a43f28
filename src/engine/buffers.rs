//! Where does a forward pass compute? In buffers that are made once.

use super::error::EngineError;
use super::loaded::Engine;
use crate::backend::any::AnyBackend;
use crate::model::Workspace;

/// The buffers of forward passes.
pub(super) struct Runner {
    pub workspace: Workspace<AnyBackend>,
}

impl Runner {
    /// For passes of up to `max_tokens` tokens.
    ///
    /// # Errors
    /// When the device has no room for them.
    pub fn new(engine: &Engine, max_tokens: usize) -> Result<Self, EngineError> {
        let workspace = engine.transformer().workspace(max_tokens)?;
        Ok(Self { workspace })
    }
}
