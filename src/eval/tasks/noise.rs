//! Passkey and number: something to remember in the same few sentences over and over, as the
//! passkey test of landmark attention (arXiv 2305.16300) and InfiniteBench's number test are
//! described.

use crate::eval::case::{Case, Measure, Scene};
use crate::eval::haystack::{Insert, insert};

const NOISE: &str = "The wind is calm. The water is clear. The road is long. We set out, we arrive, \
                     and we set out again. ";

/// What is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// Five digits.
    Passkey,
    /// Ten digits, of which neighbours are often the same.
    Number,
}

impl Secret {
    fn digits(self, rng: &mut fastrand::Rng) -> String {
        match self {
            Self::Passkey => rng.u32(10_000..100_000).to_string(),
            Self::Number => {
                let mut digits = vec![rng.u8(1..10)];
                while digits.len() < 10 {
                    let last = digits[digits.len() - 1];
                    digits.push(if rng.bool() { last } else { rng.u8(0..10) });
                }
                digits.iter().map(|digit| char::from(b'0' + digit)).collect()
            }
        }
    }
}

/// A document of about `n_tokens` by `count`.
pub fn scene(
    secret: Secret,
    (n_tokens, depth): (usize, f32),
    rng: &mut fastrand::Rng,
    count: &dyn Fn(&str) -> usize,
) -> Scene {
    let digits = secret.digits(rng);
    let (sentence, question, answer_start) = match secret {
        Secret::Passkey => (
            format!("The pass key is {digits}. Remember it. {digits} is the pass key."),
            "What is the pass key?",
            "The pass key is ",
        ),
        Secret::Number => (
            format!("The sequence of digits is {digits}. Remember it. {digits} is the sequence."),
            "What is the sequence of digits?",
            "The sequence of digits is ",
        ),
    };
    let n_rounds = n_tokens.saturating_sub(count(&sentence)) / count(NOISE);
    let noise = NOISE.repeat(n_rounds.max(1));
    let (text, evidence) = insert(noise.trim_end(), &[Insert { depth, text: sentence }]);
    let document = format!("Somewhere in the text below something is to be remembered.\n\n{text}");
    let shift = document.len() - text.len();
    Scene {
        cases: vec![Case {
            depth: Some(depth),
            question: question.to_owned(),
            answer_start: answer_start.to_owned(),
            answers: vec![digits],
            evidence: evidence.iter().map(|span| span.shifted(shift)).collect(),
            measure: Measure::Forced,
        }],
        document,
    }
}
