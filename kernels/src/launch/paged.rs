//! What are kernels of attention told? Pages, and sequences of queries that attend to them: checked
//! here against their buffers, and laid out as `cuda/attention.cuh` reads them.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DeviceBuffer, DevicePointer, grid_depth, grid_size};
use crate::error::DeviceError;
use crate::launch::{Kernel, fill, launch, room, size};
use crate::naive::{HeadShape, PageFormat, PageType};
use crate::source::ProgramSource;

pub(super) const ROWS: usize = 16;
/// Pages of a block of `page_masses`, a thread each.
const MASS_PAGES: usize = 128;
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
    /// Says whether there are kernels for these sizes.
    ///
    /// # Errors
    /// When there are none: what would be supported.
    pub fn check(&self) -> Result<(), DeviceError> {
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
    fn plan<D: Device>(&self, given: &[PagedSequence<'_, D>]) -> Result<Plan, DeviceError> {
        let group = self.heads.n_heads / self.heads.n_kv_heads;
        let mut plan = Plan {
            pages: Vec::new(),
            sequences: Vec::with_capacity(given.len()),
            tiles: Vec::new(),
            most_pages: 0,
            most_sets: 1,
            n_rows: 0,
            n_placements: 0,
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
        check_rows_apart(&plan.sequences)?;
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

/// Refuses sequences of which one row is another's as well.
fn check_rows_apart(sequences: &[Sequence]) -> Result<(), DeviceError> {
    let mut rows: Vec<_> = sequences.iter().map(|of| (of.first_row, of.n_tokens)).collect();
    rows.sort_unstable();
    match rows
        .windows(2)
        .find(|pair| u64::from(pair[0].0) + u64::from(pair[0].1) > u64::from(pair[1].0))
    {
        Some(pair) => {
            let (size, supported) = (pair[1].0 as usize, "rows that are one sequence's alone");
            Err(DeviceError::Unsupported { what: "a sequence's first row", size, supported })
        }
        None => Ok(()),
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
struct MassParams {
    page_sums: DevicePointer,
    row_sums: DevicePointer,
    sequences: DevicePointer,
    masses: DevicePointer,
    n_kv_heads: u32,
    group: u32,
    most_pages: u32,
    padding: u32,
}

/// The sizes of a launch.
pub(super) struct Plan {
    pages: Vec<Page>,
    pub sequences: Vec<Sequence>,
    pub tiles: Vec<u32>,
    pub most_pages: usize,
    most_sets: usize,
    n_rows: usize,
    n_placements: usize,
}

/// What both kernels have in common from step to step: tables that they look up, and sums from
/// which evidence is made.
pub(super) struct Shared<D: Device> {
    pages: Option<Array<D, Page>>,
    sequences: Option<Array<D, Sequence>>,
    row_sums: Option<Array<D, f32>>,
    page_sums: Option<Array<D, f32>>,
}

/// A step, checked and told to the device.
pub(super) struct Told {
    pub plan: Plan,
    pub queries: DevicePointer,
    pub near: DevicePointer,
    pub placements: DevicePointer,
    pub out: DevicePointer,
    pub pages: DevicePointer,
    pub sequences: DevicePointer,
    pub row_sums: DevicePointer,
    pub page_sums: DevicePointer, // none where no masses are wanted
    masses: DevicePointer,        // likewise
    pub n_kv_heads: u32,
    pub group: u32,
    pub most_pages: u32,
    pub scale: f32, // times log2(e)
}

impl<D: Device> Default for Shared<D> {
    fn default() -> Self {
        Self { pages: None, sequences: None, row_sums: None, page_sums: None }
    }
}

impl<D: Device> Shared<D> {
    /// Checks a step, every array and page of it, and makes room for its sums.
    pub fn tell(
        &mut self,
        device: &D,
        sizes: &AttentionSizes,
        step: AttendStep<'_, D>,
    ) -> Result<Told, DeviceError> {
        let plan = sizes.plan(step.sequences)?;
        let HeadShape { n_heads, n_kv_heads, head_dim } = sizes.heads;
        let (width, angles) = (n_heads * head_dim, 2 * sizes.n_pairs);
        let slots = plan.tiles.len() * n_kv_heads;
        let none = DevicePointer(0);
        let (masses, page_sums) = match step.page_masses {
            Some(masses) => (
                masses.first(plan.pages.len(), "masses of pages")?,
                room(device, &mut self.page_sums, slots * plan.most_pages * ROWS)?,
            ),
            None => (none, none),
        };
        Ok(Told {
            queries: step.queries.first(plan.n_rows * width, "queries")?,
            near: step.near.first(plan.n_rows * angles, "angles of queries")?,
            placements: step.placements.first(plan.n_placements * angles, "angles of pages")?,
            out: step.out.first(plan.n_rows * width, "attention's output")?,
            pages: fill(device, &mut self.pages, &plan.pages)?,
            sequences: fill(device, &mut self.sequences, &plan.sequences)?,
            row_sums: room(device, &mut self.row_sums, slots * ROWS)?,
            page_sums,
            masses,
            n_kv_heads: size("KV heads", n_kv_heads)?,
            group: size("heads of a group", n_heads / n_kv_heads)?,
            most_pages: size("pages", plan.most_pages)?,
            scale: step.scale * std::f32::consts::LOG2_E,
            plan,
        })
    }
}

impl Told {
    /// Makes pages' masses of the sums that a kernel has left, where they are wanted.
    pub fn sum_masses<D: Device>(
        &self,
        device: &D,
        program: &D::Program,
    ) -> Result<(), DeviceError> {
        if self.masses == DevicePointer(0) {
            return Ok(());
        }
        let params = MassParams {
            page_sums: self.page_sums,
            row_sums: self.row_sums,
            sequences: self.sequences,
            masses: self.masses,
            n_kv_heads: self.n_kv_heads,
            group: self.group,
            most_pages: self.most_pages,
            padding: 0,
        };
        let blocks = grid_size(self.plan.most_pages.div_ceil(MASS_PAGES))?;
        let (n_sets, n_sequences) = (self.plan.most_sets, self.plan.sequences.len());
        let grid = [blocks, grid_depth(n_sets)?, grid_depth(n_sequences)?];
        let kernel = Kernel::new("page_masses", grid, MASS_PAGES);
        // SAFETY: the structure is that of the kernel; `tell` has checked the arrays against the
        // plan, and a thread has a page of its own.
        unsafe { launch(device, program, kernel, &params) }
    }
}
