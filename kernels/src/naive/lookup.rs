//! Which units do the queries of a chunk ask for?
//!
//! Two stages, and in each the queries vote one by one:
//! ```text
//! coarse  every unit, by its segment means   -> the best `n_candidates`
//! fine    the candidates, by their own keys  -> the best `n_retrieved`
//!
//! score[token][head][unit] = max over the unit's rows of  query . row / sqrt(head_dim)
//! share[token][head][unit] = softmax over units of score
//! vote[unit]               = sum over heads of (max over tokens of share)
//! ```

use super::{HeadShape, dot, softmax};

/// The mean key of each `segment_tokens` consecutive keys: `keys [key][kv_head][head_dim]` become
/// `[segment][kv_head][head_dim]`. The last segment may be shorter than the others.
///
/// # Panics
/// When a segment has no tokens or the keys are not whole rows.
pub fn segment_means(keys: &[f32], shape: HeadShape, segment_tokens: usize) -> Vec<f32> {
    let row = shape.n_kv_heads * shape.head_dim;
    assert!(segment_tokens > 0, "a segment has at least one token");
    assert_eq!(keys.len() % row, 0, "keys are whole rows");
    let mut means = Vec::new();
    for segment in keys.chunks(segment_tokens * row) {
        let n_keys = segment.len() / row;
        for element in 0..row {
            let sum: f64 = (0..n_keys).map(|key| f64::from(segment[key * row + element])).sum();
            means.push((sum / n_keys as f64) as f32);
        }
    }
    means
}

/// One layer's lookup for one chunk.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The heads.
    pub shape: HeadShape,
    /// `[token][head][head_dim]`, turned to the lookup's distance.
    pub queries: &'a [f32],
    /// `[unit]`, each `[key][kv_head][head_dim]` un-rotated.
    pub units: &'a [&'a [f32]],
    /// Keys that a segment mean stands for.
    pub segment_tokens: usize,
    /// Units that the coarse stage lets through (four times `n_retrieved` by default).
    pub n_candidates: usize,
    /// Units wanted.
    pub n_retrieved: usize,
}

/// A unit and what it got of the votes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitVote {
    /// The unit's place in the list looked through.
    pub unit: usize,
    /// Between zero and the number of heads.
    pub vote: f64,
}

/// The units retrieved, best first, with the votes of the fine stage; all of them when there are
/// fewer than wanted.
///
/// # Panics
/// When the buffers do not fit the shape.
pub fn look_up(lookup: &Lookup) -> Vec<UnitVote> {
    let means: Vec<Vec<f32>> = lookup
        .units
        .iter()
        .map(|keys| segment_means(keys, lookup.shape, lookup.segment_tokens))
        .collect();
    let means: Vec<&[f32]> = means.iter().map(Vec::as_slice).collect();
    let coarse = best_units(&vote(lookup.shape, lookup.queries, &means), lookup.n_candidates);

    let candidates: Vec<&[f32]> = coarse.iter().map(|c| lookup.units[c.unit]).collect();
    let fine = vote(lookup.shape, lookup.queries, &candidates);
    let by_unit: Vec<UnitVote> =
        coarse.iter().zip(fine).map(|(c, vote)| UnitVote { unit: c.unit, vote }).collect();
    best_first(by_unit, lookup.n_retrieved)
}

/// How scores become votes, and what a row of a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ballot {
    /// What a head's scores count for.
    pub count: Count,
    /// What queries are scored against.
    pub rows: Rows,
}

/// What a head's scores count for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Count {
    /// Their softmax over units.
    #[default]
    Shares,
    /// Themselves.
    Scores,
}

/// What queries are scored against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    /// `[row][kv_head][head_dim]`: keys or means of keys.
    #[default]
    Keys,
    /// `[row][kv_head][2][head_dim]`: the largest, then the smallest elements of several keys.
    Bounds,
}

/// `[unit]`, the votes of `queries [token][head][head_dim]` for `units`, each
/// `[row][kv_head][head_dim]` where a row is a segment's mean or a key.
///
/// # Panics
/// When the buffers do not fit the shape.
pub fn vote(shape: HeadShape, queries: &[f32], units: &[&[f32]]) -> Vec<f64> {
    vote_by(Ballot::default(), shape, queries, units)
}

/// The same by another ballot.
///
/// # Panics
/// When the buffers do not fit the shape.
pub fn vote_by(ballot: Ballot, shape: HeadShape, queries: &[f32], units: &[&[f32]]) -> Vec<f64> {
    let query_row = shape.n_heads * shape.head_dim;
    assert_eq!(queries.len() % query_row, 0, "queries are whole rows");
    let mut votes = vec![0.0; units.len()];
    for head in 0..shape.n_heads {
        let mut best_of = vec![f64::NEG_INFINITY; units.len()];
        for token in 0..queries.len() / query_row {
            let query = shape.query(queries, token, head);
            let mut scores: Vec<f64> = units
                .iter()
                .map(|rows| match ballot.rows {
                    Rows::Keys => best_score(shape, query, rows, head),
                    Rows::Bounds => best_bound(shape, query, rows, head),
                })
                .collect();
            if ballot.count == Count::Shares {
                scores = softmax(&scores);
            }
            for (best, score) in best_of.iter_mut().zip(scores) {
                *best = best.max(score);
            }
        }
        for (vote, best) in votes.iter_mut().zip(best_of) {
            *vote += best;
        }
    }
    votes
}

/// What the best row of a unit scores with one query head.
fn best_score(shape: HeadShape, query: &[f32], rows: &[f32], head: usize) -> f64 {
    let n_rows = rows.len() / (shape.n_kv_heads * shape.head_dim);
    (0..n_rows)
        .map(|row| dot(query, shape.key(rows, row, head)) * shape.scale())
        .fold(f64::NEG_INFINITY, f64::max)
}

/// What no key within a unit's bounds exceeds, of its best row.
fn best_bound(shape: HeadShape, query: &[f32], rows: &[f32], head: usize) -> f64 {
    let shape = HeadShape { head_dim: 2 * shape.head_dim, ..shape };
    let n_rows = rows.len() / (shape.n_kv_heads * shape.head_dim);
    let bound = |row: usize| {
        let (largest, smallest) = shape.key(rows, row, head).split_at(query.len());
        let elements = query.iter().zip(largest).zip(smallest);
        let most = elements.map(|((q, largest), smallest)| {
            (f64::from(*q) * f64::from(*largest)).max(f64::from(*q) * f64::from(*smallest))
        });
        most.sum::<f64>() / (query.len() as f64).sqrt()
    };
    (0..n_rows).map(bound).fold(f64::NEG_INFINITY, f64::max)
}

/// The `n` units with the most votes, best first; of equals the earlier one.
pub fn best_units(votes: &[f64], n: usize) -> Vec<UnitVote> {
    best_first(votes.iter().enumerate().map(|(unit, &vote)| UnitVote { unit, vote }).collect(), n)
}

fn best_first(mut votes: Vec<UnitVote>, n: usize) -> Vec<UnitVote> {
    votes.sort_by(|a, b| b.vote.total_cmp(&a.vote).then(a.unit.cmp(&b.unit)));
    votes.truncate(n);
    votes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NARROW: HeadShape = HeadShape { n_heads: 1, n_kv_heads: 1, head_dim: 1 };

    fn units_of(votes: &[UnitVote]) -> Vec<usize> {
        votes.iter().map(|v| v.unit).collect()
    }

    #[test]
    fn a_segment_mean_is_taken_per_element_and_the_last_may_be_short() {
        let shape = HeadShape { n_heads: 2, n_kv_heads: 2, head_dim: 1 };
        let keys = [1., 10., 3., 30., 5., 50.];
        assert_eq!(segment_means(&keys, shape, 2), [2., 20., 5., 50.]);
        assert_eq!(segment_means(&keys, shape, 8), [3., 30.]);
        assert!(segment_means(&[], shape, 2).is_empty());
    }

    #[test]
    fn a_head_shares_one_vote_among_the_units() {
        // Scores 0 and ln 3: shares a quarter and three quarters.
        let (first, second) = ([0.0], [3.0_f32.ln()]);
        let votes = vote(NARROW, &[1.0], &[&first, &second]);
        assert!((votes[0] - 0.25).abs() < 1e-6 && (votes[1] - 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_unit_takes_the_best_token_of_the_chunk_not_their_mean() {
        // One token wants the first unit, the other the second; each gets its own admirer's 3/4.
        let ln3 = 3.0_f32.ln();
        let votes = vote(NARROW, &[1.0, -1.0], &[&[ln3], &[0.0]]);
        assert!(votes.iter().all(|v| (v - 0.75).abs() < 1e-6), "{votes:?}");
    }

    #[test]
    fn a_head_with_large_logits_does_not_drown_the_others() {
        // The first head shouts for unit 0; two heads speak softly for unit 1.
        let shape = HeadShape { n_heads: 3, n_kv_heads: 3, head_dim: 1 };
        let (first, second) = ([1.0, 0.0, 0.0], [0.0, 1.0, 1.0]);
        let votes = vote(shape, &[1000.0, 5.0, 5.0], &[&first, &second]);
        assert_eq!(units_of(&best_units(&votes, 1)), [1]);
        assert!((votes[0] + votes[1] - 3.0).abs() < 1e-9);
    }

    #[test]
    fn query_heads_read_their_own_key_head() {
        let shape = HeadShape { n_heads: 4, n_kv_heads: 2, head_dim: 1 };
        // Only the last two query heads look at all, and they read key head 1.
        let votes = vote(shape, &[0., 0., 9., 9.], &[&[9., 0.], &[0., 9.]]);
        assert_eq!(units_of(&best_units(&votes, 2)), [1, 0]);
    }

    #[test]
    fn the_fine_stage_finds_the_key_that_a_mean_hides() {
        // Unit 1 has the best key (8) and a poor mean (2); unit 0 has the best mean (3); unit 2 is
        // the worst of all by its mean and never becomes a candidate, whatever its keys are.
        let units: [&[f32]; 3] = [&[3., 3., 3., 3.], &[8., 0., 0., 0.], &[9., -9., 0., 0.]];
        let lookup = Lookup {
            shape: NARROW,
            queries: &[1.0],
            units: &units,
            segment_tokens: 4,
            n_candidates: 2,
            n_retrieved: 1,
        };
        assert_eq!(units_of(&look_up(&lookup)), [1]);
        // Without a second stage to speak of, the mean decides.
        let coarse_only = Lookup { n_candidates: 1, ..lookup };
        assert_eq!(units_of(&look_up(&coarse_only)), [0]);
        // Shorter segments let the third in.
        let finer = Lookup { segment_tokens: 1, ..lookup };
        assert_eq!(units_of(&look_up(&finer)), [2]);
    }

    #[test]
    fn fewer_units_than_wanted_are_all_retrieved_and_equals_come_in_order() {
        let units: [&[f32]; 3] = [&[1.0], &[1.0], &[1.0]];
        let lookup = Lookup {
            shape: NARROW,
            queries: &[1.0],
            units: &units,
            segment_tokens: 8,
            n_candidates: 16,
            n_retrieved: 4,
        };
        assert_eq!(units_of(&look_up(&lookup)), [0, 1, 2]);
        assert!(look_up(&Lookup { units: &[], ..lookup }).is_empty());
    }
}
