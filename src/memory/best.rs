//! Which lists score best? A few of many, kept in order while scores are offered.

/// The best of what was offered, best first.
#[derive(Debug, Default)]
pub struct Best {
    n: usize,
    found: Vec<(f32, u32)>, // score, list
}

impl Best {
    /// None yet, and `n` at most.
    pub fn clear(&mut self, n: usize) {
        self.n = n;
        self.found.clear();
    }

    /// Whether so small a score is none of the best.
    pub fn is_beyond(&self, score: f32) -> bool {
        self.found.len() == self.n && self.found.last().is_none_or(|last| score <= last.0)
    }

    /// Lists from `first` on, with these scores. Of equals those stay that were offered first.
    pub fn offer(&mut self, first: u32, scores: &[f32]) {
        for (score, list) in scores.iter().zip(first..) {
            if self.is_beyond(*score) {
                continue;
            }
            let at = self.found.partition_point(|(found, _)| found >= score);
            if at < self.n {
                self.found.truncate(self.n - 1);
                self.found.insert(at, (*score, list));
            }
        }
    }

    /// They, best first.
    pub fn lists(&self) -> impl Iterator<Item = u32> {
        self.found.iter().map(|(_, list)| *list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_any_scores_are_those_of_a_sort() {
        let mut rng = fastrand::Rng::with_seed(4);
        let mut best = Best::default();
        for n in [0, 1, 5, 16, 70] {
            // Few values, so that there are equals.
            let scores: Vec<f32> = (0..61).map(|_| f32::from(rng.u8(..30)) - 10.0).collect();
            best.clear(n);
            for (chunk, scores) in scores.chunks(16).enumerate() {
                let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if !best.is_beyond(most) {
                    best.offer(chunk as u32 * 16, scores);
                }
            }
            let mut sorted: Vec<u32> = (0..scores.len() as u32).collect();
            sorted.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
            sorted.truncate(n);
            assert_eq!(best.lists().collect::<Vec<_>>(), sorted, "the best {n} of {scores:?}");
        }
    }
}
