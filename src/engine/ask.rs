//! How is a question asked of a document? As one user message, the document first: the document is
//! read, the question is looked up in it, and what the answer attended to is reported.

use std::ops::Range;

use super::error::EngineError;
use super::loaded::Engine;
use super::session::{Progress, ProgressFn, Session};
use crate::ids::{ByteSpan, TokenId};
use crate::memory::Phase;
use crate::tokenizer::{GenerationPrompt, Message, PartOrigin, Role};

/// What was taken in before an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Tokens of document, question and template.
    pub prompt_tokens: usize,
    /// Tokens of the question, with what the template puts after it.
    pub question_tokens: usize,
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

/// A question of a document as the model takes it in: one user message, the document first.
#[derive(Clone, Debug, PartialEq)]
pub struct AskPrompt {
    ids: Vec<TokenId>,
    /// `[token of the document]`: bytes of the document.
    sources: Vec<ByteSpan>,
    document_bytes: usize,
}

impl AskPrompt {
    /// Tokens up to the document's end, the template's before it included.
    pub fn document_ids(&self) -> &[TokenId] {
        &self.ids[..self.sources.len()]
    }

    /// Tokens of the question, of what the template puts after it, and of the answer's start.
    pub fn question_ids(&self) -> &[TokenId] {
        &self.ids[self.sources.len()..]
    }

    /// The tokens that hold bytes `span` of the document.
    pub fn tokens_of(&self, span: ByteSpan) -> Range<usize> {
        let holds = |source: &ByteSpan| source.end > span.start && source.start < span.end;
        let first = self.sources.iter().position(holds).unwrap_or(0);
        let n = self.sources[first..].iter().take_while(|source| holds(source)).count();
        first..first + n
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
        let content = format!("{document}\n\n{question}");
        let tokenizer = self.tokenizer();
        let (mut encoded, content_at) = if tokenizer.chat_template().is_some() {
            let messages = [Message::new(Role::User, content)];
            let prompt = tokenizer.render_chat(&messages, GenerationPrompt::Add)?;
            let content_at = prompt.parts.iter().find_map(|part| match part.origin {
                PartOrigin::Message { content_start, .. } => {
                    Some(part.span.start as isize - content_start as isize)
                }
                PartOrigin::Template => None,
            });
            (tokenizer.encode_prompt(&prompt), content_at.unwrap_or(0))
        } else {
            (tokenizer.encode_document(&content), 0)
        };
        let document_bytes = document.len();
        let document_end = content_at + document_bytes as isize;
        let n_document = encoded.spans.partition_point(|span| (span.end as isize) <= document_end);
        let within = |at: usize| {
            let at = at as isize - content_at;
            at.clamp(0, document_bytes as isize) as usize
        };
        let sources = encoded.spans[..n_document]
            .iter()
            .map(|span| ByteSpan { start: within(span.start), end: within(span.end) })
            .collect();
        encoded.ids.extend(answer_start);
        Ok(AskPrompt { ids: encoded.ids, sources, document_bytes })
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
        self.check_question(prompt.question_ids())?;
        let (n_document, total_tokens) = (prompt.sources.len(), prompt.ids.len());
        let stopped = |error, before| match error {
            EngineError::Stopped { done_tokens, .. } => {
                EngineError::Stopped { done_tokens: before + done_tokens, total_tokens }
            }
            error => error,
        };
        let mut count = |step: Progress, before| {
            progress(Progress { done_tokens: before + step.done_tokens, total_tokens })
        };
        self.read_document(&prompt, 0..n_document, &mut |step| count(step, 0))
            .map_err(|error| stopped(error, 0))?;
        self.take_question(&prompt, &mut |step| count(step, n_document))
            .map_err(|error| stopped(error, n_document))?;
        let question_tokens = prompt.question_ids().len();
        Ok(Asked { prompt_tokens: total_tokens, question_tokens })
    }

    /// Reads tokens `tokens` of the prompt's document; those before them must have been read.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_document(
        &mut self,
        prompt: &AskPrompt,
        tokens: Range<usize>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        let shift = |at: usize| self.read_bytes + at;
        let spans = prompt.sources[tokens.clone()].iter();
        let sources: Vec<ByteSpan> =
            spans.map(|span| ByteSpan { start: shift(span.start), end: shift(span.end) }).collect();
        if tokens.end == prompt.sources.len() {
            self.read_bytes += prompt.document_bytes;
        }
        self.feed(&prompt.ids[tokens], Some(&sources), Phase::Reading, progress)
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
        self.ask_tokens(prompt.question_ids(), progress)
    }

    /// The passages that answers attended to since the last call, the weightiest first: at most
    /// `n`. Weights are shares of the attention given to all retrieved units.
    pub fn take_evidence(&mut self, n: usize) -> Vec<Passage> {
        let masses = self.memory.take_evidence();
        let total: f32 = masses.iter().map(|unit| unit.mass).sum();
        let passages = masses.iter().filter_map(|unit| {
            let tokens = self.memory.unit_tokens(unit.unit as usize);
            let spans = self.sources[tokens].iter().filter(|span| span.start < span.end);
            let (start, end) = (spans.clone().map(|s| s.start).min()?, spans.map(|s| s.end).max()?);
            Some(Passage { span: ByteSpan { start, end }, weight: unit.mass / total })
        });
        passages.take(n).collect()
    }
}
