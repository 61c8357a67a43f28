//! What is an answer hidden in? Stretches of a long text, cut where sentences end.

use super::error::EvalError;
use crate::ids::ByteSpan;
use crate::tokenizer::Tokenizer;

/// How far from a place a sentence's end is looked for, in bytes.
const SENTENCE_BYTES: usize = 2000;

/// A text with its tokens counted.
#[derive(Clone, Debug)]
pub struct Haystack {
    name: String,
    text: String,
    token_ends: Vec<usize>, // [token], in bytes
}

/// What is put somewhere into a stretch.
#[derive(Clone, Debug, PartialEq)]
pub struct Insert {
    /// Where, from 0 (before all) to 1 (behind all).
    pub depth: f32,
    /// A sentence or several.
    pub text: String,
}

impl Haystack {
    /// A text, by the name that results have it under.
    pub fn new(name: impl Into<String>, text: impl Into<String>, tokenizer: &Tokenizer) -> Self {
        let text = text.into();
        let encoded = tokenizer.encode_document(&text);
        let token_ends = encoded.spans.iter().map(|span| span.end).collect();
        Self { name: name.into(), text, token_ends }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its length.
    pub fn n_tokens(&self) -> usize {
        self.token_ends.len()
    }

    /// The same text so often that it has `n_tokens` and as many again to choose from.
    pub fn repeated(&self, n_tokens: usize) -> Self {
        let times = (2 * n_tokens).div_ceil(self.n_tokens().max(1));
        let piece = format!("{}\n\n", self.text.trim_end());
        let ends: Vec<usize> = self.token_ends.iter().map(|end| *end.min(&piece.len())).collect();
        let starts = (0..times).map(|round| round * piece.len());
        Self {
            name: self.name.clone(),
            token_ends: starts.flat_map(|start| ends.iter().map(move |end| start + end)).collect(),
            text: piece.repeat(times),
        }
    }

    /// A stretch of about `n_tokens` from somewhere, beginning with a sentence.
    ///
    /// # Errors
    /// When the text is shorter.
    pub fn stretch(&self, n_tokens: usize, rng: &mut fastrand::Rng) -> Result<&str, EvalError> {
        let spare = self.n_tokens().checked_sub(n_tokens).filter(|_| n_tokens > 0);
        let Some(spare) = spare else {
            let (name, wanted) = (self.name.clone(), n_tokens);
            return Err(EvalError::ShortHaystack { name, n_tokens: self.n_tokens(), wanted });
        };
        let first = rng.usize(..=spare);
        let start = first.checked_sub(1).map_or(0, |before| self.token_ends[before]);
        let end = self.token_ends[first + n_tokens - 1];
        let text = &self.text[floor_char(&self.text, start)..floor_char(&self.text, end)];
        Ok(text[sentence_from(text)..].trim_start())
    }
}

/// `text` with each insert where a sentence ends nearest before its place, and where the inserts
/// came to lie.
pub fn insert(text: &str, inserts: &[Insert]) -> (String, Vec<ByteSpan>) {
    let mut places: Vec<(usize, usize)> = inserts
        .iter()
        .enumerate()
        .map(|(i, insert)| (sentence_end(text, (text.len() as f32 * insert.depth) as usize), i))
        .collect();
    places.sort_unstable();
    let mut document = String::new();
    let mut spans = vec![ByteSpan { start: 0, end: 0 }; inserts.len()];
    let mut from = 0;
    for (place, i) in places {
        document += &text[from..place];
        if !document.is_empty() && !document.ends_with(char::is_whitespace) {
            document.push(' ');
        }
        let start = document.len();
        document += &inserts[i].text;
        spans[i] = ByteSpan { start, end: document.len() };
        document.push(' ');
        from = place;
    }
    document += text[from..].trim_start_matches(' ');
    (document, spans)
}

/// The place behind the last sentence that ends at or before byte `at`; where none ends nearby, that
/// behind the last word.
fn sentence_end(text: &str, at: usize) -> usize {
    let at = floor_char(text, at);
    if at == text.len() || at == 0 {
        return at;
    }
    let from = floor_char(text, at.saturating_sub(SENTENCE_BYTES));
    let before = &text[from..at];
    let ends = [". ", "! ", "? ", ".\n", "!\n", "?\n", "\n\n", ".\" ", ".\"\n"];
    let last = ends.iter().filter_map(|end| before.rfind(end).map(|at| at + end.len())).max();
    let word = || match from {
        0 => 0, // the sentence is the first
        _ => before.rfind(char::is_whitespace).map_or(before.len(), |at| at + 1),
    };
    from + last.unwrap_or_else(word)
}

/// Where the first whole sentence begins.
fn sentence_from(text: &str) -> usize {
    let near = &text[..floor_char(text, SENTENCE_BYTES)];
    let ends = [". ", "! ", "? ", ".\n", "!\n", "?\n"];
    let first = ends.iter().filter_map(|end| near.find(end).map(|at| at + end.len())).min();
    first.filter(|first| *first < text.len()).unwrap_or(0)
}

/// The last border of a character at or before byte `at`.
fn floor_char(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert_one(text: &str, depth: f32) -> String {
        let (document, spans) = insert(text, &[Insert { depth, text: "Here.".to_owned() }]);
        assert_eq!(&document[spans[0].start..spans[0].end], "Here.");
        document
    }

    #[test]
    fn inserts_go_where_a_sentence_ends() {
        let text = "One two. Three four! Five six";
        assert_eq!(insert_one(text, 0.0), "Here. One two. Three four! Five six");
        assert_eq!(insert_one(text, 0.5), "One two. Here. Three four! Five six");
        assert_eq!(insert_one(text, 0.9), "One two. Three four! Here. Five six");
        assert_eq!(insert_one(text, 1.0), "One two. Three four! Five six Here. ");
        assert_eq!(insert_one("One two three. Four", 0.3), "Here. One two three. Four");
        assert_eq!(insert_one("Éé é. Éé é. É", 0.7), "Éé é. Here. Éé é. É");
        let endless = insert_one(&"on and ".repeat(1000), 0.9);
        assert!(endless.contains("on and Here. on") || endless.contains("and on Here. and"));
    }

    #[test]
    fn several_inserts_keep_the_order_of_their_depths() {
        let inserts = [(0.9, "Last."), (0.1, "First."), (0.5, "Middle.")];
        let inserts = inserts.map(|(depth, text)| Insert { depth, text: text.to_owned() });
        let (document, spans) = insert("A b. C d. E f. G h. I j.", &inserts);
        assert_eq!(document, "First. A b. C d. Middle. E f. G h. Last. I j.");
        for (span, insert) in spans.iter().zip(&inserts) {
            assert_eq!(document[span.start..span.end], insert.text);
        }
    }
}
