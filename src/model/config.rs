//! What does a model's file say about its shape? Sizes and constants that the forward pass needs,
//! the same whatever container they came from.

use super::arch::Architecture;

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

/// Rotary position embedding (Su et al., arXiv 2104.09864) with its scaling already applied:
/// pair `i` turns by `position * inverse_frequencies[i]` radians.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// One per rotated pair, so half the rotated width of a head.
    pub inverse_frequencies: Vec<f64>,
    /// Factor on cosine and sine (YaRN's attention factor; 1 elsewhere).
    pub magnitude: f32,
    /// Which elements of a head make a pair.
    pub layout: RopeLayout,
}

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeLayout {
    /// `(2i, 2i+1)`: GGUF files of the llama family.
    Interleaved,
    /// `(i, i + rotated/2)`: Hugging Face files, and GGUF files of the Qwen family.
    Half,
}
