//! What does a layer see? The seam between the model and what it attends to: the model hands over
//! queries, keys and values, and takes what comes back. It knows no cache; what is behind the seam
//! knows no model. [`FullAttention`] is the definition that everything else is tested against.

mod full;
mod rotary;

use std::ops::Range;

use crate::backend::{AttendStep, Backend, PageTarget, StepDone};
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

/// Remembers keys and values, and says what queries see of them.
///
/// A layer has three parts, so that in between the backend can do its work for several texts at once.
/// Layers come in order, each once a chunk.
pub trait Attention<B: Backend> {
    /// Says, in the order of the rows, where the chunk's keys and values go, which is the backend's to
    /// write ([`Backend::write_pages`]); nothing where `begin_layer` takes them in itself.
    fn targets<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut Vec<PageTarget<'a, B::Page>>,
    );

    /// Once the chunk's keys and values are written: what its queries see, each token no later key
    /// than its own, is the backend's to compute ([`Backend::attend`]); or it is written to the same
    /// rows of `out`, `[token][head][head_dim]`, and there is no step.
    ///
    /// # Errors
    /// When what was remembered cannot be read back.
    fn begin_layer<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut B::Buffer,
    ) -> Result<Option<AttendStep<'a, B::Page>>, AttentionError>;

    /// Is told that the step was computed, if there was one.
    ///
    /// # Errors
    /// When the device has failed.
    fn end_layer(
        &mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        done: Option<StepDone<B::Page>>,
    ) -> Result<(), AttentionError>;
}

/// A layer of a single text: all parts, and what is between them.
///
/// # Errors
/// As [`Attention`]'s.
pub fn attend<B: Backend>(
    backend: &B,
    attention: &mut dyn Attention<B>,
    layer: LayerIdx,
    chunk: &Qkv<'_, B>,
    out: &mut B::Buffer,
) -> Result<(), AttentionError> {
    let mut targets = Vec::new();
    attention.targets(layer, chunk, &mut targets);
    backend.write_pages(&mut targets, chunk.keys, chunk.values);
    drop(targets);
    let done = attention.begin_layer(layer, chunk, out)?.map(|mut step| {
        backend.attend(std::slice::from_mut(&mut step), chunk.queries, out);
        step.done()
    });
    attention.end_layer(layer, chunk, done)
}

/// Attention could not be computed.
#[derive(Debug, thiserror::Error)]
#[error("attention could not be computed: {0}")]
pub struct AttentionError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
