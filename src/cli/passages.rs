//! What did the answer rest on, for people to read? Passages with their share of the attention,
//! their place in the document, and their words, wrapped.

use terminal_size::{Width, terminal_size_of};
use unicode_width::UnicodeWidthChar;

use super::output::harmless;
use crate::engine::{EngineError, Passage, Session};
use crate::ids::ByteSpan;

/// Columns before the words.
const INDENT: usize = 7;

/// Columns of a line where there is no terminal to ask.
const COLUMNS: u16 = 80;

/// Lines that are hard to read are no longer than this, however wide the terminal.
const MOST_COLUMNS: u16 = 100;

/// A passage, on whole characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Excerpt {
    /// Its bytes in the document.
    pub span: ByteSpan,
    /// Their text.
    pub text: String,
    /// Share of the attention that the answer gave to retrieved units.
    pub weight: f32,
}

/// The text of a passage that `session` has read.
pub(super) fn excerpt(session: &Session, passage: Passage) -> Result<Excerpt, EngineError> {
    let (span, text) = session.text(passage.span)?;
    Ok(Excerpt { span, text, weight: passage.weight })
}

/// Passages for the terminal on stderr.
pub(super) fn show(excerpts: &[Excerpt]) -> String {
    let columns = terminal_size_of(std::io::stderr()).map_or(COLUMNS, |(Width(width), _)| width);
    show_in(excerpts, usize::from(columns.min(MOST_COLUMNS)))
}

fn show_in(excerpts: &[Excerpt], columns: usize) -> String {
    let mut shown = String::new();
    for excerpt in excerpts {
        let ByteSpan { start, end } = excerpt.span;
        let percent = excerpt.weight * 100.0;
        shown += &format!("{percent:>4.0} %  bytes {start}..{end}\n");
        for line in wrap(&harmless(&excerpt.text), columns.saturating_sub(INDENT).max(20)) {
            shown += &format!("{:INDENT$}{line}\n", "");
        }
    }
    shown
}

/// Words on lines of at most `columns`; words that are longer are cut.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut line, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let width: usize = word.chars().map(columns_of).sum();
        if used > 0 && used + 1 + width <= columns {
            line.push(' ');
            used += 1;
        } else if used > 0 {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        for c in word.chars() {
            if used + columns_of(c) > columns {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(c);
            used += columns_of(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_and_long_ones_cut() {
        assert_eq!(wrap("one two  three\nfour", 9), ["one two", "three", "four"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("日本語の文章", 4), ["日本", "語の", "文章"]);
        assert_eq!(wrap(" \n", 4), Vec::<String>::new());
    }

    #[test]
    fn a_passage_is_shown_with_its_weight_and_place() {
        let span = ByteSpan { start: 12_480, end: 12_490 };
        let shown =
            show_in(&[Excerpt { span, text: "The key\nis\x1b 7.".to_owned(), weight: 0.384 }], 80);
        assert_eq!(shown, "  38 %  bytes 12480..12490\n       The key is\u{FFFD} 7.\n");
    }
}
