//! What does the person type next? With line editing and a history at a terminal; plain lines
//! otherwise, so that a conversation can be scripted.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use etcetera::BaseStrategy;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::failure::Failure;

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Typed(String),
    /// The input is at its end (Ctrl-D).
    End,
    /// Ctrl-C instead of a line.
    Interrupted,
}

/// Where lines come from.
#[derive(Debug)]
pub(super) enum LineInput {
    Editor {
        editor: Box<DefaultEditor>,
        /// Where lines are remembered, if the system has a place for that.
        history: Option<PathBuf>,
    },
    Plain,
}

impl LineInput {
    /// An editor where a person sits at both ends.
    pub fn new() -> Self {
        let is_person = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let editor = if is_person { DefaultEditor::new().ok() } else { None };
        let Some(mut editor) = editor else { return Self::Plain };
        let history = history_file();
        if let Some(history) = &history {
            let _ = editor.load_history(history); // there is none the first time
        }
        Self::Editor { editor: Box::new(editor), history }
    }

    /// The next line, without its end.
    pub fn next(&mut self, prompt: &str) -> Result<Line, Failure> {
        match self {
            Self::Plain => plain_line(),
            Self::Editor { editor, history } => match editor.readline(prompt) {
                Ok(line) => {
                    // A conversation goes on whether or not it can be remembered.
                    let _ = editor.add_history_entry(&line);
                    if let Some(history) = history {
                        let _ = editor.append_history(history);
                    }
                    Ok(Line::Typed(line))
                }
                Err(ReadlineError::Eof) => Ok(Line::End),
                Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                Err(error) => Err(Failure::failed(format!("the terminal cannot be read: {error}"))),
            },
        }
    }
}

fn plain_line() -> Result<Line, Failure> {
    let mut bytes = Vec::new();
    let n_bytes = std::io::stdin()
        .lock()
        .read_until(b'\n', &mut bytes)
        .map_err(|error| Failure::failed(format!("standard input: cannot be read: {error}")))?;
    if n_bytes == 0 {
        return Ok(Line::End);
    }
    let line = String::from_utf8(bytes)
        .map_err(|_| Failure::failed("standard input: a line is not UTF-8; convert it first"))?;
    Ok(Line::Typed(line.trim_end_matches(['\n', '\r']).to_owned()))
}

/// A file in the platform's folder for such things, which exists afterwards.
fn history_file() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    let folder = strategy.state_dir().unwrap_or_else(|| strategy.data_dir()).join("mneme");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("chat-history.txt"))
}
