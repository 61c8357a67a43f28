//! How good is a lookup? Several policies look up the same queries beside an oracle that compares
//! every key: how many of its units does each find, how much of the attention, at which price?

use std::ops::Range;
use std::time::{Duration, Instant};

use memory_store::{RecordId, StoreError};

use super::config::{LookupPolicy, MemoryConfig, Phase, Sets};
use super::error::MemoryError;
use super::layers::Memory;
use crate::attention::{Attention, AttentionError, Qkv};
use crate::backend::{
    AttendStep, Backend, KeyMasses, PageSource, PageTarget, PlacedPage, Placement, StepDone,
};
use crate::ids::LayerIdx;

/// How a policy's lookups went, summed over lookups.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recall {
    /// Lookups: one a layer and chunk.
    pub n_lookups: usize,
    /// Share of the oracle's units that were retrieved.
    pub overlap: f64,
    /// Share of the queries' attention to all units that those retrieved have, keys at the far
    /// distance.
    pub mass: f64,
    /// The same of what the oracle retrieves.
    pub oracle_mass: f64,
    /// Time.
    pub time: Duration,
    /// Bytes of index, keys and scales read.
    pub bytes: u64,
}

/// A policy that looks up along.
pub struct Trial<B: Backend> {
    memory: Memory<B>,
    recall: Recall,
}

impl<B: Backend> Trial<B> {
    /// How its lookups went.
    pub fn recall(&self) -> Recall {
        self.recall
    }

    /// Bytes that its index takes.
    pub fn index_bytes(&self) -> usize {
        self.memory.index_bytes()
    }

    /// Looks up units for a chunk that another memory attends to.
    fn look_up(
        &mut self,
        layer: usize,
        (queries, rows): (&B::Buffer, Range<usize>),
        phase: Phase,
    ) -> Result<(), StoreError> {
        let bytes_before = self.memory.lookup.bytes_read();
        let begun = Instant::now();
        self.memory.chunk.n_tokens = rows.len();
        self.memory.chunk.phase = phase;
        if self.memory.config.lookup_layer(layer) == layer {
            self.memory.look_up(layer, (queries, rows.start))?;
        }
        self.recall.time += begun.elapsed();
        self.recall.bytes += self.memory.lookup.bytes_read() - bytes_before;
        Ok(())
    }

    /// Compares what was retrieved with the oracle's; `masses` are shares, `[kv_head][unit]`.
    fn compare(&mut self, layer: usize, oracle: &Memory<B>, masses: &[f32]) {
        let n_units = oracle.n_units();
        let mut recall = Recall::default();
        for (kv_head, masses) in masses.chunks_exact(n_units).enumerate() {
            let found = self.memory.retrieved(LayerIdx(layer), kv_head);
            let wanted = oracle.retrieved(LayerIdx(layer), kv_head);
            let n_both = found.iter().filter(|unit| wanted.contains(unit)).count();
            let mass = |units: &[u32]| -> f64 {
                units.iter().map(|unit| f64::from(masses[*unit as usize])).sum()
            };
            recall.overlap += n_both as f64 / wanted.len().max(1) as f64;
            recall.mass += mass(found);
            recall.oracle_mass += mass(wanted);
        }
        let n_heads = (masses.len() / n_units) as f64;
        self.recall.n_lookups += 1;
        self.recall.overlap += recall.overlap / n_heads;
        self.recall.mass += recall.mass / n_heads;
        self.recall.oracle_mass += recall.oracle_mass / n_heads;
    }
}

/// A memory that retrieves by the exact policy while trials look up along.
pub struct Audit<'a, B: Backend> {
    oracle: Memory<B>,
    trials: &'a mut [Trial<B>],
}

impl<B: Backend> Memory<B> {
    /// A policy that will look up along an audit of this memory.
    ///
    /// # Errors
    /// As for [`fork`](Self::fork).
    pub fn trial(
        &self,
        config: MemoryConfig,
        trained_tokens: usize,
    ) -> Result<Trial<B>, MemoryError> {
        let mut memory = self.fork(config, trained_tokens)?;
        memory.index.settle(); // what is measured must not depend on when
        Ok(Trial { memory, recall: Recall::default() })
    }

    /// A fork that retrieves as `config` says, but by the exact policy and one set a layer, and has
    /// `trials`, which are of this memory, look up along.
    ///
    /// # Errors
    /// As for [`fork`](Self::fork).
    pub fn audit<'a>(
        &self,
        trials: &'a mut [Trial<B>],
        (config, trained_tokens): (&MemoryConfig, usize),
    ) -> Result<Audit<'a, B>, MemoryError> {
        let exact = MemoryConfig {
            lookup: LookupPolicy::Exact,
            sets: Sets::Layer,
            lookup_layers: 1,
            answer_chunk_tokens: 1,
            ..config.clone()
        };
        Ok(Audit { oracle: self.fork(exact, trained_tokens)?, trials })
    }

    /// Shares of the attention that a chunk's queries give each unit, `[kv_head][unit]`, were there
    /// only units, at the far distance.
    fn unit_masses(
        &self,
        layer: usize,
        (queries, rows): (&B::Buffer, Range<usize>),
    ) -> Result<Vec<f32>, MemoryError> {
        let page_len = self.layout.page_len;
        let place = |unit: usize| {
            let tokens = self.unit_tokens(unit);
            let bytes = self.store.read(RecordId(unit as u32), layer)?.bytes();
            Ok(PlacedPage {
                page: PageSource::Unit(self.unit_ids[unit], bytes),
                kv_type: self.config.kv_type,
                n_keys: tokens.len(),
                first_index: tokens.start,
                placement: Placement::Far,
            })
        };
        let pages = (0..self.n_units()).map(place).collect::<Result<Vec<_>, StoreError>>()?;
        let heads = self.layout.heads;
        let masses = vec![0.0; heads.n_kv_heads * pages.len() * page_len];
        let mut step = AttendStep {
            layout: self.layout,
            layer,
            pages,
            n_sets: 1,
            n_tokens: rows.len(),
            first_row: rows.start,
            first_index: self.n_tokens,
            near_angles: &self.chunk.near_angles,
            far_angles: &self.angles.far,
            offset_angles: &self.angles.offsets,
            scale: self.scale(),
            page_masses: None,
            key_masses: Some(KeyMasses { first_page: 0, masses }),
        };
        let mut out = self.backend.buffer(rows.end * heads.n_heads * heads.head_dim)?;
        self.backend.attend(std::slice::from_mut(&mut step), queries, &mut out);
        let masses = step.key_masses.map_or(Vec::new(), |keys| keys.masses);
        let share = 1.0 / (rows.len() * heads.group()) as f32;
        Ok(masses.chunks_exact(page_len).map(|keys| share * keys.iter().sum::<f32>()).collect())
    }
}

impl<B: Backend> Audit<'_, B> {
    /// What trials are compared with.
    pub fn oracle(&self) -> &Memory<B> {
        &self.oracle
    }

    /// As [`Memory::begin_chunk`].
    ///
    /// # Errors
    /// As there.
    pub fn begin_chunk(&mut self, n_tokens: usize, phase: Phase) -> Result<(), MemoryError> {
        self.oracle.begin_chunk(n_tokens, phase)
    }

    /// As [`Memory::end_chunk`]; trials get the units that were sealed.
    ///
    /// # Errors
    /// As there.
    pub fn end_chunk(&mut self) -> Result<(), MemoryError> {
        let n_units = self.oracle.n_units();
        self.oracle.end_chunk()?;
        for unit in n_units..self.oracle.n_units() {
            let page = self.oracle.store.read(RecordId(unit as u32), 0)?; // not from a disk
            for trial in &mut *self.trials {
                trial.memory.add_unit(page.bytes(), self.oracle.unit_tokens(unit).len())?;
            }
        }
        Ok(())
    }
}

impl<B: Backend> Attention<B> for Audit<'_, B> {
    fn targets<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut Vec<PageTarget<'a, B::Page>>,
    ) {
        self.oracle.targets(layer, chunk, out);
    }

    fn begin_layer<'a>(
        &'a mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        out: &mut B::Buffer,
    ) -> Result<Option<AttendStep<'a, B::Page>>, AttentionError> {
        self.oracle.begin_layer(layer, chunk, out)
    }

    fn end_layer(
        &mut self,
        layer: LayerIdx,
        chunk: &Qkv<'_, B>,
        done: Option<StepDone<B::Page>>,
    ) -> Result<(), AttentionError> {
        self.oracle.end_layer(layer, chunk, done)?;
        if !self.oracle.chunk.looks_up {
            return Ok(());
        }
        let (queries, rows) = (chunk.queries, &chunk.rows);
        let refused = |error: StoreError| AttentionError(Box::new(error));
        let masses = self.oracle.unit_masses(layer.0, (queries, rows.clone()));
        let masses = masses.map_err(|error| AttentionError(Box::new(error)))?;
        for trial in &mut *self.trials {
            let phase = self.oracle.chunk.phase;
            trial.look_up(layer.0, (queries, rows.clone()), phase).map_err(refused)?;
            trial.compare(layer.0, &self.oracle, &masses);
        }
        Ok(())
    }
}
