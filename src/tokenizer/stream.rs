//! How does a stream of tokens become a stream of text? Tokens end where they like, also inside a
//! character; text is given out in whole characters. Each byte is looked at a bounded number of
//! times, however long the stream.

/// Turns the pieces of tokens into text as they come. All that it gave, with what
/// [`finish`](Self::finish) gives, is the text that decoding everything at once gives.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    /// The beginning of a character: at most three bytes between calls.
    pending: Vec<u8>,
    /// Whether a space at the beginning is the tokenizer's own.
    drops_space: bool,
}

impl StreamDecoder {
    /// A decoder of a text's beginning; `DropLeadingSpace` where encoding puts a space there.
    pub(super) fn new(leading_space: LeadingSpace) -> Self {
        Self { pending: Vec::new(), drops_space: leading_space == LeadingSpace::Drop }
    }

    /// Takes the next token's piece and gives the characters that are complete with it. Bytes that
    /// cannot belong to a character become U+FFFD.
    pub fn push(&mut self, piece: &[u8]) -> String {
        let mut piece = piece;
        if self.drops_space && !piece.is_empty() {
            piece = piece.strip_prefix(b" ").unwrap_or(piece);
            self.drops_space = false;
        }
        self.pending.extend_from_slice(piece);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            if !invalid.is_empty() {
                if done + invalid.len() == self.pending.len() && is_unfinished(invalid) {
                    break;
                }
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.pending.drain(..done);
        text
    }

    /// What is left at the end of the stream: nothing, or U+FFFD for a character cut short.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// What to do with a space at the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeadingSpace {
    /// It belongs to the text.
    Keep,
    /// Encoding put it there.
    Drop,
}

/// Whether more bytes could make a character of these.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pieces: &[&[u8]], leading_space: LeadingSpace) -> (Vec<String>, String) {
        let mut decoder = StreamDecoder::new(leading_space);
        let texts = pieces.iter().map(|piece| decoder.push(piece)).collect();
        (texts, decoder.finish())
    }

    #[test]
    fn a_character_comes_whole_with_its_last_byte() {
        let smile = "🙂".as_bytes();
        let pieces = [b"a".as_slice(), &smile[..1], &smile[1..3], &smile[3..], b"b"];
        let (texts, rest) = stream(&pieces, LeadingSpace::Keep);
        assert_eq!(texts, ["a", "", "", "🙂", "b"]);
        assert_eq!(rest, "");
    }

    #[test]
    fn bytes_that_make_no_character_are_replaced_and_nothing_waits_for_them() {
        let (texts, rest) = stream(&[b"\xFFx", b"\xE6\x9D", b"y", b"\xE6"], LeadingSpace::Keep);
        assert_eq!(texts, ["\u{FFFD}x", "", "\u{FFFD}y", ""]);
        assert_eq!(rest, "\u{FFFD}");
    }

    #[test]
    fn only_the_first_space_is_dropped_and_only_where_it_is_the_tokenizers() {
        let pieces = [b"".as_slice(), b" a", b" b"];
        assert_eq!(stream(&pieces, LeadingSpace::Drop).0, ["", "a", " b"]);
        assert_eq!(stream(&pieces, LeadingSpace::Keep).0, ["", " a", " b"]);
    }

    #[test]
    fn any_cutting_of_any_bytes_gives_what_decoding_at_once_gives() {
        let bytes =
            [b"ab\xF0\x9F\x99\x82\xE6\x9D".as_slice(), b"\xFF\xC3\xBC\xF0\x9F z\xE6\xB1"].concat();
        let whole = String::from_utf8_lossy(&bytes);
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                let (texts, rest) = stream(&pieces, LeadingSpace::Keep);
                assert_eq!(texts.concat() + &rest, whole, "cut at {first} and {second}");
            }
        }
    }
}
