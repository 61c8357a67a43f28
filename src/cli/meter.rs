//! How far is it, and how long will it take? A bar for a person at a terminal; a line now and then
//! where stderr goes to a file.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::numbers;
use super::output::note;

/// How often a log gets a line.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Tokens,
    Bytes,
}

/// A task's progress, shown while it lives.
#[derive(Debug)]
pub(super) struct Meter {
    task: &'static str,
    unit: Unit,
    started: Instant,
    last_line: Instant,
    /// Done before it began: the speed is that of what is done now.
    before: usize,
    /// Where there is a terminal.
    bar: Option<ProgressBar>,
}

impl Meter {
    /// Begins, with nothing done yet.
    pub fn new(task: &'static str, unit: Unit) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {msg}");
            let style = style.expect("because the template is right").progress_chars("=> ");
            ProgressBar::new(0).with_style(style).with_prefix(task)
        });
        let started = Instant::now();
        Self { task, unit, started, last_line: started, before: 0, bar }
    }

    /// The same, `before` having been done earlier.
    pub fn after(mut self, before: usize) -> Self {
        self.before = before;
        self
    }

    /// Shows that `done` of `total` are done.
    pub fn show(&mut self, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(self.words(done, total));
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            note(&format!("{}: {}", self.task, self.words(done, total)));
        }
    }

    fn words(&self, done: usize, total: usize) -> String {
        words(self.unit, (self.before, done, total), self.started.elapsed())
    }
}

impl Drop for Meter {
    /// The bar goes; what comes next takes its place.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far, how fast, how long still. The speed is that since the beginning: a token's cost does
/// not grow, so this is what the rest will take.
fn words(unit: Unit, (before, done, total): (usize, usize, usize), elapsed: Duration) -> String {
    let speed = numbers::per_second(done.saturating_sub(before), elapsed);
    let left = match total.saturating_sub(done) {
        0 => String::new(),
        _ if speed == 0.0 => String::new(),
        left => {
            let left = Duration::try_from_secs_f64(left as f64 / speed).unwrap_or(Duration::MAX);
            format!(", {} left", numbers::duration(left))
        }
    };
    match unit {
        Unit::Tokens => {
            let (done, total) = (numbers::count(done), numbers::count(total));
            format!("{done} of {total} tokens, {speed:.0} tokens/s{left}")
        }
        Unit::Bytes => {
            let (done, total) = (numbers::bytes(done as u64), numbers::bytes(total as u64));
            format!("{done} of {total}{left}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_with_speed_and_time_left() {
        let shown = words(Unit::Tokens, (0, 1024, 11_302), Duration::from_secs(4));
        assert_eq!(shown, "1,024 of 11,302 tokens, 256 tokens/s, 40 s left");
        let shown = words(Unit::Tokens, (1000, 1024, 1120), Duration::from_secs(4));
        assert_eq!(shown, "1,024 of 1,120 tokens, 6 tokens/s, 16 s left");
        let shown = words(Unit::Bytes, (0, 92_871_040, 92_871_040), Duration::from_secs(4));
        assert_eq!(shown, "92.9 MB of 92.9 MB");
        assert_eq!(words(Unit::Bytes, (0, 0, 10), Duration::ZERO), "0 bytes of 10 bytes");
    }
}
