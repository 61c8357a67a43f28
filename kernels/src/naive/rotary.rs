//! How is a head turned to its position?

/// Which two elements of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairLayout {
    /// `(2i, 2i + 1)`
    Interleaved,
    /// `(i, i + rotated / 2)`
    Half,
}

/// Rotary position embedding (Su et al., arXiv 2104.09864): pair `i` of a head turns by
/// `position * inverse_frequencies[i]` radians. Elements beyond the rotated width stay.
#[derive(Clone, Copy, Debug)]
pub struct Rotary<'a> {
    /// `[rotated / 2]`, in radians a position.
    pub inverse_frequencies: &'a [f64],
    /// Factor on cosine and sine (YaRN's attention factor; 1 elsewhere).
    pub magnitude: f64,
    /// Which elements make a pair.
    pub layout: PairLayout,
}

impl Rotary<'_> {
    /// `head [head_dim]` turned to `position`. Angles are f64, so they are good to 1e-9 radians
    /// at position 10,000,000.
    ///
    /// # Panics
    /// When the head is narrower than the rotated width.
    pub fn rotate(&self, head: &[f32], position: usize) -> Vec<f32> {
        let half = self.inverse_frequencies.len();
        assert!(2 * half <= head.len(), "the rotated width lies within the head");
        let mut rotated = head.to_vec();
        for (pair, frequency) in self.inverse_frequencies.iter().enumerate() {
            let (a, b) = match self.layout {
                PairLayout::Interleaved => (2 * pair, 2 * pair + 1),
                PairLayout::Half => (pair, pair + half),
            };
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            let (x, y) = (f64::from(head[a]), f64::from(head[b]));
            rotated[a] = ((x * cos - y * sin) * self.magnitude) as f32;
            rotated[b] = ((x * sin + y * cos) * self.magnitude) as f32;
        }
        rotated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::dot;
    use std::f64::consts::PI;

    fn check(layout: PairLayout, head: &[f32], position: usize, expected: &[f32]) {
        let rotary = Rotary { inverse_frequencies: &[PI / 2.0, PI], magnitude: 1.0, layout };
        for (a, e) in rotary.rotate(head, position).iter().zip(expected) {
            assert!((a - e).abs() < 1e-6, "{layout:?} at {position}: {a} is not {e}");
        }
    }

    #[test]
    fn pairs_turn_by_their_own_angles() {
        let head = [1., 2., 3., 4., 9.];
        for layout in [PairLayout::Interleaved, PairLayout::Half] {
            check(layout, &head, 0, &head);
            check(layout, &head, 4, &head);
        }
        // A quarter turn of the first pair, half a turn of the second; the fifth element stays.
        check(PairLayout::Interleaved, &head, 1, &[-2., 1., -3., -4., 9.]);
        check(PairLayout::Half, &head, 1, &[-3., -2., 1., -4., 9.]);
    }

    #[test]
    fn magnitude_scales_what_turns() {
        let layout = PairLayout::Half;
        let rotary = Rotary { inverse_frequencies: &[PI / 2.0], magnitude: 0.5, layout };
        assert_eq!(rotary.rotate(&[4., 6., 7.], 0), [2., 3., 7.]);
    }

    #[test]
    fn a_product_of_two_rotated_heads_depends_on_their_distance_only() {
        let layout = PairLayout::Half;
        let rotary = Rotary { inverse_frequencies: &[1.0, 0.01], magnitude: 1.0, layout };
        let (q, k) = ([0.3, -1.2, 0.7, 2.0], [1.1, 0.4, -0.6, 0.9]);
        let near = dot(&rotary.rotate(&q, 107), &rotary.rotate(&k, 100));
        let far = dot(&rotary.rotate(&q, 10_000_007), &rotary.rotate(&k, 10_000_000));
        assert!((near - far).abs() < 1e-5, "{near} and {far}");
    }
}
