//! How is a question asked of a document? As one user message, the document first: the document is
//! read, the question is looked up in it, and what the answer attended to is reported.

use super::error::EngineError;
use super::session::{Progress, ProgressFn, Session};
use crate::ids::ByteSpan;
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
        let content = format!("{document}\n\n{question}");
        let tokenizer = self.engine.tokenizer();
        let (encoded, content_at) = if tokenizer.chat_template().is_some() {
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
        let document_end = content_at + document.len() as isize;
        let n_document = encoded.spans.partition_point(|span| (span.end as isize) <= document_end);
        let sources: Vec<ByteSpan> = encoded.spans[..n_document]
            .iter()
            .map(|span| {
                let within = |at: usize| {
                    let at = at as isize - content_at;
                    self.read_bytes + at.clamp(0, document.len() as isize) as usize
                };
                ByteSpan { start: within(span.start), end: within(span.end) }
            })
            .collect();
        let (document_ids, question_ids) = encoded.ids.split_at(n_document);
        let window_tokens = self.memory.config().window_tokens;
        if question_ids.len() > window_tokens {
            let question_tokens = question_ids.len();
            return Err(EngineError::QuestionTooLong { question_tokens, window_tokens });
        }
        self.read_bytes += document.len();
        let total_tokens = encoded.ids.len();
        let mut first = 0;
        for (ids, sources, phase) in [
            (document_ids, Some(&sources[..]), Phase::Reading),
            (question_ids, None, Phase::Asking),
        ] {
            let count = |done_tokens| Progress { done_tokens: first + done_tokens, total_tokens };
            let mut of_all = |step: Progress| progress(count(step.done_tokens));
            self.feed(ids, sources, phase, &mut of_all).map_err(|error| match error {
                EngineError::Stopped { done_tokens, .. } => {
                    let Progress { done_tokens, total_tokens } = count(done_tokens);
                    EngineError::Stopped { done_tokens, total_tokens }
                }
                error => error,
            })?;
            first += ids.len();
        }
        Ok(Asked { prompt_tokens: total_tokens, question_tokens: question_ids.len() })
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
