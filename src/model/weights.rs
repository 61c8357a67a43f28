//! Where are a model's weights? Views of the mapped file, one struct a layer. Norms and biases
//! are small and read by every step, so they are copied out as f32.

use crate::tensor::Matrix;

/// All weights of a model.
#[derive(Clone, Debug)]
pub struct Weights {
    /// `[vocab][hidden]`
    pub embedding: Matrix,
    /// The blocks, from the embedding upwards.
    pub layers: Vec<LayerWeights>,
    /// `[hidden]`
    pub output_norm: Vec<f32>,
    /// `[vocab][hidden]`; the embedding itself where the model ties them.
    pub output: Matrix,
}

/// The weights of one block (pre-norm attention, pre-norm SwiGLU).
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// `[hidden]`
    pub attention_norm: Vec<f32>,
    /// `[n_heads * head_dim][hidden]`
    pub query: Matrix,
    /// `[n_kv_heads * head_dim][hidden]`
    pub key: Matrix,
    /// `[n_kv_heads * head_dim][hidden]`
    pub value: Matrix,
    /// `[n_heads * head_dim]`, where the architecture has it (qwen2).
    pub query_bias: Option<Vec<f32>>,
    /// `[n_kv_heads * head_dim]`
    pub key_bias: Option<Vec<f32>>,
    /// `[n_kv_heads * head_dim]`
    pub value_bias: Option<Vec<f32>>,
    /// `[head_dim]`, RMSNorm of each query head, where the architecture has it (qwen3).
    pub query_norm: Option<Vec<f32>>,
    /// `[head_dim]`
    pub key_norm: Option<Vec<f32>>,
    /// `[hidden][n_heads * head_dim]`
    pub attention_output: Matrix,
    /// `[hidden]`
    pub feed_forward_norm: Vec<f32>,
    /// `[intermediate][hidden]`
    pub gate: Matrix,
    /// `[intermediate][hidden]`
    pub up: Matrix,
    /// `[hidden][intermediate]`
    pub down: Matrix,
}
