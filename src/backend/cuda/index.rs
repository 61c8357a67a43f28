//! How does the device look up? What stands for units is copied there block by block and stays; the
//! coarse stage names candidates, whose keys are then brought there for the fine stage.

use kernels::{
    AnyDevice, Array, Ask, AttentionSizes, BlockRef, DeviceError, LookupKernels, PageRef,
    SegmentIndex, VoteKind,
};

use super::paged::{Paged, StepError};
use super::parts::{PartError, Parts};
use super::slots::SlotCounts;
use super::uploaded::Uploaded;
use crate::backend::{Candidates, LookupStep, NamedBlocks, Representatives, Vote};

/// The index's blocks on the device, and the kernels that scan them.
pub struct DeviceIndex {
    sizes: AttentionSizes,
    kernels: LookupKernels<AnyDevice>,
    blocks: Parts,
    segment_angles: Uploaded<f32>,
    key_angles: Uploaded<f32>,
}

impl DeviceIndex {
    /// For lookups among units of these sizes, with `n_bytes` for blocks of `block_bytes` a layer.
    ///
    /// # Errors
    /// When there are no such kernels, or no such room.
    pub fn new(
        device: &AnyDevice,
        sizes: AttentionSizes,
        (block_bytes, n_bytes): (usize, usize),
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            kernels: LookupKernels::new(device, sizes.clone())?,
            sizes,
            blocks: Parts::new(device, block_bytes, n_bytes)?,
            segment_angles: Uploaded::default(),
            key_angles: Uploaded::default(),
        })
    }

    /// Which blocks were there, and which were not.
    pub fn counts(&self) -> SlotCounts {
        self.blocks.counts()
    }

    /// Bytes of the device's memory that blocks take.
    pub fn n_bytes(&self) -> usize {
        self.blocks.n_bytes()
    }

    /// Whether it is one for such sizes and blocks.
    pub fn is_for(&self, sizes: &AttentionSizes, block_bytes: usize) -> bool {
        self.sizes == *sizes && self.blocks.is_for(block_bytes)
    }

    /// The candidates of each set; none where the blocks of all layers do not fit, so that each
    /// lookup would copy all of them.
    ///
    /// # Errors
    /// When the device fails.
    pub fn name_candidates(
        &mut self,
        device: &AnyDevice,
        (step, queries): (LookupStep<'_>, &Array<AnyDevice, f32>),
        (index, n_candidates): (NamedBlocks<'_>, usize),
    ) -> Result<Option<Vec<u32>>, DeviceError> {
        let view = index.view;
        if view.blocks.len() * index.layout.n_layers > self.blocks.n_slots() {
            return Ok(None);
        }
        self.blocks.begin_step();
        let mut offsets = Vec::with_capacity(view.blocks.len());
        for (name, bytes) in index.names.iter().zip(view.blocks) {
            match self.blocks.bring(device, (*name, index.layer as u32), bytes) {
                Ok(offset) => offsets.push(offset),
                Err(PartError::Device(error)) => return Err(error),
                Err(PartError::NoSlot(_)) => return Ok(None),
            }
        }
        let buffer = self.blocks.buffer();
        let blocks: Vec<_> =
            offsets.into_iter().map(|offset| BlockRef { buffer, offset }).collect();
        let ask = Ask {
            queries,
            first_row: step.first_row,
            n_tokens: step.n_tokens,
            group_len: step.group_len,
            segment_angles: self.segment_angles.of(device, step.segment_angles)?,
            key_angles: self.key_angles.of(device, step.key_angles)?,
            scale: step.scale,
            sharpness: step.sharpness,
            vote: match step.vote {
                Vote::Soft => VoteKind::Shares,
                Vote::Raw => VoteKind::Scores,
            },
            n_sets: step.n_sets,
            index: SegmentIndex {
                blocks: &blocks,
                n_units: index.n_units,
                n_segments: view.n_segments,
            },
            n_candidates,
        };
        self.kernels.name_candidates(device, &ask).map(Some)
    }

    /// The candidates' votes by their own keys, of the queries that named them.
    ///
    /// # Errors
    /// When their pages do not fit the device, or it fails.
    pub fn vote_by_keys(
        &mut self,
        device: &AnyDevice,
        paged: &mut Paged,
        candidates: &Candidates<'_>,
    ) -> Result<Vec<f32>, StepError> {
        let offsets = paged.bring_candidates(device, candidates)?;
        let pages: Vec<PageRef<'_, AnyDevice>> =
            offsets.into_iter().map(|offset| paged.candidate(candidates.layout, offset)).collect();
        Ok(self.kernels.vote_by_keys(device, &pages)?)
    }
}

/// Whether the device has kernels for such a lookup.
pub fn looks_up(step: &LookupStep<'_>) -> bool {
    step.representatives == Representatives::Keys && step.group_len > 0
}
