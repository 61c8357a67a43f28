//! What can be wrong with a tokenizer? Each fault names the file, the key in it, what was found
//! and what would have been understood. Texts from the file are printed escaped and shortened:
//! they are a stranger's.

use std::path::PathBuf;

use crate::tensor::gguf::GgufError;

/// Why a tokenizer could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The GGUF file that holds it cannot be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A file of the model's folder cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// As the system says.
        source: std::io::Error,
    },
    /// The folder holds no tokenizer that we know.
    #[error(
        "{}: no tokenizer.json in this folder; a Hugging Face model needs it beside config.json \
         (a tokenizer.model alone is not supported; use the model's GGUF file instead)",
        path.display()
    )]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
    },
    /// The file was read, but what it says cannot be.
    #[error("{}: {fault}", path.display())]
    Vocabulary {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: VocabularyFault,
    },
}

/// What is wrong with a vocabulary, or with the rules that split text into words.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyFault {
    /// A key that is needed is not there.
    #[error("{key} is missing; the file holds no complete tokenizer")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// The file is not JSON, or not of the shape expected.
    #[error("not a tokenizer of Hugging Face's format: {message}")]
    Json {
        /// As the parser says, with line and column.
        message: String,
    },
    /// A vocabulary of nothing.
    #[error("{key} is empty")]
    Empty {
        /// The key.
        key: &'static str,
    },
    /// A kind of thing that we do not know.
    #[error("{key} is {found:?}, which is not supported; supported are {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What the file says.
        found: String,
        /// What we know.
        supported: String,
    },
    /// A list as long as the vocabulary is longer or shorter.
    #[error("{key} has {found} entries for {n_tokens} tokens")]
    LengthMismatch {
        /// The key.
        key: &'static str,
        /// Its entries.
        found: usize,
        /// Tokens of the vocabulary.
        n_tokens: usize,
    },
    /// Two tokens with one text.
    #[error("{key}: tokens {first} and {second} are both {text:?}")]
    DuplicateToken {
        /// The key.
        key: &'static str,
        /// The text.
        text: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// Two tokens with one id.
    #[error("{key}: {first:?} and {second:?} both have the id {id}")]
    DuplicateId {
        /// The key.
        key: &'static str,
        /// The id.
        id: u32,
        /// One text.
        first: String,
        /// The other.
        second: String,
    },
    /// An id outside the vocabulary.
    #[error("{key} is {id}, but ids are below {limit}")]
    IdOutOfRange {
        /// The key.
        key: &'static str,
        /// The id.
        id: u64,
        /// One past the highest id that can be.
        limit: usize,
    },
    /// A merge that is not a pair.
    #[error("{key}: entry {idx}, {merge:?}, is not a pair of tokens with a space between")]
    MalformedMerge {
        /// The key.
        key: &'static str,
        /// Its place in the list, from 0.
        idx: usize,
        /// The entry.
        merge: String,
    },
    /// A merge of, or into, something that is not a token.
    #[error("{key}: entry {idx}, {merge:?}, needs {missing:?}, which is no token")]
    UnknownInMerge {
        /// The key.
        key: &'static str,
        /// Its place in the list, from 0.
        idx: usize,
        /// The entry.
        merge: String,
        /// The text that is not in the vocabulary.
        missing: String,
    },
    /// Text that no token stands for would vanish.
    #[error(
        "{key} has no token for {missing:?} and no unknown token: text with it could not be encoded"
    )]
    NoFallback {
        /// The key.
        key: &'static str,
        /// The byte, as the vocabulary would write it.
        missing: String,
    },
}

/// Why a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The model came without a template.
    #[error(
        "{}: the model has no chat template; give it plain text instead, or use a model tuned for \
         conversation",
        path.display()
    )]
    NoTemplate {
        /// The model's file or folder.
        path: PathBuf,
    },
    /// The template does not parse, or refuses the conversation.
    #[error("{}: the chat template failed: {message}", path.display())]
    Template {
        /// The model's file or folder.
        path: PathBuf,
        /// As the template engine, or the template itself, says.
        message: String,
    },
}

/// The first characters of a text from a file, for a message.
pub(super) fn shorten(text: &str) -> String {
    const MOST_CHARS: usize = 60;
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
