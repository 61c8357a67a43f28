//! Which words are there for contexts, and for where they lie?

use std::path::PathBuf;

use clap::Subcommand;

use super::input::Source;
use super::memory_flags::put;
use super::run_flags::RunFlags;
use super::settings::Settings;
use crate::engine::SAVE_EVERY_TOKENS;

/// What `mneme ingest` is told.
#[derive(Debug, clap::Args)]
pub(super) struct IngestArgs {
    /// The name under which it is remembered
    #[arg(long, value_name = "NAME", required = true, value_parser = context_name)]
    pub context: String,
    /// The document: a text file, or - for standard input
    #[arg(value_name = "FILE", value_parser = Source::parse)]
    pub document: Source,
    /// Read FILE after what the context has read already
    #[arg(long)]
    pub append: bool,
    /// Tokens read between two saves, at most; five seconds are the other limit
    #[arg(long, value_name = "N", default_value_t = SAVE_EVERY_TOKENS)]
    pub save_every: usize,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Read a document that is not all UTF-8: what is not becomes U+FFFD
    #[arg(long)]
    pub lossy: bool,
    #[command(flatten)]
    pub store: StoreFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// What `mneme contexts` is told.
#[derive(Debug, clap::Args)]
pub(super) struct ContextsArgs {
    #[command(subcommand)]
    pub command: ContextsCommand,
}

/// What `mneme contexts` does.
#[derive(Debug, Subcommand)]
pub(super) enum ContextsCommand {
    /// List all contexts
    List(OfStore),
    /// Show one context
    Show(OfContext),
    /// Make another context that has read the same; nothing is copied
    Fork {
        /// The context
        #[arg(value_name = "NAME", value_parser = context_name)]
        name: String,
        /// The name of the other
        #[arg(value_name = "NEW_NAME", value_parser = context_name)]
        to: String,
        #[command(flatten)]
        of: OfStore,
    },
    /// Take a context back to an earlier state
    Rewind(RewindArgs),
    /// Keep a context whatever the store's limit
    Pin {
        #[command(flatten)]
        of: OfContext,
        /// Let it be evicted again
        #[arg(long)]
        off: bool,
    },
    /// Have a context removed at some time
    Expire {
        #[command(flatten)]
        of: OfContext,
        /// When, from now on: 90s, 15m, 12h or 30d; never keeps it
        #[arg(long = "in", value_name = "TIME", required = true, value_parser = time_to_live)]
        after: TimeToLive,
    },
    /// Remove a context
    Delete(OfContext),
    /// Write a context to one file, for another machine
    Export {
        /// The context
        #[arg(value_name = "NAME", value_parser = context_name)]
        name: String,
        /// The file to write; there must be none of this name
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        of: OfStore,
    },
    /// Take in a context that was exported
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The name that it gets [default: the one it had]
        #[arg(long, value_name = "NAME", value_parser = context_name)]
        name: Option<String>,
        #[command(flatten)]
        of: OfStore,
    },
    /// Join small files, and give back the room of what was removed
    Compact(OfStore),
    /// Check every byte of the store
    Verify(OfStore),
    /// Take contexts with damaged parts back to before them; remove those that cannot be
    Repair {
        /// Print one JSON object instead of text
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        run: RunFlags,
    },
}

/// Which store, and how it is shown.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OfStore {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Settings in TOML, of which those of the store hold
    #[arg(long, value_name = "FILE", id = "config_of_store")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub store: StoreFlags,
}

/// Which context.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct OfContext {
    /// The context
    #[arg(value_name = "NAME", value_parser = context_name)]
    pub name: String,
    #[command(flatten)]
    pub of: OfStore,
}

/// What `mneme contexts rewind` is told.
#[derive(Debug, clap::Args)]
pub(super) struct RewindArgs {
    /// The context
    #[arg(value_name = "NAME", value_parser = context_name)]
    pub name: String,
    /// To the end of this turn of the conversation; 0 is before the first
    #[arg(long, value_name = "N", required_unless_present = "tokens", conflicts_with = "tokens")]
    pub turn: Option<usize>,
    /// To the state after so many tokens
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub store: StoreFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// Where contexts lie.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Store")]
pub(super) struct StoreFlags {
    /// The folder of the store [default: mneme in the platform's data folder]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Bytes on the disk at most: what was used longest ago goes first; 0 has no limit
    #[arg(long, value_name = "N")]
    store_max_bytes: Option<u64>,
}

impl StoreFlags {
    /// Changes settings that a file gave.
    pub fn change(&self, settings: &mut Settings) {
        put(&mut settings.store, &self.store);
        put(&mut settings.store_max_bytes, &self.store_max_bytes);
    }
}

/// Seconds from now on; `None` for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeToLive(pub Option<u64>);

fn time_to_live(text: &str) -> Result<TimeToLive, String> {
    if text == "never" {
        return Ok(TimeToLive(None));
    }
    let refused = || "must be a number with s, m, h or d, for example 12h; or never".to_owned();
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => return Err(refused()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| refused())?;
    Ok(TimeToLive(Some(number.checked_mul(unit).ok_or_else(refused)?)))
}

/// A name that people can type and files can carry.
pub(super) fn context_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 {
        return Err("must have 1 to 200 bytes".to_owned());
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return Err("must have no control characters, and no blanks at its ends".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(time_to_live("90s"), Ok(TimeToLive(Some(90))));
        assert_eq!(time_to_live("2d"), Ok(TimeToLive(Some(172_800))));
        assert_eq!(time_to_live("never"), Ok(TimeToLive(None)));
        for wrong in ["", "5", "h", "-1h", "1w", "é", "99999999999999999999d", "9999999999999999d"]
        {
            assert!(time_to_live(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_such_that_people_can_type_them() {
        assert!(context_name("War and Peace, vol. 1").is_ok());
        for wrong in ["", " a", "a\n", "a\0b", &"a".repeat(201)] {
            assert!(context_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
