//! Launchers of `cuda/attend_many.cu`: attention of many queries to paged keys and values.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DevicePointer, grid_size};
use crate::error::DeviceError;
use crate::launch::paged::{AttendStep, AttentionSizes, KEYS, Plan, ROWS, Shared};
use crate::launch::{Kernel, fill, launch, size};
use crate::naive::{PageFormat, PageType};

const WARPS: usize = 8;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Block {
    sequence: u32,
    first_tile: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct ManyParams {
    queries: DevicePointer,
    near: DevicePointer,
    placements: DevicePointer,
    pages: DevicePointer,
    sequences: DevicePointer,
    blocks: DevicePointer,
    out: DevicePointer,
    row_sums: DevicePointer,
    page_sums: DevicePointer,
    n_kv_heads: u32,
    group: u32,
    most_pages: u32,
    shared_bytes: u32,
    scale: f32,
    padding: u32,
}

/// The kernels, compiled for some sizes, with room for what passes between them.
pub struct AttendManyKernels<D: Device> {
    program: D::Program,
    sizes: AttentionSizes,
    shared: Shared<D>,
    blocks: Option<Array<D, Block>>,
}

impl<D: Device> AttendManyKernels<D> {
    /// Compiles them.
    ///
    /// # Errors
    /// When there are no kernels of these sizes, the device has no compiler, or it refuses.
    pub fn new(device: &D, sizes: AttentionSizes) -> Result<Self, DeviceError> {
        sizes.check()?;
        let program = device.program(&sizes.source("attend_many.cu"))?;
        Ok(Self { program, sizes, shared: Shared::default(), blocks: None })
    }

    /// Attention of all sequences' queries, see [`attend`](crate::naive::attend).
    ///
    /// # Errors
    /// When an array or a page is too short, a page is of a type that was not compiled for, rows
    /// are two sequences', or the device fails.
    pub fn attend(&mut self, device: &D, step: AttendStep<'_, D>) -> Result<(), DeviceError> {
        let told = self.shared.tell(device, &self.sizes, step)?;
        let blocks = blocks_of(&told.plan);
        let shared_bytes = size("shared memory", self.shared_bytes())?;
        let params = ManyParams {
            queries: told.queries,
            near: told.near,
            placements: told.placements,
            pages: told.pages,
            sequences: told.sequences,
            blocks: fill(device, &mut self.blocks, &blocks)?,
            out: told.out,
            row_sums: told.row_sums,
            page_sums: told.page_sums,
            n_kv_heads: told.n_kv_heads,
            group: told.group,
            most_pages: told.most_pages,
            shared_bytes,
            scale: told.scale,
            padding: 0,
        };
        let grid = [grid_size(blocks.len())?, told.n_kv_heads, 1];
        let kernel = Kernel::new("attend_many", grid, 32 * WARPS).with_shared_bytes(shared_bytes);
        // SAFETY: the structure is that of the kernel, field by field; `tell` has checked every
        // page and array against what the plan touches; the kernel stops where it needs more shared
        // memory than it was given; warps write rows of their own, and the tables live in `self`.
        unsafe { launch(device, &self.program, kernel, &params)? };
        told.sum_masses(device, &self.program)
    }

    /// Dynamic shared memory of a block: a round's bytes as they lie in a page of the widest type,
    /// its keys and values as halves, and the rows' queries.
    fn shared_bytes(&self) -> usize {
        let head_dim = self.sizes.heads.head_dim;
        let raw = |kv_type: &PageType| PageFormat { kv_type: *kv_type, head_dim, page_len: KEYS };
        let raw = self.sizes.kv_types.iter().map(|kv_type| raw(kv_type).head_bytes()).max();
        let keys = 4 * head_dim / 2 * KEYS;
        let values = 4 * KEYS / 2 * head_dim.next_multiple_of(32);
        let queries = WARPS * ROWS * head_dim * 2;
        raw.unwrap_or(0) + keys + values + queries
    }
}

/// Blocks of up to eight tiles of one sequence; those with most to do, the last ones, first.
fn blocks_of(plan: &Plan) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (i, sequence) in plan.sequences.iter().enumerate() {
        let n_tiles = plan.tiles.iter().filter(|tile| **tile as usize == i).count();
        let firsts = (0..n_tiles).step_by(WARPS).rev();
        blocks.extend(firsts.map(|first| Block {
            sequence: i as u32,
            first_tile: sequence.first_tile + first as u32,
        }));
    }
    blocks
}
