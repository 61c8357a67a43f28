//! How does a layer attend on the device? Its pages of sinks and window are there; its units are
//! copied there where they are not yet.

use kernels::{
    AnyBuffer, AnyDevice, Array, AttendFewKernels, AttendManyKernels, AttendStep as DeviceStep,
    AttentionSizes, DeviceError, PageKernels, PageRef, PageSlot, PagedSequence,
};

use super::parts::{PartError, Parts};
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

    /// Writes rows of keys and values to pages, by one launch: targets are
    /// [written together](are_written_together).
    ///
    /// # Errors
    /// When the device fails.
    pub fn write(
        &mut self,
        device: &AnyDevice,
        targets: &[PageTarget<'_, CudaPage>],
        (keys, values): (&Array<AnyDevice, f32>, &Array<AnyDevice, f32>),
    ) -> Result<(), DeviceError> {
        let PageTarget { layout, slot_angles, ref rows, .. } = targets[0];
        let kv_type = page_type(layout.kv_type);
        let slots = targets.iter().flat_map(|target| {
            let (buffer, offset) = (&target.page.buffer, layout.head(target.layer, 0).start);
            let slots = (target.first_slot..).take(target.rows.len());
            slots.map(move |slot| PageSlot { buffer, offset, slot, kv_type })
        });
        let slots: Vec<_> = slots.collect();
        let angles = self.slot_angles.of(device, slot_angles)?;
        self.pages.write(device, &slots, (keys, values, rows.start), angles)
    }

    /// Attention of the steps' rows.
    ///
    /// # Errors
    /// When a step's units do not fit their memory, or the device fails.
    pub fn attend(
        &mut self,
        device: &AnyDevice,
        mut steps: &mut [AttendStep<'_, CudaPage>],
        (queries, out): (&Array<AnyDevice, f32>, &mut Array<AnyDevice, f32>),
    ) -> Result<(), StepError> {
        while !steps.is_empty() {
            let (now, later) = steps.split_at_mut(self.n_together(steps));
            self.attend_together(device, now, (queries, &mut *out))?;
            steps = later;
        }
        Ok(())
    }

    /// How many of the first steps go into one launch: those for the same kernel whose units have
    /// room together.
    fn n_together(&self, steps: &[AttendStep<'_, CudaPage>]) -> usize {
        let mut n_units = 0;
        let fits = |step: &&AttendStep<'_, CudaPage>| {
            let units = step.pages.iter().filter(|page| matches!(page.page, PageSource::Unit(..)));
            n_units += units.count();
            n_units <= self.units.n_slots() && is_few(step) == is_few(&steps[0])
        };
        steps.iter().take_while(fits).count().max(1)
    }

    fn attend_together(
        &mut self,
        device: &AnyDevice,
        steps: &mut [AttendStep<'_, CudaPage>],
        (queries, out): (&Array<AnyDevice, f32>, &mut Array<AnyDevice, f32>),
    ) -> Result<(), StepError> {
        let offsets = self.bring_units(device, steps)?;
        self.place(steps)?;
        let units = (self.units.buffer(), self.layout.kv_type);
        let pages = steps.iter().flat_map(|step| &step.pages).zip(offsets).enumerate();
        let pages: Vec<_> =
            pages.map(|(i, (page, offset))| page_ref(page, units, (offset, i))).collect();
        let mut rest = &pages[..];
        let sequences = steps.iter().map(|step| {
            let (pages, after) = rest.split_at(step.pages.len());
            rest = after;
            let AttendStep { first_row, n_tokens, first_index, n_sets, .. } = *step;
            PagedSequence { first_row, n_tokens, first_index, pages, n_sets }
        });
        let sequences: Vec<_> = sequences.collect();
        let wants_masses = steps.iter().any(|step| step.page_masses.is_some());
        if wants_masses && self.masses.as_ref().is_none_or(|masses| masses.len() < pages.len()) {
            self.masses = Some(Array::undefined(device, pages.len().next_power_of_two())?);
        }
        let device_step = DeviceStep {
            queries,
            near: self.near.of(device, &self.near_rows)?,
            placements: self.placements.of(device, &self.placed)?,
            sequences: &sequences,
            scale: steps[0].scale,
            out,
            page_masses: self.masses.as_mut().filter(|_| wants_masses),
        };
        match is_few(&steps[0]) {
            true => self.few.attend(device, device_step)?,
            false => self.many.attend(device, device_step)?,
        }
        if let Some(masses) = self.masses.as_ref().filter(|_| wants_masses) {
            // Once for all steps: each read waits for the device.
            let mut all = vec![0.0; pages.len()];
            masses.read(device, 0, &mut all)?;
            let mut all = &all[..];
            for step in steps {
                let (of_step, after) = all.split_at(step.pages.len());
                all = after;
                if let Some(out) = &mut step.page_masses {
                    out.copy_from_slice(of_step);
                }
            }
        }
        Ok(())
    }

    /// Copies the steps' units to the device, where they are not there yet: where each page begins
    /// in its buffer.
    fn bring_units(
        &mut self,
        device: &AnyDevice,
        steps: &[AttendStep<'_, CudaPage>],
    ) -> Result<Vec<usize>, StepError> {
        self.units.begin_step();
        let mut offsets = Vec::with_capacity(steps.iter().map(|step| step.pages.len()).sum());
        for (step, page) in steps.iter().flat_map(|step| step.pages.iter().map(move |p| (step, p)))
        {
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
    fn place(&mut self, steps: &[AttendStep<'_, CudaPage>]) -> Result<(), StepError> {
        self.near_rows.clear();
        self.placed.clear();
        for step in steps {
            let width = 2 * step.layout.heads.n_pairs;
            self.near_rows.resize(step.first_row * width, 0.0);
            self.near_rows.extend_from_slice(&step.near_angles[..step.n_tokens * width]);
            for page in &step.pages {
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
        }
        Ok(())
    }

    /// Bytes of the device's memory that units take.
    pub fn unit_bytes(&self) -> usize {
        self.units.n_bytes()
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

/// Whether a step is for the kernel of few rows.
fn is_few(step: &AttendStep<'_, CudaPage>) -> bool {
    step.n_tokens * step.layout.heads.group() <= MOST_FEW_ROWS
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
pub fn unit_part_bytes(layout: PageLayout) -> usize {
    let bytes_as = |kv_type: &KvType| layer_bytes(layout.of_type(*kv_type));
    types(layout.kv_type).iter().map(bytes_as).max().unwrap_or(0)
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

/// Whether one launch writes both: pages of one kind, the same angles, and rows without a gap.
pub fn are_written_together(a: &PageTarget<'_, CudaPage>, b: &PageTarget<'_, CudaPage>) -> bool {
    a.layout == b.layout && a.rows.end == b.rows.start && a.slot_angles == b.slot_angles
}
