//! How does text become tokens, and tokens text? As the model's own file says: a GGUF file's
//! metadata or a Hugging Face folder. The merging itself is the `tokenizers` library's; here is
//! what surrounds it: reading the sources, cutting long texts, following each token to its place
//! in the text, decoding a stream, and writing a conversation as the model was tuned to read it.
//!
//! ```text
//! text ── added tokens ── runs of plain text ── slices ── words ── tokens, each with its span
//!         added.rs                              words.rs  (library)
//! ```
//!
//! Invariant: text that may not steer the model never becomes a control token, whatever it says.
//! The model itself is not known here.

mod added;
mod byte_level;
mod chat;
mod error;
mod from_folder;
mod from_gguf;
mod parts;
mod pieces;
mod splitter;
mod stream;
mod vocabulary;
mod words;

use std::path::Path;

pub use byte_level::{BYTE_TOKENS, write_byte_level};
pub use chat::{GenerationPrompt, Message, PartOrigin, Prompt, PromptPart, Role};
pub use error::{ChatError, TokenizerError, VocabularyFault};
pub use stream::StreamDecoder;
pub use words::Encoded;

use crate::ids::{ByteSpan, TokenId};
use crate::tensor::gguf::GgufFile;
use added::Run;
use chat::{ChatTemplate, NamedTokens};
use parts::Parts;

/// What the names of control tokens in a text mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialTokens {
    /// They are those tokens: for text that may steer the model.
    Parse,
    /// They are letters like any others: for documents and whatever else people wrote.
    AsText,
}

/// A model's tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    parts: Parts,
}

/// Opening one, and what it is.
impl Tokenizer {
    /// Opens the tokenizer of a model: a GGUF file, or a folder as Hugging Face lays it out.
    ///
    /// # Errors
    /// When there is none, it is of a kind that we do not know, or what it says cannot be.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        if path.is_dir() {
            return Ok(Self { parts: from_folder::read(path)? });
        }
        Self::from_gguf(&GgufFile::open(path)?)
    }

    /// The tokenizer of a GGUF file that is open already.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn from_gguf(file: &GgufFile) -> Result<Self, TokenizerError> {
        Ok(Self { parts: from_gguf::read(file)? })
    }

    /// One past the highest id.
    pub fn vocab_size(&self) -> usize {
        self.parts.pieces.len()
    }

    /// The token that begins a text, if the model has one. Chat templates write it themselves.
    pub fn bos(&self) -> Option<TokenId> {
        self.parts.marks.bos
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<TokenId> {
        self.parts.marks.eos
    }

    /// The token to put before plain text: `bos` where the model was trained so.
    pub fn text_start(&self) -> Option<TokenId> {
        self.parts.marks.bos.filter(|_| self.parts.marks.adds_bos)
    }

    /// The token to put after plain text that is complete: `eos` where the model was trained so.
    pub fn text_end(&self) -> Option<TokenId> {
        self.parts.marks.eos.filter(|_| self.parts.marks.adds_eos)
    }

    /// All tokens that end a generation: of the text, of a turn, of a message. Sorted.
    pub fn end_ids(&self) -> &[TokenId] {
        &self.parts.marks.ends
    }

    /// Whether `id` ends a generation.
    pub fn is_end(&self, id: TokenId) -> bool {
        self.parts.marks.ends.binary_search(&id).is_ok()
    }

    /// The chat template's source, if the model came with one.
    pub fn chat_template(&self) -> Option<&str> {
        self.parts.template.as_deref()
    }
}

/// Text to tokens.
impl Tokenizer {
    /// The tokens of `text`, without any before or after it.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Vec<TokenId> {
        self.encode_with_spans(text, special).ids
    }

    /// The tokens of `text`, and which bytes of it each stands for.
    pub fn encode_with_spans(&self, text: &str, special: SpecialTokens) -> Encoded {
        self.encode_where(text, |_| special == SpecialTokens::Parse)
    }

    /// The tokens of a document, however long: nothing in it steers the model. The very tokens
    /// that [`encode_with_spans`](Self::encode_with_spans) gives.
    pub fn encode_document(&self, text: &str) -> Encoded {
        self.encode_with_spans(text, SpecialTokens::AsText)
    }

    /// The tokens of a rendered conversation: control tokens count where the template wrote them.
    /// Encoding the parts one by one would split words where parts meet; this does not.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Encoded {
        self.encode_where(&prompt.text, |span| prompt.is_template(span))
    }

    fn encode_where(&self, text: &str, may_steer: impl Fn(ByteSpan) -> bool) -> Encoded {
        let mut encoded = Encoded::default();
        for run in self.parts.added.split(text, may_steer) {
            match run {
                Run::Token(id, span) => encoded.push(id, span),
                Run::Text(span) => self.parts.words.encode(text, span, &mut encoded),
            }
        }
        encoded
    }
}

/// Tokens to text.
impl Tokenizer {
    /// The text of `ids`. Control tokens are left out; bytes that make no character become U+FFFD.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        let mut decoder = self.stream_decoder();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.piece(id)).copied().collect();
        decoder.push(&bytes) + &decoder.finish()
    }

    /// A decoder that gives text as tokens come: push it the [`piece`](Self::piece) of each.
    pub fn stream_decoder(&self) -> StreamDecoder {
        StreamDecoder::new(self.parts.leading_space)
    }

    /// What a token adds to a text, perhaps not whole characters; nothing for a control token.
    pub fn piece(&self, id: TokenId) -> &[u8] {
        self.parts.pieces.decoded(id)
    }

    /// A token for people to look at, control tokens as they are written.
    pub fn spell(&self, id: TokenId) -> String {
        String::from_utf8_lossy(self.parts.pieces.spelled(id)).into_owned()
    }

    /// Whether a token steers the model rather than being text.
    pub fn is_control(&self, id: TokenId) -> bool {
        self.parts.pieces.is_control(id)
    }
}

/// Conversations.
impl Tokenizer {
    /// Writes a conversation as the model was tuned to read it.
    ///
    /// # Errors
    /// When the model has no chat template, or the template refuses the conversation.
    pub fn render_chat(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
    ) -> Result<Prompt, ChatError> {
        let path = || self.parts.path.clone();
        let source = self.chat_template().ok_or_else(|| ChatError::NoTemplate { path: path() })?;
        let failed = |error: minijinja::Error| {
            let message = error.detail().map_or_else(|| error.to_string(), str::to_owned);
            ChatError::Template { path: path(), message }
        };
        let spelled = |id: Option<TokenId>| id.map(|id| self.spell(id));
        let tokens = NamedTokens { bos: spelled(self.bos()), eos: spelled(self.eos()) };
        let template = ChatTemplate::new(source, tokens).map_err(failed)?;
        let rendered = template.render(messages, generation_prompt).map_err(failed)?;
        let marked = template.render(&chat::with_marks(messages), generation_prompt);
        let marked = marked.as_deref().unwrap_or_default();
        match chat::find_parts(&rendered, marked, messages) {
            Some(prompt) => Ok(prompt),
            // A template that does more with messages than to write them is followed where they
            // name no control token: they can do no harm. Otherwise they are written as they are.
            None if !messages.iter().any(|message| self.names_control(&message.content)) => {
                Ok(chat::all_template(&rendered))
            }
            None if marked.is_empty() => {
                let message = "it changes its messages, and they name control tokens".to_owned();
                Err(ChatError::Template { path: path(), message })
            }
            None => Ok(chat::fill_marks(marked, messages)),
        }
    }

    /// Whether a text names a control token.
    fn names_control(&self, text: &str) -> bool {
        let is_control = |run: &Run| matches!(run, Run::Token(id, _) if self.is_control(*id));
        self.parts.added.split(text, |_| true).iter().any(is_control)
    }
}
