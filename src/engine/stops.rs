//! Where does an answer end because the caller said so? At a stop string. Text that may be the
//! beginning of one waits until it is known.

/// Looks for stop strings in a stream of text.
#[derive(Clone, Debug, Default)]
pub(super) struct StopStrings {
    stops: Vec<String>,
    held: String,
}

/// What may be given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// This much, and the text goes on.
    Text(String),
    /// This much, then a stop string.
    Stopped(String),
}

impl StopStrings {
    /// Empty strings stop nothing.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self { stops, held: String::new() }
    }

    /// Takes more text in.
    pub fn push(&mut self, text: String) -> Passed {
        if self.stops.is_empty() {
            return Passed::Text(text);
        }
        self.held.push_str(&text);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.held.truncate(at);
            return Passed::Stopped(std::mem::take(&mut self.held));
        }
        let begins = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..]));
        let mut borders = self.held.char_indices().map(|(at, _)| at);
        let kept_from = borders.find(|at| begins(*at)).unwrap_or(self.held.len());
        let kept = self.held.split_off(kept_from);
        Passed::Text(std::mem::replace(&mut self.held, kept))
    }

    /// What still waits, when the text is over.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut stop_strings = StopStrings::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut texts = Vec::new();
        for piece in pieces {
            match stop_strings.push((*piece).to_owned()) {
                Passed::Text(text) => texts.push(text),
                Passed::Stopped(text) => {
                    texts.push(text);
                    return (texts, true);
                }
            }
        }
        texts.push(stop_strings.finish());
        (texts, false)
    }

    #[test]
    fn a_stop_string_is_found_across_pieces_and_nothing_of_it_is_given_out() {
        assert_eq!(
            run(&["END"], &["a E", "N", "D b"]),
            (vec!["a ".into(), "".into(), "".into()], true)
        );
        assert_eq!(
            run(&["b", "abc"], &["xab", "c"]),
            (vec!["xa".into()], true),
            "the first in the text"
        );
    }

    #[test]
    fn text_that_only_began_like_one_comes_later() {
        let (texts, stopped) = run(&["\n\n"], &["a\n", "b\n", "\u{e9}"]);
        assert_eq!((texts.concat(), stopped), ("a\nb\n\u{e9}".to_owned(), false));
        assert_eq!(run(&["zz"], &["z"]), (vec!["".into(), "z".into()], false));
    }

    #[test]
    fn without_stops_text_passes_as_it_comes() {
        assert_eq!(run(&["", ""], &["a", "b"]), (vec!["a".into(), "b".into(), "".into()], false));
    }
}
