//! Which words does mneme understand? Commands and flags, as `--help` shows them. Flags that also
//! stand in configuration files are optional here, and change the settings that the file gave.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use super::context_args::{ContextsArgs, IngestArgs, StoreFlags, context_name};
use super::input::Source;
use super::run_flags::{AnswerFlags, RunFlags};
use super::serve_flags::ServeFlags;
use super::settings::Settings;
use crate::eval::Task;

/// A memory for language models, far longer than their context window
#[derive(Debug, Parser)]
#[command(name = "mneme", version, max_term_width = 100, disable_help_subcommand = true)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Answer a question about a document of any length
    ///
    /// The document is read, the answer is written to standard output as it comes, and below it the
    /// passages that it was read from. With --context nothing is read that was read before, and the
    /// context stays as it is.
    Ask(AskArgs),
    /// Read a document once, and remember it for ever
    ///
    /// What was read is kept in the store under a name, every few seconds and on Ctrl-C; the same
    /// command goes on from there. Ask about it with mneme ask --context NAME.
    Ingest(IngestArgs),
    /// List, show and change what is remembered
    ///
    /// Contexts are documents that mneme ingest has read, and conversations of mneme chat
    /// --context.
    Contexts(ContextsArgs),
    /// Serve an OpenAI-compatible API, and a page
    ///
    /// Existing clients work by changing a URL; prompts may be longer than the model's window, and
    /// documents stay as contexts. docs/api.md says what is answered. Without keys only this
    /// machine is served.
    Serve(ServeArgs),
    /// Make a key for the service
    ///
    /// The key is printed once, and below it what the file of keys needs to know it by.
    Key {
        /// Whose requests those with the key are
        #[arg(long, value_name = "NAME", default_value = "local")]
        tenant: String,
    },
    /// Converse without end
    ///
    /// Talk with the model for as long as you like: what was said long ago is looked up when it
    /// matters. /help lists what else can be typed; Ctrl-C stops an answer, and leaves at the
    /// prompt.
    Chat(ChatArgs),
    /// Measure how well the model predicts a text
    ///
    /// The text is read, and how likely the model held each of its tokens is told: the lower the
    /// perplexity, the better the prediction. Names of control tokens count as these tokens.
    Score(ScoreArgs),
    /// Measure the speed of reading and answering
    ///
    /// The first tokens of a text are read, then tokens are generated, greedily and without
    /// stopping where an answer would end.
    Bench(BenchArgs),
    /// Measure how well a memory finds what is asked for
    ///
    /// Things are hidden in long texts and asked for. Each case says whether a greedy answer finds
    /// it, how likely the right answer was, and whether any layer retrieved what holds it.
    #[command(after_long_help = EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Measure how much of what matters lookups find
    ///
    /// A text is read, and facts in it are asked for. Each policy looks up the same queries beside
    /// an oracle that compares every key: how many of its units, how much of the attention that the
    /// queries would give, in what time, from how many bytes.
    Recall(RecallArgs),
    /// Show what is in a model's files
    ///
    /// Architecture, sizes, element types, and what a token takes in memory.
    Inspect(InspectArgs),
    /// Say what there is to compute with
    ///
    /// Processor, memory, disks; GPUs, their driver and compiler, and whether a kernel runs on
    /// them: what was found, what will be used, what is missing and how to get it.
    Doctor(DoctorArgs),
    /// Fetch a model
    ///
    /// It is fetched once and checked; where it lies is printed. Known by name:
    /// smollm2-135m, the default.
    Pull(PullArgs),
}

/// See [`Command::Ask`].
#[derive(Debug, clap::Args)]
pub(super) struct AskArgs {
    /// The document: a text file, or - for standard input
    #[arg(long, value_name = "FILE", value_parser = Source::parse, required_unless_present = "context")]
    pub document: Option<Source>,
    /// A context that has read the document; with --document it reads what it has not read yet
    #[arg(long, value_name = "NAME", value_parser = context_name)]
    pub context: Option<String>,
    /// The question
    #[arg(required = true, value_name = "QUESTION")]
    pub question: Vec<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Read a document that is not all UTF-8: what is not becomes U+FFFD
    #[arg(long)]
    pub lossy: bool,
    #[command(flatten)]
    pub answer: AnswerFlags,
    #[command(flatten)]
    pub store: StoreFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// See [`Command::Serve`].
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Check the settings, say what is wrong with them, and end
    #[arg(long)]
    pub check_config: bool,
    #[command(flatten)]
    pub serve: ServeFlags,
    #[command(flatten)]
    pub store: StoreFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// See [`Command::Chat`].
#[derive(Debug, clap::Args)]
pub(super) struct ChatArgs {
    /// What the model is told before all else [default: what its template says]
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// A context that remembers the conversation; of a document that it has read, the talk is about
    /// that
    #[arg(long, value_name = "NAME", value_parser = context_name)]
    pub context: Option<String>,
    #[command(flatten)]
    pub answer: AnswerFlags,
    #[command(flatten)]
    pub store: StoreFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// See [`Command::Score`].
#[derive(Debug, clap::Args)]
pub(super) struct ScoreArgs {
    /// The text: a file, or - for standard input
    #[arg(value_name = "FILE", value_parser = Source::parse)]
    pub text: Source,
    /// Begin reading at this token of the text
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub start_token: usize,
    /// Score tokens from this one on [default: the second read]
    #[arg(long, value_name = "N")]
    pub from_token: Option<usize>,
    /// End before this token [default: the end of the text]
    #[arg(long, value_name = "N")]
    pub to_token: Option<usize>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Read a text that is not all UTF-8: what is not becomes U+FFFD
    #[arg(long)]
    pub lossy: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// See [`Command::Bench`].
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    /// The text to read from: a file, or - for standard input
    #[arg(long, value_name = "FILE", value_parser = Source::parse)]
    pub prompt_file: Source,
    /// Tokens to read
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub decode_tokens: usize,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// One a task, as help shows them.
const EVAL_EXAMPLES: &str = "\
Examples:
  A five-digit key in repeated noise:
    mneme eval --task passkey --lengths 16384,32768
  A ten-digit number in repeated noise:
    mneme eval --task number --lengths 16384
  The value of a key among JSON pairs, made or given:
    mneme eval --task kv --lengths 6000
    mneme eval --task kv --kv-file kv-retrieval-75.jsonl.gz --samples 100
  A fact in prose:
    mneme eval --task needle --haystack war-and-peace.txt --lengths 8192,16384,32768
  Four facts in prose, each asked for:
    mneme eval --task multi-needle --haystack war-and-peace.txt --lengths 16384
  Which variables hold a value, over a chain of assignments:
    mneme eval --task variable-tracking --lengths 8192
  The most common words of a long list:
    mneme eval --task common-words --lengths 8192
  Real questions, their paragraph among others, and alone (length 0):
    mneme eval --task qa --qa-file xquad.en.json --lengths 0,16384 --samples 20
  How well the second half of a text is foreseen:
    mneme eval --task perplexity --haystack war-and-peace.txt --lengths 8192
  Two settings side by side, to be gone on with when interrupted:
    mneme eval --task needle --haystack war-and-peace.txt --compare a.toml,b.toml --out needle.jsonl
  Heat maps and curves of it, in a folder:
    mneme eval --task needle --haystack war-and-peace.txt --lengths 8192,16384 --plot pictures";

/// See [`Command::Eval`].
#[derive(Debug, clap::Args)]
pub(super) struct EvalArgs {
    /// What is asked
    #[arg(long, value_name = "TASK", value_delimiter = ',', required = true)]
    pub task: Vec<Task>,
    /// Tokens of the prompts, about
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "8192")]
    pub lengths: Vec<usize>,
    /// Where in the text the answer lies, from 0 (first) to 1 (last)
    #[arg(
        long, value_name = "D,...", value_delimiter = ',', default_value = "0.1,0.3,0.5,0.7,0.9",
        value_parser = depth
    )]
    pub depths: Vec<f32>,
    /// Texts for each task, length and depth
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub samples: u64,
    /// Number of the first sample: another makes other texts
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Texts to hide things in
    #[arg(long, value_name = "FILE,...", value_delimiter = ',')]
    pub haystack: Vec<PathBuf>,
    /// Read a haystack that is shorter than the length over and over
    #[arg(long)]
    pub repeat: bool,
    /// Cases for kv: JSON lines as of "Lost in the Middle", also with gzip
    #[arg(long, value_name = "FILE")]
    pub kv_file: Option<PathBuf>,
    /// Questions for qa: JSON in SQuAD's form
    #[arg(long, value_name = "FILE")]
    pub qa_file: Option<PathBuf>,
    /// Settings to compare, in TOML; memory flags hold for all of them
    #[arg(long, value_name = "FILE,...", value_delimiter = ',')]
    pub compare: Vec<PathBuf>,
    /// Keep results in this file, as JSON lines; those that are there are not done again
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Draw the results into this folder, as SVG and PNG: heat maps of depth and length, and curves
    #[arg(long, value_name = "DIR")]
    pub plot: Option<PathBuf>,
    /// Print each result as a line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// See [`Command::Recall`].
#[derive(Debug, clap::Args)]
pub(super) struct RecallArgs {
    /// The text to read
    #[arg(long, value_name = "FILE")]
    pub haystack: PathBuf,
    /// Read a haystack that is shorter than the length over and over
    #[arg(long)]
    pub repeat: bool,
    /// Tokens read before questions are asked; the text is read once
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "32768")]
    pub lengths: Vec<usize>,
    /// Chooses the stretch of the text, and the facts that are asked for
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Settings to compare, in TOML; memory flags hold for all of them
    #[arg(long, value_name = "FILE,...", value_delimiter = ',')]
    pub compare: Vec<PathBuf>,
    /// Print each result as a line of JSON instead of a table
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// See [`Command::Inspect`].
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// A GGUF file, a Hugging Face folder, a known name, or hf:OWNER/NAME; fetched when missing
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// See [`Command::Doctor`].
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

/// See [`Command::Pull`].
#[derive(Debug, clap::Args)]
pub(super) struct PullArgs {
    /// A known name, hf:OWNER/NAME, hf:OWNER/NAME/FILE.gguf, or a path
    #[arg(value_name = "NAME")]
    pub model: String,
}

/// Understands the command line.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut matches = command().try_get_matches_from(words)?;
    Ok(Words::from_arg_matches_mut(&mut matches)?.command)
}

/// The command line, its help with the defaults that the settings have.
fn command() -> clap::Command {
    let defaults = serde_json::to_value(Settings::default()).expect("because it is plain data");
    with_defaults(Words::command(), &defaults)
}

/// The same of a command and all below it.
fn with_defaults(command: clap::Command, defaults: &serde_json::Value) -> clap::Command {
    let command = command.mut_args(|arg| {
        let key = arg.get_id().as_str().replace('_', "-");
        let tables = [&defaults["memory"], &defaults["answer"], &defaults["serve"], defaults];
        let Some(default) = tables.iter().find_map(|table| table.get(&key)) else { return arg };
        // A variable of the environment counts as the flag, so it wins over the file.
        let arg = arg.env(variable(&key)).hide_env(true);
        let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
        if default.is_empty() || default == "[]" {
            return arg; // its help says what that means
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.help(format!("{help} [default: {default}]"))
    });
    command.mut_subcommands(|subcommand| with_defaults(subcommand, defaults))
}

/// The variable of the environment that stands for a setting.
fn variable(key: &str) -> String {
    format!("MNEME_{}", key.replace('-', "_").to_uppercase())
}

fn depth(text: &str) -> Result<f32, String> {
    let depth = text.parse().ok().filter(|depth| (0.0..=1.0).contains(depth));
    depth.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn every_setting_has_a_flag_and_its_help_tells_the_default() {
        let defaults = serde_json::to_value(Settings::default()).unwrap();
        let command = command();
        let ask = command.find_subcommand("ask").unwrap();
        let tables = [&defaults, &defaults["memory"], &defaults["answer"]];
        let keys = tables.iter().flat_map(|table| table.as_object().unwrap());
        for (key, default) in keys.filter(|(_, default)| !default.is_object()) {
            let flag = ask.get_arguments().find(|arg| arg.get_long() == Some(key));
            let flag = flag.unwrap_or_else(|| panic!("no flag --{key}"));
            let told = format!("{}]", default.to_string().trim_matches('"'));
            let help = flag.get_help().unwrap().to_string();
            assert!(help.contains("[default: ") && help.ends_with(&told), "{key}: {help}");
        }
    }

    #[test]
    fn every_setting_of_the_service_has_a_flag_and_a_variable() {
        let defaults = serde_json::to_value(Settings::default()).unwrap();
        let command = command();
        let serve = command.find_subcommand("serve").unwrap();
        for key in defaults["serve"].as_object().unwrap().keys() {
            let flag = serve.get_arguments().find(|arg| arg.get_long() == Some(key));
            let flag = flag.unwrap_or_else(|| panic!("no flag --{key}"));
            assert_eq!(flag.get_env().unwrap().to_str(), Some(&*variable(key)));
        }
    }

    #[test]
    fn help_names_every_model_known_by_name() {
        let command = command();
        let about = command.find_subcommand("pull").unwrap().get_long_about().unwrap().to_string();
        assert!(crate::hub::ALIASES.iter().all(|alias| about.contains(alias.name)), "{about}");
    }
}
