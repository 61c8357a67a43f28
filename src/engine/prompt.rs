//! What of a conversation is read, and what is asked? All but the end of the last message is read as a
//! document is; the end, where people put their question, is taken in as a question is. The two are
//! tokenised apart, so that what was read serves any question.

use super::error::EngineError;
use super::loaded::Engine;
use crate::ids::{ByteSpan, TokenId};
use crate::memory::MemoryConfig;
use crate::tokenizer::{
    Encoded, GenerationPrompt, Message, PartOrigin, Prompt, PromptPart, Role, SpecialTokens,
};

/// A prompt as the model takes it in.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatPrompt {
    /// All tokens.
    pub ids: Vec<TokenId>,
    /// The first token of the question.
    pub question_at: usize,
    /// The first token of what is asked about, where all that was said is one message that ends with a
    /// question in a paragraph of its own. What is in the sinks, where instructions may stand, is not
    /// counted to it.
    pub document_at: Option<usize>,
    /// The whole text.
    pub text: String,
    /// `[token]`: bytes of the text.
    pub spans: Vec<ByteSpan>,
}

/// Tokens of a question at most, whatever the window.
const LONGEST_QUESTION: usize = 256;

/// What a question has, in the scripts that have one of their own.
const QUESTION_MARKS: [char; 4] = ['?', '？', '؟', '՞'];

/// Tokens taken as the question where nothing says where it begins.
const LAST_TOKENS: usize = 64;

impl Engine {
    /// A conversation in the model's chat template, up to where the answer begins.
    ///
    /// # Errors
    /// When the model has no template, or it refuses.
    pub fn chat_prompt(
        &self,
        messages: &[Message],
        memory: &MemoryConfig,
    ) -> Result<ChatPrompt, EngineError> {
        let prompt = self.tokenizer().render_chat(messages, GenerationPrompt::Add)?;
        let last = messages.len().saturating_sub(1);
        let is_last = |part: &&PromptPart| matches!(part.origin, PartOrigin::Message { message_idx, .. } if message_idx == last);
        let content = prompt.parts.iter().find(is_last).map(|part| part.span);
        let start = content.map_or(0, |span| span.start);
        // What stands between the message before and this one belongs to this one.
        let before = prompt.parts.iter().take_while(|part| part.span.end <= start);
        let message_start = before
            .filter(|part| part.origin != PartOrigin::Template)
            .map(|part| part.span.end)
            .last()
            .unwrap_or(0);
        let content = content.map_or("", |span| &prompt.text[span.start..span.end]);
        let paragraph = content.trim_end().rfind("\n\n").map(|at| start + at);
        let split = self.split((&prompt, memory), paragraph.into_iter().chain([message_start]))?;
        let is_alone = messages.iter().filter(|message| message.role != Role::System).count() == 1;
        let document_at = split.spans.partition_point(|span| span.start < start);
        let document_at = document_at.max(memory.sink_tokens);
        let asks = paragraph.is_some_and(|at| prompt.text[at..].contains(QUESTION_MARKS));
        let has_document = is_alone && asks && document_at < split.question_at;
        Ok(ChatPrompt { document_at: has_document.then_some(document_at), ..split })
    }

    /// A text to go on from.
    ///
    /// # Errors
    /// None today.
    pub fn text_prompt(
        &self,
        text: &str,
        memory: &MemoryConfig,
    ) -> Result<ChatPrompt, EngineError> {
        let span = ByteSpan { start: 0, end: text.len() };
        let origin = PartOrigin::Message { message_idx: 0, content_start: 0 };
        let prompt = Prompt { text: text.to_owned(), parts: vec![PromptPart { span, origin }] };
        let paragraph = text.trim_end().rfind("\n\n");
        let mut split = self.split((&prompt, memory), paragraph.into_iter().chain([0]))?;
        if let Some(start) = self.tokenizer().text_start() {
            split.ids.insert(0, start);
            split.spans.insert(0, ByteSpan { start: 0, end: 0 });
            split.question_at += usize::from(split.question_at > 0);
        }
        Ok(split)
    }

    /// Splits a prompt at the first of `borders` (bytes) after which it is short enough for a question,
    /// or before its last tokens.
    fn split(
        &self,
        (prompt, memory): (&Prompt, &MemoryConfig),
        borders: impl Iterator<Item = usize>,
    ) -> Result<ChatPrompt, EngineError> {
        let tokenizer = self.tokenizer();
        for border in borders {
            let question = tokenizer.encode_prompt(&part_of(prompt, border..prompt.text.len()));
            if question.ids.len() <= longest_question(memory) {
                let read = match border {
                    0 => Encoded { ids: Vec::new(), spans: Vec::new() },
                    _ => tokenizer.encode_prompt(&part_of(prompt, 0..border)),
                };
                return Ok(joined(prompt, (read, border), question));
            }
        }
        let Encoded { ids, spans } = tokenizer.encode_prompt(prompt);
        let question_at = ids.len().saturating_sub(LAST_TOKENS.min(longest_question(memory)));
        let text = prompt.text.clone();
        Ok(ChatPrompt { ids, question_at, document_at: None, text, spans })
    }

    /// The tokens of a text, with the text of each.
    pub fn tokenize(&self, text: &str) -> Vec<(TokenId, String)> {
        let tokenizer = self.tokenizer();
        let ids = tokenizer.encode(text, SpecialTokens::AsText);
        ids.into_iter().map(|id| (id, self.token_text(id))).collect()
    }

    /// The text of a token; bytes that are no text are replaced.
    pub fn token_text(&self, id: TokenId) -> String {
        match self.tokenizer().is_control(id) {
            true => self.tokenizer().spell(id),
            false => String::from_utf8_lossy(self.tokenizer().piece(id)).into_owned(),
        }
    }
}

/// Tokens of a question at most: it leaves half of the window to what it is about.
fn longest_question(memory: &MemoryConfig) -> usize {
    LONGEST_QUESTION.min(memory.window_tokens / 2).max(1)
}

/// The tokens of what is said to a context: all but the last of a long text is read.
pub fn said(ids: &[TokenId], memory: &MemoryConfig) -> (Vec<TokenId>, Vec<TokenId>) {
    let longest = longest_question(memory);
    let question_at = match ids.len() <= longest {
        true => 0,
        false => ids.len() - LAST_TOKENS.min(longest),
    };
    (ids[..question_at].to_vec(), ids[question_at..].to_vec())
}

/// The part of a prompt that lies in bytes `range`.
fn part_of(prompt: &Prompt, range: std::ops::Range<usize>) -> Prompt {
    let within = |at: usize| at.clamp(range.start, range.end) - range.start;
    let parts = prompt.parts.iter().filter_map(|part| {
        let span = ByteSpan { start: within(part.span.start), end: within(part.span.end) };
        (span.start < span.end).then_some(PromptPart { span, origin: part.origin })
    });
    Prompt { text: prompt.text[range.clone()].to_owned(), parts: parts.collect() }
}

fn joined(prompt: &Prompt, (mut read, border): (Encoded, usize), question: Encoded) -> ChatPrompt {
    let question_at = read.ids.len();
    read.ids.extend(&question.ids);
    let shifted = |span: &ByteSpan| ByteSpan { start: span.start + border, end: span.end + border };
    read.spans.extend(question.spans.iter().map(shifted));
    let (ids, spans, text) = (read.ids, read.spans, prompt.text.clone());
    ChatPrompt { ids, question_at, document_at: None, text, spans }
}
