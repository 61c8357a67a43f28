//! Where does a text come from, and is it one? From a file or standard input. What is empty, binary
//! or in another encoding is refused with what to do about it.

use std::convert::Infallible;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::failure::Failure;

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Standard input, written `-`.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// What becomes of bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotText {
    /// The text is refused.
    Refuse,
    /// They become U+FFFD.
    Replace,
}

impl Source {
    /// As a flag gives it.
    pub fn parse(word: &str) -> Result<Self, Infallible> {
        Ok(if word == "-" { Self::Stdin } else { Self::File(word.into()) })
    }

    /// The whole text.
    pub fn read(&self, not_text: NotText) -> Result<String, Failure> {
        let bytes = match self {
            Self::Stdin => read_stdin()?,
            Self::File(path) => read_file(path)?,
        };
        text_of(bytes, not_text).map_err(|fault| Failure::failed(format!("{self}: {fault}")))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("standard input"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl From<bool> for NotText {
    /// From the flag `--lossy`.
    fn from(lossy: bool) -> Self {
        if lossy { Self::Replace } else { Self::Refuse }
    }
}

fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format!("standard input: cannot be read: {error}")))?;
    Ok(bytes)
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let fault = |what: String| Failure::failed(format!("{}: {what}", path.display()));
    if path.is_dir() {
        return Err(fault("is a folder; name a text file in it".to_owned()));
    }
    std::fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => fault("there is no such file; check the path".to_owned()),
        ErrorKind::PermissionDenied => fault("may not be read by this user".to_owned()),
        _ => fault(format!("cannot be read: {error}")),
    })
}

/// Beginnings of files that people take for documents, and what to do with them.
const KNOWN_BINARY: [(&[u8], &str); 5] = [
    (b"%PDF", "is a PDF; extract its text first, for example with pdftotext"),
    (b"PK\x03\x04", "is a ZIP archive or an office document; save it as plain text first"),
    (b"\x1f\x8b", "is compressed with gzip; uncompress it first, for example with gunzip"),
    (b"\xff\xfe", "is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8"),
];

fn text_of(bytes: Vec<u8>, not_text: NotText) -> Result<String, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err("is empty; there is nothing to read".to_owned());
    }
    if not_text == NotText::Replace {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    if let Some((_, what)) = KNOWN_BINARY.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Err((*what).to_owned());
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(format!(
            "is binary, not text: there is a zero byte at byte {at}; \
             --lossy reads it all the same"
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
        format!(
            "is not UTF-8: byte {at} (line {line}) is 0x{:02X}; convert it (for example \
             iconv -f LATIN1 -t UTF-8), or go on with --lossy",
            bytes[at]
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_refused_with_what_to_do() {
        let refused: [(&[u8], &str); 6] = [
            (b"", "is empty"),
            (b" \n\t", "is empty"),
            (b"%PDF-1.7\n\0", "pdftotext"),
            (b"abc\0def", "zero byte at byte 3"),
            (b"one\ntw\xe9", "byte 6 (line 2) is 0xE9"),
            (b"\xff\xfea\0", "UTF-16"),
        ];
        for (bytes, expected) in refused {
            let message = text_of(bytes.to_vec(), NotText::Refuse).unwrap_err();
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
    }

    #[test]
    fn lossy_goes_on() {
        let read = |bytes: &[u8]| text_of(bytes.to_vec(), NotText::Replace).unwrap();
        assert_eq!(read(b"caf\xe9 noir"), "caf\u{FFFD} noir");
        assert_eq!(read(b"a\0b"), "a\0b");
        assert!(text_of(Vec::new(), NotText::Replace).is_err());
    }
}
