//! How does a layer attend on the device? Its pages of sinks and window are there; its units are
//! copied there where they are not yet.

use kernels::{
    AnyBuffer, AnyDevice, Array, AttendFewKernels, AttendManyKernels, AttendStep as DeviceStep,
    AttentionSizes, DeviceError, PageKernels, PageRef, PageSlot, PagedSequence,
};

use super::parts::{PartError, Parts, n_slots};
use super::slots::SlotCounts;
use super::uploaded::Uploaded;
use crate::backend::{
    AttendStep, BackendError, Candidates, KvType, PageLayout, PageSource, PageTarget, PlacedPage,
    Placement, UnitId,
};

/// Up to so many rows (query tokens times the heads of a group) the kernel for few is the one.
const MOST_FEW_ROWS: usize = 64;

/// Keys and values of consecutive tokens, of all layers.
pub struct CudaPage {
    pub(super) buffer: AnyBuffer,
    pub(super) n_bytes: usize,
}

/// What went wrong in a step.
pub enum StepError {
    /// The device.
    Device(DeviceError),
    /// What was asked for.
    Backend(BackendError),
}

impl From<PartError> for StepError {
    fn from(error: PartError) -> Self {
        match error {
            PartError::Device(error) => Self::Device(error),
            PartError::NoSlot(n) => Self::Backend(too_few_slots(n)),
        }
    }
}

impl From<DeviceError> for StepError {
    fn from(error: DeviceError) -> Self {
        Self::Device(error)
    }
}

/// Kernels for pages of one layout, and the units that are on the device.
pub struct Paged {
    layout: PageLayout,
    pages: PageKernels<AnyDevice>,
    few: AttendFewKernels<AnyDevice>,
    many: AttendManyKernels<AnyDevice>,
    units: Parts,
    slot_angles: Uploaded<f32>,
    near: Uploaded<f32>,
    placements: Uploaded<f32>,
    masses: Option<Array<AnyDevice, f32>>,
    near_rows: Vec<f32>,
    placed: Vec<f32>,
}

impl Paged {
    /// For pages laid out as `layout`, whose units have `unit_bytes` of the device's memory.
    ///
    /// # Errors
    /// When there are no such kernels, or no such memory.
    pub fn new(
        device: &AnyDevice,
        layout: PageLayout,
        unit_bytes: usize,
    ) -> Result<Self, DeviceError> {
        let sizes = sizes(layout);
        Ok(Self {
            layout,
            pages: PageKernels::new(device, sizes.clone())?,
            few: AttendFewKernels::new(device, sizes.clone())?,
            many: AttendManyKernels::new(device, sizes)?,
            units: Parts::new(device, unit_part_bytes(layout), unit_bytes)?,
            slot_angles: Uploaded::default(),
            near: Uploaded::default(),
            placements: Uploaded::default(),
            masses: None,
            near_rows: Vec::new(),
            placed: Vec::new(),
        })
    }

    /// Whether these are kernels for pages of `layout`, whatever a page's type.
    pub fn is_for(&self, layout: PageLayout) -> bool {
        layout.of_type(self.layout.kv_type) == self.layout
            && types(self.layout.kv_type).contains(&layout.kv_type)
    }

    /// Which units were there, and which were not.
    pub fn counts(&self) -> SlotCounts {
        self.units.counts()
    }

    /// Writes rows `tokens` of keys and values to a page.
    ///
    /// # Errors
    /// When the device fails.
    pub fn write(
        &mut self,
        device: &AnyDevice,
        target: &PageTarget<'_, CudaPage>,
        (keys, values): (&Array<AnyDevice, f32>, &Array<AnyDevice, f32>),
        tokens: std::ops::Range<usize>,
    ) -> Result<(), DeviceError> {
        let offset = target.layout.head(target.layer, 0).start;
        let kv_type = page_type(target.layout.kv_type);
        let buffer = &target.page.buffer;
        let slots = (target.first_slot..).take(tokens.len());
        let slots: Vec<_> = slots.map(|slot| PageSlot { buffer, offset, slot, kv_type }).collect();
        let angles = self.slot_angles.of(device, target.slot_angles)?;
        self.pages.write(device, &slots, (keys, values, tokens.start), angles)
    }

    /// Attention of the step's rows.
    ///
    /// # Errors
    /// When the step's units do not fit their memory, or the device fails.
    pub fn attend(
        &mut self,
        device: &AnyDevice,
        step: AttendStep<'_, CudaPage>,
        (queries, out): (&Array<AnyDevice, f32>, &mut Array<AnyDevice, f32>),
    ) -> Result<(), StepError> {
        let offsets = self.bring_units(device, &step)?;
        self.place(&step)?;
        let pages = step.pages.iter().zip(offsets).enumerate();
        let units = (self.units.buffer(), self.layout.kv_type);
        let pages: Vec<_> =
            pages.map(|(i, (page, offset))| page_ref(page, units, (offset, i))).collect();
        let sequences = [PagedSequence {
            first_row: step.first_row,
            n_tokens: step.n_tokens,
            first_index: step.first_index,
            pages: &pages,
            n_sets: step.n_sets,
        }];
        let wants_masses = step.page_masses.is_some();
        if wants_masses && self.masses.as_ref().is_none_or(|masses| masses.len() < pages.len()) {
            self.masses = Some(Array::undefined(device, pages.len().next_power_of_two())?);
        }
        let device_step = DeviceStep {
            queries,
            near: self.near.of(device, &self.near_rows)?,
            placements: self.placements.of(device, &self.placed)?,
            sequences: &sequences,
            scale: step.scale,
            out,
            page_masses: self.masses.as_mut().filter(|_| wants_masses),
        };
        match step.n_tokens * step.layout.heads.group() <= MOST_FEW_ROWS {
            true => self.few.attend(device, device_step)?,
            false => self.many.attend(device, device_step)?,
        }
        if let (Some(out), Some(masses)) = (step.page_masses, &self.masses) {
            masses.read(device, 0, out)?;
        }
        Ok(())
    }

    /// Copies the step's units to the device, where they are not there yet: where each page begins
    /// in its buffer.
    fn bring_units(
        &mut self,
        device: &AnyDevice,
        step: &AttendStep<'_, CudaPage>,
    ) -> Result<Vec<usize>, StepError> {
        self.units.begin_step();
        let mut offsets = Vec::with_capacity(step.pages.len());
        for page in step.pages {
            let layout = step.layout.of_type(page.kv_type);
            let section = layout.head(step.layer, 0).start;
            offsets.push(match page.page {
                PageSource::None => 0,
                PageSource::Fast(_) => section,
                PageSource::Unit(unit, bytes) => {
                    let bytes = &bytes[section..section + layer_bytes(layout)];
                    self.units.bring(device, (unit, step.layer as u32), bytes)?
                }
            });
        }
        Ok(offsets)
    }

    /// Lays the angles of queries' rows and of pages side by side.
    fn place(&mut self, step: &AttendStep<'_, CudaPage>) -> Result<(), StepError> {
        let width = 2 * step.layout.heads.n_pairs;
        self.near_rows.clear();
        self.near_rows.resize(step.first_row * width, 0.0);
        self.near_rows.extend_from_slice(&step.near_angles[..step.n_tokens * width]);
        self.placed.clear();
        for page in step.pages {
            match (page.placement, page.n_keys) {
                (Placement::At(angles), _) => self.placed.extend_from_slice(angles),
                (Placement::Far, 0) => self.placed.resize(self.placed.len() + width, 0.0),
                (Placement::Far, _) => {
                    return Err(StepError::Backend(unsupported(
                        "keys at one far distance; choose positions other than \"fixed\"",
                    )));
                }
            }
        }
        Ok(())
    }

    /// Units that a step may read of a layer.
    pub fn n_units(&self) -> usize {
        self.units.n_slots()
    }

    /// Copies a lookup's candidates to the device, where they are not there yet: where each begins.
    ///
    /// # Errors
    /// When they do not fit their memory, or the device fails.
    pub fn bring_candidates(
        &mut self,
        device: &AnyDevice,
        candidates: &Candidates<'_>,
    ) -> Result<Vec<usize>, StepError> {
        let layout = candidates.layout;
        let start = layout.head(candidates.layer, 0).start;
        self.units.begin_step();
        let named = candidates.units.iter().zip(candidates.pages);
        let bring = |(unit, page): (&UnitId, &&[u8])| {
            let bytes = &page[start..start + layer_bytes(layout)];
            Ok(self.units.bring(device, (*unit, candidates.layer as u32), bytes)?)
        };
        named.map(bring).collect()
    }

    /// A candidate as kernels take it. Where it has fewer keys than a page, its last is repeated
    /// (`PageLayout::repeat_last`).
    pub fn candidate(&self, layout: PageLayout, offset: usize) -> PageRef<'_, AnyDevice> {
        PageRef {
            buffer: self.units.buffer(),
            offset,
            n_keys: layout.page_len,
            first_index: 0,
            placement: 0,
            kv_type: page_type(layout.kv_type),
        }
    }
}

/// A page as kernels take it, of which the layer's part begins at `offset`.
fn page_ref<'a>(
    page: &PlacedPage<'a, CudaPage>,
    (units, unit_type): (&'a AnyBuffer, KvType),
    (offset, placement): (usize, usize),
) -> PageRef<'a, AnyDevice> {
    let (buffer, kv_type) = match page.page {
        PageSource::Fast(page_of) => (&page_of.buffer, page.kv_type),
        PageSource::Unit(..) => (units, page.kv_type),
        // Where there are no keys any place will do.
        PageSource::None => (units, unit_type),
    };
    let (n_keys, first_index) = (page.n_keys, page.first_index);
    PageRef { buffer, offset, n_keys, first_index, placement, kv_type: page_type(kv_type) }
}

/// Something that there are no kernels for.
pub fn unsupported(what: &str) -> BackendError {
    BackendError::Unsupported { device: "the GPU", what: what.to_owned() }
}

/// What attention to pages of `layout` is compiled for.
pub fn sizes(layout: PageLayout) -> AttentionSizes {
    let heads = layout.heads;
    AttentionSizes {
        heads: kernels::naive::HeadShape {
            n_heads: heads.n_heads,
            n_kv_heads: heads.n_kv_heads,
            head_dim: heads.head_dim,
        },
        n_pairs: heads.n_pairs,
        page_len: layout.page_len,
        kv_types: types(layout.kv_type).iter().map(|kv_type| page_type(*kv_type)).collect(),
    }
}

/// The types of pages where units are kept as `kv_type`.
fn types(kv_type: KvType) -> &'static [KvType] {
    match kv_type {
        KvType::F16 => &[KvType::F16],
        KvType::Int8 => &[KvType::Int8],
        KvType::Int4 => &[KvType::Int8, KvType::Int4],
    }
}

fn page_type(kv_type: KvType) -> kernels::naive::PageType {
    match kv_type {
        KvType::F16 => kernels::naive::PageType::F16,
        KvType::Int8 => kernels::naive::PageType::Int8,
        KvType::Int4 => kernels::naive::PageType::Int4,
    }
}

/// Bytes of a layer's part of a unit, in whichever type of those that its pages have is the largest.
fn unit_part_bytes(layout: PageLayout) -> usize {
    let bytes_as = |kv_type: &KvType| layer_bytes(layout.of_type(*kv_type));
    types(layout.kv_type).iter().map(bytes_as).max().unwrap_or(0)
}

/// Says whether a step that attends to `n_units` units of a layer fits `unit_bytes`.
///
/// # Errors
/// When it does not: what to raise or lower.
pub fn check_units(
    layout: PageLayout,
    (n_units, unit_bytes): (usize, usize),
) -> Result<(), BackendError> {
    match n_slots(unit_part_bytes(layout), unit_bytes) {
        n if n < n_units => Err(too_few_slots(n)),
        _ => Ok(()),
    }
}

fn too_few_slots(n: usize) -> BackendError {
    unsupported(&format!(
        "a step that reads more than {n} units of a layer; raise gpu-unit-bytes, or lower \
         retrieved-units"
    ))
}

/// Bytes of a layer's part of a page.
fn layer_bytes(layout: PageLayout) -> usize {
    layout.page_bytes() / layout.n_layers
}
