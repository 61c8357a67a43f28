//! What does a context say of itself? What is kept beside the session's state: its settings, what it
//! is, and where its turns end.

use super::context_error::ContextError;
use super::conversation::Conversation;
use crate::bytes::{ByteReader, ByteWriter};
use crate::memory::MemoryConfig;
use crate::memory::store::ContextSummary;

/// Version of these notes; a later program reads earlier ones.
const VERSION: u32 = 2;

/// What a context says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextNotes {
    /// The settings that it was read with, as they were written.
    pub(super) settings: String,
    /// The model, as whoever read the text named it.
    pub model: String,
    /// Where the text came from.
    pub source: String,
    /// Whether that was read to its end.
    pub is_whole: bool,
    /// Tokens after each turn of the conversation, and after a document before the first of them.
    pub turns: Vec<usize>,
    /// What is said, where it is a conversation.
    pub conversation: Option<Conversation>,
    /// Bytes of the text that was read.
    pub text_bytes: usize,
    /// Whatever whoever had it read wants to be kept with it.
    pub metadata: String,
}

impl ContextNotes {
    /// Of a context that will be read with `config`.
    pub(super) fn new(config: &MemoryConfig, model: &str, source: &str) -> Self {
        Self {
            settings: settings_of(config),
            model: model.to_owned(),
            source: source.to_owned(),
            is_whole: false,
            turns: Vec::new(),
            conversation: None,
            text_bytes: 0,
            metadata: String::new(),
        }
    }

    /// What a stored context says of itself.
    ///
    /// # Errors
    /// When it is not what was written, or a later program wrote it.
    pub fn of(context: &ContextSummary) -> Result<Self, ContextError> {
        Self::read(&context.meta)
    }

    /// The settings that the text was read with.
    ///
    /// # Errors
    /// When they are those of a later program.
    pub fn config(&self) -> Result<MemoryConfig, ContextError> {
        serde_json::from_str(&self.settings)
            .map_err(|error| ContextError::Settings { what: error.to_string() })
    }

    pub(super) fn set_config(&mut self, config: &MemoryConfig) {
        self.settings = settings_of(config);
    }

    /// The same as bytes, for the store.
    pub fn write(&self) -> Vec<u8> {
        let mut out = ByteWriter::new();
        out.u32(VERSION);
        out.bytes(self.settings.as_bytes());
        out.bytes(self.model.as_bytes());
        out.bytes(self.source.as_bytes());
        out.u8(u8::from(self.is_whole));
        out.len(self.turns.len());
        self.turns.iter().for_each(|tokens| out.len(*tokens));
        out.u8(u8::from(self.conversation.is_some()));
        if let Some(conversation) = &self.conversation {
            conversation.write(&mut out);
        }
        out.len(self.text_bytes);
        out.bytes(self.metadata.as_bytes());
        out.finish()
    }

    fn read(bytes: &[u8]) -> Result<Self, ContextError> {
        let mut from = ByteReader::new(bytes);
        let version = from.u32("version of the notes")?;
        if version > VERSION {
            let what = format!("they are of version {version}, and this program knows {VERSION}");
            return Err(ContextError::Settings { what });
        }
        let settings = from.string("settings")?;
        let model = from.string("name of the model")?;
        let source = from.string("source")?;
        let is_whole = from.u8("whether it is whole")? != 0;
        let n_turns = from.len("number of turns")?;
        let mut turns = Vec::new();
        for _ in 0..n_turns {
            turns.push(from.len("turns")?);
        }
        let conversation = match from.u8("whether it is a conversation")? {
            0 => None,
            _ => Some(Conversation::read(&mut from)?),
        };
        let (mut text_bytes, mut metadata) = (0, String::new());
        if version >= 2 {
            text_bytes = from.len("bytes of the text")?;
            metadata = from.string("metadata")?;
        }
        from.finish("end of the notes")?;
        Ok(Self { settings, model, source, is_whole, turns, conversation, text_bytes, metadata })
    }
}

fn settings_of(config: &MemoryConfig) -> String {
    serde_json::to_string(config).expect("because settings are plain data")
}
