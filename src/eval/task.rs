//! Which kinds of questions are there?

use std::fmt;

use serde::{Deserialize, Serialize};

/// Facts in one document of [`Task::MultiNeedle`].
pub const N_FACTS: usize = 4;

/// Questions about one paragraph of [`Task::Qa`].
pub const N_QUESTIONS: usize = 4;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A five-digit key in repeated noise: passing says little, failing much.
    Passkey,
    /// A ten-digit number in repeated noise (InfiniteBench).
    Number,
    /// The value of a key among JSON pairs of UUIDs (lost in the middle).
    Kv,
    /// One fact in prose.
    Needle,
    /// Four facts of one kind in prose, each asked for.
    MultiNeedle,
    /// Which variables hold a value, over a chain of assignments in noise (RULER).
    VariableTracking,
    /// The words that a long list repeats most (RULER).
    CommonWords,
    /// Real questions, their paragraph among others.
    Qa,
    /// How well the second half of a text is foreseen.
    Perplexity,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Passkey,
        Self::Number,
        Self::Kv,
        Self::Needle,
        Self::MultiNeedle,
        Self::VariableTracking,
        Self::CommonWords,
        Self::Qa,
        Self::Perplexity,
    ];

    /// As flags and results write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passkey => "passkey",
            Self::Number => "number",
            Self::Kv => "kv",
            Self::Needle => "needle",
            Self::MultiNeedle => "multi-needle",
            Self::VariableTracking => "variable-tracking",
            Self::CommonWords => "common-words",
            Self::Qa => "qa",
            Self::Perplexity => "perplexity",
        }
    }

    /// Cases of a scene.
    pub fn n_cases(self) -> usize {
        match self {
            Self::MultiNeedle => N_FACTS,
            Self::Qa => N_QUESTIONS,
            _ => 1,
        }
    }

    /// Whether it is hidden in a given text.
    pub fn takes_haystack(self) -> bool {
        matches!(self, Self::Needle | Self::MultiNeedle | Self::Perplexity)
    }

    /// Whether a scene has one place for the answer.
    pub fn takes_depth(self) -> bool {
        matches!(self, Self::Passkey | Self::Number | Self::Kv | Self::Needle | Self::Qa)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
