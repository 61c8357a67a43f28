//! Variable tracking: a value is given to a variable, that to another and so on, the assignments
//! spread over a text of noise and among other chains, as RULER's task is described.

use super::needle::spread;
use crate::eval::case::{Case, Measure, Scene};
use crate::eval::haystack::{Insert, insert};

/// Variables of a chain.
const CHAIN: usize = 4;

/// Chains, of which one is asked for.
const N_CHAINS: usize = 2;

const NOISE: &str = "The lamps are lit. The harbour is quiet. A bell rings twice, and then it is \
                     still. ";

/// A document of about `n_tokens` by `count`.
pub fn scene(n_tokens: usize, rng: &mut fastrand::Rng, count: &dyn Fn(&str) -> usize) -> Scene {
    let names: Vec<String> = (0..CHAIN * N_CHAINS).map(|i| name(i, rng)).collect();
    let chains: Vec<(u32, &[String])> =
        names.chunks(CHAIN).map(|names| (rng.u32(10_000..100_000), names)).collect();
    let mut inserts = Vec::new();
    for (value, names) in &chains {
        for (i, depth) in spread(CHAIN, rng).into_iter().enumerate() {
            let text = match i {
                0 => format!("VAR {} = {value}.", names[0]),
                _ => format!("VAR {} = VAR {}.", names[i], names[i - 1]),
            };
            inserts.push(Insert { depth, text });
        }
    }
    let n_inserted: usize = inserts.iter().map(|insert| count(&insert.text)).sum();
    let n_rounds = n_tokens.saturating_sub(n_inserted) / count(NOISE);
    let noise = NOISE.repeat(n_rounds.max(CHAIN));
    let (text, evidence) = insert(noise.trim_end(), &inserts);
    let document =
        format!("The text below assigns values to variables, some through others.\n\n{text}");
    let shift = document.len() - text.len();
    let (value, names) = chains[0];
    Scene {
        cases: vec![Case {
            depth: None,
            question: format!(
                "Which variables are assigned the value {value} in the text above, directly or \
                 through others? There are {CHAIN}."
            ),
            answer_start: format!("The variables that are assigned the value {value} are "),
            answers: vec![names.join(", ")],
            evidence: evidence[..CHAIN].iter().map(|span| span.shifted(shift)).collect(),
            measure: Measure::Words,
        }],
        document,
    }
}

/// Five letters; the first tells variables apart for certain.
fn name(i: usize, rng: &mut fastrand::Rng) -> String {
    let mut name = char::from(b'A' + i as u8).to_string();
    name.extend((0..4).map(|_| rng.uppercase()));
    name
}
