//! How do tokens get into a session that runs by itself? Chunk by chunk, as their phase has it.

use super::batch::{Chunk, Logits};
use super::buffers::Runner;
use super::error::EngineError;
use super::session::{Progress, ProgressFn, Session, SourceText};
use super::sources::NOWHERE;
use crate::ids::{ByteSpan, TokenId};
use crate::memory::Phase;

impl Session {
    /// Runs tokens through the model in the phase's chunks.
    pub(super) fn feed(
        &mut self,
        ids: &[TokenId],
        source: Option<SourceText<'_>>,
        phase: Phase,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EngineError> {
        self.run_pending()?;
        let config = self.memory.config();
        let chunk_tokens = match phase {
            Phase::Reading => config.chunk_tokens,
            Phase::Asking => self.memory.ask_chunk_tokens(),
            Phase::Answering => config.answer_chunk_tokens,
        };
        let mut taken = 0; // bytes of the text
        for (i, chunk) in ids.chunks(chunk_tokens).enumerate() {
            let first = i * chunk_tokens;
            let is_last = first + chunk.len() == ids.len();
            let logits = match is_last && phase != Phase::Reading {
                true => Logits::Wanted,
                false => Logits::NotWanted,
            };
            self.run_chunk(chunk, phase, logits)?;
            match &source {
                Some(source) => {
                    taken = self.note_source(source, (first, chunk), (taken, is_last))?;
                }
                None => self.sources.add(chunk.iter().map(|id| (*id, NOWHERE)))?,
            }
            let done = Progress { done_tokens: first + chunk.len(), total_tokens: ids.len() };
            if progress(done).is_break() {
                let Progress { done_tokens, total_tokens } = done;
                return Err(EngineError::Stopped { done_tokens, total_tokens });
            }
        }
        Ok(())
    }

    /// Notes the text that a chunk of tokens stands for, `taken` bytes of which were noted before;
    /// all that is left with the last chunk. Returns how many are noted then.
    pub(super) fn note_source(
        &mut self,
        source: &SourceText<'_>,
        (first, chunk): (usize, &[TokenId]),
        (taken, is_last): (usize, bool),
    ) -> Result<usize, EngineError> {
        let SourceText { bytes, first_byte, .. } = *source;
        let spans = &source.spans[first..first + chunk.len()];
        let by = (self.sources.text_bytes() - taken).wrapping_sub(first_byte);
        let shifted = |span: &ByteSpan| match span.start < span.end {
            true => ByteSpan { start: span.start.wrapping_add(by), end: span.end.wrapping_add(by) },
            false => NOWHERE,
        };
        self.sources.add(chunk.iter().copied().zip(spans.iter().map(shifted)))?;
        let ends = spans.iter().map(|span| span.end.saturating_sub(first_byte));
        let end = ends.max().unwrap_or(0).clamp(taken, bytes.len());
        let end = if is_last { bytes.len() } else { end };
        self.sources.add_text(&bytes[taken..end])?;
        Ok(end)
    }

    /// Takes in the token that was given out last, if it was not yet.
    pub(super) fn run_pending(&mut self) -> Result<(), EngineError> {
        self.run_pending_for(Logits::Wanted)
    }

    /// The same, for what is wanted after it.
    pub(super) fn run_pending_for(&mut self, logits: Logits) -> Result<(), EngineError> {
        let Some(token) = self.pending.take() else { return Ok(()) };
        self.run_chunk(&[token], Phase::Answering, logits)?;
        self.note_tokens(&[token])
    }

    /// One chunk through all layers and into memory.
    pub(super) fn run_chunk(
        &mut self,
        ids: &[TokenId],
        phase: Phase,
        logits: Logits,
    ) -> Result<(), EngineError> {
        let mut runner = self.own_runner()?;
        let engine = self.engine.clone();
        let mut chunk = [Chunk { session: self, ids, phase, logits, failed: None }];
        runner.run(&engine, &mut chunk);
        let failed = chunk[0].failed.take();
        self.runner = Some(runner);
        failed.map_or(Ok(()), Err)
    }

    /// Its own buffers, to be put back.
    ///
    /// # Errors
    /// When there is no room for them.
    pub(super) fn own_runner(&mut self) -> Result<Box<Runner>, EngineError> {
        match self.runner.take() {
            Some(runner) => Ok(runner),
            None => {
                let chunk_tokens = self.memory.config().chunk_tokens;
                Ok(Box::new(Runner::new(&self.engine, chunk_tokens)?))
            }
        }
    }
}
