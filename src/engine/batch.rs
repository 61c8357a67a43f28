//! How do several texts go through the model together? A chunk of each, one after another in the
//! same buffers: weights are read once for all of them, and each attends to its own memory.

use super::buffers::Runner;
use super::error::EngineError;
use super::loaded::Engine;
use super::session::Session;
use crate::backend::any::AnyBackend;
use crate::backend::{Backend, BackendError, Draw, RowDraw};
use crate::ids::TokenId;
use crate::memory::Phase;
use crate::model::{LOGIT_ROWS, Part, Workspace};

/// Consecutive tokens of one session.
pub(super) struct Chunk<'a> {
    pub session: &'a mut Session,
    pub ids: &'a [TokenId],
    pub phase: Phase,
    /// What the session needs to know of what comes after the last of them.
    pub logits: Logits,
    /// What kept it from being taken in; the session must then be dropped.
    pub failed: Option<EngineError>,
}

/// Whose logits are read.
struct Wanted<'a> {
    row: usize,
    /// How a device that draws draws from them.
    draw: Option<Draw>,
    session: &'a mut Session,
    failed: &'a mut Option<EngineError>,
}

/// Whether logits are wanted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Logits {
    Wanted,
    /// Or the token drawn from them, where the device draws.
    Drawn(Draw),
    NotWanted,
    /// Those of all its tokens, for how likely each is after those before it: the session's
    /// `log_probability` grows by that.
    Scored,
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
                session.drawn = None;
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
            let draw = match std::mem::replace(&mut chunk.logits, Logits::NotWanted) {
                Logits::Wanted => None,
                Logits::Drawn(draw) => Some(draw),
                Logits::NotWanted | Logits::Scored => continue,
            };
            if chunk.failed.is_none() {
                let Chunk { session, failed, .. } = chunk;
                wanted.push(Wanted { row: end - 1, draw, session, failed });
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

    /// Reads the logits of sessions' last rows, or has tokens drawn from them.
    fn read_logits(&mut self, engine: &Engine, wanted: &mut [Wanted<'_>]) {
        for wanted in wanted.chunks_mut(LOGIT_ROWS) {
            if let Err(error) = self.read_rows(engine, wanted) {
                for wanted in wanted {
                    (wanted.session.has_logits, wanted.session.drawn) = (false, None);
                    *wanted.failed = Some(error.clone().into());
                }
            }
        }
    }

    fn read_rows(
        &mut self,
        engine: &Engine,
        wanted: &mut [Wanted<'_>],
    ) -> Result<(), BackendError> {
        let (transformer, workspace) = (engine.transformer(), &mut self.workspace);
        let rows: Vec<usize> = wanted.iter().map(|wanted| wanted.row).collect();
        transformer.compute_logits(&rows, workspace);
        let draws = wanted.iter().enumerate();
        let draws = draws.filter_map(|(row, it)| Some(RowDraw { row, draw: it.draw.as_ref()? }));
        let tokens = transformer.draw(&draws.collect::<Vec<_>>(), workspace)?;
        let drawing = wanted.iter_mut().filter(|wanted| wanted.draw.is_some());
        for (wanted, token) in drawing.zip(tokens.into_iter().flatten()) {
            wanted.session.drawn = Some(token);
        }
        // After an end another answer may be wanted, from logits that edits have not changed.
        let is_end = |token: TokenId| engine.tokenizer().is_end(token);
        if wanted.iter().any(|wanted| wanted.session.drawn.is_some_and(is_end)) {
            transformer.compute_logits(&(0..rows.len()).collect::<Vec<_>>(), workspace);
        }
        for (row, wanted) in wanted.iter_mut().enumerate() {
            if wanted.session.drawn.is_none_or(is_end) {
                transformer.read_logits(row, workspace, &mut wanted.session.logits);
                wanted.session.has_logits = true;
            }
        }
        transformer.backend().check()
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
        let borders = if self.logits == Logits::Scored {
            session.log_probability -= session.surprises(ids, before.1, rows)?.iter().sum::<f32>();
            None
        } else if is_document {
            session.borders(ids, before, rows)?
        } else {
            None
        };
        match borders {
            Some(borders) => session.memory.end_chunk_at(&borders)?,
            None => session.memory.end_chunk()?,
        }
        Ok(())
    }
}
