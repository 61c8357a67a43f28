//! Which passages of a text may answer a question? Paragraphs, or as much of them as a passage may
//! have, around the places that speak for themselves.

use std::ops::Range;

use super::borders::{SENTENCE, border_between};
use super::error::EngineError;
use super::session::Session;
use crate::memory::UnitMass;

/// Between paragraphs: a line that is empty.
const PARAGRAPH: u8 = 3;
/// Between lines.
const LINE: u8 = 2;
/// Between sentences.
const AFTER_SENTENCE: u8 = 1;

/// What passages are looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Parts of the text, in its order.
    pub parts: &'a [Range<usize>],
    /// What speaks for them, by number, most of it first.
    pub masses: &'a [UnitMass],
    /// Passages at most.
    pub n: usize,
    /// Percent of what speaks for the best: those with less are left out.
    pub share_percent: usize,
    /// Tokens of a passage: no fewer, where there are paragraphs enough, and no more.
    pub tokens: (usize, usize),
}

/// Borders before tokens of a text.
struct Borders {
    first: usize,        // token
    strengths: Vec<u8>,  // [token - first], and one for the end
    is_blank: Vec<bool>, // [token - first]: nothing but white space
}

impl Session {
    /// The passages of tokens `text` of what was read that are wanted most, best first.
    ///
    /// # Errors
    /// When they cannot be read back.
    pub(super) fn passages(
        &self,
        text: Range<usize>,
        wanted: Wanted<'_>,
    ) -> Result<Vec<Range<usize>>, EngineError> {
        if wanted.tokens.1 == 0 {
            return Ok(Vec::new()); // there is no room
        }
        let best = wanted.masses.first().map_or(0.0, |part| part.mass);
        let share = wanted.share_percent as f32 / 100.0;
        let mut found: Vec<(f32, Range<usize>)> = Vec::new();
        for part in wanted.masses.iter().take_while(|part| part.mass >= best * share) {
            let Some(tokens) = wanted.parts.get(part.unit as usize) else { continue };
            let tokens = tokens.start.max(text.start)..tokens.end.min(text.end);
            if tokens.is_empty() {
                continue;
            }
            let borders = self.borders_around(&text, &tokens, wanted.tokens.1)?;
            for (overlap, passage) in borders.passages(&tokens, wanted.tokens) {
                let mass = part.mass * overlap as f32 / tokens.len() as f32;
                let shares = |other: &Range<usize>| {
                    let both =
                        other.end.min(passage.end).saturating_sub(other.start.max(passage.start));
                    2 * both > other.len().min(passage.len())
                };
                match found.iter_mut().find(|(_, other)| shares(other)) {
                    Some(known) if known.0 >= mass => {}
                    Some(known) => *known = (mass, passage),
                    None => found.push((mass, passage)),
                }
            }
            if found.len() >= 4 * wanted.n {
                break;
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        let best = found.first().map_or(0.0, |(mass, _)| *mass);
        found.retain(|(mass, _)| *mass >= best * share);
        Ok(found.into_iter().take(wanted.n).map(|(_, passage)| passage).collect())
    }

    /// The borders within a passage's length of `tokens`.
    fn borders_around(
        &self,
        text: &Range<usize>,
        tokens: &Range<usize>,
        most: usize,
    ) -> Result<Borders, EngineError> {
        let first = tokens.start.saturating_sub(most).max(text.start);
        let end = (tokens.end + most).min(text.end);
        let tokenizer = self.engine.tokenizer();
        let ids = self.sources.tokens(first..end)?;
        let pieces = ids.iter().map(|(id, _)| String::from_utf8_lossy(tokenizer.piece(*id)));
        Ok(Borders::new(first, &pieces.collect::<Vec<_>>(), (first == text.start, end == text.end)))
    }
}

impl Borders {
    /// Of the tokens from `first` on; the text may begin before them and end after them.
    fn new<S: AsRef<str>>(first: usize, pieces: &[S], (begins, ends): (bool, bool)) -> Self {
        let newlines = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
        let mut strengths = Vec::with_capacity(pieces.len() + 1);
        let (mut n_lines, mut before) = (0, "");
        for piece in pieces.iter().map(AsRef::as_ref) {
            let content = piece.trim();
            let at = piece.len() - piece.trim_start().len();
            let n = n_lines + newlines(&piece[..at]);
            strengths.push(match n {
                _ if content.is_empty() => 0,
                0 if border_between(before, piece) == SENTENCE => AFTER_SENTENCE,
                0 => 0,
                1 => LINE,
                _ => PARAGRAPH,
            });
            n_lines = match content.is_empty() {
                true => n,
                false => newlines(&piece[at + content.len()..]),
            };
            before = piece;
        }
        strengths.push(if ends { PARAGRAPH } else { 0 });
        if let (true, Some(strength)) = (begins, strengths.first_mut()) {
            *strength = PARAGRAPH;
        }
        let is_blank = pieces.iter().map(|piece| piece.as_ref().trim().is_empty()).collect();
        Self { first, strengths, is_blank }
    }

    /// The passages that share tokens with `tokens`, and how many: no shorter than `least`, where
    /// paragraphs beside them make it so, and no longer than `most`.
    fn passages(
        &self,
        tokens: &Range<usize>,
        (least, most): (usize, usize),
    ) -> Vec<(usize, Range<usize>)> {
        let all = 0..self.strengths.len() - 1;
        let (mut at, end) = (tokens.start - self.first, tokens.end - self.first);
        let mut passages = Vec::new();
        while at < end {
            let paragraph = self.segment(PARAGRAPH, at, &all);
            let overlap = at..paragraph.end.min(end);
            let focus = overlap.start + overlap.len() / 2;
            let passage = match paragraph.len() <= most {
                true => self.grown(PARAGRAPH, (paragraph.clone(), &all), (least, most)),
                false => self.within(&paragraph, focus, most),
            };
            let blank = |at: &usize| self.is_blank[*at];
            let start = passage.start + passage.clone().take_while(blank).count();
            let n_blank = (start..passage.end).rev().take_while(blank).count();
            let passage = start..passage.end - n_blank;
            if !passage.is_empty() {
                passages
                    .push((overlap.len(), passage.start + self.first..passage.end + self.first));
            }
            at = paragraph.end;
        }
        passages
    }

    /// At most `most` tokens of `paragraph` around `focus`, from border to border.
    fn within(&self, paragraph: &Range<usize>, focus: usize, most: usize) -> Range<usize> {
        let segments = [LINE, AFTER_SENTENCE, 0].map(|level| {
            let segment = self.segment(level, focus, paragraph);
            (level, segment)
        });
        let fitting = segments.into_iter().find(|(_, segment)| segment.len() <= most);
        let (level, segment) = fitting.unwrap_or((0, focus..focus + 1));
        self.grown(level, (segment, paragraph), (most, most))
    }

    /// The tokens around `at` between borders of strength `level`, or those of `within`.
    fn segment(&self, level: u8, at: usize, within: &Range<usize>) -> Range<usize> {
        let is_border = |token: &usize| self.strengths[*token] >= level;
        let start = (within.start + 1..=at).rev().find(is_border).unwrap_or(within.start);
        let end = (at + 1..within.end).find(is_border).unwrap_or(within.end);
        start..end
    }

    /// `segment` with those beside it, the shorter of both first, until it has `least` tokens; it never
    /// has more than `most`.
    fn grown(
        &self,
        level: u8,
        (mut segment, within): (Range<usize>, &Range<usize>),
        (least, most): (usize, usize),
    ) -> Range<usize> {
        let focus = segment.clone();
        while segment.len() < least {
            let before = (segment.start > within.start)
                .then(|| self.segment(level, segment.start - 1, within).start..segment.end);
            let after = (segment.end < within.end)
                .then(|| segment.start..self.segment(level, segment.end, within).end);
            let fits = |grown: &Range<usize>| grown.len() <= most;
            // Both sides alike, so that what is sought stays in the middle.
            let reach =
                |grown: &Range<usize>| (focus.start - grown.start).max(grown.end - focus.end);
            let grown = [before, after].into_iter().flatten().filter(fits).min_by_key(reach);
            let Some(grown) = grown else { break };
            segment = grown;
        }
        segment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lines of the second paragraph, two sentences of its second line.
    const PIECES: [&str; 17] = [
        "a", " b", " c.", "\n\n", "d", " e", " f", " g", "\n", "h", " i.", " j", " k", " l",
        "\n\n", "m", " n",
    ];

    fn passages(tokens: Range<usize>, limits: (usize, usize)) -> Vec<(usize, Range<usize>)> {
        let of = |range: Range<usize>| range.start - 100..range.end - 100;
        let borders = Borders::new(100, &PIECES, (true, true));
        let found = borders.passages(&(tokens.start + 100..tokens.end + 100), limits);
        found.into_iter().map(|(overlap, range)| (overlap, of(range))).collect()
    }

    #[test]
    fn a_passage_is_a_paragraph() {
        assert_eq!(passages(5..6, (1, 16)), [(1, 4..14)]);
        assert_eq!(passages(2..6, (1, 16)), [(2, 0..3), (2, 4..14)], "two that a unit cuts");
        assert_eq!(passages(15..16, (1, 16)), [(1, 15..17)]);
    }

    #[test]
    fn short_paragraphs_come_with_those_beside_them() {
        assert_eq!(passages(15..16, (4, 16)), [(1, 4..17)]);
        assert_eq!(passages(15..16, (4, 9)), [(1, 15..17)], "as far as they fit");
    }

    #[test]
    fn of_a_long_paragraph_there_are_lines_then_sentences_then_tokens() {
        assert_eq!(passages(5..6, (1, 6)), [(1, 4..8)]);
        assert_eq!(passages(12..13, (1, 4)), [(1, 11..14)]);
        assert_eq!(passages(12..13, (1, 2)), [(1, 11..13)]);
        assert_eq!(passages(6..7, (1, 3)), [(1, 5..8)]);
    }
}
