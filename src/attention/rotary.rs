//! By which angles does position turn a head? Rotary embedding (arXiv 2104.09864) with angles
//! computed in f64, so that they are exact far beyond ten million tokens.

/// The rotation of a model's heads: pair `i` turns by `position * inverse_frequencies[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    inverse_frequencies: Vec<f64>,
    magnitude: f64,
}

impl Rotary {
    /// From the frequencies of the pairs and a factor on sine and cosine (1 but for YaRN).
    pub fn new(inverse_frequencies: &[f64], magnitude: f32) -> Self {
        let inverse_frequencies = inverse_frequencies.to_vec();
        Self { inverse_frequencies, magnitude: f64::from(magnitude) }
    }

    /// Rotated pairs of a head.
    pub fn n_pairs(&self) -> usize {
        self.inverse_frequencies.len()
    }

    /// Writes the cosines of all pairs at `position`, then their sines (without the magnitude).
    ///
    /// # Panics
    /// When `out` is not `2 * n_pairs` long.
    pub fn write_angles(&self, position: usize, out: &mut [f32]) {
        assert_eq!(out.len(), 2 * self.n_pairs(), "a cosine and a sine a pair");
        for pair in 0..self.n_pairs() {
            let (sin, cos) = self.angle(position, pair);
            out[pair] = cos;
            out[self.n_pairs() + pair] = sin;
        }
    }

    /// The same, in a buffer of their own.
    pub fn angles_at(&self, position: usize) -> Vec<f32> {
        let mut angles = vec![0.0; 2 * self.n_pairs()];
        self.write_angles(position, &mut angles);
        angles
    }

    /// What rotation multiplies scores by: the magnitude on queries and on keys.
    pub fn score_factor(&self) -> f32 {
        (self.magnitude * self.magnitude) as f32
    }

    /// Angles of the first `len` positions, laid out as a page's keys are: cosines `[pair][len]`,
    /// then sines.
    pub fn offset_angles(&self, len: usize) -> Vec<f32> {
        let n_pairs = self.n_pairs();
        let mut out = vec![0.0; 2 * n_pairs * len];
        for pair in 0..n_pairs {
            for i in 0..len {
                let (sin, cos) = self.angle(i, pair);
                out[pair * len + i] = cos;
                out[(n_pairs + pair) * len + i] = sin;
            }
        }
        out
    }

    fn angle(&self, position: usize, pair: usize) -> (f32, f32) {
        let (sin, cos) = (position as f64 * self.inverse_frequencies[pair]).sin_cos();
        (sin as f32, cos as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_differ_by_the_distance_even_at_ten_million_tokens() {
        let frequencies: Vec<f64> = (0..32).map(|i| 1e5f64.powf(-f64::from(i) / 32.0)).collect();
        let rotary = Rotary::new(&frequencies, 1.0);
        let (mut far, mut near, mut start) = ([0.0; 64], [0.0; 64], [0.0; 64]);
        rotary.write_angles(10_000_007, &mut far);
        rotary.write_angles(10_000_000, &mut near);
        rotary.write_angles(7, &mut start);
        for pair in 0..32 {
            // cos(a - b) and sin(a - b) from the two far angles
            let cos = far[pair] * near[pair] + far[32 + pair] * near[32 + pair];
            let sin = far[32 + pair] * near[pair] - far[pair] * near[32 + pair];
            assert!((cos - start[pair]).abs() < 1e-6, "pair {pair}: {cos} {}", start[pair]);
            assert!((sin - start[32 + pair]).abs() < 1e-6, "pair {pair}");
        }
    }

    #[test]
    fn a_page_holds_the_angles_of_its_offsets() {
        let rotary = Rotary::new(&[1.0, 0.25], 1.5);
        let page = rotary.offset_angles(16);
        let mut one = [0.0; 4];
        rotary.write_angles(5, &mut one);
        assert_eq!([page[5], page[16 + 5], page[32 + 5], page[48 + 5]], one);
    }
}
