//! Which tokens may come next, and how likely is each?

/// How a token is drawn from logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// What logits are divided by; 0 takes the likeliest token, of equals the first.
    pub temperature: f32,
    /// Leaves tokens that have at least so much of the likeliest's share (arXiv 2407.01082).
    pub min_p: f32,
    /// Of those leaves so many, the likeliest; 0 for all. Of equals the first stay, here and below.
    pub top_k: usize,
    /// Of those leaves the likeliest that together have so much of their shares (arXiv 1904.09751).
    pub top_p: f32,
    /// Where in what is left the draw falls, in units of 2^-32: shares side by side in the order of
    /// tokens.
    pub random: u32,
}

/// The tokens that a draw leaves, in their order, and the share of each: `exp((logit - largest) /
/// temperature)`.
pub fn kept(logits: &[f32], draw: &Draw) -> Vec<(usize, f64)> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if draw.temperature == 0.0 || largest == f32::NEG_INFINITY {
        let first = logits.iter().position(|logit| *logit == largest).unwrap_or(0);
        return vec![(first, 1.0)];
    }
    let share = |logit: &f32| match *logit == largest {
        true => 1.0,
        false => (f64::from(logit - largest) / f64::from(draw.temperature)).exp(),
    };
    let mut kept: Vec<(usize, f64)> = logits.iter().map(share).enumerate().collect();
    kept.retain(|(_, share)| *share > 0.0 && *share >= f64::from(draw.min_p));
    kept.sort_by(|a, b| b.1.total_cmp(&a.1)); // stable: equals in their order
    if draw.top_k > 0 {
        kept.truncate(draw.top_k);
    }
    let wanted = f64::from(draw.top_p) * kept.iter().map(|(_, share)| share).sum::<f64>();
    let mut sum = 0.0;
    let reached = kept.iter().position(|(_, share)| {
        sum += share;
        sum >= wanted
    });
    kept.truncate(reached.map_or(kept.len(), |last| last + 1));
    kept.sort_by_key(|(token, _)| *token);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(logits: &[f32], change: impl Fn(&mut Draw)) -> Vec<usize> {
        let mut draw = Draw { temperature: 1.0, min_p: 0.0, top_k: 0, top_p: 1.0, random: 0 };
        change(&mut draw);
        kept(logits, &draw).into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn the_unlikely_are_left_out_and_of_equals_the_first_stay() {
        let logits = [0.0, 1.5, 2.0, 0.0, f32::NEG_INFINITY, f32::NAN]; // 0.07, 0.31, 0.51, 0.07
        assert_eq!(tokens(&logits, |_| {}), [0, 1, 2, 3]);
        assert_eq!(tokens(&logits, |it| it.top_k = 3), [0, 1, 2]);
        assert_eq!(tokens(&logits, |it| it.top_p = 0.5), [2]);
        assert_eq!(tokens(&logits, |it| it.top_p = 0.6), [1, 2]);
        assert_eq!(tokens(&logits, |it| it.min_p = 0.5), [1, 2]);
        assert_eq!(tokens(&logits, |it| it.temperature = 0.0), [2]);
        // Half of what three have, not of what all have.
        let both = |it: &mut Draw| (it.top_k, it.top_p) = (2, 0.62);
        assert_eq!(tokens(&logits, both), [2]);
        assert_eq!(tokens(&[f32::NEG_INFINITY; 3], |_| {}), [0]);
    }
}
