//! What is asked, of which text?

use serde::{Deserialize, Serialize};

use super::task::Task;
use crate::ids::{ByteSpan, TokenId};
use crate::tokenizer::{SpecialTokens, Tokenizer};

/// What a scene is made from; nothing else decides it, but the texts given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The task.
    pub task: Task,
    /// Name of the text that things are hidden in, where the task takes one.
    pub haystack: Option<String>,
    /// Tokens of the whole prompt, about; 0 where a document is what hides the answer alone.
    pub length: usize,
    /// Where in the document the answer lies, from 0 to 1, where the scene has one place for it.
    pub depth: Option<f32>,
    /// Which of the scenes that are alike in all else.
    pub sample: u64,
}

impl Label {
    /// Random numbers for what scenes of other lengths and depths share as well.
    pub fn topic_rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(fnv(&format!("{}/{}", self.task.name(), self.sample)))
    }

    /// Random numbers for what scenes that differ in depth alone share.
    pub fn shared_rng(&self) -> fastrand::Rng {
        self.rng("")
    }

    /// Random numbers for this scene.
    pub fn own_rng(&self) -> fastrand::Rng {
        self.rng(&self.depth.map_or(String::new(), |depth| format!("{depth:.4}")))
    }

    fn rng(&self, rest: &str) -> fastrand::Rng {
        let haystack = self.haystack.as_deref().unwrap_or("");
        let (task, length, sample) = (self.task.name(), self.length, self.sample);
        fastrand::Rng::with_seed(fnv(&format!("{task}/{haystack}/{length}/{sample}/{rest}")))
    }
}

/// The FNV-1a hash: the same on every machine and for ever.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A document, and what is asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// What is read.
    pub document: String,
    /// What is asked, each for itself.
    pub cases: Vec<Case>,
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Where in the document the answer lies, from 0 to 1, where it is in one place.
    pub depth: Option<f32>,
    /// The question.
    pub question: String,
    /// The beginning of the answer, which the model goes on from.
    pub answer_start: String,
    /// What counts as right; the first is what is forced.
    pub answers: Vec<String>,
    /// The bytes of the document that give the answer.
    pub evidence: Vec<ByteSpan>,
    /// How an answer is measured.
    pub measure: Measure,
}

/// How an answer is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// By force: whether each token of it is the likeliest.
    Forced,
    /// The same, and by the words that a greedy answer, up to a closing quotation mark, shares with
    /// the right ones (SQuAD's F1).
    Words,
    /// By how well the second half of the document was foreseen.
    Perplexity,
}

/// The tokens of the answer's beginning, and of what is to follow it: they are cut as one text
/// is, so that the model sees what it would write.
pub fn answer_tokens(tokenizer: &Tokenizer, case: &Case) -> (Vec<TokenId>, Vec<TokenId>) {
    let answer = case.answers.first().map_or("", String::as_str);
    let whole = format!("{}{answer}", case.answer_start);
    let encoded = tokenizer.encode_with_spans(&whole, SpecialTokens::AsText);
    let n_start = encoded.spans.partition_point(|span| span.end <= case.answer_start.len());
    let (start, answer) = encoded.ids.split_at(n_start);
    (start.to_vec(), answer.to_vec())
}
