//! What do the operations on rows of numbers compute?

/// The inner product of two rows of one length.
///
/// # Panics
/// When the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "an inner product takes rows of one length");
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `inputs [row][cols]` times the transpose of `weights [output][cols]`: `[row][output]`.
///
/// # Panics
/// When `cols` is zero or does not divide the lengths.
pub fn product(inputs: &[f32], weights: &[f32], cols: usize) -> Vec<f32> {
    assert!(cols > 0, "a product needs at least one column");
    assert_eq!(inputs.len() % cols, 0, "inputs are whole rows");
    assert_eq!(weights.len() % cols, 0, "weights are whole rows");
    let mut outputs = Vec::new();
    for input in inputs.chunks_exact(cols) {
        for weight in weights.chunks_exact(cols) {
            outputs.push(dot(input, weight) as f32);
        }
    }
    outputs
}

/// Root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467) of one row:
/// `row / sqrt(mean(row^2) + epsilon) * weight`.
///
/// # Panics
/// When the lengths differ.
pub fn rms_norm(row: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    assert_eq!(row.len(), weight.len(), "a norm has one weight an element");
    let mean_square = dot(row, row) / row.len() as f64;
    let scale = 1.0 / (mean_square + f64::from(epsilon)).sqrt();
    row.iter().zip(weight).map(|(&x, &w)| (f64::from(x) * scale * f64::from(w)) as f32).collect()
}

/// `exp(x) / sum(exp)`, with the maximum taken off first so that nothing overflows. An element of
/// minus infinity gets exactly zero; of an empty row there is nothing to give.
pub fn softmax(scores: &[f64]) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|&score| (score - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

/// The gated activation of the feed-forward layer (Shazeer, arXiv 2002.05202), element by element:
/// `silu(gate) * up` with `silu(x) = x / (1 + exp(-x))`.
///
/// # Panics
/// When the lengths differ.
pub fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    assert_eq!(gate.len(), up.len(), "each gate has one value to let through");
    gate.iter()
        .zip(up)
        .map(|(&gate, &up)| {
            let gate = f64::from(gate);
            (gate / (1.0 + (-gate).exp()) * f64::from(up)) as f32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-6, "{actual:?} is not {expected:?}");
        }
    }

    #[test]
    fn a_product_has_one_output_per_row_of_weights() {
        // [1 2 3; 4 5 6] times the transpose of [1 0 -1; 2 1 0].
        let outputs = product(&[1., 2., 3., 4., 5., 6.], &[1., 0., -1., 2., 1., 0.], 3);
        assert_eq!(outputs, [-2., 4., -2., 13.]);
        assert!(product(&[], &[1., 2.], 2).is_empty());
    }

    #[test]
    fn rms_norm_divides_by_the_root_of_the_mean_square() {
        // mean square of (3, 4) is 12.5
        let root = 12.5_f32.sqrt();
        assert_close(&rms_norm(&[3., 4.], &[1., 2.], 0.0), &[3. / root, 8. / root]);
        // An epsilon of 3.5 makes the root 4.
        assert_close(&rms_norm(&[3., 4.], &[1., 1.], 3.5), &[0.75, 1.0]);
        assert_close(&rms_norm(&[0., 0.], &[1., 1.], 1e-5), &[0., 0.]);
    }

    #[test]
    fn softmax_sums_to_one_and_does_not_overflow() {
        let weights = softmax(&[0.0, 3.0_f64.ln()]);
        assert!((weights[0] - 0.25).abs() < 1e-12 && (weights[1] - 0.75).abs() < 1e-12);
        assert_eq!(softmax(&[1e300, 1e300]), [0.5, 0.5]);
        assert_eq!(softmax(&[f64::NEG_INFINITY, 7.0]), [0.0, 1.0]);
        assert!(softmax(&[]).is_empty());
    }

    #[test]
    fn swiglu_lets_up_through_as_far_as_the_gate_is_open() {
        // silu(0) = 0; silu(1) = 0.7310586; silu(-1) = -0.26894143
        assert_close(&swiglu(&[0., 1., -1.], &[5., 2., 1.]), &[0., 1.4621172, -0.26894143]);
        // Wide open and tight shut, without overflow.
        assert_close(&swiglu(&[100., -1000.], &[1., 1.]), &[100., 0.]);
    }
}
