//! Launchers of `cuda/write_pages.cu`: new keys and values into pages, and full pages as nibbles.

use bytemuck::{Pod, Zeroable};

use crate::device::{Array, Device, DeviceBuffer, DevicePointer, grid_size};
use crate::error::DeviceError;
use crate::launch::paged::{AttentionSizes, code};
use crate::launch::{Kernel, fill, launch, size};
use crate::naive::{PageFormat, PageType};
use crate::source::ProgramSource;

const WARPS: usize = 4;

/// A slot of a page that a token's key and value go to.
pub struct PageSlot<'a, D: Device> {
    /// Holds the page.
    pub buffer: &'a D::Buffer,
    /// Where the layer's part begins in it: a multiple of 16.
    pub offset: usize,
    /// Which slot.
    pub slot: usize,
    /// [`PageType::F16`] or [`PageType::Int8`].
    pub kv_type: PageType,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Slot {
    layer: DevicePointer,
    slot: u32,
    kv_type: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct WriteParams {
    keys: DevicePointer,
    values: DevicePointer,
    angles: DevicePointer,
    slots: DevicePointer,
    n_rows: u32,
    n_kv_heads: u32,
}

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct PackParams {
    from: DevicePointer,
    to: DevicePointer,
    n_kv_heads: u32,
    padding: u32,
}

/// The kernels, compiled for some sizes.
pub struct PageKernels<D: Device> {
    program: D::Program,
    sizes: AttentionSizes,
    slots: Option<Array<D, Slot>>,
}

impl<D: Device> PageKernels<D> {
    /// Compiles them.
    ///
    /// # Errors
    /// When there are no kernels of these sizes, the device has no compiler, or it refuses.
    pub fn new(device: &D, sizes: AttentionSizes) -> Result<Self, DeviceError> {
        sizes.check()?;
        let program = device.program(&ProgramSource::new(
            "write_pages.cu",
            &[
                ("HEAD_DIM", sizes.heads.head_dim),
                ("N_PAIRS", sizes.n_pairs),
                ("PAGE_LEN", sizes.page_len),
            ],
        ))?;
        Ok(Self { program, sizes, slots: None })
    }

    /// Writes a key and a value a row, from row `first_row` on: `keys` and `values` are
    /// `[row][kv_head][head_dim]`, not rotated, `angles` is `[slot][2][n_pairs]`.
    ///
    /// # Errors
    /// When two rows go to one slot, an array or a page is too short, or the device fails.
    pub fn write(
        &mut self,
        device: &D,
        slots: &[PageSlot<'_, D>],
        (keys, values, first_row): (&Array<D, f32>, &Array<D, f32>, usize),
        angles: &Array<D, f32>,
    ) -> Result<(), DeviceError> {
        let heads = self.sizes.heads;
        let width = heads.n_kv_heads * heads.head_dim;
        let len = (first_row + slots.len()) * width;
        let skipped = (first_row * width * size_of::<f32>()) as u64;
        let table = slots.iter().map(|slot| self.slot(slot)).collect::<Result<Vec<_>, _>>()?;
        self.check_apart(&table)?;
        let keys = DevicePointer(keys.first(len, "keys")?.0 + skipped);
        let values = DevicePointer(values.first(len, "values")?.0 + skipped);
        let n_slots = slots.iter().map(|slot| slot.slot + 1).max().unwrap_or(0);
        let angles = angles.first(n_slots * 2 * self.sizes.n_pairs, "angles of slots")?;
        let params = WriteParams {
            keys,
            values,
            angles,
            slots: fill(device, &mut self.slots, &table)?,
            n_rows: size("rows", slots.len())?,
            n_kv_heads: size("KV heads", heads.n_kv_heads)?,
        };
        let n_blocks = (slots.len() * heads.n_kv_heads).div_ceil(WARPS);
        let kernel = Kernel::new("write_pages", [grid_size(n_blocks)?, 1, 1], 32 * WARPS);
        // SAFETY: the structures are those of the kernel; `slot` has checked each page against its
        // buffer, the arrays are as long as all rows, and each row has a slot of its own.
        unsafe { launch(device, &self.program, kernel, &params) }
    }

    /// A layer's part of a full int8 page, at `from.1` of its buffer, as int4, to `to.1`.
    ///
    /// # Errors
    /// When a buffer is too short, or the device fails.
    pub fn pack(
        &self,
        device: &D,
        from: (&D::Buffer, usize),
        to: (&mut D::Buffer, usize),
    ) -> Result<(), DeviceError> {
        let n_kv_heads = size("KV heads", self.sizes.heads.n_kv_heads)?;
        let params = PackParams {
            from: self.layer(from.0, from.1, PageType::Int8)?,
            to: self.layer(to.0, to.1, PageType::Int4)?,
            n_kv_heads,
            padding: 0,
        };
        let kernel = Kernel::new("pack_pages", [n_kv_heads, 1, 1], 256);
        // SAFETY: the structure is that of the kernel, and `layer` has checked both pages.
        unsafe { launch(device, &self.program, kernel, &params) }
    }

    /// Refuses two rows to one slot, and pages that lie in one another.
    fn check_apart(&self, table: &[Slot]) -> Result<(), DeviceError> {
        let mut places: Vec<(u64, u32, u32)> =
            table.iter().map(|to| (to.layer.0, to.slot, to.kv_type)).collect();
        places.sort_unstable();
        let is_apart = |first: &(u64, u32, u32), next: &(u64, u32, u32)| match first.0 == next.0 {
            true => first.1 != next.1 && first.2 == next.2,
            false => {
                let kv_type =
                    if first.2 == code(PageType::F16) { PageType::F16 } else { PageType::Int8 };
                first.0 + self.layer_bytes(kv_type) as u64 <= next.0
            }
        };
        match places.windows(2).find(|pair| !is_apart(&pair[0], &pair[1])) {
            Some(pair) => {
                let supported = "a slot of its own for each row, in pages that lie apart";
                let size = pair[0].1 as usize;
                Err(DeviceError::Unsupported { what: "a slot", size, supported })
            }
            None => Ok(()),
        }
    }

    /// Bytes of a layer's part of a page.
    fn layer_bytes(&self, kv_type: PageType) -> usize {
        let (head_dim, page_len) = (self.sizes.heads.head_dim, self.sizes.page_len);
        let format = PageFormat { kv_type, head_dim, page_len };
        self.sizes.heads.n_kv_heads * format.head_bytes()
    }

    fn slot(&self, to: &PageSlot<'_, D>) -> Result<Slot, DeviceError> {
        if to.slot >= self.sizes.page_len || to.kv_type == PageType::Int4 {
            let supported = "slots that a page has, of f16 or int8";
            return Err(DeviceError::Unsupported { what: "a slot", size: to.slot, supported });
        }
        let layer = self.layer(to.buffer, to.offset, to.kv_type)?;
        Ok(Slot { layer, slot: to.slot as u32, kv_type: code(to.kv_type) })
    }

    fn layer(
        &self,
        buffer: &D::Buffer,
        offset: usize,
        kv_type: PageType,
    ) -> Result<DevicePointer, DeviceError> {
        let needed = offset + self.layer_bytes(kv_type);
        if !offset.is_multiple_of(16) {
            let supported = "multiples of 16 bytes";
            return Err(DeviceError::Unsupported {
                what: "a page's place",
                size: offset,
                supported,
            });
        }
        if needed > buffer.n_bytes() {
            let (what, len) = ("a page's buffer, in bytes", buffer.n_bytes());
            return Err(DeviceError::TooShort { what, needed, len });
        }
        Ok(DevicePointer(buffer.pointer().0 + offset as u64))
    }
}
