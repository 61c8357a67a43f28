//! Launchers of `cuda/attend_many.cu`: attention of many queries to paged keys and values.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DevicePointer, Geometry, grid_depth, grid_size};
use crate::error::DeviceError;
use crate::launch::attention::{
    AttendStep, AttentionSizes, KEYS, MassParams, Page, Plan, ROWS, Sequence, room,
};
use crate::launch::size;
use crate::naive::{HeadShape, PageFormat, PageType};

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
    n_tiles: u32,
    shared_bytes: u32,
    scale: f32,
}

/// The kernels, compiled for some sizes, with room for what passes between them.
pub struct AttendManyKernels<D: Device> {
    program: D::Program,
    sizes: AttentionSizes,
    tables: Option<Tables<D>>,
    page_sums: Option<Array<D, f32>>,
    row_sums: Option<Array<D, f32>>,
}

/// What kernels look up.
struct Tables<D: Device> {
    pages: Array<D, Page>,
    sequences: Array<D, Sequence>,
    blocks: Array<D, Block>,
}

impl<D: Device> AttendManyKernels<D> {
    /// Compiles them.
    ///
    /// # Errors
    /// When there are no kernels of these sizes, the device has no compiler, or it refuses.
    pub fn new(device: &D, sizes: AttentionSizes) -> Result<Self, DeviceError> {
        sizes.check()?;
        let program = device.program(&sizes.source("attend_many.cu"))?;
        Ok(Self { program, sizes, tables: None, page_sums: None, row_sums: None })
    }

    /// Attention of all sequences' queries, see [`attend`](crate::naive::attend).
    ///
    /// # Errors
    /// When an array or a page is too short, a page is of a type that was not compiled for, or the
    /// device fails.
    pub fn attend(&mut self, device: &D, step: AttendStep<'_, D>) -> Result<(), DeviceError> {
        let plan = self.sizes.plan(device, step.sequences)?;
        let HeadShape { n_heads, n_kv_heads, head_dim } = self.sizes.heads;
        let (width, angles) = (n_heads * head_dim, 2 * self.sizes.n_pairs);
        let queries = step.queries.first(plan.n_rows * width, "queries")?;
        let near = step.near.first(plan.n_rows * angles, "angles of queries")?;
        let placements = step.placements.first(plan.n_placements * angles, "angles of pages")?;
        let out = step.out.first(plan.n_rows * width, "attention's output")?;
        let blocks = blocks_of(&plan);
        if blocks.is_empty() {
            return Ok(());
        }
        let shared_bytes = size("shared memory", self.shared_bytes())?;
        let slots = plan.tiles.len() * n_kv_heads;
        let row_sums = room(device, &mut self.row_sums, slots * ROWS)?;
        let page_sums = match &step.page_masses {
            Some(_) => room(device, &mut self.page_sums, slots * plan.most_pages * ROWS)?,
            None => DevicePointer(0),
        };
        let tables = self.tables.insert(Tables {
            pages: Array::of(device, &plan.pages)?,
            sequences: Array::of(device, &plan.sequences)?,
            blocks: Array::of(device, &blocks)?,
        });
        let sequences = tables.sequences.first(plan.sequences.len(), "sequences")?;
        let heads = size("KV heads", n_kv_heads)?;
        let group = size("heads of a group", n_heads / n_kv_heads)?;
        let most_pages = size("pages", plan.most_pages)?;
        let params = ManyParams {
            queries,
            near,
            placements,
            pages: tables.pages.first(plan.pages.len(), "pages")?,
            sequences,
            blocks: tables.blocks.first(blocks.len(), "blocks")?,
            out,
            row_sums,
            page_sums,
            n_kv_heads: heads,
            group,
            most_pages,
            n_tiles: size("tiles", plan.tiles.len())?,
            shared_bytes,
            scale: step.scale * std::f32::consts::LOG2_E,
        };
        let grid = [grid_size(blocks.len())?, heads, 1];
        let geometry = Geometry { grid, block: [32 * WARPS as u32, 1, 1], shared_bytes };
        self.launch(device, "attend_many", geometry, &params)?;
        let Some(masses) = step.page_masses else { return Ok(()) };
        let masses = masses.first(plan.pages.len(), "masses of pages")?;
        let (n_kv_heads, padding) = (heads, 0);
        let mass = MassParams {
            page_sums,
            row_sums,
            sequences,
            masses,
            n_kv_heads,
            group,
            most_pages,
            padding,
        };
        let pages = grid_size(plan.most_pages.div_ceil(128))?;
        let grid = [pages, grid_depth(plan.most_sets)?, grid_depth(plan.sequences.len())?];
        let geometry = Geometry { grid, block: [128, 1, 1], shared_bytes: 0 };
        self.launch(device, "page_masses", geometry, &mass)
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

    fn launch<P: Pod>(
        &self,
        device: &D,
        kernel: &'static str,
        geometry: Geometry,
        params: &P,
    ) -> Result<(), DeviceError> {
        // SAFETY: the structures are those of the kernels, field by field; `plan` has checked every
        // page against its buffer, `attend` every array against what the plan touches of it; the
        // kernel stops where it needs more shared memory than it was given; warps write rows of
        // their own, and the tables live in `self`.
        unsafe { device.launch(&self.program, kernel, geometry, bytemuck::bytes_of(params)) }
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
