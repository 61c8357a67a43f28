//! How is a question answered from one passage of a long text? The passage is read again by itself, in
//! a memory of its own, and until more is asked or read that one is attended to, in place of all that
//! came before the question. What is taken in goes into both, so that the text goes on as ever.
//! (Reading what was found again is InfiniRetri's idea, arXiv 2502.12962.)

use std::ops::Range;

use super::config::Phase;
use super::error::MemoryError;
use super::excerpt::{Excerpt, NearMasses};
use super::layers::Memory;
use super::stores::Stores;
use crate::attention::{Attention, AttentionError, Qkv};
use crate::backend::{AttendStep, Backend, PageLayout, StepDone};
use crate::bytes::{ByteReader, ByteWriter};
use crate::ids::LayerIdx;

impl<B: Backend> Memory<B> {
    /// Has what is taken in from here on, until more text is read or
    /// [`forget_choice`](Self::forget_choice), attend to `excerpt` and what comes after it: a memory
    /// that holds tokens `tokens` of this one's text after `before` others.
    ///
    /// # Panics
    /// When it holds another number of tokens.
    pub fn answer_from(&mut self, excerpt: Self, (before, tokens): (usize, Range<usize>)) {
        assert_eq!(excerpt.n_tokens, before + tokens.len(), "an excerpt of these tokens");
        let units = tokens.clone().filter_map(|token| self.unit_of(token));
        let units: Vec<usize> = units.collect();
        self.lookup.note_sought_units(&units, self.unit_ends.len());
        self.excerpt = Some(Box::new(Excerpt { memory: excerpt, before, tokens, is_untold: true }));
    }

    /// The tokens of the passage that is attended to in place of the text.
    pub fn excerpt_tokens(&self) -> Option<Range<usize>> {
        self.excerpt.as_ref().map(|excerpt| excerpt.tokens.clone())
    }

    /// Has the next question choose anew what it attends to.
    pub fn forget_choice(&mut self) {
        self.lookup.pin(Vec::new());
        self.excerpt = None;
    }

    /// Tokens of a question that are best taken in at once: few where each chunk looks up units, which
    /// deeper layers must see found by shallower ones.
    pub fn ask_chunk_tokens(&self) -> usize {
        match self.excerpt {
            Some(_) => self.config.chunk_tokens,
            None => self.config.ask_chunk_tokens,
        }
    }

    /// The tokens of each page of the window.
    pub fn window_tokens(&self) -> impl Iterator<Item = Range<usize>> {
        let ends = self.pages.window_starts().skip(1).chain([self.n_tokens]);
        self.pages.window_starts().zip(ends).map(|(start, end)| start..end.min(self.n_tokens))
    }

    /// Tallies from now on what pages of sinks and window are attended to as well.
    pub fn tally_near(&mut self) {
        self.near_masses = Some(NearMasses::new());
    }

    /// What they received since the last call: the first token of each page, and its mass, as
    /// [`take_evidence`](Self::take_evidence) has them.
    pub fn take_near_masses(&mut self) -> Vec<(usize, f32)> {
        let masses = self.near_masses.as_mut().map(std::mem::take);
        masses.into_iter().flatten().collect()
    }

    /// The tokens of the passage that what was asked and answered since the last call attends to, if it
    /// attends to one.
    pub fn take_excerpt_evidence(&mut self) -> Option<Range<usize>> {
        let excerpt = self.excerpt.as_mut()?;
        std::mem::take(&mut excerpt.is_untold).then(|| excerpt.tokens.clone())
    }

    /// Adds what a step's pages of sinks and window received, where that is asked.
    pub(super) fn tally_near_pages(&mut self, pages_a_set: usize, masses: &[f32]) {
        let Some(near) = &mut self.near_masses else { return };
        let firsts: Vec<usize> = self.pages.iter().map(|page| page.first_index).collect();
        let n_window = self.pages.n_window_pages();
        let n_sinks = firsts.len() - n_window;
        for of_set in masses.chunks_exact(pages_a_set) {
            let received = of_set[..n_sinks].iter().chain(&of_set[pages_a_set - n_window..]);
            for (first, mass) in firsts.iter().zip(received) {
                *near.entry(*first).or_default() += mass;
            }
        }
    }

    /// Prepares the excerpt for what this memory takes in, or drops it where more is read; says whether
    /// it is there.
    pub(super) fn begin_excerpt(
        &mut self,
        n_tokens: usize,
        phase: Phase,
    ) -> Result<bool, MemoryError> {
        if phase == Phase::Reading {
            self.excerpt = None;
        }
        match &mut self.excerpt {
            Some(excerpt) => {
                excerpt.is_untold |= phase == Phase::Answering;
                excerpt.memory.begin_chunk(n_tokens, phase).map(|()| true)
            }
            None => Ok(false),
        }
    }

    /// What queries see of the excerpt, which must be there.
    pub(super) fn begin_layer_of_excerpt<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut B::Buffer,
    ) -> Result<Option<AttendStep<'a, B::Page>>, AttentionError> {
        let excerpt = self.excerpt.as_mut().expect("because it was begun");
        excerpt.memory.begin_layer(layer, chunk, out)
    }

    /// Tells the excerpt, which must be there, that the step was computed.
    pub(super) fn end_layer_of_excerpt(
        &mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        done: Option<StepDone<B::Page>>,
    ) -> Result<(), AttentionError> {
        let excerpt = self.excerpt.as_mut().expect("because it was begun");
        excerpt.memory.end_layer(layer, chunk, done)
    }

    /// The excerpt of a fork with these settings.
    pub(super) fn fork_excerpt(
        &self,
        config: &super::MemoryConfig,
        trained_tokens: usize,
    ) -> Result<Option<Box<Excerpt<Self>>>, MemoryError> {
        let fork = |excerpt: &Excerpt<Self>| {
            let memory = excerpt.memory.fork(config.clone(), trained_tokens)?;
            let (before, tokens) = (excerpt.before, excerpt.tokens.clone());
            let is_untold = excerpt.is_untold;
            Ok(Box::new(Excerpt { memory, before, tokens, is_untold }))
        };
        self.excerpt.as_deref().map(fork).transpose()
    }

    /// Writes the excerpt, if there is one. One that an answer has outgrown, so that it has units of its
    /// own, is not kept: what comes then attends to the text.
    pub(super) fn write_excerpt(&mut self, out: &mut ByteWriter) -> Result<(), MemoryError> {
        let kept = self.excerpt.as_mut().filter(|excerpt| excerpt.memory.n_units() == 0);
        if let Some(excerpt) = kept {
            out.len(excerpt.before);
            out.len(excerpt.tokens.start);
            out.len(excerpt.tokens.end);
            let state = excerpt.memory.suspend_whole()?.state;
            out.bytes(&state);
        }
        Ok(())
    }

    /// Reads what was written.
    pub(super) fn read_excerpt(
        &mut self,
        layout: PageLayout,
        from: &mut ByteReader<'_>,
    ) -> Result<(), MemoryError> {
        if from.is_at_end() {
            return Ok(());
        }
        let before = from.len("tokens before the excerpt")?;
        let tokens = from.len("start of the excerpt")?..from.len("end of the excerpt")?;
        let state = from.bytes("excerpt")?;
        let stores = Stores::in_memory(layout, &self.config)?;
        let fits = (self.rotary.clone(), usize::MAX); // as this memory did
        let backend = self.backend.clone();
        let memory = Self::resume(backend, self.config.clone(), layout, fits, (stores, state))?;
        let is_within = tokens.start <= tokens.end && tokens.end <= self.n_tokens;
        if !is_within || memory.n_tokens < before.saturating_add(tokens.len()) {
            return Err(from.malformed("excerpt").into());
        }
        let is_untold = false;
        self.excerpt = Some(Box::new(Excerpt { memory, before, tokens, is_untold }));
        Ok(())
    }
}
