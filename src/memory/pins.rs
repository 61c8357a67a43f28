//! Which units does a question pin? Those that it attends to more than a neutral question does: much
//! of attention goes to the same few units whatever is asked (the first, beginnings of chapters), and
//! what they draw hides what was asked for (calibration as in ICR, arXiv 2410.02642). And those that
//! have rare words in common with it, which attention at times passes by.

use std::collections::HashMap;
use std::ops::Range;

use super::config::{MemoryConfig, PinSides};
use super::evidence::{UnitMass, by_mass};

/// What units drew of a question beyond what they draw of a neutral one, heaviest first; `share` is
/// the length of the question in lengths of the neutral one. Units that draw no more are left out.
pub fn beyond_neutral(masses: &[UnitMass], neutral: &[UnitMass], share: f32) -> Vec<UnitMass> {
    let drawn: HashMap<u32, f32> = neutral.iter().map(|unit| (unit.unit, unit.mass)).collect();
    let rest = masses.iter().map(|unit| {
        let always = share * drawn.get(&unit.unit).copied().unwrap_or(0.0);
        UnitMass { mass: unit.mass - always, ..*unit }
    });
    let mut rest: Vec<UnitMass> = rest.filter(|unit| unit.mass > 0.0).collect();
    rest.sort_by(by_mass);
    rest
}

/// What speaks for each unit, most of it first: the attention of `masses` (heaviest first) and the words
/// in common, `words` `[unit]`, each as a share of its best; and a part of what speaks for the units
/// beside it, since a passage is longer than a unit.
pub fn wanted(config: &MemoryConfig, masses: &[UnitMass], words: &[f32]) -> Vec<UnitMass> {
    let n_units = masses.iter().map(|unit| unit.unit as usize + 1).fold(words.len(), usize::max);
    let mut alone = vec![0.0; n_units];
    let heaviest = masses.first().map_or(0.0, |unit| unit.mass);
    for unit in masses.iter().filter(|unit| unit.mass > 0.0) {
        alone[unit.unit as usize] = unit.mass / heaviest;
    }
    let most = words.iter().copied().fold(0.0, f32::max);
    let weight = config.pin_words_percent as f32 / 100.0;
    for (alone, words) in alone.iter_mut().zip(words).filter(|(_, words)| **words > 0.0) {
        *alone += weight * words / most;
    }
    let spread = config.pin_spread_percent as f32 / 100.0;
    let at = |unit: Option<usize>| unit.and_then(|unit| alone.get(unit)).copied().unwrap_or(0.0);
    let mut wanted: Vec<UnitMass> = (0..n_units)
        .map(|unit| {
            let beside = at(unit.checked_sub(1)) + at(Some(unit + 1));
            UnitMass { unit: unit as u32, mass: alone[unit] + spread * beside }
        })
        .filter(|unit| unit.mass > 0.0)
        .collect();
    wanted.sort_by(by_mass);
    wanted
}

/// Question's words that stand before this share of a unit have begun in the unit before it, perhaps.
const EARLY: f32 = 0.25;

/// What words that stand after this share of a unit say goes on in the unit after it, perhaps.
const LATE: f32 = 0.6;

/// The units to pin, most wanted first, of masses with the heaviest first: those that have at least
/// the configured share of what the heaviest has, then as many beside them as configured, within the budget;
/// `all_units` are there to be neighbours, and `places` `[unit]` say where in each the question's words
/// stand on average, 0 its first token and 1 its end (0.5 where there are none).
pub fn pins(
    config: &MemoryConfig,
    masses: &[UnitMass],
    (all_units, places): (Range<u32>, &[f32]),
) -> Vec<u32> {
    let heaviest = masses.first().map_or(0.0, |unit| unit.mass);
    let enough = heaviest * config.pin_share_percent as f32 / 100.0;
    let mut pins: Vec<u32> =
        masses.iter().take_while(|unit| unit.mass >= enough).map(|unit| unit.unit).collect();
    pins.truncate(config.pinned_units());
    for i in 0..pins.len() {
        let place = places.get(pins[i] as usize).copied().unwrap_or(0.5);
        let (before, after) = match config.pin_sides {
            PinSides::Both => (true, true),
            PinSides::Words => (place < EARLY, place > LATE),
        };
        for distance in 1..=config.pin_neighbour_units as u32 {
            let after = pins[i].checked_add(distance).filter(|_| after);
            let before = pins[i].checked_sub(distance).filter(|_| before);
            for beside in [after, before] {
                pins.extend(beside.filter(|u| all_units.contains(u) && !pins.contains(u)));
            }
        }
    }
    pins.truncate(config.pinned_units());
    pins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masses(of: &[(u32, f32)]) -> Vec<UnitMass> {
        of.iter().map(|(unit, mass)| UnitMass { unit: *unit, mass: *mass }).collect()
    }

    #[test]
    fn what_every_question_attends_to_does_not_stand_out() {
        let question = masses(&[(0, 8.0), (5, 3.0), (9, 2.0), (7, 1.0)]);
        let neutral = masses(&[(0, 4.0), (5, 1.0), (7, 1.0), (3, 1.0)]);
        assert_eq!(beyond_neutral(&question, &neutral, 2.0), masses(&[(9, 2.0), (5, 1.0)]));
        assert_eq!(beyond_neutral(&question, &[], 2.0), question);
        assert!(beyond_neutral(&[], &neutral, 2.0).is_empty());
    }

    #[test]
    fn attention_and_words_speak_for_a_unit_and_for_those_beside_it() {
        let of = |pin_words_percent, pin_spread_percent, words: &[f32]| {
            let config =
                MemoryConfig { pin_words_percent, pin_spread_percent, ..MemoryConfig::default() };
            wanted(&config, &masses(&[(2, 4.0), (0, 1.0)]), words)
        };
        let words = [0.0, 0.0, 0.0, 5.0, 2.5];
        assert_eq!(of(0, 0, &words), masses(&[(2, 1.0), (0, 0.25)]));
        assert_eq!(of(100, 0, &words), masses(&[(2, 1.0), (3, 1.0), (4, 0.5), (0, 0.25)]));
        assert_eq!(of(200, 0, &words), masses(&[(3, 2.0), (2, 1.0), (4, 1.0), (0, 0.25)]));
        let spread = masses(&[(3, 1.75), (2, 1.5), (4, 1.0), (1, 0.625), (0, 0.25)]);
        assert_eq!(of(100, 50, &words), spread);
        assert_eq!(of(100, 0, &[]), masses(&[(2, 1.0), (0, 0.25)]), "no words in common");
        assert!(wanted(&MemoryConfig::default(), &[], &[0.0; 3]).is_empty());
    }

    fn pinned(retrieved_units: usize, pin_share_percent: usize, of: &[(u32, f32)]) -> Vec<u32> {
        let config = MemoryConfig {
            retrieved_units,
            pin_share_percent,
            pinned_percent: 100,
            pin_neighbour_units: 1,
            ..MemoryConfig::default()
        };
        pins(&config, &masses(of), (0..10, &[]))
    }

    #[test]
    fn neighbours_come_from_the_side_that_words_are_on() {
        let sides = |pin_sides, place| {
            let config = MemoryConfig { pin_sides, pin_neighbour_units: 1, ..Default::default() };
            pins(&config, &masses(&[(4, 1.0)]), (0..10, &[0.9, 0.9, 0.9, 0.9, place]))
        };
        assert_eq!(sides(PinSides::Words, 0.1), [4, 3]);
        assert_eq!(sides(PinSides::Words, 0.5), [4]);
        assert_eq!(sides(PinSides::Words, 0.7), [4, 5]);
        assert_eq!(sides(PinSides::Both, 0.5), [4, 5, 3]);
    }

    #[test]
    fn what_stands_out_is_pinned_and_what_is_beside_it_where_there_is_room() {
        let of = [(9, 8.0), (4, 4.0), (5, 3.9), (0, 1.0)];
        assert_eq!(pinned(8, 50, &of), [9, 4, 8, 5, 3], "there is no tenth");
        assert_eq!(pinned(3, 50, &of), [9, 4, 8]);
        assert_eq!(pinned(1, 50, &of), [9]);
        assert_eq!(pinned(8, 100, &of), [9, 8]);
        assert_eq!(pinned(8, 0, &of), [9, 4, 5, 0, 8, 3, 6, 1]);
        assert!(pinned(8, 50, &[]).is_empty());
    }
}
