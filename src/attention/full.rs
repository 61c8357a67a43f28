//! What is attention, by definition? Every query sees every key up to its own. In f32, on the
//! host, in plain loops: slow, and the oracle of the tests.

use std::ops::Range;

use super::{Attention, AttentionError, Qkv, Rotary};
use crate::backend::{AttendStep, Backend, HeadShape, PageTarget, StepDone};
use crate::ids::LayerIdx;

/// Full causal attention over everything seen so far, at true positions.
pub struct FullAttention<'a, B: Backend> {
    backend: &'a B,
    heads: HeadShape,
    rotary: Rotary,
    layers: Vec<LayerCache>,
}

#[derive(Clone, Debug, Default)]
struct LayerCache {
    keys: Vec<f32>,   // [position][kv_head][head_dim], rotated
    values: Vec<f32>, // [position][kv_head][head_dim]
}

impl<'a, B: Backend> FullAttention<'a, B> {
    /// Nothing seen yet.
    pub fn new(backend: &'a B, heads: HeadShape, n_layers: usize, rotary: Rotary) -> Self {
        Self { backend, heads, rotary, layers: vec![LayerCache::default(); n_layers] }
    }

    /// Rows of `width` floats.
    fn download(&self, buffer: &B::Buffer, rows: &Range<usize>, width: usize) -> Vec<f32> {
        let mut floats = vec![0.0; rows.end * width];
        self.backend.download((buffer, 0), &mut floats);
        floats.drain(..rows.start * width);
        floats
    }

    fn rotate(&self, head: &mut [f32], position: usize) {
        let n_pairs = self.rotary.n_pairs();
        let angles = self.rotary.angles_at(position);
        for i in 0..n_pairs {
            let (low, high) = (head[i], head[i + n_pairs]);
            let (cos, sin) = (angles[i], angles[i + n_pairs]);
            head[i] = low * cos - high * sin;
            head[i + n_pairs] = high * cos + low * sin;
        }
    }
}

impl<B: Backend> Attention<B> for FullAttention<'_, B> {
    fn targets<'a>(
        &'a mut self,
        _layer: LayerIdx,
        _chunk: &Qkv<'_, B>,
        _out: &mut Vec<PageTarget<'a, B::Page>>,
    ) {
        // It has no pages.
    }

    fn begin_layer<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut B::Buffer,
    ) -> Result<Option<AttendStep<'a, B::Page>>, AttentionError> {
        let HeadShape { n_heads, n_kv_heads, head_dim, .. } = self.heads;
        let row = n_kv_heads * head_dim;
        let query_row = n_heads * head_dim;
        let queries = self.download(chunk.queries, &chunk.rows, query_row);
        let mut keys = self.download(chunk.keys, &chunk.rows, row);
        let values = self.download(chunk.values, &chunk.rows, row);
        let first = self.layers[layer.0].values.len() / row;
        for (i, key) in keys.chunks_exact_mut(head_dim).enumerate() {
            self.rotate(key, first + i / n_kv_heads);
        }
        self.layers[layer.0].keys.extend(keys);
        self.layers[layer.0].values.extend(values);
        let mut seen = vec![0.0; queries.len()];
        for (i, seen) in seen.chunks_exact_mut(head_dim).enumerate() {
            let position = first + i / n_heads;
            let mut query = queries[i * head_dim..][..head_dim].to_vec();
            self.rotate(&mut query, position);
            let kv_head = i % n_heads / self.heads.group();
            let cache = &self.layers[layer.0];
            let at = |j: usize| j * row + kv_head * head_dim;
            let scores: Vec<f64> = (0..=position)
                .map(|j| {
                    let key = &cache.keys[at(j)..][..head_dim];
                    let dot: f64 =
                        key.iter().zip(&query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum();
                    dot * f64::from(self.rotary.score_factor()) / (head_dim as f64).sqrt()
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            for (j, score) in scores.iter().enumerate() {
                let weight = ((score - max).exp() / sum) as f32;
                let value = &cache.values[at(j)..][..head_dim];
                seen.iter_mut().zip(value).for_each(|(seen, v)| *seen += weight * v);
            }
        }
        let failed = |error| AttentionError(Box::new(error));
        let (seen, n_tokens) = (self.backend.upload(&seen).map_err(failed)?, chunk.n_tokens());
        self.backend.copy_rows((&seen, 0..n_tokens), (out, chunk.rows.start), query_row);
        Ok(None)
    }

    fn end_layer(
        &mut self,
        _layer: LayerIdx,
        _chunk: &Qkv<'_, B>,
        _done: Option<StepDone<B::Page>>,
    ) -> Result<(), AttentionError> {
        Ok(())
    }
}
