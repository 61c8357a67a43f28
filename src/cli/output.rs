//! How do words get out? Answers and objects to stdout, all else to stderr. A reader that has left
//! is no error worth a word, and never a panic.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;

/// Writes to stdout, and sees that it leaves at once.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::failed(format!("cannot write to stdout: {error}")),
    })
}

/// Writes a model's words to stdout: a terminal gets no control characters, which could steer it.
pub(super) fn print_words(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { print(&harmless(text)) } else { print(text) }
}

/// Prints one JSON object.
pub(super) fn print_json(object: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(object)
        .map_err(|error| Failure::failed(format!("cannot write the result as JSON: {error}")))?;
    print(&(text + "\n"))
}

/// Prints one JSON object of several, for callers that deal in I/O errors.
pub(super) fn write_json_line(object: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line).and_then(|()| stdout.flush())
}

/// A line on stderr. Where it cannot be said there is nobody to tell.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Text without control characters other than line ends and tabs.
pub(super) fn harmless(text: &str) -> String {
    let shown = |c: char| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{FFFD}' } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_steers_the_terminal() {
        assert_eq!(harmless("a\x1b[31mb\r\n\tc\u{9b}d"), "a\u{FFFD}[31mb\u{FFFD}\n\tc\u{FFFD}d");
    }
}
