//! What does a layer's attention compute?

use super::{Rotary, dot, softmax};

/// The heads of a layer. Query head `h` reads key/value head `h / (n_heads / n_kv_heads)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads; a multiple of `n_kv_heads`.
    pub n_heads: usize,
    /// Key/value heads (1: multi-query; `n_heads`: multi-head).
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl HeadShape {
    /// The key/value head that query head `head` reads.
    ///
    /// # Panics
    /// When the key/value heads do not divide the query heads.
    pub fn kv_head(&self, head: usize) -> usize {
        assert_eq!(self.n_heads % self.n_kv_heads, 0, "groups of heads are of one size");
        head / (self.n_heads / self.n_kv_heads)
    }

    /// Query head `head` of row `row` in `[row][head][head_dim]`.
    pub(super) fn query<'a>(&self, rows: &'a [f32], row: usize, head: usize) -> &'a [f32] {
        &rows[(row * self.n_heads + head) * self.head_dim..][..self.head_dim]
    }

    /// What query head `head` reads of row `row` in `[row][kv_head][head_dim]`.
    pub(super) fn key<'a>(&self, rows: &'a [f32], row: usize, head: usize) -> &'a [f32] {
        let kv_head = self.kv_head(head);
        &rows[(row * self.n_kv_heads + kv_head) * self.head_dim..][..self.head_dim]
    }

    /// `1 / sqrt(head_dim)`
    pub(super) fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }
}

/// One layer's attention: some queries over some keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The heads.
    pub shape: HeadShape,
    /// `[query][head][head_dim]`
    pub queries: &'a [f32],
    /// `[query]`, where each query stands.
    pub query_positions: &'a [usize],
    /// `[key][kv_head][head_dim]`
    pub keys: &'a [f32],
    /// `[key][kv_head][head_dim]`
    pub values: &'a [f32],
    /// `[key]`, where each key stands: its true position, or the one that a placement gives it.
    /// In any order, several keys at one position allowed.
    pub key_positions: &'a [usize],
    /// Turns queries and keys to their positions; `None` where they are turned already (or the
    /// model has no rotary embedding).
    pub rotary: Option<Rotary<'a>>,
}

/// Causal scaled dot-product attention (Vaswani et al., arXiv 1706.03762) with grouped heads
/// (Ainslie et al., arXiv 2305.13245): a query sees the keys whose position is not above its own.
/// Gives `[query][head][head_dim]`; zeros for a query that sees no key.
///
/// # Panics
/// When a buffer's length does not fit the shape.
pub fn attend(layer: &Attention) -> Vec<f32> {
    let HeadShape { n_heads, n_kv_heads, head_dim } = layer.shape;
    let (n_queries, n_keys) = (layer.query_positions.len(), layer.key_positions.len());
    assert_eq!(layer.queries.len(), n_queries * n_heads * head_dim, "queries fit their positions");
    assert_eq!(layer.keys.len(), n_keys * n_kv_heads * head_dim, "keys fit their positions");
    assert_eq!(layer.values.len(), layer.keys.len(), "each key has a value");
    let mut outputs = Vec::with_capacity(layer.queries.len());
    for query in 0..n_queries {
        for head in 0..n_heads {
            outputs.extend(attend_head(layer, query, head));
        }
    }
    outputs
}

/// One query's output in one head: `[head_dim]`.
fn attend_head(layer: &Attention, query: usize, head: usize) -> Vec<f32> {
    let mut output = vec![0.0_f64; layer.shape.head_dim];
    let position = layer.query_positions[query];
    let visible: Vec<usize> =
        (0..layer.key_positions.len()).filter(|&k| layer.key_positions[k] <= position).collect();
    let q = turned(layer, layer.shape.query(layer.queries, query, head), position);
    let mut scores = Vec::new();
    for &key in &visible {
        let k = layer.shape.key(layer.keys, key, head);
        let k = turned(layer, k, layer.key_positions[key]);
        scores.push(dot(&q, &k) * layer.shape.scale());
    }
    for (weight, &key) in softmax(&scores).iter().zip(&visible) {
        let value = layer.shape.key(layer.values, key, head);
        for (out, &v) in output.iter_mut().zip(value) {
            *out += weight * f64::from(v);
        }
    }
    output.iter().map(|&x| x as f32).collect()
}

/// A head as it enters the product.
fn turned(layer: &Attention, head: &[f32], position: usize) -> Vec<f32> {
    match &layer.rotary {
        Some(rotary) => rotary.rotate(head, position),
        None => head.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::PairLayout;

    fn assert_close(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-6, "{actual:?} is not {expected:?}");
        }
    }

    /// One head of one element: scores are plain products, so weights can be worked out by hand.
    fn one_wide<'a>(queries: &'a [f32], keys: &'a [f32], values: &'a [f32]) -> Attention<'a> {
        Attention {
            shape: HeadShape { n_heads: 1, n_kv_heads: 1, head_dim: 1 },
            queries,
            query_positions: &[0, 1],
            keys,
            values,
            key_positions: &[0, 1],
            rotary: None,
        }
    }

    #[test]
    fn a_query_sees_itself_and_what_came_before() {
        let ln3 = 3.0_f32.ln();
        let outputs = attend(&one_wide(&[5.0, 1.0], &[0.0, ln3], &[8.0, 4.0]));
        // The first sees one key; the second weighs the two 1 : 3.
        assert_close(&outputs, &[8.0, 5.0]);
    }

    #[test]
    fn order_in_the_buffer_does_not_matter_positions_do() {
        let keys = [3.0_f32.ln(), 0.0];
        let mut layer = one_wide(&[5.0, 1.0], &keys, &[4.0, 8.0]);
        layer.key_positions = &[1, 0];
        assert_close(&attend(&layer), &[8.0, 5.0]);
        layer.key_positions = &[1, 2];
        assert_close(&attend(&layer), &[0.0, 4.0]);
    }

    #[test]
    fn heads_of_a_group_share_keys_and_values() {
        // Four query heads over two key/value heads of two elements; one key, so weight one.
        let shape = HeadShape { n_heads: 4, n_kv_heads: 2, head_dim: 2 };
        let layer = Attention {
            shape,
            queries: &[1.0; 8],
            query_positions: &[9],
            keys: &[1.0; 4],
            values: &[1.0, 2.0, 3.0, 4.0],
            key_positions: &[3],
            rotary: None,
        };
        assert_close(&attend(&layer), &[1., 2., 1., 2., 3., 4., 3., 4.]);
    }

    #[test]
    fn scores_are_divided_by_the_root_of_the_width() {
        // Width 4: the product 4 ln 3 counts as 2 ln 3, so the weights are 1 : 9.
        let ln3 = 3.0_f32.ln();
        let layer = Attention {
            shape: HeadShape { n_heads: 1, n_kv_heads: 1, head_dim: 4 },
            queries: &[ln3; 4],
            query_positions: &[1],
            keys: &[0., 0., 0., 0., 1., 1., 1., 1.],
            values: &[0., 0., 0., 0., 10., 20., 30., 40.],
            key_positions: &[0, 1],
            rotary: None,
        };
        assert_close(&attend(&layer), &[9., 18., 27., 36.]);
    }

    #[test]
    fn rotation_makes_only_distance_count() {
        let inverse_frequencies = [0.7, 0.03];
        for layout in [PairLayout::Interleaved, PairLayout::Half] {
            let rotary =
                Rotary { inverse_frequencies: &inverse_frequencies, magnitude: 1.0, layout };
            let layer = |query_positions, key_positions| Attention {
                shape: HeadShape { n_heads: 1, n_kv_heads: 1, head_dim: 4 },
                queries: &[0.5, -1.0, 2.0, 0.3],
                query_positions,
                keys: &[1., 2., 3., 4., -1., 0., 1., 0.5],
                values: &[1., 0., 0., 0., 0., 1., 0., 0.],
                key_positions,
                rotary: Some(rotary),
            };
            let near = attend(&layer(&[5], &[2, 4]));
            assert_close(&attend(&layer(&[1005], &[1002, 1004])), &near);
            // And it does count.
            let other = attend(&layer(&[5], &[3, 4]));
            assert!((near[0] - other[0]).abs() > 1e-3);
        }
    }
}
