//! What does a layer see? The seam between the model and what it attends to: the model hands over
//! queries, keys and values, and takes what comes back. It knows no cache; what is behind the seam
//! knows no model. [`FullAttention`] is the definition that everything else is tested against.

mod full;
mod rotary;

use std::ops::Range;

use crate::backend::Backend;
use crate::ids::LayerIdx;

pub use full::FullAttention;
pub use rotary::Rotary;

/// Queries, keys and values of a chunk of consecutive tokens, before rotation: rows of buffers that
/// other chunks may share.
#[derive(Debug)]
pub struct Qkv<'a, B: Backend> {
    /// `[token][head][head_dim]`
    pub queries: &'a B::Buffer,
    /// `[token][kv_head][head_dim]`
    pub keys: &'a B::Buffer,
    /// `[token][kv_head][head_dim]`
    pub values: &'a B::Buffer,
    /// The chunk's tokens among those of the buffers.
    pub rows: Range<usize>,
}

impl<B: Backend> Qkv<'_, B> {
    /// Tokens of the chunk.
    pub fn n_tokens(&self) -> usize {
        self.rows.len()
    }
}

/// Remembers keys and values, and answers queries from them.
pub trait Attention<B: Backend> {
    /// Takes in the chunk's keys and values, and writes what its queries see, each token no later
    /// key than its own, to the same rows of `out`: `[token][head][head_dim]`. Layers come in
    /// order, each once a chunk.
    ///
    /// # Errors
    /// When what was remembered cannot be read back.
    fn attend(
        &mut self,
        layer: LayerIdx,
        chunk: Qkv<'_, B>,
        out: &mut B::Buffer,
    ) -> Result<(), AttentionError>;
}

/// Attention could not be computed.
#[derive(Debug, thiserror::Error)]
#[error("attention could not be computed: {0}")]
pub struct AttentionError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
