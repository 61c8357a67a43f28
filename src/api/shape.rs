//! What does a reply look like? As OpenAI's clients expect it: whole objects, or chunks of them.

use serde_json::{Value, json};

use super::answering::Told;
use super::clock::now;
use super::state::Service;
use super::wire::completions::{Evidence, Usage, WireLogprob};
use crate::engine::{Engine, TokenLogprob};
use crate::ids::TokenId;

/// What the replies to one request have in common.
pub struct Shape {
    id: String,
    created: u64,
    model: String,
    engine: Engine,
    kind: Kind,
    with_logprobs: bool,
    said_chars: Vec<usize>, // [choice]: characters of tokens told with log-probabilities
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A chat completion.
    Chat,
    /// A completion of texts.
    Text,
}

/// All that was told of some answers.
#[derive(Default)]
pub struct Whole {
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Default)]
struct Choice {
    text: String,
    logprobs: Vec<(TokenId, TokenLogprob)>,
    finish_reason: &'static str,
    evidence: Vec<Evidence>,
}

impl Whole {
    /// Adds what was told.
    pub fn add(&mut self, told: Told) {
        match told {
            Told::Progress(..) => {}
            Told::Piece { choice, text, logprob } => {
                let choice = self.choice(choice);
                choice.text += &text;
                choice.logprobs.extend(logprob);
            }
            Told::Over { choice, finish_reason, evidence } => {
                let choice = self.choice(choice);
                (choice.finish_reason, choice.evidence) = (finish_reason, evidence);
            }
            Told::Done(usage) => self.usage.add(usage),
        }
    }

    fn choice(&mut self, choice: usize) -> &mut Choice {
        if self.choices.len() <= choice {
            self.choices.resize_with(choice + 1, Choice::default);
        }
        &mut self.choices[choice]
    }
}

impl Usage {
    /// Adds that of another prompt.
    pub fn add(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.completion_tokens += other.completion_tokens;
        self.total_tokens += other.total_tokens;
        self.prompt_tokens_details.cached_tokens += other.prompt_tokens_details.cached_tokens;
    }
}

impl Told {
    /// The same with its answers numbered from `first` on.
    #[must_use]
    pub fn numbered_from(mut self, first: usize) -> Self {
        if let Self::Piece { choice, .. } | Self::Over { choice, .. } = &mut self {
            *choice += first;
        }
        self
    }
}

impl Shape {
    /// Of the replies to one request, with its answers and the log-probabilities that are told.
    pub fn new(service: &Service, kind: Kind, (n, logprobs): (usize, Option<usize>)) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Text => "cmpl",
        };
        Self {
            id: format!("{prefix}-{:016x}{:08x}", fastrand::u64(..), fastrand::u32(..)),
            created: now(),
            model: service.model().to_owned(),
            engine: service.engine().clone(),
            kind,
            with_logprobs: logprobs.is_some(),
            said_chars: vec![0; n],
        }
    }

    fn object(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn chunk_of(&self, choice: Value) -> Value {
        let object = match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Text => "text_completion",
        };
        self.object(object, Value::Array(vec![choice]))
    }

    /// All answers at once.
    pub fn whole(mut self, whole: Whole, with_evidence: bool) -> Value {
        let choices = whole.choices.into_iter().enumerate().map(|(index, answer)| {
            let logprobs = self.logprobs(index, &answer.logprobs);
            let mut choice = json!({
                "index": index, "logprobs": logprobs, "finish_reason": answer.finish_reason,
            });
            match self.kind {
                Kind::Chat => {
                    choice["message"] =
                        json!({ "role": "assistant", "content": answer.text, "refusal": null });
                }
                Kind::Text => choice["text"] = json!(answer.text),
            }
            if with_evidence {
                choice["evidence"] = json!(answer.evidence);
            }
            choice
        });
        let choices = Value::Array(choices.collect());
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        };
        let mut reply = self.object(object, choices);
        reply["usage"] = json!(whole.usage);
        reply
    }

    /// What a stream begins with: who says each answer.
    pub fn opening(&self) -> Vec<Value> {
        if self.kind == Kind::Text {
            return Vec::new();
        }
        let role = json!({ "role": "assistant", "content": "" });
        let opening = |index| self.delta(index, &role, &Value::Null);
        (0..self.said_chars.len()).map(opening).collect()
    }

    fn delta(&self, index: usize, delta: &Value, logprobs: &Value) -> Value {
        self.chunk_of(json!({
            "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null,
        }))
    }

    /// What is told, as a chunk of a stream.
    pub fn chunk(&mut self, told: Told, with_evidence: bool) -> Option<Value> {
        match told {
            Told::Piece { text, logprob: None, .. } if text.is_empty() => None,
            Told::Piece { choice, text, logprob } => {
                let logprobs = match logprob {
                    Some(logprob) => self.logprobs(choice, &[logprob]),
                    None => Value::Null,
                };
                Some(match self.kind {
                    Kind::Chat => self.delta(choice, &json!({ "content": text }), &logprobs),
                    Kind::Text => self.chunk_of(json!({
                        "index": choice, "text": text, "logprobs": logprobs, "finish_reason": null,
                    })),
                })
            }
            Told::Over { choice, finish_reason, evidence } => {
                let mut last = json!({
                    "index": choice, "logprobs": null, "finish_reason": finish_reason,
                });
                match self.kind {
                    Kind::Chat => last["delta"] = json!({}),
                    Kind::Text => last["text"] = json!(""),
                }
                if with_evidence {
                    last["evidence"] = json!(evidence);
                }
                Some(self.chunk_of(last))
            }
            Told::Progress(..) | Told::Done(_) => None,
        }
    }

    /// The last chunk of a stream with usage.
    pub fn usage(&self, usage: Usage) -> Value {
        let mut chunk = self.chunk_of(Value::Null);
        chunk["choices"] = json!([]);
        chunk["usage"] = json!(usage);
        chunk
    }

    fn logprobs(&mut self, choice: usize, tokens: &[(TokenId, TokenLogprob)]) -> Value {
        match self.kind {
            _ if !self.with_logprobs => Value::Null,
            Kind::Chat => self.chat_logprobs(tokens),
            Kind::Text => self.text_logprobs(choice, tokens),
        }
    }

    fn chat_logprobs(&self, tokens: &[(TokenId, TokenLogprob)]) -> Value {
        let content = tokens.iter().map(|(id, logprob)| {
            let top = logprob.top.iter().map(|(id, logprob)| self.wire(*id, *logprob, None));
            self.wire(*id, logprob.logprob, Some(top.collect()))
        });
        json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
    }

    fn text_logprobs(&mut self, choice: usize, tokens: &[(TokenId, TokenLogprob)]) -> Value {
        let (mut texts, mut offsets, mut top) = (Vec::new(), Vec::new(), Vec::new());
        for (id, logprob) in tokens {
            let text = self.engine.token_text(*id);
            offsets.push(self.said_chars[choice]);
            self.said_chars[choice] += text.chars().count();
            texts.push(text);
            let entry =
                |(id, logprob): &(TokenId, f32)| (self.engine.token_text(*id), json!(logprob));
            top.push(Value::Object(logprob.top.iter().map(entry).collect()));
        }
        let logprobs: Vec<f32> = tokens.iter().map(|(_, it)| it.logprob).collect();
        json!({
            "tokens": texts, "token_logprobs": logprobs, "top_logprobs": top,
            "text_offset": offsets,
        })
    }

    fn wire(&self, id: TokenId, logprob: f32, top: Option<Vec<WireLogprob>>) -> WireLogprob {
        let bytes = match self.engine.tokenizer().is_control(id) {
            true => self.engine.tokenizer().spell(id).into_bytes(),
            false => self.engine.tokenizer().piece(id).to_vec(),
        };
        WireLogprob { token: self.engine.token_text(id), logprob, bytes, top_logprobs: top }
    }
}
