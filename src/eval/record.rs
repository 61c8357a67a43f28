//! What is kept of an answer? A line of JSON.

use serde::{Deserialize, Serialize};

use super::case::Label;

/// How one case went under one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The policy's name.
    pub policy: String,
    /// Stands for the model and the settings: results with another are of another evaluation.
    pub fingerprint: String,
    /// The scene.
    #[serde(flatten)]
    pub label: Label,
    /// Which case of the scene.
    pub case: usize,
    /// Where in the document the answer lies, from 0 to 1.
    pub case_depth: Option<f32>,
    /// Tokens of document and question.
    pub prompt_tokens: usize,
    /// Tokens of the right answer.
    pub answer_tokens: usize,
    /// Those of them that were the likeliest, given the right ones before.
    pub right_tokens: usize,
    /// Whether all were: a greedy answer is then the right one.
    pub found: bool,
    /// Of the whole right answer, in nats; of the scored text for perplexity.
    pub log_probability: f64,
    /// Whether any layer retrieved a unit with the answer; `None` where that was in view, if
    /// only in part.
    pub sought: Option<bool>,
    /// What a greedy answer said, where words are measured.
    pub answer: Option<String>,
    /// The share of words that it has in common with the right one (F1), from 0 to 1.
    pub f1: Option<f64>,
    /// Seconds for reading the document, as if for this case alone.
    pub read_seconds: f64,
    /// Seconds for question and answer.
    pub answer_seconds: f64,
    /// The most keys that any token attended to.
    pub attended_tokens_max: usize,
}

/// What tells a record from all others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Record {
    /// What tells it from others.
    pub fn key(&self) -> Key {
        Key::new(&self.fingerprint, &self.label, self.case)
    }
}

impl Key {
    /// Of the case `case` of a scene, under the settings that `fingerprint` stands for.
    pub fn new(fingerprint: &str, label: &Label, case: usize) -> Self {
        let Label { task, haystack, length, depth, sample } = label;
        let haystack = haystack.as_deref().unwrap_or("");
        let depth = depth.unwrap_or(-1.0);
        Self(format!("{fingerprint} {task} {haystack} {length} {depth:.4} {sample} {case}"))
    }
}
