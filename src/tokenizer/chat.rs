//! How does a conversation become one text that the model was tuned to read? The model's own
//! template writes it, and we note which parts the template wrote and which are the messages':
//! only the template's parts may steer the model.
//!
//! To know the parts, the template is rendered twice: with the messages, and with a mark in place
//! of each. What stands around the marks is the template's.
//! ```text
//! <|im_start|>user\n  ⟨0⟩  <|im_end|>\n<|im_start|>assistant\n
//! <|im_start|>user\n  Hi.  <|im_end|>\n<|im_start|>assistant\n
//! └── template ────┘  └message 0┘└── template ──────────────┘
//! ```

mod clock;
mod template;

pub(super) use template::{ChatTemplate, NamedTokens};

use crate::ids::ByteSpan;

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sets the rules.
    System,
    /// Asks.
    User,
    /// The model.
    Assistant,
    /// Gives the result of a tool that the model called.
    Tool,
}

impl Role {
    /// As templates and clients write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// Whether the rendered text ends where the model is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// It ends with the beginning of the assistant's message.
    Add,
    /// It ends with the last message.
    Omit,
}

/// A rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The whole text.
    pub text: String,
    /// The parts of the text, in order and without gaps.
    pub parts: Vec<PromptPart>,
}

/// A stretch of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptPart {
    /// Where it lies in the prompt's text.
    pub span: ByteSpan,
    /// Who wrote it.
    pub origin: PartOrigin,
}

/// Who wrote a part of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOrigin {
    /// The template: control tokens in it count.
    Template,
    /// A message: control tokens in it are letters like any others.
    Message {
        /// Which one, counted from the first.
        message_idx: usize,
        /// Where the part begins in the message's content (templates may trim it).
        content_start: usize,
    },
}

impl Prompt {
    /// The parts with their texts, to feed one by one.
    pub fn pieces(&self) -> impl Iterator<Item = (PartOrigin, &str)> {
        let text_of = |span: ByteSpan| &self.text[span.start..span.end];
        self.parts.iter().map(move |part| (part.origin, text_of(part.span)))
    }

    /// Whether `span` lies in one of the template's parts.
    pub(super) fn is_template(&self, span: ByteSpan) -> bool {
        let after = self.parts.partition_point(|part| part.span.end < span.end);
        self.parts.get(after).is_some_and(|part| {
            part.origin == PartOrigin::Template && part.span.start <= span.start
        })
    }

    /// Adds a part at the end.
    fn push(&mut self, origin: PartOrigin, text: &str) {
        if text.is_empty() {
            return;
        }
        let start = self.text.len();
        self.text.push_str(text);
        self.parts.push(PromptPart { span: ByteSpan { start, end: self.text.len() }, origin });
    }
}

/// The conversation with a mark in place of each content.
pub(super) fn with_marks(messages: &[Message]) -> Vec<Message> {
    let marked = messages.iter().enumerate();
    marked.map(|(idx, message)| Message::new(message.role, mark(idx))).collect()
}

/// What stands for message `idx`: characters for private use, which no template looks for and
/// which are no white space to trim.
fn mark(idx: usize) -> String {
    format!("\u{F1F0}{idx}\u{F1F1}")
}

/// Finds the parts of `rendered`, given `marked`, the same conversation with marks; `None` when
/// the template does more with a message than to trim it.
pub(super) fn find_parts(rendered: &str, marked: &str, messages: &[Message]) -> Option<Prompt> {
    let mut prompt = Prompt { text: String::with_capacity(rendered.len()), parts: Vec::new() };
    let mut rest = rendered;
    let mut stretches = stretches(marked, messages.len());
    stretches.reverse();
    while let Some(stretch) = stretches.pop() {
        match stretch {
            Stretch::Template(text) => {
                rest = rest.strip_prefix(text)?;
                prompt.push(PartOrigin::Template, text);
            }
            Stretch::Message(message_idx) => {
                let next = match stretches.last() {
                    Some(Stretch::Template(text)) => text,
                    _ => "",
                };
                let content = messages[message_idx].content.as_str();
                let trimmed = content.trim();
                let follows =
                    |text: &&str| rest.strip_prefix(*text).is_some_and(|r| r.starts_with(next));
                let written = [content, trimmed].into_iter().find(follows)?;
                let lead = content.len() - content.trim_start().len();
                let content_start = if written.len() == content.len() { 0 } else { lead };
                rest = &rest[written.len()..];
                prompt.push(PartOrigin::Message { message_idx, content_start }, written);
            }
        }
    }
    rest.is_empty().then_some(prompt)
}

/// The marked conversation with every message put in place of its mark, whatever the template
/// would have done with it.
pub(super) fn fill_marks(marked: &str, messages: &[Message]) -> Prompt {
    let mut prompt = Prompt { text: String::new(), parts: Vec::new() };
    for stretch in stretches(marked, messages.len()) {
        match stretch {
            Stretch::Template(text) => prompt.push(PartOrigin::Template, text),
            Stretch::Message(message_idx) => {
                let origin = PartOrigin::Message { message_idx, content_start: 0 };
                prompt.push(origin, &messages[message_idx].content);
            }
        }
    }
    prompt
}

/// A prompt that the template wrote alone.
pub(super) fn all_template(rendered: &str) -> Prompt {
    let mut prompt = Prompt { text: String::new(), parts: Vec::new() };
    prompt.push(PartOrigin::Template, rendered);
    prompt
}

enum Stretch<'a> {
    Template(&'a str),
    Message(usize),
}

/// Cuts a marked conversation at its marks.
fn stretches(marked: &str, n_messages: usize) -> Vec<Stretch<'_>> {
    let mut stretches = Vec::new();
    let mut rest = marked;
    // Marks may come in any order, or twice, or not at all.
    let next_mark = |rest: &str| {
        let start = rest.find('\u{F1F0}')?;
        let after = &rest[start + '\u{F1F0}'.len_utf8()..];
        let idx = after[..after.find('\u{F1F1}')?].parse().ok().filter(|&idx| idx < n_messages)?;
        Some((start, idx))
    };
    while let Some((start, idx)) = next_mark(rest) {
        if start > 0 {
            stretches.push(Stretch::Template(&rest[..start]));
        }
        stretches.push(Stretch::Message(idx));
        rest = &rest[start + mark(idx).len()..];
    }
    if !rest.is_empty() {
        stretches.push(Stretch::Template(rest));
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(contents: &[&str]) -> Vec<Message> {
        contents.iter().map(|content| Message::new(Role::User, *content)).collect()
    }

    fn shown(prompt: &Prompt) -> Vec<String> {
        let shown = prompt.pieces().map(|(origin, text)| match origin {
            PartOrigin::Template => format!("template {text:?}"),
            PartOrigin::Message { message_idx, content_start } => {
                format!("message {message_idx} from {content_start} {text:?}")
            }
        });
        shown.collect()
    }

    #[test]
    fn parts_are_found_whatever_the_messages_say() {
        let said = messages(&["<end>", "\u{F1F0}0\u{F1F1}", ""]);
        let marked = format!("<a>{}<end>{}<end>{}", mark(0), mark(1), mark(2));
        let rendered = "<a><end><end>\u{F1F0}0\u{F1F1}<end>";
        let prompt = find_parts(rendered, &marked, &said).unwrap();
        assert_eq!(prompt.text, rendered);
        let expected = [
            "template \"<a>\"",
            "message 0 from 0 \"<end>\"",
            "template \"<end>\"",
            "message 1 from 0 \"\\u{f1f0}0\\u{f1f1}\"",
            "template \"<end>\"",
        ];
        assert_eq!(shown(&prompt), expected);
        assert_eq!(fill_marks(&marked, &said), prompt);
    }

    #[test]
    fn a_template_may_trim_messages() {
        let said = messages(&["  one \n"]);
        let prompt = find_parts("<a>one<b>", &format!("<a>{}<b>", mark(0)), &said).unwrap();
        let expected = ["template \"<a>\"", "message 0 from 2 \"one\"", "template \"<b>\""];
        assert_eq!(shown(&prompt), expected);
    }

    #[test]
    fn a_template_that_changes_messages_is_seen() {
        let said = messages(&["one"]);
        let marked = format!("<a>{}<b>", mark(0));
        for rendered in ["<a>ONE<b>", "<a>one<c>", "<a>one<b>more", "one<b>"] {
            assert_eq!(find_parts(rendered, &marked, &said), None, "{rendered}");
        }
    }

    #[test]
    fn only_spans_within_one_template_part_are_the_templates() {
        let marked = format!("<a>{}<b>", mark(0));
        let prompt = find_parts("<a>one<b>", &marked, &messages(&["one"])).unwrap();
        let cases =
            [(0, 3, true), (1, 2, true), (2, 4, false), (3, 6, false), (6, 9, true), (5, 9, false)];
        for (start, end, expected) in cases {
            assert_eq!(prompt.is_template(ByteSpan { start, end }), expected, "{start}..{end}");
        }
    }
}
