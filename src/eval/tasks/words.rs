//! Common words: a long numbered list in which a few words come much more often than the others, as
//! RULER's task is described.

use crate::eval::case::{Case, Measure, Scene};

/// Words that come often.
const N_COMMON: usize = 5;

/// How often each of them comes for once that another does.
const TIMES: usize = 10;

/// A list of about `n_tokens` by `count`.
pub fn scene(n_tokens: usize, rng: &mut fastrand::Rng, count: &dyn Fn(&str) -> usize) -> Scene {
    let mut vocabulary = words();
    rng.shuffle(&mut vocabulary);
    let (common, rare) = vocabulary.split_at(N_COMMON);
    let sample: String = rare.iter().take(50).enumerate().map(|(i, w)| line(1000 + i, w)).collect();
    let n_lines = (n_tokens * 50 / count(&sample)).max(2 * N_COMMON * TIMES);
    // A round is each common word ten times and fifty rare ones once.
    let n_common = n_lines / 2 / N_COMMON;
    let mut list: Vec<&str> =
        common.iter().flat_map(|word| vec![word.as_str(); n_common]).collect();
    let n_rare = (n_lines / 2).min(rare.len() * (n_common / TIMES).max(1));
    list.extend(rare.iter().cycle().take(n_rare).map(String::as_str));
    rng.shuffle(&mut list);
    let lines: String = list.iter().enumerate().map(|(i, word)| line(i + 1, word)).collect();
    let document = format!("Below is a numbered list of words.\n\n{}", lines.trim_end());
    Scene {
        document,
        cases: vec![Case {
            depth: None,
            question: format!("Which {N_COMMON} words are the most common in the list above?"),
            answer_start: format!("The {N_COMMON} most common words are "),
            answers: vec![common.join(", ")],
            evidence: Vec::new(),
            measure: Measure::Words,
        }],
    }
}

fn line(number: usize, word: &str) -> String {
    format!("{number}. {word}\n")
}

/// Words that nobody knows but everybody can read: two to three syllables.
fn words() -> Vec<String> {
    let starts =
        ["ba", "co", "di", "fe", "ga", "ho", "ju", "ka", "lo", "mi", "na", "po", "ra", "su"];
    let ends = ["lan", "mer", "nor", "pel", "rin", "sol", "tan", "ver", "wick", "zen"];
    starts.iter().flat_map(|a| ends.iter().map(move |b| format!("{a}{b}"))).collect()
}
