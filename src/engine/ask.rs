//! How is a question asked of a document? As one user message, the document first: the document is
//! read, the question is looked up in it, and what the answer attended to is reported.

use std::ops::Range;

use super::error::EngineError;
use super::loaded::Engine;
use super::session::{Progress, ProgressFn, Session, SourceText};
use super::sources::NOWHERE;
use crate::ids::{ByteSpan, TokenId};
use crate::memory::{MemoryConfig, Phase};
use crate::tokenizer::{Encoded, GenerationPrompt, Message, PartOrigin, Role};

/// What was taken in before an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Tokens of document, question and template.
    pub prompt_tokens: usize,
    /// Tokens of the question, with what the template puts after it.
    pub question_tokens: usize,
    /// Tokens that had been read before.
    pub cached_tokens: usize,
}

/// A passage of the text read that an answer attended to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passage {
    /// Bytes of the text read.
    pub span: ByteSpan,
    /// Share of the attention that answer tokens gave to retrieved units, heads weighted by how
    /// much of their attention went to one place.
    pub weight: f32,
}

/// A document as the model takes it in: the beginning of a user message.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentPrompt {
    ids: Vec<TokenId>,
    sources: Vec<ByteSpan>, // [token]: bytes of the document
    text: String,
}

/// A question of a document as the model takes it in: one user message, the document first.
#[derive(Clone, Debug, PartialEq)]
pub struct AskPrompt {
    document: DocumentPrompt,
    question: Vec<TokenId>,
}

impl DocumentPrompt {
    /// Tokens up to the document's end, the template's before it included.
    pub fn ids(&self) -> &[TokenId] {
        &self.ids
    }

    /// The tokens that hold bytes `span` of the document.
    pub fn tokens_of(&self, span: ByteSpan) -> Range<usize> {
        let holds = |source: &ByteSpan| source.end > span.start && source.start < span.end;
        let first = self.sources.iter().position(holds).unwrap_or(0);
        let n = self.sources[first..].iter().take_while(|source| holds(source)).count();
        first..first + n
    }

    /// Bytes of the document that the first `n_tokens` tokens stand for.
    fn bytes_before(&self, n_tokens: usize) -> usize {
        n_tokens.checked_sub(1).map_or(0, |last| self.sources[last].end)
    }

    /// The text that tokens `tokens` stand for.
    fn text_of(&self, tokens: Range<usize>) -> SourceText<'_> {
        let before = self.bytes_before(tokens.start);
        let end = match tokens.end == self.ids.len() {
            true => self.text.len(),
            false => self.bytes_before(tokens.end),
        };
        SourceText {
            spans: &self.sources[tokens],
            bytes: &self.text.as_bytes()[before..end],
            first_byte: before,
        }
    }
}

impl AskPrompt {
    /// The document.
    pub fn document(&self) -> &DocumentPrompt {
        &self.document
    }

    /// Tokens up to the document's end, the template's before it included.
    pub fn document_ids(&self) -> &[TokenId] {
        &self.document.ids
    }

    /// Tokens of the question, of what the template puts after it, and of the answer's start.
    pub fn question_ids(&self) -> &[TokenId] {
        &self.question
    }

    /// As [`DocumentPrompt::tokens_of`].
    pub fn tokens_of(&self, span: ByteSpan) -> Range<usize> {
        self.document.tokens_of(span)
    }
}

impl Engine {
    /// `document` and `question` as one user message of the model's chat template (as plain text
    /// where the model has none), and the beginning of the answer, which may be empty.
    ///
    /// # Errors
    /// When the template refuses.
    pub fn ask_prompt(
        &self,
        document: &str,
        question: &str,
        answer_start: &[TokenId],
    ) -> Result<AskPrompt, EngineError> {
        let mut ids = self.question_ids(question)?;
        ids.extend(answer_start);
        Ok(AskPrompt { document: self.document_prompt(document)?, question: ids })
    }

    /// `document` as the beginning of a user message.
    ///
    /// # Errors
    /// When the template refuses.
    pub fn document_prompt(&self, document: &str) -> Result<DocumentPrompt, EngineError> {
        let (mut encoded, content_at) = self.message(document)?;
        let end = content_at + document.len() as isize;
        encoded.ids.truncate(encoded.spans.partition_point(|span| span.end as isize <= end));
        let within =
            |at: usize| (at as isize - content_at).clamp(0, document.len() as isize) as usize;
        let sources = encoded.spans[..encoded.ids.len()]
            .iter()
            .map(|span| ByteSpan { start: within(span.start), end: within(span.end) })
            .collect();
        Ok(DocumentPrompt { ids: encoded.ids, sources, text: document.to_owned() })
    }

    /// A text to read after another.
    pub fn continuation(&self, text: &str) -> DocumentPrompt {
        let Encoded { ids, spans } = self.tokenizer().encode_document(text);
        DocumentPrompt { ids, sources: spans, text: text.to_owned() }
    }

    /// Bytes that a token read takes in a store, about.
    pub fn bytes_per_token(&self, memory: &MemoryConfig) -> usize {
        let unit = self.page_layout(memory).page_bytes() / memory.unit_tokens;
        unit + unit / 8 // representatives, tokens and text
    }

    /// `question` as the end of a user message whose beginning, a document, was read: the tokens are
    /// the same whatever the document.
    ///
    /// # Errors
    /// When the template refuses.
    pub fn question_ids(&self, question: &str) -> Result<Vec<TokenId>, EngineError> {
        // Something that no template trims stands for the document.
        let (encoded, content_at) = self.message(&format!("x\n\n{question}"))?;
        let n = encoded.spans.partition_point(|span| span.end as isize <= content_at + 1);
        Ok(encoded.ids[n..].to_vec())
    }

    /// `content` as a user message in the model's chat template, or as it is, and where in what is
    /// encoded its first byte is.
    fn message(&self, content: &str) -> Result<(Encoded, isize), EngineError> {
        let tokenizer = self.tokenizer();
        if tokenizer.chat_template().is_none() {
            return Ok((tokenizer.encode_document(content), 0));
        }
        let messages = [Message::new(Role::User, content)];
        let prompt = tokenizer.render_chat(&messages, GenerationPrompt::Add)?;
        let content_at = prompt.parts.iter().find_map(|part| match part.origin {
            PartOrigin::Message { content_start, .. } => {
                Some(part.span.start as isize - content_start as isize)
            }
            PartOrigin::Template => None,
        });
        Ok((tokenizer.encode_prompt(&prompt), content_at.unwrap_or(0)))
    }
}

impl Session {
    /// Reads `document`, then takes in `question`, both as one user message of the model's chat
    /// template (as plain text where the model has none). The answer is then
    /// [`generate`](Self::generate)d.
    ///
    /// # Errors
    /// When the template refuses, the question does not fit the window, the memory refuses or
    /// `progress` says to stop.
    pub fn ask(
        &mut self,
        document: &str,
        question: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<Asked, EngineError> {
        let prompt = self.engine.ask_prompt(document, question, &[])?;
        self.ask_rest(&prompt, 0, progress)
    }

    /// The same, of whose document the first `n_read` tokens, and nothing else, were read before.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub fn ask_rest(
        &mut self,
        prompt: &AskPrompt,
        n_read: usize,
        progress: &mut ProgressFn<'_>,
    ) -> Result<Asked, EngineError> {
        self.check_question(prompt.question_ids())?;
        let n_document = prompt.document_ids().len();
        let total_tokens = n_document + prompt.question_ids().len();
        let stopped = |error, before| match error {
            EngineError::Stopped { done_tokens, .. } => {
                EngineError::Stopped { done_tokens: before + done_tokens, total_tokens }
            }
            error => error,
        };
        let mut count = |step: Progress, before| {
            progress(Progress { done_tokens: before + step.done_tokens, total_tokens })
        };
        self.read_document(&prompt.document, n_read..n_document, &mut |step| count(step, n_read))
            .map_err(|error| stopped(error, n_read))?;
        self.take_question(prompt, &mut |step| count(step, n_document))
            .map_err(|error| stopped(error, n_document))?;
        let question_tokens = prompt.question_ids().len();
        Ok(Asked { prompt_tokens: total_tokens, question_tokens, cached_tokens: n_read })
    }

    /// Takes in `question` about the document that the session has read.
    ///
    /// # Errors
    /// When the template refuses, the question does not fit the window, the memory refuses or
    /// `progress` says to stop.
    pub fn ask_about(
        &mut self,
        question: &str,
        progress: &mut ProgressFn<'_>,
    ) -> Result<Asked, EngineError> {
        let ids = self.engine.question_ids(question)?;
        self.check_question(&ids)?;
        let (cached_tokens, question_tokens) = (self.n_tokens(), ids.len());
        let prompt_tokens = cached_tokens + question_tokens;
        let about = self.document_start()?;
        self.ask_tokens(&ids, about, &mut |step| {
            let done_tokens = cached_tokens + step.done_tokens;
            progress(Progress { done_tokens, total_tokens: prompt_tokens })
        })?;
        Ok(Asked { prompt_tokens, question_tokens, cached_tokens })
    }

    /// Reads tokens `tokens` of a document; those before them must have been read last.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_document(
        &mut self,
        document: &DocumentPrompt,
        tokens: Range<usize>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        let text = document.text_of(tokens.clone());
        self.feed(&document.ids[tokens], Some(text), Phase::Reading, progress)
    }

    /// Notes that tokens `tokens` of a document were run through the model.
    pub(super) fn note_document(
        &mut self,
        document: &DocumentPrompt,
        tokens: Range<usize>,
    ) -> Result<(), EngineError> {
        let text = document.text_of(tokens.clone());
        self.note_source(&text, (0, &document.ids[tokens]), (0, true)).map(|_| ())
    }

    /// Notes that tokens that stand for no text were run through the model.
    pub(super) fn note_tokens(&mut self, ids: &[TokenId]) -> Result<(), EngineError> {
        Ok(self.sources.add(ids.iter().map(|id| (*id, NOWHERE)))?)
    }

    /// Takes in the prompt's question, with the answer's start. The document must have been read.
    ///
    /// # Errors
    /// When the question does not fit the window, the memory refuses or `progress` says to stop.
    pub fn take_question(
        &mut self,
        prompt: &AskPrompt,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        self.check_question(prompt.question_ids())?;
        let about = self.document_start()?;
        self.ask_tokens(prompt.question_ids(), about, progress)
    }

    /// The passages that answers attended to since the last call, the weightiest first: at most
    /// `n`. Weights are shares of the attention given to all retrieved units.
    ///
    /// # Errors
    /// When it cannot be read back what they stand for.
    pub fn take_evidence(&mut self, n: usize) -> Result<Vec<Passage>, EngineError> {
        let mut passages = Vec::new();
        for (tokens, weight) in self.take_attended() {
            if let Some(span) = self.sources.span_of(tokens)? {
                passages.push(Passage { span, weight });
            }
            if passages.len() == n {
                break;
            }
        }
        Ok(passages)
    }

    /// The same as tokens of all that was taken in.
    pub fn take_attended(&mut self) -> Vec<(Range<usize>, f32)> {
        let units = self.memory.take_evidence().into_iter();
        let units = units.map(|unit| (self.memory.unit_tokens(unit.unit as usize), unit.mass));
        let mut attended: Vec<_> = units.collect();
        let total: f32 = attended.iter().map(|(_, mass)| mass).sum();
        attended.iter_mut().for_each(|(_, mass)| *mass /= total);
        // What was answered from it saw nothing else of the text.
        let excerpt = self.memory.take_excerpt_evidence();
        excerpt.into_iter().map(|tokens| (tokens, 1.0)).chain(attended).collect()
    }

    /// Bytes `span` of the text read, grown to whole characters, which tokens may cut.
    ///
    /// # Errors
    /// When it cannot be read back.
    pub fn text(&self, span: ByteSpan) -> Result<(ByteSpan, String), EngineError> {
        const LONGEST: usize = 4; // bytes of a character
        let first = span.start.saturating_sub(LONGEST);
        let around = ByteSpan { start: first, end: span.end.saturating_add(LONGEST) };
        let bytes = self.sources.text(around)?;
        let is_border = |at: usize| bytes.get(at).is_none_or(|byte| byte & 0xC0 != 0x80);
        let at = |byte: usize| (byte - first).min(bytes.len());
        let start = (0..=at(span.start)).rev().find(|at| is_border(*at)).unwrap_or(0);
        let end = at(span.end.max(span.start));
        let end = (end..bytes.len()).find(|at| is_border(*at)).unwrap_or(bytes.len());
        let text = String::from_utf8_lossy(&bytes[start..end]).into_owned();
        Ok((ByteSpan { start: first + start, end: first + end }, text))
    }
}
