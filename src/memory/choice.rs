//! Which units do votes choose? The best, as many as the budget has; with what is beside them, and
//! no more than matter, where that is asked for.

use std::ops::Range;

/// What a choice may take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// Units at most.
    pub n_units: usize,
    /// Units that come with a hit, on each side of it.
    pub neighbour_units: usize,
    /// Share of all votes that is enough; 1 takes as many units as there may be.
    pub vote_share: f32,
}

/// The indexes of the `n` largest votes, in no order; equal votes go to the lower index, so that a
/// selection never depends on how it was computed.
pub(super) fn best(votes: &[f32], n: usize, order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..votes.len() as u32);
    if n < order.len() {
        order.select_nth_unstable_by(n, by_vote(votes));
        order.truncate(n);
    }
}

/// The units chosen, in document order: those pinned, then by votes, where `votes[i]` are those of
/// unit `units[i]`; only `all_units` are there to be pinned or to be neighbours.
pub(super) fn choose(
    budget: Budget,
    (votes, units): (&[f32], &[u32]),
    (pinned, all_units): (&[u32], Range<u32>),
    (order, chosen): (&mut Vec<u32>, &mut Vec<u32>),
) {
    chosen.clear();
    best(votes, budget.n_units, order);
    if pinned.is_empty() && budget.neighbour_units == 0 && budget.vote_share >= 1.0 {
        chosen.extend(order.iter().map(|i| units[*i as usize]));
        chosen.sort_unstable();
        return;
    }
    order.sort_unstable_by(by_vote(votes));
    // A first pass may have sealed a unit that is yet to be.
    let there = pinned.iter().filter(|unit| all_units.contains(unit));
    there.for_each(|unit| take(chosen, budget, *unit));
    let enough = f64::from(budget.vote_share) * votes.iter().copied().map(f64::from).sum::<f64>();
    let mut share = 0.0;
    for i in order.iter() {
        if chosen.len() >= budget.n_units || (budget.vote_share < 1.0 && share >= enough) {
            break;
        }
        share += f64::from(votes[*i as usize]);
        let hit = units[*i as usize];
        take(chosen, budget, hit);
        for distance in 1..=budget.neighbour_units as u32 {
            for beside in [hit.checked_add(distance), hit.checked_sub(distance)] {
                if let Some(unit) = beside.filter(|unit| all_units.contains(unit)) {
                    take(chosen, budget, unit);
                }
            }
        }
    }
    chosen.sort_unstable();
}

fn take(chosen: &mut Vec<u32>, budget: Budget, unit: u32) {
    if chosen.len() < budget.n_units && !chosen.contains(&unit) {
        chosen.push(unit);
    }
}

fn by_vote(votes: &[f32]) -> impl Fn(&u32, &u32) -> std::cmp::Ordering {
    |a, b| votes[*b as usize].total_cmp(&votes[*a as usize]).then(a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(n_units: usize, neighbour_units: usize, vote_share: f32) -> Vec<u32> {
        chosen_beside(&[], n_units, neighbour_units, vote_share)
    }

    fn chosen_beside(
        pinned: &[u32],
        n_units: usize,
        neighbour_units: usize,
        vote_share: f32,
    ) -> Vec<u32> {
        let votes = [0.1, 0.5, 0.0, 0.1, 0.3];
        let units = [2, 4, 5, 7, 9];
        let (mut order, mut chosen) = (Vec::new(), Vec::new());
        let budget = Budget { n_units, neighbour_units, vote_share };
        choose(budget, (&votes, &units), (pinned, 0..10), (&mut order, &mut chosen));
        chosen
    }

    #[test]
    fn the_best_are_chosen_and_of_equals_the_earlier() {
        assert_eq!(chosen(3, 0, 1.0), [2, 4, 9]);
        assert_eq!(chosen(9, 0, 1.0), [2, 4, 5, 7, 9]);
        assert!(chosen(0, 0, 1.0).is_empty());
    }

    #[test]
    fn neighbours_come_with_a_hit_within_the_budget() {
        assert_eq!(chosen(3, 1, 1.0), [3, 4, 5]);
        assert_eq!(chosen(4, 1, 1.0), [3, 4, 5, 9]);
        assert_eq!(chosen(5, 1, 1.0), [3, 4, 5, 8, 9], "there is no tenth");
        assert_eq!(chosen(5, 2, 1.0), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_is_pinned_comes_first_and_counts() {
        assert_eq!(chosen_beside(&[7, 0], 3, 0, 1.0), [0, 4, 7]);
        assert_eq!(chosen_beside(&[4], 2, 0, 1.0), [4, 9], "once");
        assert_eq!(chosen_beside(&[7, 0], 1, 0, 1.0), [7]);
        assert_eq!(chosen_beside(&[10, 7], 2, 0, 1.0), [4, 7], "there is no tenth yet");
    }

    #[test]
    fn no_more_is_taken_than_has_enough_of_the_votes() {
        assert_eq!(chosen(5, 0, 0.45), [4]);
        assert_eq!(chosen(5, 0, 0.6), [4, 9]);
        assert_eq!(chosen(1, 0, 0.9), [4], "the budget holds all the same");
        assert_eq!(chosen(5, 1, 0.4), [3, 4, 5]);
    }
}
