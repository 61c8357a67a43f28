//! How does a sequence answer? Token by token, each drawn from the logits of the step before; the other
//! answers to the same question are sequences of their own.

use super::{Answers, Event, Sequence, Task, Work};
use crate::engine::answer::{Answer, Next};
use crate::engine::error::EngineError;

impl Sequence {
    /// Whether the step that was run last gave the logits of its next token.
    pub(in crate::engine::serve) fn draws(&self) -> bool {
        let has_asked = self.pass.is_none() && self.stages.is_empty() && self.answer.is_some();
        has_asked && self.work.is_some() && self.session().pending.is_some()
    }

    /// Draws the next token, for [`answer`](Self::answer) to take. Nothing else of the server is needed
    /// for it, so that those of many sequences can be drawn at once.
    pub(in crate::engine::serve) fn draw(&mut self) {
        let work = self.work.as_mut().expect("because it is not over");
        let (Some(answer), None) = (&mut self.answer, &self.drawn) else { return };
        let session = work.session_mut();
        let drawn = session.drawn.take(); // by the device
        let next = drawn.map_or(Next::Logits(&session.logits), Next::Token);
        self.drawn = Some(answer.next(&session.engine, next));
    }

    /// Draws the next token, unless it was [drawn](Self::draw), or ends.
    pub(super) fn answer(&mut self, siblings: &mut Vec<Self>) -> Result<(), EngineError> {
        if self.answer.is_none() {
            let engine = self.session().engine.clone();
            let Some(answers) = self.answers.take() else {
                self.end(None, String::new(), 0);
                return Ok(());
            };
            if !self.session().has_logits {
                return Err(EngineError::NothingRead);
            }
            let first = Answer::new(&engine, answers.options.clone())?;
            self.answers_begin();
            self.give_birth(&first, &answers, siblings)?;
            self.answer = Some(first);
        }
        self.draw();
        if let Some(piece) = self.drawn.take().transpose()?.flatten() {
            self.session_mut().pending = Some(piece.token);
            let event = Event::Piece(self.number, piece);
            self.outbox.push_back(event);
        }
        let answer = self.answer.as_mut().expect("because it was made");
        if let Some(finish) = answer.finish_reason() {
            let (rest, n_tokens) = (answer.rest(), answer.n_tokens());
            self.end(Some(finish), rest, n_tokens);
        }
        self.send();
        Ok(())
    }

    fn answers_begin(&mut self) {
        let work = self.work.as_mut().expect("because it is not over");
        let memory = &mut work.session_mut().memory;
        let span = self.trace.decode(memory.retrieval_time());
        memory.trace_into(span);
    }

    /// The other answers to the same question: forks, which share all units.
    fn give_birth(
        &self,
        first: &Answer,
        answers: &Answers,
        siblings: &mut Vec<Self>,
    ) -> Result<(), EngineError> {
        let sampling = &answers.options.sampling;
        for number in 1..answers.n {
            let session = self.session().fork(self.session().memory.config())?;
            let seed = sampling.seed.wrapping_add(number as u64);
            let answer = first.sibling(&session.engine, seed, sampling);
            let task = Task {
                work: Work::Session(Box::new(session)),
                stages: Vec::new(),
                answers: None,
                events: self.events.clone(),
                held: None,
                span: self.trace.request(),
            };
            let mut sibling = Self::new(task, self.place.clone());
            (sibling.number, sibling.answer) = (number, Some(answer));
            sibling.answers_begin();
            siblings.push(sibling);
        }
        Ok(())
    }
}
