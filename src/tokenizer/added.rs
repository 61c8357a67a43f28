//! Where does a text name whole tokens, rather than words to be cut up? Added tokens are found
//! before anything else happens to the text, the leftmost first and of those the longest.

use aho_corasick::{AhoCorasick, Input, MatchKind};

use crate::ids::{ByteSpan, TokenId};

/// A token that is matched as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddedToken {
    pub id: TokenId,
    pub text: String,
    /// Steers the model; only to be matched in text that may steer it.
    pub is_control: bool,
    /// Takes the white space before it along.
    pub strips_left: bool,
    /// Takes the white space after it along.
    pub strips_right: bool,
    /// Not matched inside a word.
    pub is_single_word: bool,
}

/// A stretch of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// To be cut into tokens.
    Text(ByteSpan),
    /// One token already.
    Token(TokenId, ByteSpan),
}

/// All added tokens of a vocabulary.
#[derive(Debug)]
pub(super) struct AddedTokens {
    tokens: Vec<AddedToken>,
    /// Matches `tokens`, by their place in the list; `None` when there are none.
    matcher: Option<AhoCorasick>,
}

impl AddedTokens {
    /// Builds the matcher. Tokens without text match nowhere.
    pub fn new(mut tokens: Vec<AddedToken>) -> Result<Self, aho_corasick::BuildError> {
        tokens.retain(|token| !token.text.is_empty());
        let matcher = if tokens.is_empty() {
            None
        } else {
            let texts = tokens.iter().map(|token| &token.text);
            Some(AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts)?)
        };
        Ok(Self { tokens, matcher })
    }

    /// All of them.
    pub fn tokens(&self) -> &[AddedToken] {
        &self.tokens
    }

    /// Cuts `text` at its added tokens. A control token counts where `may_steer` says so of its
    /// span; elsewhere its letters are text like any other.
    pub fn split(&self, text: &str, may_steer: impl Fn(ByteSpan) -> bool) -> Vec<Run> {
        let mut runs = Vec::new();
        let (mut done, mut at) = (0, 0);
        while let Some((token, span)) = self.next_match(text, at) {
            let refused = (token.is_control && !may_steer(span))
                || (token.is_single_word && is_inside_word(text, span));
            if refused {
                // The next match may begin inside this one.
                at = span.start + 1;
                continue;
            }
            let span = widened(token, text, span, done);
            push_text(&mut runs, done, span.start);
            runs.push(Run::Token(token.id, span));
            (done, at) = (span.end, span.end);
        }
        push_text(&mut runs, done, text.len());
        runs
    }

    fn next_match(&self, text: &str, at: usize) -> Option<(&AddedToken, ByteSpan)> {
        let found = self.matcher.as_ref()?.find(Input::new(text).span(at..text.len()))?;
        let span = ByteSpan { start: found.start(), end: found.end() };
        Some((&self.tokens[found.pattern().as_usize()], span))
    }
}

fn push_text(runs: &mut Vec<Run>, start: usize, end: usize) {
    if start < end {
        runs.push(Run::Text(ByteSpan { start, end }));
    }
}

/// A match with the white space that its token takes along, but none before `floor`.
fn widened(token: &AddedToken, text: &str, span: ByteSpan, floor: usize) -> ByteSpan {
    let ByteSpan { mut start, mut end } = span;
    if token.strips_left {
        start = floor + text[floor..start].trim_end().len();
    }
    if token.strips_right {
        end = text.len() - text[end..].trim_start().len();
    }
    ByteSpan { start, end }
}

fn is_inside_word(text: &str, span: ByteSpan) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text[..span.start].chars().next_back().is_some_and(is_word)
        || text[span.end..].chars().next().is_some_and(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, text: &str, is_control: bool) -> AddedToken {
        AddedToken {
            id: TokenId(id),
            text: text.to_owned(),
            is_control,
            strips_left: false,
            strips_right: false,
            is_single_word: false,
        }
    }

    /// The runs, written as text or as `#id`.
    fn check(tokens: &[AddedToken], text: &str, steers: ByteSpan, expected: &[&str]) {
        let added = AddedTokens::new(tokens.to_vec()).unwrap();
        let runs = added.split(text, |s| steers.start <= s.start && s.end <= steers.end);
        let shown: Vec<String> = runs
            .iter()
            .map(|run| match run {
                Run::Text(span) => text[span.start..span.end].to_owned(),
                Run::Token(id, span) => format!("#{}:{}", id.0, &text[span.start..span.end]),
            })
            .collect();
        assert_eq!(shown, expected, "{text:?}");
    }

    const ALL: ByteSpan = ByteSpan { start: 0, end: usize::MAX };
    const NONE: ByteSpan = ByteSpan { start: 0, end: 0 };

    #[test]
    fn the_longest_of_the_leftmost_tokens_is_taken() {
        let tokens = [token(1, "<a>", true), token(2, "<a><b>", true), token(3, "cd", false)];
        check(&tokens, "x<a><b><a>cdy", ALL, &["x", "#2:<a><b>", "#1:<a>", "#3:cd", "y"]);
        check(&tokens, "", ALL, &[]);
        check(&[], "<a>", ALL, &["<a>"]);
    }

    #[test]
    fn control_tokens_are_text_where_text_may_not_steer() {
        let tokens = [token(1, "<end>", true), token(2, "think", false)];
        check(&tokens, "a<end>think<end>", NONE, &["a<end>", "#2:think", "<end>"]);
        // A refused token does not swallow the one that begins inside it.
        let tokens = [token(1, "<<", true), token(2, "<x", false)];
        check(&tokens, "<<x", NONE, &["<", "#2:<x"]);
        // Nor one that stands where text may steer.
        let tokens = [token(1, "<a><b>", true), token(2, "<b>", true)];
        check(&tokens, "<a><b>", ByteSpan { start: 3, end: 6 }, &["<a>", "#2:<b>"]);
    }

    #[test]
    fn tokens_take_white_space_along_where_they_say_so() {
        let mut tokens = [token(1, "<l>", false), token(2, "<r>", false)];
        tokens[0].strips_left = true;
        tokens[1].strips_right = true;
        check(&tokens, "a \n<l> <r> \tb", ALL, &["a", "#1: \n<l>", " ", "#2:<r> \t", "b"]);
        check(&tokens, "<r>  <l>", ALL, &["#2:<r>  ", "#1:<l>"]);
    }

    #[test]
    fn a_single_word_is_not_matched_inside_another() {
        let mut tokens = [token(1, "sea", false)];
        tokens[0].is_single_word = true;
        check(
            &tokens,
            "sea season oversea sea.",
            ALL,
            &["#1:sea", " season oversea ", "#1:sea", "."],
        );
    }
}
