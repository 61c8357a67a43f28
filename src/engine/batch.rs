//! How do several texts go through the model together? A chunk of each, one after another in the
//! same buffers: weights are read once for all of them, and each attends to its own memory.

use super::buffers::Runner;
use super::error::EngineError;
use super::loaded::Engine;
use super::session::Session;
use crate::backend::any::AnyBackend;
use crate::ids::TokenId;
use crate::memory::Phase;
use crate::model::{LOGIT_ROWS, Part, Workspace};

/// Consecutive tokens of one session.
pub(super) struct Chunk<'a> {
    pub session: &'a mut Session,
    pub ids: &'a [TokenId],
    pub phase: Phase,
    /// Whether the session needs the logits after the last of them.
    pub logits: Logits,
    /// What kept it from being taken in; the session must then be dropped.
    pub failed: Option<EngineError>,
}

/// Whose logits are read.
struct Wanted<'a> {
    row: usize,
    session: &'a mut Session,
    failed: &'a mut Option<EngineError>,
}

/// Whether logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logits {
    Wanted,
    NotWanted,
}

impl Runner {
    /// Runs all chunks through all layers and into their memories. One that fails does not keep the
    /// others from it.
    ///
    /// # Panics
    /// When they are more tokens than the workspace holds.
    pub fn run(&mut self, engine: &Engine, chunks: &mut [Chunk<'_>]) {
        let before: Vec<_> = chunks
            .iter_mut()
            .map(|chunk| {
                let session = &mut *chunk.session;
                (session.last, std::mem::replace(&mut session.has_logits, false))
            })
            .collect();
        for chunk in &mut *chunks {
            let begun = chunk.session.memory.begin_chunk(chunk.ids.len(), chunk.phase);
            chunk.failed = begun.err().map(EngineError::from);
        }
        self.forward(engine, chunks);
        let mut end = 0;
        let mut wanted: Vec<Wanted<'_>> = Vec::with_capacity(chunks.len());
        for (chunk, before) in chunks.iter_mut().zip(before) {
            if chunk.failed.is_some() {
                continue;
            }
            let first_row = end;
            end += chunk.ids.len();
            chunk.failed = chunk.end(before, (&mut self.workspace, first_row)).err();
            if chunk.failed.is_none() && chunk.logits == Logits::Wanted {
                let Chunk { session, failed, .. } = chunk;
                wanted.push(Wanted { row: end - 1, session, failed });
            }
        }
        self.read_logits(engine, &mut wanted);
    }

    /// The pass itself, again without what cannot be read in it until the rest passes.
    fn forward(&mut self, engine: &Engine, chunks: &mut [Chunk<'_>]) {
        loop {
            let mut at: Vec<usize> = Vec::with_capacity(chunks.len());
            let mut parts: Vec<Part<'_, AnyBackend>> = Vec::with_capacity(chunks.len());
            for (i, chunk) in chunks.iter_mut().enumerate().filter(|(_, c)| c.failed.is_none()) {
                at.push(i);
                parts.push(Part { tokens: chunk.ids, attention: &mut chunk.session.memory });
            }
            if parts.is_empty() {
                return;
            }
            match engine.transformer().forward_parts(&mut parts, &mut self.workspace) {
                Ok(()) => return,
                Err(failed) => {
                    drop(parts);
                    chunks[at[failed.part]].failed = Some(failed.error.into());
                }
            }
        }
    }

    /// Reads the logits of sessions' last rows.
    fn read_logits(&mut self, engine: &Engine, wanted: &mut [Wanted<'_>]) {
        for wanted in wanted.chunks_mut(LOGIT_ROWS) {
            let rows: Vec<usize> = wanted.iter().map(|wanted| wanted.row).collect();
            let logits = wanted.iter_mut().map(|wanted| &mut wanted.session.logits[..]);
            let mut logits: Vec<&mut [f32]> = logits.collect();
            let transformer = engine.transformer();
            let read = transformer.logits_of(&rows, &mut self.workspace, &mut logits);
            for wanted in wanted {
                match &read {
                    Ok(()) => wanted.session.has_logits = true,
                    Err(error) => *wanted.failed = Some(error.clone().into()),
                }
            }
        }
    }
}

impl Chunk<'_> {
    /// What comes after the pass, in which the chunk's rows began at `first_row`.
    fn end(
        &mut self,
        before: (Option<TokenId>, bool),
        (workspace, first_row): (&mut Workspace<AnyBackend>, usize),
    ) -> Result<(), EngineError> {
        let (session, ids) = (&mut *self.session, self.ids);
        session.last = ids.last().copied();
        let is_document = self.phase == Phase::Reading;
        let rows = (workspace, first_row);
        let borders = if is_document { session.borders(ids, before, rows)? } else { None };
        match borders {
            Some(borders) => session.memory.end_chunk_at(&borders)?,
            None => session.memory.end_chunk()?,
        }
        Ok(())
    }
}
