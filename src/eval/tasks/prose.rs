//! Perplexity: a text as it is, of which the second half is scored.

use crate::eval::case::{Case, Measure, Scene};

/// Nothing is asked: the text is all.
pub fn scene(prose: &str) -> Scene {
    Scene {
        document: prose.to_owned(),
        cases: vec![Case {
            depth: None,
            question: String::new(),
            answer_start: String::new(),
            answers: Vec::new(),
            evidence: Vec::new(),
            measure: Measure::Perplexity,
        }],
    }
}
