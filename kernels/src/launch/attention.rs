//! Launchers of `cuda/attend_few.cu`, for few queries; and what both kernels of attention are told,
//! which is checked here.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DeviceBuffer, DevicePointer, Geometry, grid_depth, grid_size};
use crate::error::DeviceError;
use crate::launch::size;
use crate::naive::{HeadShape, PageFormat, PageType};
use crate::source::ProgramSource;

pub(super) const ROWS: usize = 16;
const WARPS: usize = 4;
pub(super) const KEYS: usize = 64; // of a round

/// What attention is compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttentionSizes {
    /// The heads.
    pub heads: HeadShape,
    /// Rotated pairs `(i, i + n_pairs)` of a head.
    pub n_pairs: usize,
    /// Tokens of a page.
    pub page_len: usize,
    /// Types that pages have.
    pub kv_types: Vec<PageType>,
}

impl AttentionSizes {
    pub(super) fn check(&self) -> Result<(), DeviceError> {
        let unsupported =
            |what, size, supported| Err(DeviceError::Unsupported { what, size, supported });
        let HeadShape { n_heads, n_kv_heads, head_dim } = self.heads;
        if head_dim == 0 || head_dim % 16 != 0 || head_dim > 256 {
            return unsupported("a head's width", head_dim, "multiples of 16 up to 256");
        }
        if !self.n_pairs.is_multiple_of(2) || 2 * self.n_pairs > head_dim {
            return unsupported("pairs", self.n_pairs, "even, and up to half of a head's width");
        }
        if self.page_len == 0 || !self.page_len.is_multiple_of(KEYS) || self.page_len > 4096 {
            return unsupported("a page", self.page_len, "multiples of 64 up to 4,096");
        }
        if n_kv_heads == 0 || n_heads % n_kv_heads != 0 || n_kv_heads > 65_535 {
            return unsupported("query heads", n_heads, "multiples of the number of KV heads");
        }
        Ok(())
    }

    /// A page as kernels take it, once it is sure that it is one.
    pub(super) fn page<D: Device>(&self, page: &PageRef<'_, D>) -> Result<Page, DeviceError> {
        let (kv_type, page_len) = (page.kv_type, self.page_len);
        let HeadShape { n_kv_heads, head_dim, .. } = self.heads;
        if !self.kv_types.contains(&kv_type) {
            let supported = "the types that attention was compiled for";
            let size = code(kv_type) as usize;
            return Err(DeviceError::Unsupported { what: "a page's type", size, supported });
        }
        if !page.offset.is_multiple_of(16) || page.n_keys > page_len {
            let supported = "places at multiples of 16 bytes, and as many keys as a page has";
            let size = if page.n_keys > page_len { page.n_keys } else { page.offset };
            return Err(DeviceError::Unsupported { what: "a page", size, supported });
        }
        let needed =
            page.offset + n_kv_heads * PageFormat { kv_type, head_dim, page_len }.head_bytes();
        let len = page.buffer.n_bytes();
        if needed > len {
            return Err(DeviceError::TooShort { what: "a page's buffer, in bytes", needed, len });
        }
        Ok(Page {
            layer: DevicePointer(page.buffer.pointer().0 + page.offset as u64),
            n_keys: page.n_keys as u32,
            first_index: size("a text's tokens", page.first_index)?,
            placement: size("placements", page.placement)?,
            kv_type: code(kv_type),
        })
    }

    /// Checks every page and counts.
    pub(super) fn plan<D: Device>(
        &self,
        device: &D,
        given: &[PagedSequence<'_, D>],
    ) -> Result<Plan, DeviceError> {
        let group = self.heads.n_heads / self.heads.n_kv_heads;
        let mut plan = Plan {
            pages: Vec::new(),
            sequences: Vec::with_capacity(given.len()),
            tiles: Vec::new(),
            most_pages: 0,
            most_sets: 1,
            n_rows: 0,
            n_placements: 0,
            n_groups: 1,
        };
        for sequence in given {
            let n_sets = sequence.n_sets;
            let is_known = n_sets == 1 || n_sets == self.heads.n_kv_heads;
            if !is_known || sequence.pages.len() % n_sets != 0 {
                let supported = "one, or one a KV head, equally long";
                return Err(DeviceError::Unsupported {
                    what: "sets of pages",
                    size: n_sets,
                    supported,
                });
            }
            let n_pages = sequence.pages.len() / n_sets;
            plan.sequences.push(Sequence {
                first_row: size("rows", sequence.first_row)?,
                n_tokens: size("tokens", sequence.n_tokens)?,
                first_index: size("a text's tokens", sequence.first_index)?,
                first_page: size("pages", plan.pages.len())?,
                n_pages: size("pages", n_pages)?,
                n_sets: size("sets", n_sets)?,
                first_tile: size("tiles", plan.tiles.len())?,
                padding: 0,
            });
            let n_tiles = (sequence.n_tokens * group).div_ceil(ROWS);
            let number = size("sequences", plan.sequences.len() - 1)?;
            plan.tiles.extend(std::iter::repeat_n(number, n_tiles));
            plan.most_pages = plan.most_pages.max(n_pages);
            plan.most_sets = plan.most_sets.max(n_sets);
            plan.n_rows = plan.n_rows.max(sequence.first_row + sequence.n_tokens);
            for page in sequence.pages {
                plan.pages.push(self.page(page)?);
                plan.n_placements = plan.n_placements.max(page.placement + 1);
            }
        }
        // As many blocks as keep the device busy, and no split without a page.
        let blocks = (plan.tiles.len() * self.heads.n_kv_heads).max(1);
        let wanted = (4 * device.n_multiprocessors()).div_ceil(blocks);
        plan.n_groups = wanted.clamp(1, plan.most_pages.div_ceil(WARPS).max(1));
        Ok(plan)
    }

    pub(super) fn source(&self, file: &'static str) -> ProgramSource {
        let types = self.kv_types.iter().fold(0, |types, kv_type| types | 1 << code(*kv_type));
        ProgramSource::new(
            file,
            &[
                ("HEAD_DIM", self.heads.head_dim),
                ("N_PAIRS", self.n_pairs),
                ("PAGE_LEN", self.page_len),
                ("KV_TYPES", types),
            ],
        )
    }
}

/// The number that kernels know a type by.
pub(super) fn code(kv_type: PageType) -> u32 {
    match kv_type {
        PageType::F16 => 0,
        PageType::Int8 => 1,
        PageType::Int4 => 2,
    }
}

/// A page and where it is seen from.
pub struct PageRef<'a, D: Device> {
    /// Holds the page.
    pub buffer: &'a D::Buffer,
    /// Where the layer's part begins in it: a multiple of 16.
    pub offset: usize,
    /// Keys that are there, from the first.
    pub n_keys: usize,
    /// Index in the text of the first of them.
    pub first_index: usize,
    /// Row of the table of angles that says where it stands.
    pub placement: usize,
    /// How its keys and values are kept.
    pub kv_type: PageType,
}

/// Queries of one text and the pages that they attend to.
pub struct PagedSequence<'a, D: Device> {
    /// Row of the first query.
    pub first_row: usize,
    /// Queries.
    pub n_tokens: usize,
    /// Index in the text of the first query.
    pub first_index: usize,
    /// `[set][page]`
    pub pages: &'a [PageRef<'a, D>],
    /// Sets of pages: one for all heads, or one a KV head.
    pub n_sets: usize,
}

/// One layer's attention of some sequences.
pub struct AttendStep<'a, D: Device> {
    /// `[row][head][head_dim]`, not rotated.
    pub queries: &'a Array<D, f32>,
    /// `[row][2][n_pairs]`: cosines, then sines, of the queries' places.
    pub near: &'a Array<D, f32>,
    /// `[placement][2][n_pairs]`: those of pages.
    pub placements: &'a Array<D, f32>,
    /// Whose queries.
    pub sequences: &'a [PagedSequence<'a, D>],
    /// Factor on scores.
    pub scale: f32,
    /// `[row][head][head_dim]`
    pub out: &'a mut Array<D, f32>,
    /// `[sequence][set][page]`, where wanted: the square of the softmax mass that each page
    /// received, summed over queries and heads.
    pub page_masses: Option<&'a mut Array<D, f32>>,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Page {
    layer: DevicePointer,
    n_keys: u32,
    first_index: u32,
    placement: u32,
    kv_type: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Sequence {
    first_row: u32,
    n_tokens: u32,
    first_index: u32,
    first_page: u32,
    n_pages: u32,
    n_sets: u32,
    pub first_tile: u32,
    padding: u32,
}

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

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct MassParams {
    pub page_sums: DevicePointer,
    pub row_sums: DevicePointer,
    pub sequences: DevicePointer,
    pub masses: DevicePointer,
    pub n_kv_heads: u32,
    pub group: u32,
    pub most_pages: u32,
    pub padding: u32,
}

/// The kernels, compiled for some sizes, with room for what passes between them.
pub struct AttendFewKernels<D: Device> {
    program: D::Program,
    sizes: AttentionSizes,
    tables: Option<Tables<D>>,
    parts: Option<Array<D, f32>>,
    stats: Option<Array<D, f32>>,
    page_sums: Option<Array<D, f32>>,
    row_sums: Option<Array<D, f32>>,
}

/// What kernels look up.
struct Tables<D: Device> {
    pages: Array<D, Page>,
    sequences: Array<D, Sequence>,
    tiles: Array<D, u32>,
}

/// Where all that is.
struct Places {
    parts: DevicePointer,
    stats: DevicePointer,
    row_sums: DevicePointer,
    page_sums: DevicePointer,
    pages: DevicePointer,
    sequences: DevicePointer,
    tiles: DevicePointer,
}

/// The sizes of a launch.
pub(super) struct Plan {
    pub pages: Vec<Page>,
    pub sequences: Vec<Sequence>,
    pub tiles: Vec<u32>,
    pub most_pages: usize,
    pub most_sets: usize,
    pub n_rows: usize,
    pub n_placements: usize,
    n_groups: usize, // of WARPS splits
}

impl<D: Device> AttendFewKernels<D> {
    /// Compiles them.
    ///
    /// # Errors
    /// When there are no kernels of these sizes, the device has no compiler, or it refuses.
    pub fn new(device: &D, sizes: AttentionSizes) -> Result<Self, DeviceError> {
        sizes.check()?;
        let program = device.program(&sizes.source("attend_few.cu"))?;
        let (parts, stats, page_sums, row_sums) = (None, None, None, None);
        Ok(Self { program, sizes, tables: None, parts, stats, page_sums, row_sums })
    }

    /// Attention of all sequences' queries, see [`attend`](crate::naive::attend).
    ///
    /// # Errors
    /// When an array or a page is too short, a page is of a type that was not compiled for, or the
    /// device fails.
    pub fn attend(&mut self, device: &D, step: AttendStep<'_, D>) -> Result<(), DeviceError> {
        let plan = self.sizes.plan(device, step.sequences)?;
        let HeadShape { n_heads, n_kv_heads, head_dim } = self.sizes.heads;
        let width = n_heads * head_dim;
        let angles = 2 * self.sizes.n_pairs;
        let queries = step.queries.first(plan.n_rows * width, "queries")?;
        let near = step.near.first(plan.n_rows * angles, "angles of queries")?;
        let placements = step.placements.first(plan.n_placements * angles, "angles of pages")?;
        let out = step.out.first(plan.n_rows * width, "attention's output")?;
        if plan.tiles.is_empty() {
            return Ok(());
        }
        let places = self.places(device, &plan, step.page_masses.is_some())?;
        let heads = size("KV heads", n_kv_heads)?;
        let group = size("heads of a group", n_heads / n_kv_heads)?;
        let most_pages = size("pages", plan.most_pages)?;
        let Places { parts, stats, row_sums, page_sums, pages, sequences, tiles } = places;
        let attend = AttendParams {
            queries,
            near,
            placements,
            pages,
            sequences,
            tiles,
            parts,
            stats,
            page_sums,
            n_kv_heads: heads,
            group,
            most_pages,
            scale: step.scale * std::f32::consts::LOG2_E,
        };
        let n_tiles = grid_depth(plan.tiles.len())?;
        let grid = [grid_size(plan.n_groups)?, heads, n_tiles];
        self.launch(device, ("attend_few", grid, WARPS as u32), &attend)?;
        let n_splits = size("splits", plan.n_groups * WARPS)?;
        let padding = 0;
        let n_kv_heads = heads;
        let merge = MergeParams {
            parts,
            stats,
            sequences,
            tiles,
            out,
            row_sums,
            n_kv_heads,
            group,
            n_splits,
            padding,
        };
        self.launch(device, ("merge_parts", [ROWS as u32, heads, n_tiles], 2), &merge)?;
        let Some(masses) = step.page_masses else { return Ok(()) };
        let masses = masses.first(plan.pages.len(), "masses of pages")?;
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
        let blocks = grid_size(plan.most_pages.div_ceil(128))?;
        let grid = [blocks, grid_depth(plan.most_sets)?, grid_depth(plan.sequences.len())?];
        self.launch(device, ("page_masses", grid, 4), &mass)
    }

    /// Makes room for what passes between kernels, and tells the device what they look up.
    fn places(
        &mut self,
        device: &D,
        plan: &Plan,
        wants_masses: bool,
    ) -> Result<Places, DeviceError> {
        let HeadShape { n_kv_heads, head_dim, .. } = self.sizes.heads;
        let slots = plan.tiles.len() * n_kv_heads;
        let n_parts = slots * plan.n_groups * WARPS * ROWS;
        let tables = self.tables.insert(Tables {
            pages: Array::of(device, &plan.pages)?,
            sequences: Array::of(device, &plan.sequences)?,
            tiles: Array::of(device, &plan.tiles)?,
        });
        Ok(Places {
            parts: room(device, &mut self.parts, n_parts * head_dim)?,
            stats: room(device, &mut self.stats, 2 * n_parts)?,
            row_sums: room(device, &mut self.row_sums, slots * ROWS)?,
            page_sums: match wants_masses {
                true => room(device, &mut self.page_sums, slots * plan.most_pages * ROWS)?,
                false => DevicePointer(0),
            },
            pages: tables.pages.first(plan.pages.len(), "pages")?,
            sequences: tables.sequences.first(plan.sequences.len(), "sequences")?,
            tiles: tables.tiles.first(plan.tiles.len(), "tiles")?,
        })
    }

    fn launch<P: Pod>(
        &self,
        device: &D,
        (kernel, grid, n_warps): (&'static str, [u32; 3], u32),
        params: &P,
    ) -> Result<(), DeviceError> {
        let geometry = Geometry { grid, block: [32 * n_warps, 1, 1], shared_bytes: 0 };
        // SAFETY: the structures above are those of the kernels, field by field; `plan` has checked
        // every page against its buffer, `attend` every array against what the plan touches of it;
        // warps write parts of their own, and the tables live in `self`.
        unsafe { device.launch(&self.program, kernel, geometry, bytemuck::bytes_of(params)) }
    }
}

/// An array of at least `len` elements, made anew where the one there is shorter.
pub(super) fn room<D: Device, T: Pod>(
    device: &D,
    array: &mut Option<Array<D, T>>,
    len: usize,
) -> Result<DevicePointer, DeviceError> {
    if array.as_ref().is_none_or(|array| array.len() < len) {
        *array = None; // before the next one, so that both are never there at once
        *array = Some(Array::undefined(device, len)?);
    }
    array.as_ref().expect("because it was just made").first(len, "room between kernels")
}
