//! `mneme chat`: a conversation that never ends and never slows down.

use std::time::{Duration, Instant};

use super::args::ChatArgs;
use super::failure::Failure;
use super::interrupt::Interrupt;
use super::line_input::{Line, LineInput};
use super::numbers;
use super::opening::{self, TENANT};
use super::output::{note, print, print_words};
use super::settings::Settings;
use crate::engine::{
    Context, ContextError, Contexts, Conversation, EngineError, FinishReason, GenerateOptions,
    Session,
};

const PROMPT: &str = "> ";

const HELP: &str = "\
/help   this
/stats  what is in memory, and how fast the last answer came
/quit   leave (Ctrl-D too; Ctrl-C stops an answer)";

pub(super) fn run(args: ChatArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut settings = args.run.settings_with(&args.answer)?;
    args.store.change(&mut settings);
    let (mut talk, conversation) = begin(&args, &settings, interrupt)?;
    let n_turns = conversation.n_turns();
    let mut input = LineInput::new();
    if matches!(input, LineInput::Editor { .. }) {
        note(&format!("Talking with {}. /help lists commands.", settings.model_name()));
        if n_turns > 0 {
            note(&format!("{} were said before.", numbers::count_of(n_turns, "turn")));
        }
    }
    let options = settings.answer.options();
    let mut chat = Chat { talk: &mut talk, conversation, options, interrupt, last: None };
    loop {
        match input.next(PROMPT)? {
            Line::End => return Ok(()),
            Line::Interrupted => {
                let n_turns = numbers::count_of(chat.conversation.n_turns(), "turn");
                return Err(Failure::Interrupted(format!("left after {n_turns}")));
            }
            Line::Typed(line) => match line.trim() {
                "" => {}
                "/quit" => return Ok(()),
                "/help" => note(HELP),
                "/stats" => note(&chat.stats()),
                command if is_command(command) => {
                    note(&format!("there is no command {command}; /help lists those there are"));
                }
                said => chat.turn(said)?,
            },
        }
    }
}

/// The session, or the context, that a conversation goes on in.
enum Talk {
    Session(Box<Session>),
    Context(Box<Context>),
}

impl Talk {
    fn session(&mut self) -> &mut Session {
        match self {
            Self::Session(session) => session,
            Self::Context(context) => context.session_mut(),
        }
    }
}

fn begin(
    args: &ChatArgs,
    settings: &Settings,
    interrupt: &Interrupt,
) -> Result<(Talk, Conversation), Failure> {
    let Some(name) = &args.context else {
        let session = opening::open(settings, interrupt)?;
        return Ok((Talk::Session(Box::new(session)), Conversation::new(args.system.clone())));
    };
    let store = opening::open_store(settings)?;
    let engine = opening::open_engine(settings, interrupt)?;
    let contexts = Contexts::new(engine, store, TENANT);
    let mut context = match contexts.notes(name) {
        Err(EngineError::Context(ContextError::NoSuch { .. })) => {
            contexts.create(name, &settings.memory, "a conversation")?
        }
        notes => contexts.open_as(name, &args.run.change_stored(notes?.config()?)?)?,
    };
    let was_read = context.session().n_tokens() > 0;
    let conversation = context.conversation(args.system.clone());
    if was_read && args.system.is_some() && conversation.system() != args.system.as_deref() {
        return Err(Failure::usage(format!(
            "context {name:?} has begun without this --system, which only a new one can have"
        )));
    }
    Ok((Talk::Context(Box::new(context)), conversation))
}

/// A slash and a word: a path, which has more slashes, is something to say.
fn is_command(line: &str) -> bool {
    line.strip_prefix('/').is_some_and(|word| word.chars().all(char::is_alphabetic))
}

struct Chat<'a> {
    talk: &'a mut Talk,
    conversation: Conversation,
    options: GenerateOptions,
    interrupt: &'a Interrupt,
    last: Option<Reply>,
}

/// What the last reply took.
#[derive(Clone, Copy, Debug)]
struct Reply {
    /// Until its first token.
    waited: Duration,
    n_tokens: usize,
    decode: Duration,
}

impl Chat<'_> {
    /// Takes in what was said, and streams the reply.
    fn turn(&mut self, said: &str) -> Result<(), Failure> {
        let watch = self.interrupt.watch();
        let begun = Instant::now();
        match self.conversation.say(self.talk.session(), said) {
            // Nothing of it was taken in: the conversation goes on.
            Err(error @ EngineError::QuestionTooLong { .. }) => {
                note(&format!("mneme: {error}"));
                return Ok(());
            }
            done => done?,
        }
        let waited = begun.elapsed();
        let begun = Instant::now();
        let mut pieces = self.talk.session().generate(self.options.clone());
        while !watch.is_requested() {
            let Some(piece) = pieces.next() else { break };
            print_words(&piece?.text)?;
        }
        let (n_tokens, finish) = (pieces.n_tokens(), pieces.finish_reason());
        print("\n")?;
        match finish {
            Some(FinishReason::Stop) => {}
            Some(FinishReason::Length) => {
                note(&format!("(cut at {n_tokens} tokens; --max-tokens allows more)"));
            }
            None => {
                note(&format!("(stopped after {})", numbers::count_of(n_tokens, "token")));
            }
        }
        self.last = Some(Reply { waited, n_tokens, decode: begun.elapsed() });
        if let Talk::Context(context) = &mut *self.talk {
            context.end_turn(&self.conversation)?;
        }
        Ok(())
    }

    fn stats(&mut self) -> String {
        let memory = self.talk.session().memory();
        let mut lines = vec![format!(
            "{}, {} in memory ({}); no token attended to more than {}",
            numbers::count_of(self.conversation.n_turns(), "turn"),
            numbers::count_of(memory.n_tokens(), "token"),
            numbers::count_of(memory.n_units(), "unit"),
            numbers::count(memory.max_attended_tokens()),
        )];
        if let Some(Reply { waited, n_tokens, decode }) = self.last {
            lines.push(format!(
                "last answer: first token after {}, {} at {} tokens/s",
                numbers::duration(waited),
                numbers::count_of(n_tokens, "token"),
                numbers::rate(n_tokens, decode),
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::is_command;

    #[test]
    fn a_path_is_something_to_say() {
        assert!(is_command("/stat") && is_command("/"));
        assert!(!is_command("/etc/passwd?") && !is_command("a/b") && !is_command("/2 of it"));
    }
}
