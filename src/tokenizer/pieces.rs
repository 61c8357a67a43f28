//! What text does a token stand for? The bytes of every token, and the alphabets in which
//! vocabularies write bytes. No token is copied when text is decoded.

use crate::ids::TokenId;

/// How a vocabulary writes the bytes of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// GPT-2's: each byte is one printable character.
    ByteLevel,
    /// SentencePiece's: plain text with `▁` for a space and `<0x0A>` for a single byte.
    Metaspace,
}

impl Alphabet {
    /// The bytes that `token` stands for.
    pub fn bytes(self, token: &str) -> Vec<u8> {
        match self {
            Self::ByteLevel => {
                let mut bytes = Vec::with_capacity(token.len());
                for c in token.chars() {
                    match char_to_byte(c) {
                        Some(byte) => bytes.push(byte),
                        None => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
                    }
                }
                bytes
            }
            Self::Metaspace => match single_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace(METASPACE, " ").into_bytes(),
            },
        }
    }

    /// How the vocabulary writes `byte` alone.
    pub fn token_of_byte(self, byte: u8) -> String {
        match self {
            Self::ByteLevel => byte_to_char(byte).to_string(),
            Self::Metaspace => format!("<0x{byte:02X}>"),
        }
    }
}

/// What SentencePiece writes for a space.
pub(super) const METASPACE: char = '▁';

/// Whether a SentencePiece token could join a word to the one before it.
pub(super) fn has_space_after_letter(token: &str) -> bool {
    token.trim_start_matches(METASPACE).contains(METASPACE)
}

/// The byte of a token such as `<0x0A>`.
fn single_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's alphabet: printable bytes are themselves; the other 68 are the characters from 256 on,
/// in order.
fn byte_to_char(byte: u8) -> char {
    let code = if is_printable(byte) {
        u32::from(byte)
    } else {
        256 + (0..byte).filter(|&b| !is_printable(b)).count() as u32
    };
    char::from_u32(code).expect("because codes below 324 are characters")
}

fn char_to_byte(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ 0..256 => u8::try_from(code).ok().filter(|&byte| is_printable(byte)),
        code @ 256..324 => (0..=u8::MAX).filter(|&b| !is_printable(b)).nth(code as usize - 256),
        _ => None,
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// What a token is to the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PieceRole {
    /// Text.
    #[default]
    Text,
    /// Steers it.
    Control,
}

/// The bytes of every token, one after another.
#[derive(Clone, Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// `[token]`, one past its last byte.
    ends: Vec<usize>,
    /// `[token]`
    is_control: Vec<bool>,
}

impl Pieces {
    /// Adds the next token.
    pub fn push(&mut self, bytes: &[u8], role: PieceRole) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        self.is_control.push(role == PieceRole::Control);
    }

    /// Tokens of the vocabulary.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a token, control tokens as they are written; empty for an unknown id.
    pub fn spelled(&self, id: TokenId) -> &[u8] {
        let idx = id.0 as usize;
        let Some(&end) = self.ends.get(idx) else { return &[] };
        let start = if idx == 0 { 0 } else { self.ends[idx - 1] };
        &self.bytes[start..end]
    }

    /// What a token adds to a text: nothing for a control token or an unknown id.
    pub fn decoded(&self, id: TokenId) -> &[u8] {
        if self.is_control(id) { &[] } else { self.spelled(id) }
    }

    /// Whether the token steers the model rather than being text.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.is_control.get(id.0 as usize).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_one_to_one() {
        for byte in 0..=u8::MAX {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!((byte_to_char(b' '), byte_to_char(b'\n'), byte_to_char(b'a')), ('Ġ', 'Ċ', 'a'));
        assert_eq!(
            (char_to_byte(' '), char_to_byte('\u{ad}'), char_to_byte('東')),
            (None, None, None)
        );
    }

    #[test]
    fn tokens_become_the_bytes_that_they_stand_for() {
        let cases: [(Alphabet, &str, &[u8]); 6] = [
            (Alphabet::ByteLevel, "Ġthe", b" the"),
            (Alphabet::ByteLevel, "Ã¼", "ü".as_bytes()),
            (Alphabet::Metaspace, "▁a▁b", b" a b"),
            (Alphabet::Metaspace, "<0x0A>", b"\n"),
            (Alphabet::Metaspace, "<0xFG>", b"<0xFG>"),
            (Alphabet::Metaspace, "<0x123>", b"<0x123>"),
        ];
        for (alphabet, token, expected) in cases {
            assert_eq!(alphabet.bytes(token), expected, "{token}");
        }
        for byte in 0..=u8::MAX {
            for alphabet in [Alphabet::ByteLevel, Alphabet::Metaspace] {
                assert_eq!(alphabet.bytes(&alphabet.token_of_byte(byte)), [byte]);
            }
        }
    }

    #[test]
    fn control_tokens_are_spelled_but_decode_to_nothing() {
        let mut pieces = Pieces::default();
        pieces.push(b"<|end|>", PieceRole::Control);
        pieces.push(b" sea", PieceRole::Text);
        assert_eq!(
            (pieces.spelled(TokenId(0)), pieces.decoded(TokenId(0))),
            (&b"<|end|>"[..], &b""[..])
        );
        assert_eq!(pieces.decoded(TokenId(1)), b" sea");
        assert_eq!(
            (pieces.spelled(TokenId(2)), pieces.decoded(TokenId(u32::MAX))),
            (&b""[..], &b""[..])
        );
        assert_eq!(pieces.len(), 2);
    }
}
