//! Needle and multi-needle: facts in prose that have nothing to do with it, as RULER's single and
//! multi-key tests are described.

use crate::eval::case::{Case, Measure, Scene};
use crate::eval::haystack::{Insert, insert};

/// Whose number it is.
const CITIES: [&str; 40] = [
    "Lisbon",
    "Cairo",
    "Oslo",
    "Lima",
    "Quito",
    "Hanoi",
    "Dublin",
    "Athens",
    "Vienna",
    "Prague",
    "Warsaw",
    "Nairobi",
    "Accra",
    "Tunis",
    "Havana",
    "Bogota",
    "Caracas",
    "Santiago",
    "Montevideo",
    "Jakarta",
    "Manila",
    "Seoul",
    "Kyoto",
    "Osaka",
    "Delhi",
    "Mumbai",
    "Karachi",
    "Tehran",
    "Baghdad",
    "Damascus",
    "Beirut",
    "Ankara",
    "Sofia",
    "Bucharest",
    "Budapest",
    "Helsinki",
    "Stockholm",
    "Reykjavik",
    "Toronto",
    "Chicago",
];

/// Hides a number for each of `depths` in `prose` and asks for each.
pub fn scene(prose: &str, depths: &[f32], rng: &mut fastrand::Rng) -> Scene {
    let mut cities = CITIES;
    rng.shuffle(&mut cities);
    let facts: Vec<(&str, String)> = cities
        .iter()
        .take(depths.len())
        .map(|city| (*city, rng.u32(1_000_000..10_000_000).to_string()))
        .collect();
    let inserts: Vec<Insert> = depths
        .iter()
        .zip(&facts)
        .map(|(depth, (city, number))| Insert {
            depth: *depth,
            text: format!("The secret number of {city} is {number}."),
        })
        .collect();
    let (document, evidence) = insert(prose, &inserts);
    let case = |((depth, (city, number)), span): ((&f32, &(&str, String)), _)| Case {
        depth: Some(*depth),
        question: format!("What is the secret number of {city} in the text above?"),
        answer_start: format!("The secret number of {city} is "),
        answers: vec![number.clone()],
        evidence: vec![span],
        measure: Measure::Forced,
    };
    Scene { cases: depths.iter().zip(&facts).zip(evidence).map(case).collect(), document }
}

/// Depths of several facts: one somewhere in each part of the text.
pub fn spread(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    (0..n).map(|i| (i as f32 + 0.1 + 0.8 * rng.f32()) / n as f32).collect()
}
