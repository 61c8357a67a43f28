//! What does a model's file say about its shape? Sizes and constants that the forward pass needs,
//! the same whatever container they came from.

use super::arch::Architecture;
use super::rope::RopeConfig;
use crate::backend::HeadShape;

/// The shape of a decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family, from the table in `arch.rs`.
    pub architecture: Architecture,
    /// Name as the file gives it, for people.
    pub name: String,
    /// Transformer blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward's inner layer.
    pub intermediate_size: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads` (1: multi-query, `n_heads`: multi-head).
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// The length the model was trained for, in tokens.
    pub trained_tokens: usize,
    /// Epsilon of RMSNorm.
    pub rms_epsilon: f32,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// The width of the model's own sliding-window attention, if it was trained with one.
    pub sliding_window: Option<usize>,
}

impl ModelConfig {
    /// Sizes of the attention heads.
    pub fn heads(&self) -> HeadShape {
        HeadShape {
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim,
            n_pairs: self.rope.inverse_frequencies.len(),
        }
    }
}
