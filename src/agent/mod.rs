//! How does an agent converse without end? It opens a conversation by name, says something, and hears
//! what comes; the conversation outlives the process and never slows down. In this process
//! ([`LocalAgent`]) or on a server ([`RemoteAgent`]), by the same traits.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use mneme::agent::{Agent, Heard, LocalAgent, RemoteAgent, Say};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let engine = mneme::Engine::load("model.gguf".as_ref(), &Default::default())?;
//! # let store = mneme::memory::store::Store::open("store".as_ref(), Default::default())?;
//! # let contexts = mneme::engine::Contexts::new(engine, store, "local");
//! let agent: Box<dyn Agent> = match std::env::var("MNEME_URL") {
//!     Ok(url) => Box::new(RemoteAgent::new(&url, None)),
//!     Err(_) => Box::new(LocalAgent::new(contexts, Default::default())),
//! };
//! let mut talk = agent.open("captain", Some("You are a ship's log."))?;
//! let said = talk.say(&Say::new("The pass key is 71946. Remember it."), &mut |heard| {
//!     if let Heard::Text(text) = heard {
//!         print!("{text}");
//!     }
//!     ControlFlow::Continue(()) // Break interrupts: the turn is then as if it had never been
//! })?;
//! println!("\n{} tokens", said.completion_tokens);
//! let mut other = talk.fork("captain-2")?; // goes its own way from here
//! other.say(&Say::new("What is the pass key?"), &mut |_| ControlFlow::Continue(()))?;
//! # Ok(())
//! # }
//! ```

mod local;
mod remote;

use std::ops::ControlFlow;

pub use local::LocalAgent;
pub use remote::RemoteAgent;

use crate::engine::EngineError;

pub use crate::engine::AnswerForm;

/// Whoever has conversations.
pub trait Agent {
    /// The conversation of this name, as it was when its last turn ended, or a new one, in which the
    /// model was told `system` before all else.
    ///
    /// # Errors
    /// When it is no conversation, or cannot be reached.
    fn open(&self, name: &str, system: Option<&str>) -> Result<Box<dyn Talk>, AgentError>;
}

/// A conversation. Closed when dropped; every turn that ended is kept.
pub trait Talk {
    /// Says something, and hears the reply as it comes. A turn that `listen` interrupts, or that fails,
    /// is as if it had never been.
    ///
    /// # Errors
    /// [`AgentError::Interrupted`] when `listen` says to stop, and whatever else goes wrong.
    fn say(&mut self, say: &Say, listen: &mut Listen<'_>) -> Result<Said, AgentError>;

    /// Another conversation, in which the same was said so far. Nothing is copied.
    ///
    /// # Errors
    /// When there is one of this name.
    fn fork(&mut self, name: &str) -> Result<Box<dyn Talk>, AgentError>;

    /// Turns so far.
    fn n_turns(&self) -> usize;
}

/// Hears what comes; `Break` interrupts.
pub type Listen<'a> = dyn FnMut(Heard<'_>) -> ControlFlow<()> + 'a;

/// What comes of what was said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Heard<'a> {
    /// A piece of the reply.
    Text(&'a str),
    /// Something that was said long ago mattered to the reply: bytes `start..end` of the document that
    /// the conversation is about.
    Evidence {
        /// First byte.
        start: usize,
        /// One past the last.
        end: usize,
        /// Share of the attention given to what is far.
        weight: f32,
    },
}

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Say {
    /// The words.
    pub text: String,
    /// Tokens of the reply at most.
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Same seed, same reply.
    pub seed: u64,
    /// The form that the reply must have.
    pub form: AnswerForm,
}

impl Say {
    /// Something to say, with a reply of up to 256 tokens, the likeliest each time.
    pub fn new(text: impl Into<String>) -> Self {
        let form = AnswerForm::Text;
        Self { text: text.into(), max_tokens: 256, temperature: 0.0, seed: 0, form }
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// All of it.
    pub text: String,
    /// Why it ended, as OpenAI's API says it: `stop` or `length`.
    pub finish_reason: String,
    /// Its tokens.
    pub completion_tokens: usize,
}

/// A conversation could not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The listener said to stop.
    #[error("the reply was interrupted; the conversation is as it was before the turn")]
    Interrupted,
    /// In this process.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The server refused.
    #[error("the server refused: {message} ({status}, {code})")]
    Refused {
        /// The status.
        status: u16,
        /// The name of what happened.
        code: String,
        /// What it says.
        message: String,
    },
    /// The server cannot be reached, or says what is not understood.
    #[error("the server at {url} cannot be used: {what}")]
    Server {
        /// Where.
        url: String,
        /// What is wrong.
        what: String,
    },
}
