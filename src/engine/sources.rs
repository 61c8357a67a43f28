//! What was read? The tokens, the bytes of the text that each stands for, and the text itself.

use std::ops::Range;

use super::log::ByteLog;
use crate::bytes::{ByteReader, ByteWriter, Malformed};
use crate::ids::{ByteSpan, TokenId};
use crate::memory::{InMemoryStore, StoreError, StreamShape, UnitStore};

/// Bytes of a token's entry: number, start, end.
const ENTRY_BYTES: usize = 4 + 8 + 8;

/// Bytes of the records of tokens: 4,096 of them.
const TOKEN_RECORD_BYTES: usize = 4096 * ENTRY_BYTES;

/// Bytes of the records of text.
const TEXT_RECORD_BYTES: usize = 64 << 10;

/// The place of a token that stands for no bytes of the text read.
pub(super) const NOWHERE: ByteSpan = ByteSpan { start: 0, end: 0 };

/// What a session was given, token by token.
pub(super) struct Sources {
    tokens: ByteLog, // [token]: number u32, start u64, end u64
    text: ByteLog,
    entries: Vec<u8>, // empty between calls: an allocation to use again
}

impl Sources {
    /// What its stores keep: tokens, text.
    pub const SHAPES: [StreamShape; 2] = [
        StreamShape { record_bytes: TOKEN_RECORD_BYTES, section_bytes: TOKEN_RECORD_BYTES },
        StreamShape { record_bytes: TEXT_RECORD_BYTES, section_bytes: TEXT_RECORD_BYTES },
    ];

    /// Nothing yet, kept in host memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let [tokens, text] = Self::SHAPES.map(|shape| InMemoryStore::new(shape.record_bytes));
        Ok(Self::new(Box::new(tokens?), Box::new(text?)))
    }

    /// Nothing yet, kept in empty stores.
    pub fn new(tokens: Box<dyn UnitStore>, text: Box<dyn UnitStore>) -> Self {
        Self { tokens: ByteLog::new(tokens), text: ByteLog::new(text), entries: Vec::new() }
    }

    /// Tokens so far.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len() / ENTRY_BYTES
    }

    /// Bytes of text so far.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Full records of tokens and of text.
    pub fn n_records(&self) -> [usize; 2] {
        [self.tokens.n_records(), self.text.n_records()]
    }

    /// Adds tokens with the bytes that they stand for.
    pub fn add(
        &mut self,
        tokens: impl IntoIterator<Item = (TokenId, ByteSpan)>,
    ) -> Result<(), StoreError> {
        self.entries.clear();
        for (id, span) in tokens {
            self.entries.extend(id.0.to_le_bytes());
            self.entries.extend((span.start as u64).to_le_bytes());
            self.entries.extend((span.end as u64).to_le_bytes());
        }
        self.tokens.append(&self.entries)
    }

    /// Adds text.
    pub fn add_text(&mut self, text: &[u8]) -> Result<(), StoreError> {
        self.text.append(text)
    }

    /// Tokens `range`, each with the bytes that it stands for.
    pub fn tokens(&self, range: Range<usize>) -> Result<Vec<(TokenId, ByteSpan)>, StoreError> {
        let mut bytes = Vec::with_capacity(range.len() * ENTRY_BYTES);
        self.tokens.read(range.start * ENTRY_BYTES..range.end * ENTRY_BYTES, &mut bytes)?;
        let number = |bytes: &[u8]| {
            u64::from_le_bytes(bytes.try_into().expect("because it is eight bytes")) as usize
        };
        let entry = |entry: &[u8; ENTRY_BYTES]| {
            let (id, span) = entry.split_at(4);
            let id = u32::from_le_bytes(id.try_into().expect("because it is four bytes"));
            (TokenId(id), ByteSpan { start: number(&span[..8]), end: number(&span[8..]) })
        };
        Ok(bytes.as_chunks().0.iter().map(entry).collect())
    }

    /// The bytes of the text that tokens `range` stand for, from the first to the last.
    pub fn span_of(&self, range: Range<usize>) -> Result<Option<ByteSpan>, StoreError> {
        let tokens = self.tokens(range)?;
        let spans = tokens.iter().map(|(_, span)| *span).filter(|span| span.start < span.end);
        let whole = |a: ByteSpan, b: ByteSpan| ByteSpan {
            start: a.start.min(b.start),
            end: a.end.max(b.end),
        };
        Ok(spans.reduce(whole))
    }

    /// The bytes of `span`, of which those that there are.
    pub fn text(&self, span: ByteSpan) -> Result<Vec<u8>, StoreError> {
        let end = span.end.min(self.text.len());
        let mut text = Vec::new();
        self.text.read(span.start.min(end)..end, &mut text)?;
        Ok(text)
    }

    /// Tokens that records of tokens before `record` hold whole.
    pub fn tokens_before_record(record: usize) -> usize {
        record * TOKEN_RECORD_BYTES / ENTRY_BYTES
    }

    /// How many of the first `n_tokens` tokens come before any that stands for bytes of record
    /// `record` of the text, or later ones.
    pub fn tokens_before_text(&self, record: usize, n_tokens: usize) -> Result<usize, StoreError> {
        let first_byte = record * TEXT_RECORD_BYTES;
        for start in (0..n_tokens).step_by(4096) {
            let tokens = self.tokens(start..(start + 4096).min(n_tokens))?;
            if let Some(at) = tokens.iter().position(|(_, span)| span.end > first_byte) {
                return Ok(start + at);
            }
        }
        Ok(n_tokens)
    }

    /// Forgets all tokens but the first `n_tokens`, and the text after them.
    pub fn truncate(&mut self, n_tokens: usize) -> Result<(), StoreError> {
        let kept = n_tokens.min(self.n_tokens());
        // Few tokens in a row stand for nothing: a question, an answer.
        let mut text_bytes = 0;
        let mut end = kept;
        while end > 0 && text_bytes == 0 {
            let start = end.saturating_sub(1024);
            text_bytes = self.span_of(start..end)?.map_or(0, |span| span.end);
            end = start;
        }
        self.tokens.truncate(kept * ENTRY_BYTES)?;
        self.text.truncate(text_bytes)
    }

    /// The same, which goes its own way.
    pub fn fork(&self) -> Result<Self, StoreError> {
        Ok(Self { tokens: self.tokens.fork()?, text: self.text.fork()?, entries: Vec::new() })
    }

    /// Writes what is not in records.
    pub fn write(&self, out: &mut ByteWriter) {
        self.tokens.write(out);
        self.text.write(out);
    }

    /// Takes up what was written, beside the records of `tokens` and `text`.
    pub fn resume(
        (tokens, text): (Box<dyn UnitStore>, Box<dyn UnitStore>),
        from: &mut ByteReader<'_>,
    ) -> Result<Self, Malformed> {
        let (tokens, text) = (ByteLog::resume(tokens, from)?, ByteLog::resume(text, from)?);
        if tokens.len() % ENTRY_BYTES != 0 {
            return Err(from.malformed("tokens"));
        }
        Ok(Self { tokens, text, entries: Vec::new() })
    }
}
