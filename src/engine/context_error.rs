//! What can be wrong with a context, or with what was asked of it?

use crate::bytes::Malformed;

/// A context is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// None of this name.
    #[error(
        "there is no context {name:?} in this store; `mneme contexts list` shows those there are"
    )]
    NoSuch {
        /// The name.
        name: String,
    },
    /// Another model read the text, or this one computed otherwise.
    #[error(
        "context {name:?} was read by {model}, and what another model, another version of it or other \
         --activations remember does not fit: use that model, or read the text again under another name"
    )]
    OtherModel {
        /// The context.
        name: String,
        /// The model as whoever read the text named it.
        model: String,
    },
    /// A text that does not begin with what the context has read.
    #[error(
        "context {name:?} holds another text: they differ at token {at} of {n_tokens}; read this one \
         under another name, or delete that one first"
    )]
    OtherText {
        /// The context.
        name: String,
        /// The first token that differs, or the text's length where that is shorter.
        at: usize,
        /// Tokens of the context.
        n_tokens: usize,
    },
    /// A conversation where a document was expected.
    #[error(
        "context {name:?} is a conversation: go on with `mneme chat --context {name}`, or take it back \
         to its document with `mneme contexts rewind {name} --turn 0`"
    )]
    Conversation {
        /// The context.
        name: String,
    },
    /// A turn that never was.
    #[error("context {name:?} has {n_turns} turns, so there is no turn {turn} to go back to")]
    NoTurn {
        /// The context.
        name: String,
        /// The turn asked for.
        turn: usize,
        /// Turns that there are.
        n_turns: usize,
    },
    /// Settings that this program does not understand.
    #[error(
        "the context's settings cannot be read: {what}; a newer mneme wrote them, or they are damaged"
    )]
    Settings {
        /// What does not fit.
        what: String,
    },
    /// What a context says of itself is not what was written.
    #[error("what the context says of itself cannot be read: {0}")]
    Malformed(#[from] Malformed),
}
