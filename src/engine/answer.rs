//! How does an answer come about? A token is drawn, becomes text, and says whether the answer is over.

use super::error::EngineError;
use super::form::{AnswerForm, Form};
use super::loaded::Engine;
use super::sampler::{Sampler, Sampling};
use super::stops::{Passed, StopStrings};
use crate::backend::cpu::log_sum_exp;
use crate::backend::{Backend, Draw};
use crate::ids::TokenId;
use crate::tokenizer::StreamDecoder;

/// How to draw an answer, and when it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateOptions {
    /// Tokens at most.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Strings before which the answer ends.
    pub stop: Vec<String>,
    /// What to do when the model ends its answer.
    pub at_end: AtEnd,
    /// What form it must have.
    pub form: AnswerForm,
    /// With each token, its log-probability and those of so many of the likeliest.
    pub logprobs: Option<usize>,
}

/// What to do when the model ends its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtEnd {
    /// End there.
    #[default]
    Stop,
    /// Go on until the tokens allowed are reached: for measuring speed.
    GoOn,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
            at_end: AtEnd::Stop,
            form: AnswerForm::Text,
            logprobs: None,
        }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it, or a stop string or its form did.
    Stop,
    /// It reached the tokens allowed.
    Length,
}

impl FinishReason {
    /// As OpenAI's API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The token.
    pub token: TokenId,
    /// Whole characters only, so sometimes nothing and sometimes the end of an earlier token.
    pub text: String,
    /// How likely it was, where that was asked for.
    pub logprob: Option<TokenLogprob>,
}

/// How likely a token was, before it was decided how to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// In nats.
    pub logprob: f32,
    /// The likeliest tokens.
    pub top: Vec<(TokenId, f32)>,
}

/// What the next token comes from.
#[derive(Clone, Copy)]
pub(super) enum Next<'a> {
    /// The logits after the last one.
    Logits(&'a [f32]),
    /// The device, which drew it as [`Answer::draw`] said.
    Token(TokenId),
}

/// An answer on its way.
pub(super) struct Answer {
    sampler: Sampler,
    decoder: StreamDecoder,
    stops: StopStrings,
    form: Option<Form>,
    at_end: AtEnd,
    logprobs: Option<usize>,
    left: usize,
    n_tokens: usize,
    finish: Option<FinishReason>,
    /// Whether a stop string ended it: what came after that is not told.
    was_cut: bool,
}

impl Answer {
    /// Nothing of it yet.
    ///
    /// # Errors
    /// When its form is not understood.
    pub fn new(engine: &Engine, options: GenerateOptions) -> Result<Self, EngineError> {
        Ok(Self {
            decoder: engine.tokenizer().stream_decoder(),
            form: engine.form(&options.form)?,
            sampler: Sampler::new(options.sampling),
            stops: StopStrings::new(options.stop),
            at_end: options.at_end,
            logprobs: options.logprobs,
            left: options.max_tokens,
            n_tokens: 0,
            finish: (options.max_tokens == 0).then_some(FinishReason::Length),
            was_cut: false,
        })
    }

    /// Another answer to the same, drawn with another seed.
    pub fn sibling(&self, engine: &Engine, seed: u64, sampling: &Sampling) -> Self {
        Self {
            sampler: Sampler::new(Sampling { seed, ..sampling.clone() }),
            decoder: engine.tokenizer().stream_decoder(),
            stops: self.stops.clone(),
            form: self.form.as_ref().map(Form::fork),
            finish: self.finish,
            ..*self
        }
    }

    /// Why it ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Tokens so far.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// How the device is to draw the next token, where it draws and the token is all that is wanted: not
    /// where a form says which may come, nor where log-probabilities are asked for.
    pub fn draw(&mut self, engine: &Engine) -> Option<Draw> {
        let is_enough = self.form.is_none() && self.logprobs.is_none() && self.finish.is_none();
        let is_drawn = is_enough && engine.transformer().backend().draws();
        is_drawn.then(|| self.sampler.prepare())
    }

    /// Takes the next token; none when the answer is over before it.
    ///
    /// # Errors
    /// When its form cannot go on.
    pub fn next(&mut self, engine: &Engine, next: Next<'_>) -> Result<Option<Piece>, EngineError> {
        if self.finish.is_some() {
            return Ok(None);
        }
        if let Some(form) = &mut self.form
            && !form.advance()?
        {
            self.finish = Some(FinishReason::Stop);
            return Ok(None);
        }
        let token = match (next, &self.form) {
            (Next::Token(token), _) => {
                self.sampler.took(token);
                token
            }
            (Next::Logits(logits), Some(form)) => {
                self.sampler.pick(logits, Some(&|token| form.allows(token)))
            }
            (Next::Logits(logits), None) => self.sampler.pick(logits, None),
        };
        if self.at_end == AtEnd::Stop && engine.tokenizer().is_end(token) {
            self.finish = Some(FinishReason::Stop);
            return Ok(None);
        }
        if let Some(form) = &mut self.form {
            form.take(token)?;
        }
        self.left -= 1;
        self.n_tokens += 1;
        let text = match self.stops.push(self.decoder.push(engine.tokenizer().piece(token))) {
            Passed::Text(text) => text,
            Passed::Stopped(text) => {
                self.was_cut = true;
                self.finish = Some(FinishReason::Stop);
                text
            }
        };
        if self.left == 0 && self.finish.is_none() {
            self.finish = Some(FinishReason::Length);
        }
        let logprob = match (next, self.logprobs) {
            (Next::Logits(logits), Some(n_top)) => {
                let sum = self.sampler.log_sum().unwrap_or_else(|| log_sum_exp(logits));
                Some(logprob((logits, sum), token, n_top))
            }
            _ => None,
        };
        Ok(Some(Piece { token, text, logprob }))
    }

    /// Text that waited for what did not come, once the answer is over.
    pub fn rest(&mut self) -> String {
        match self.was_cut {
            true => String::new(),
            false => self.stops.finish() + &self.decoder.finish(),
        }
    }
}

/// `sum` is the logarithm of the sum of their exponentials.
fn logprob((logits, sum): (&[f32], f32), token: TokenId, n_top: usize) -> TokenLogprob {
    let mut top: Vec<(TokenId, f32)> = Vec::with_capacity(n_top + 1);
    let candidates = if n_top == 0 { &[] } else { logits };
    for (id, logit) in candidates.iter().enumerate() {
        if top.len() < n_top || top.last().is_some_and(|(_, least)| *logit - sum > *least) {
            let at = top.partition_point(|(_, other)| *other >= *logit - sum);
            top.insert(at, (TokenId(id as u32), *logit - sum));
            top.truncate(n_top);
        }
    }
    TokenLogprob { logprob: logits[token.0 as usize] - sum, top }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_are_those_of_the_softmax_and_the_top_is_sorted() {
        let logits = [0.0, 2.0, 1.0, 2.0];
        let sum: f32 = logits.iter().map(|x: &f32| x.exp()).sum();
        let found = logprob((&logits, log_sum_exp(&logits)), TokenId(2), 3);
        assert!((found.logprob - (1.0 - sum.ln())).abs() < 1e-6);
        let top: Vec<u32> = found.top.iter().map(|(token, _)| token.0).collect();
        assert_eq!(top, [1, 3, 2]);
        assert!((found.top[0].1 - (2.0 - sum.ln())).abs() < 1e-6);
        assert_eq!(logprob((&logits, sum.ln()), TokenId(0), 0).top, []);
    }
}
