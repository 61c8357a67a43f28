//! Launchers of `cuda/attend_few.cu`: attention of few queries to paged keys and values.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DevicePointer, grid_depth, grid_size};
use crate::error::DeviceError;
use crate::launch::paged::{AttendStep, AttentionSizes, ROWS, Shared};
use crate::launch::{Kernel, fill, launch, room, size};

const WARPS: usize = 4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct AttendParams {
    queries: DevicePointer,
    near: DevicePointer,
    placements: DevicePointer,
    pages: DevicePointer,
    sequences: DevicePointer,
    tiles: DevicePointer,
    parts: DevicePointer,
    stats: DevicePointer,
    page_sums: DevicePointer,
    n_kv_heads: u32,
    group: u32,
    most_pages: u32,
    scale: f32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct MergeParams {
    parts: DevicePointer,
    stats: DevicePointer,
    sequences: DevicePointer,
    tiles: DevicePointer,
    out: DevicePointer,
    row_sums: DevicePointer,
    n_kv_heads: u32,
    group: u32,
    n_splits: u32,
    padding: u32,
}

/// The kernels, compiled for some sizes, with room for what passes between them.
pub struct AttendFewKernels<D: Device> {
    program: D::Program,
    sizes: AttentionSizes,
    shared: Shared<D>,
    tiles: Option<Array<D, u32>>,
    parts: Option<Array<D, f32>>,
    stats: Option<Array<D, f32>>,
}

impl<D: Device> AttendFewKernels<D> {
    /// Compiles them.
    ///
    /// # Errors
    /// When there are no kernels of these sizes, the device has no compiler, or it refuses.
    pub fn new(device: &D, sizes: AttentionSizes) -> Result<Self, DeviceError> {
        sizes.check()?;
        let program = device.program(&sizes.source("attend_few.cu"))?;
        let shared = Shared::default();
        Ok(Self { program, sizes, shared, tiles: None, parts: None, stats: None })
    }

    /// Attention of all sequences' queries, see [`attend`](crate::naive::attend).
    ///
    /// # Errors
    /// When an array or a page is too short, a page is of a type that was not compiled for, rows
    /// are two sequences', or the device fails.
    pub fn attend(&mut self, device: &D, step: AttendStep<'_, D>) -> Result<(), DeviceError> {
        let told = self.shared.tell(device, &self.sizes, step)?;
        let n_tiles = told.plan.tiles.len();
        let slots = n_tiles * self.sizes.heads.n_kv_heads;
        // As many blocks as keep the device busy, and no split without a page.
        let wanted = (4 * device.n_multiprocessors()).div_ceil(slots.max(1));
        let n_groups = wanted.clamp(1, told.plan.most_pages.div_ceil(WARPS).max(1));
        let n_splits = n_groups * WARPS;
        let n_parts = slots * n_splits * ROWS;
        let tiles = fill(device, &mut self.tiles, &told.plan.tiles)?;
        let parts = room(device, &mut self.parts, n_parts * self.sizes.heads.head_dim)?;
        let stats = room(device, &mut self.stats, 2 * n_parts)?;
        let attend = AttendParams {
            queries: told.queries,
            near: told.near,
            placements: told.placements,
            pages: told.pages,
            sequences: told.sequences,
            tiles,
            parts,
            stats,
            page_sums: told.page_sums,
            n_kv_heads: told.n_kv_heads,
            group: told.group,
            most_pages: told.most_pages,
            scale: told.scale,
        };
        let grid = [grid_size(n_groups)?, told.n_kv_heads, grid_depth(n_tiles)?];
        let kernel = Kernel::new("attend_few", grid, 32 * WARPS);
        // SAFETY: the structures are those of the kernels, field by field; `tell` has checked every
        // page and array against what the plan touches; warps write parts of their own, rows of
        // their own after that, and the tables live in `self`.
        unsafe { launch(device, &self.program, kernel, &attend)? };
        let merge = MergeParams {
            parts,
            stats,
            sequences: told.sequences,
            tiles,
            out: told.out,
            row_sums: told.row_sums,
            n_kv_heads: told.n_kv_heads,
            group: told.group,
            n_splits: size("splits", n_splits)?,
            padding: 0,
        };
        let grid = [ROWS as u32, told.n_kv_heads, grid_depth(n_tiles)?];
        // SAFETY: as above.
        unsafe { launch(device, &self.program, Kernel::new("merge_parts", grid, 64), &merge)? };
        told.sum_masses(device, &self.program)
    }
}
