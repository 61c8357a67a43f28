//! How does an answer come out? Token by token, as an iterator of pieces of text.

use super::error::EngineError;
use super::sampler::Sampler;
use super::session::Session;
use crate::ids::TokenId;
use crate::tokenizer::StreamDecoder;

/// How to draw an answer.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions {
    /// Tokens at most.
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time.
    pub temperature: f32,
    /// Draw from the likeliest tokens that together have this share; 1 for all.
    pub top_p: f32,
    /// Same seed, same answer.
    pub seed: u64,
    /// What to do when the model ends its answer.
    pub at_end: AtEnd,
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
        Self { max_tokens: 256, temperature: 0.0, top_p: 1.0, seed: 0, at_end: AtEnd::Stop }
    }
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
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
}

/// An answer as it comes. Dropping it stops; the session keeps the tokens that came.
pub struct Generation<'s> {
    session: &'s mut Session,
    sampler: Sampler,
    decoder: StreamDecoder,
    left: usize,
    at_end: AtEnd,
    n_tokens: usize,
    finish: Option<FinishReason>,
}

impl Session {
    /// Continues the text. The iterator must be driven; each item is one token's piece.
    pub fn generate(&mut self, options: GenerateOptions) -> Generation<'_> {
        let decoder = self.engine.tokenizer().stream_decoder();
        Generation {
            sampler: Sampler::new(options.temperature, options.top_p, options.seed),
            decoder,
            left: options.max_tokens,
            at_end: options.at_end,
            n_tokens: 0,
            finish: None,
            session: self,
        }
    }
}

impl Generation<'_> {
    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Tokens given out so far.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    fn step(&mut self) -> Result<Option<Piece>, EngineError> {
        self.session.run_pending()?;
        if !self.session.has_logits {
            return Err(EngineError::NothingRead);
        }
        if self.left == 0 {
            return Ok(self.end(FinishReason::Length));
        }
        let token = self.sampler.pick(&self.session.logits);
        let tokenizer = self.session.engine.clone();
        if self.at_end == AtEnd::Stop && tokenizer.tokenizer().is_end(token) {
            return Ok(self.end(FinishReason::Stop));
        }
        self.left -= 1;
        self.n_tokens += 1;
        self.session.pending = Some(token);
        let text = self.decoder.push(tokenizer.tokenizer().piece(token));
        Ok(Some(Piece { token, text }))
    }

    fn end(&mut self, reason: FinishReason) -> Option<Piece> {
        self.finish = Some(reason);
        None
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() {
            return None;
        }
        match self.step() {
            Ok(piece) => piece.map(Ok),
            Err(error) => {
                self.finish = Some(FinishReason::Stop);
                Some(Err(error))
            }
        }
    }
}
