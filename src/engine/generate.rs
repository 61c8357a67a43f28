//! How does an answer come out of a session? Token by token, as an iterator of pieces of text.

use super::answer::{Answer, FinishReason, GenerateOptions, Next, Piece};
use super::batch::Logits;
use super::error::EngineError;
use super::session::Session;

/// An answer as it comes. Dropping it stops; the session keeps the tokens that came.
pub struct Generation<'s> {
    session: &'s mut Session,
    answer: Result<Answer, Option<EngineError>>,
    is_over: bool,
}

impl Session {
    /// Continues the text. The iterator must be driven; each item is one token's piece.
    pub fn generate(&mut self, options: GenerateOptions) -> Generation<'_> {
        let answer = Answer::new(&self.engine, options).map_err(Some);
        Generation { session: self, answer, is_over: false }
    }
}

impl Generation<'_> {
    /// Why the answer ended, once it has.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        let answer = self.answer.as_ref().ok().filter(|_| self.is_over);
        answer.and_then(Answer::finish_reason)
    }

    /// Tokens given out so far.
    pub fn n_tokens(&self) -> usize {
        self.answer.as_ref().map_or(0, Answer::n_tokens)
    }

    /// Text that waited for what did not come: the rest of the answer, once it has ended.
    pub fn rest(&mut self) -> String {
        self.answer.as_mut().map_or(String::new(), Answer::rest)
    }

    fn step(&mut self) -> Result<Option<Piece>, EngineError> {
        let answer = match &mut self.answer {
            Ok(answer) => answer,
            Err(error) => return error.take().map_or(Ok(None), Err),
        };
        let engine = self.session.engine.clone();
        let logits = answer.draw(&engine).map_or(Logits::Wanted, Logits::Drawn);
        self.session.run_pending_for(logits)?;
        let next = match self.session.drawn.take() {
            Some(token) => Next::Token(token),
            None if self.session.has_logits => Next::Logits(&self.session.logits),
            None => return Err(EngineError::NothingRead),
        };
        let piece = answer.next(&engine, next)?;
        self.session.pending = piece.as_ref().map(|piece| piece.token);
        Ok(piece)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let step = self.step();
        self.is_over = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}
