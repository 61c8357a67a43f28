//! Launchers of `cuda/lookup.cu`: which units do queries ask for? Both stages, on the device.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DeviceBuffer, DevicePointer, grid_depth, grid_size};
use crate::error::DeviceError;
use crate::launch::ask::{Ask, LookUp, SegmentIndex, VoteKind};
use crate::launch::paged::{AttentionSizes, Page, PageRef};
use crate::launch::{Kernel, fill, launch, room, size};

const WARPS: usize = 4;
const UNITS: usize = 16;
const COARSE_ROWS: usize = 8;
const FINE_ROWS: usize = 16;
const VOTE_THREADS: usize = 256;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PrepareParams {
    queries: DevicePointer,
    segment_angles: DevicePointer,
    key_angles: DevicePointer,
    bytes: DevicePointer,
    byte_scales: DevicePointer,
    rows: DevicePointer,
    first_row: u32,
    n_tokens: u32,
    group_len: u32,
    n_kv_heads: u32,
    group: u32,
    scale: f32,
    sharpness: f32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct SegmentParams {
    blocks: DevicePointer,
    bytes: DevicePointer,
    byte_scales: DevicePointer,
    scores: DevicePointer,
    n_units: u32,
    n_segments: u32,
    n_rows: u32,
    n_kv_heads: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct KeyParams {
    rows: DevicePointer,
    units: DevicePointer,
    candidates: DevicePointer,
    scores: DevicePointer,
    n_candidates: u32,
    n_sets: u32,
    n_rows: u32,
    n_kv_heads: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ShareParams {
    scores: DevicePointer,
    shares: DevicePointer,
    n_units: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct VoteParams {
    scores: DevicePointer,
    shares: DevicePointer,
    votes: DevicePointer,
    n_units: u32,
    n_rows: u32,
    n_kv_heads: u32,
    group: u32,
    n_sets: u32,
    padding: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ChooseParams {
    votes: DevicePointer,
    names: DevicePointer,
    chosen: DevicePointer,
    n_units: u32,
    n: u32,
}

/// The kernels, compiled for some sizes, with room for what passes between them.
pub struct LookupKernels<D: Device> {
    program: D::Program,
    sizes: AttentionSizes,
    bytes: Option<Array<D, i8>>,
    byte_scales: Option<Array<D, f32>>,
    rows: Option<Array<D, f32>>,
    scores: Option<Array<D, f32>>,
    shares: Option<Array<D, f32>>,
    votes: Option<Array<D, f32>>,
    candidates: Option<Array<D, u32>>,
    blocks: Option<Array<D, DevicePointer>>,
    pages: Option<Array<D, Page>>,
    prepared: Option<Prepared>, // of the last ask
    n_last: usize,              // candidates of all sets
}

/// Queries, prepared.
#[derive(Clone, Copy)]
struct Prepared {
    bytes: DevicePointer,
    byte_scales: DevicePointer,
    rows: DevicePointer,
    n_rows: usize, // of a KV head
    vote: VoteKind,
    n_sets: usize,
}

impl<D: Device> LookupKernels<D> {
    /// Compiles them.
    ///
    /// # Errors
    /// When there are no kernels of these sizes, the device has no compiler, or it refuses.
    pub fn new(device: &D, sizes: AttentionSizes) -> Result<Self, DeviceError> {
        sizes.check()?;
        let program = device.program(&sizes.source("lookup.cu"))?;
        let (byte_scales, rows, scores, shares, votes) = (None, None, None, None, None);
        let (bytes, candidates) = (None, None);
        Ok(Self {
            program,
            sizes,
            bytes,
            byte_scales,
            rows,
            scores,
            shares,
            votes,
            candidates,
            blocks: None,
            pages: None,
            prepared: None,
            n_last: 0,
        })
    }

    /// The units wanted of each set, `[set][wanted]`, in the order of the text, into `chosen`;
    /// returns how many of a set they are: fewer than wanted where there are not so many.
    ///
    /// # Errors
    /// When an array or the index is too short, or the device fails.
    pub fn look_up(
        &mut self,
        device: &D,
        step: &LookUp<'_, D>,
        chosen: &mut Array<D, u32>,
    ) -> Result<usize, DeviceError> {
        let n_units = step.ask.index.n_units;
        let n_candidates = step.ask.n_candidates.min(n_units);
        let n_wanted = step.n_wanted.min(n_candidates);
        if step.units.sizes != self.sizes {
            let (what, size) = ("a table of units", step.units.table.len());
            let supported = "those made for the lookup's own sizes";
            return Err(DeviceError::Unsupported { what, size, supported });
        }
        let chosen = chosen.first(step.ask.n_sets * n_wanted, "units chosen")?;
        let units = step.units.table.first(n_units, "units")?;
        if n_wanted == 0 || step.ask.n_tokens == 0 {
            return Ok(0);
        }
        let queries = self.ask(device, &step.ask)?;
        let candidates = room(device, &mut self.candidates, self.n_last)?;
        self.score_keys(device, queries, (units, candidates, n_candidates))?;
        self.vote(device, queries, n_candidates)?;
        let sets = grid_size(step.ask.n_sets)?;
        self.choose(device, sets, (n_candidates, n_wanted), (candidates, chosen))?;
        Ok(n_wanted)
    }

    /// The coarse stage alone: the candidates of each set, `[set][candidate]`, in the order of the
    /// text.
    ///
    /// # Errors
    /// As [`look_up`](Self::look_up).
    pub fn name_candidates(
        &mut self,
        device: &D,
        ask: &Ask<'_, D>,
    ) -> Result<Vec<u32>, DeviceError> {
        self.ask(device, ask)?;
        let mut candidates = vec![0; self.n_last];
        if let Some(array) = &self.candidates {
            array.read(device, 0, &mut candidates)?;
        }
        Ok(candidates)
    }

    /// The fine stage for candidates that were named last: votes for these pages, `[set][candidate]`
    /// likewise.
    ///
    /// # Errors
    /// When nothing was asked before, a page is not what it is said to be, or the device fails.
    pub fn vote_by_keys(
        &mut self,
        device: &D,
        pages: &[PageRef<'_, D>],
    ) -> Result<Vec<f32>, DeviceError> {
        let prepared = self.prepared.filter(|queries| pages.len().is_multiple_of(queries.n_sets));
        let Some(queries) = prepared else {
            let supported = "as many for each set, after candidates were named";
            let (what, size) = ("candidates", pages.len());
            return Err(DeviceError::Unsupported { what, size, supported });
        };
        let table =
            pages.iter().map(|page| self.sizes.page(page)).collect::<Result<Vec<_>, _>>()?;
        let places: Vec<u32> = (0..pages.len() as u32).collect();
        let units = fill(device, &mut self.pages, &table)?;
        let candidates = fill(device, &mut self.candidates, &places)?;
        let n_candidates = pages.len() / queries.n_sets;
        self.score_keys(device, queries, (units, candidates, n_candidates))?;
        self.vote(device, queries, n_candidates)?;
        let mut votes = vec![0.0; pages.len()];
        if let Some(array) = &self.votes {
            array.read(device, 0, &mut votes)?;
        }
        Ok(votes)
    }

    /// Prepares queries and leaves the candidates of each set on the device.
    fn ask(&mut self, device: &D, ask: &Ask<'_, D>) -> Result<Prepared, DeviceError> {
        let n_units = ask.index.n_units;
        let n_candidates = ask.n_candidates.min(n_units);
        if ask.n_sets != 1 && ask.n_sets != self.sizes.heads.n_kv_heads {
            let supported = "one, or one a KV head";
            return Err(DeviceError::Unsupported { what: "sets", size: ask.n_sets, supported });
        }
        let queries = self.prepare(device, ask)?;
        self.prepared = Some(queries);
        self.score_segments(device, queries, &ask.index)?;
        self.vote(device, queries, n_units)?;
        self.n_last = ask.n_sets * n_candidates;
        let candidates = room(device, &mut self.candidates, self.n_last)?;
        let choice = (n_units, n_candidates);
        self.choose(device, grid_size(ask.n_sets)?, choice, (DevicePointer(0), candidates))?;
        Ok(queries)
    }

    /// The votes of the last lookup's fine stage for its candidates, and these: `[set][candidate]`
    /// each.
    ///
    /// # Errors
    /// When the device fails.
    pub fn last_votes(&self, device: &D) -> Result<(Vec<f32>, Vec<u32>), DeviceError> {
        match (&self.votes, &self.candidates) {
            (Some(votes), Some(candidates)) => {
                let mut candidates = candidates.to_vec(device)?;
                let mut votes = votes.to_vec(device)?;
                candidates.truncate(self.n_last);
                votes.truncate(self.n_last);
                Ok((votes, candidates))
            }
            _ => Ok((Vec::new(), Vec::new())),
        }
    }

    fn prepare(&mut self, device: &D, step: &Ask<'_, D>) -> Result<Prepared, DeviceError> {
        let heads = self.sizes.heads;
        if step.group_len == 0 {
            let (what, supported) = ("tokens that share a row", "from 1 on");
            return Err(DeviceError::Unsupported { what, size: 0, supported });
        }
        let n_groups = step.n_tokens.div_ceil(step.group_len);
        let n_rows = n_groups * heads.n_heads / heads.n_kv_heads;
        let all_rows = n_groups * heads.n_heads;
        let n_queries = (step.first_row + step.n_tokens) * heads.n_heads * heads.head_dim;
        let angles = 2 * self.sizes.n_pairs;
        let bytes = room(device, &mut self.bytes, all_rows * heads.head_dim)?;
        let byte_scales = room(device, &mut self.byte_scales, all_rows)?;
        let rows = room(device, &mut self.rows, all_rows * heads.head_dim)?;
        let params = PrepareParams {
            queries: step.queries.first(n_queries, "queries")?,
            segment_angles: step.segment_angles.first(angles, "angles of segments")?,
            key_angles: step.key_angles.first(angles, "angles of keys")?,
            bytes,
            byte_scales,
            rows,
            first_row: size("rows", step.first_row)?,
            n_tokens: size("tokens", step.n_tokens)?,
            group_len: size("tokens", step.group_len)?,
            n_kv_heads: size("KV heads", heads.n_kv_heads)?,
            group: size("heads", heads.n_heads / heads.n_kv_heads)?,
            scale: step.scale * std::f32::consts::LOG2_E,
            sharpness: step.sharpness,
            padding: 0,
        };
        let grid = [grid_size(n_groups)?, grid_depth(heads.n_heads)?, 1];
        self.launch(device, ("prepare_queries", grid, 32), &params)?;
        let (vote, n_sets) = (step.vote, step.n_sets);
        Ok(Prepared { bytes, byte_scales, rows, n_rows, vote, n_sets })
    }

    fn score_segments(
        &mut self,
        device: &D,
        queries: Prepared,
        index: &SegmentIndex<'_, D>,
    ) -> Result<(), DeviceError> {
        let heads = self.sizes.heads;
        let head_bytes = index.n_segments * UNITS * (heads.head_dim + 4);
        let n_blocks = index.n_units.div_ceil(UNITS);
        if n_blocks > index.blocks.len() {
            let (needed, len) = (n_blocks, index.blocks.len());
            return Err(DeviceError::TooShort { what: "the index, in blocks", needed, len });
        }
        let mut blocks = Vec::with_capacity(n_blocks);
        for block in &index.blocks[..n_blocks] {
            let (needed, len) =
                (block.offset + heads.n_kv_heads * head_bytes, block.buffer.n_bytes());
            if needed > len {
                return Err(DeviceError::TooShort { what: "a block, in bytes", needed, len });
            }
            if !block.offset.is_multiple_of(16) || index.n_segments == 0 {
                let supported = "segments, at multiples of 16 bytes";
                let (what, size) = ("a block's place", block.offset);
                return Err(DeviceError::Unsupported { what, size, supported });
            }
            blocks.push(DevicePointer(block.buffer.pointer().0 + block.offset as u64));
        }
        let blocks = fill(device, &mut self.blocks, &blocks)?;
        let scores =
            room(device, &mut self.scores, heads.n_kv_heads * queries.n_rows * index.n_units)?;
        let params = SegmentParams {
            blocks,
            bytes: queries.bytes,
            byte_scales: queries.byte_scales,
            scores,
            n_units: size("units", index.n_units)?,
            n_segments: size("segments", index.n_segments)?,
            n_rows: size("rows", queries.n_rows)?,
            n_kv_heads: size("KV heads", heads.n_kv_heads)?,
        };
        let grid = [
            grid_size(n_blocks.div_ceil(WARPS))?,
            grid_depth(heads.n_kv_heads)?,
            grid_depth(queries.n_rows.div_ceil(COARSE_ROWS))?,
        ];
        self.launch(device, ("score_segments", grid, 32 * WARPS), &params)
    }

    fn score_keys(
        &mut self,
        device: &D,
        queries: Prepared,
        (units, candidates, n): (DevicePointer, DevicePointer, usize),
    ) -> Result<(), DeviceError> {
        let heads = self.sizes.heads;
        let scores = room(device, &mut self.scores, heads.n_kv_heads * queries.n_rows * n)?;
        let params = KeyParams {
            rows: queries.rows,
            units,
            candidates,
            scores,
            n_candidates: size("candidates", n)?,
            n_sets: size("sets", queries.n_sets)?,
            n_rows: size("rows", queries.n_rows)?,
            n_kv_heads: size("KV heads", heads.n_kv_heads)?,
        };
        let grid = [
            grid_size(n.div_ceil(WARPS))?,
            grid_depth(heads.n_kv_heads)?,
            grid_depth(queries.n_rows.div_ceil(FINE_ROWS))?,
        ];
        self.launch(device, ("score_keys", grid, 32 * WARPS), &params)
    }

    /// From scores to votes.
    fn vote(&mut self, device: &D, queries: Prepared, n_units: usize) -> Result<(), DeviceError> {
        let heads = self.sizes.heads;
        let all_rows = heads.n_kv_heads * queries.n_rows;
        let scores = room(device, &mut self.scores, all_rows * n_units)?;
        let shares = match queries.vote {
            VoteKind::Shares => room(device, &mut self.shares, 2 * all_rows)?,
            VoteKind::Scores => DevicePointer(0),
        };
        let n = size("units", n_units)?;
        if queries.vote == VoteKind::Shares {
            let params = ShareParams { scores, shares, n_units: n, padding: 0 };
            let grid = [grid_size(all_rows)?, 1, 1];
            self.launch(device, ("share_rows", grid, VOTE_THREADS), &params)?;
        }
        let votes = room(device, &mut self.votes, queries.n_sets * n_units)?;
        let params = VoteParams {
            scores,
            shares,
            votes,
            n_units: n,
            n_rows: size("rows", queries.n_rows)?,
            n_kv_heads: size("KV heads", heads.n_kv_heads)?,
            group: size("heads", heads.n_heads / heads.n_kv_heads)?,
            n_sets: size("sets", queries.n_sets)?,
            padding: 0,
        };
        let grid = [grid_size(n_units.div_ceil(VOTE_THREADS))?, grid_depth(queries.n_sets)?, 1];
        self.launch(device, ("cast_votes", grid, VOTE_THREADS), &params)
    }

    /// The best of each set, by the votes that were cast last.
    fn choose(
        &self,
        device: &D,
        sets: u32,
        (n_units, n): (usize, usize),
        (names, chosen): (DevicePointer, DevicePointer),
    ) -> Result<(), DeviceError> {
        let votes = self.votes.as_ref().expect("because they were cast");
        let params = ChooseParams {
            votes: votes.first(sets as usize * n_units, "votes")?,
            names,
            chosen,
            n_units: size("units", n_units)?,
            n: size("units", n)?,
        };
        self.launch(device, ("choose_best", [sets, 1, 1], 1024), &params)
    }

    fn launch<P: Pod>(
        &self,
        device: &D,
        (kernel, grid, n_threads): (&'static str, [u32; 3], usize),
        params: &P,
    ) -> Result<(), DeviceError> {
        // SAFETY: the structures above are those of the kernels, field by field; each array was
        // asked for as many elements as the kernel touches in this geometry, the index and all
        // pages were checked against their buffers, candidates are below the number of units since
        // `choose_best` wrote them, and threads write places of their own.
        unsafe { launch(device, &self.program, Kernel::new(kernel, grid, n_threads), params) }
    }
}
