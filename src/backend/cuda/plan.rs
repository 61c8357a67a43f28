//! What of the device's memory is for what? Planned when the first memory is made, once weights and
//! buffers are there: what does not fit is refused then, with the sum spelled out, and not in the
//! middle of a text.

use serde::Serialize;

use super::paged::unit_part_bytes;
use super::parts::n_slots;
use super::slots::SlotCounts;
use crate::backend::{BackendError, MemoryNeeds};

/// What a GPU's memory is to be used for, in bytes. What is not given is a quarter of what is free:
/// the last quarter is left to kernels and to windows of forks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GpuMemory {
    /// All that is used of it; all that is free when the engine is made, where none is given.
    pub total_bytes: Option<usize>,
    /// For units that come from the host.
    pub unit_bytes: Option<usize>,
    /// For what stands for units.
    pub index_bytes: Option<usize>,
}

/// What there is for units, for what stands for them, and for sinks and windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Free when this was planned, where that is known.
    pub free_bytes: Option<usize>,
    /// For units that come from the host.
    pub unit_bytes: usize,
    /// For what stands for units; none where the host alone looks up.
    pub index_bytes: usize,
    /// For sinks and windows of all texts; no limit where nobody knows what is free.
    pub window_bytes: Option<usize>,
}

/// What a GPU's memory was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GpuUse {
    /// What was planned.
    pub plan: MemoryPlan,
    /// All bytes that are taken now, weights and buffers included.
    pub taken_bytes: usize,
    /// Which units were there when they were attended to or compared, a layer's part each.
    pub units: SlotCounts,
    /// The same of blocks of what stands for units; none where the host looks up.
    pub blocks: SlotCounts,
}

/// Bytes for units, and for what stands for them, where none are given and nobody knows what is free.
const UNKNOWN_BYTES: usize = 64 << 20;

/// One part of so many of what is free is for one purpose.
const SHARES: usize = 4;

/// One part of so many is kept free for what kernels pass on.
const SPARE: usize = 16;

impl MemoryPlan {
    /// Shares out `free_bytes`, as `stated` says, to what `needs` says, with `window_bytes` for windows.
    ///
    /// # Errors
    /// When that does not fit, or is too little for a step: the sum, and what to lower or raise.
    pub fn new(
        free_bytes: Option<usize>,
        (stated, window_bytes): (&GpuMemory, Option<usize>),
        needs: &MemoryNeeds,
    ) -> Result<Self, BackendError> {
        let share = free_bytes.map(|free| free / SHARES);
        let or_share = |bytes: Option<usize>| bytes.or(share).unwrap_or(UNKNOWN_BYTES);
        let index_bytes = if needs.index_bytes > 0 { or_share(stated.index_bytes) } else { 0 };
        let plan = Self {
            free_bytes,
            unit_bytes: or_share(stated.unit_bytes),
            index_bytes,
            window_bytes: window_bytes.or(share),
        };
        plan.check(needs)?;
        match plan.excess(needs) {
            Some(what) => Err(BackendError::DoesNotFit { what }),
            None => Ok(plan),
        }
    }

    /// Says whether there is enough for a step of a memory that needs this.
    ///
    /// # Errors
    /// When there is not: what to lower or raise.
    pub fn check(&self, needs: &MemoryNeeds) -> Result<(), BackendError> {
        self.fault(needs).map_or(Ok(()), |what| Err(BackendError::DoesNotFit { what }))
    }

    fn fault(&self, needs: &MemoryNeeds) -> Option<String> {
        let Self { unit_bytes, window_bytes, .. } = *self;
        let n_units = n_slots(unit_part_bytes(needs.layout), unit_bytes);
        if n_units < needs.n_units {
            return Some(format!(
                "{unit_bytes} bytes for units have room for {n_units} of a layer, and a step reads \
                 {}: raise gpu-unit-bytes, or lower retrieved-units",
                needs.n_units
            ));
        }
        let near = needs.near_bytes;
        window_bytes.filter(|bytes| *bytes < near).map(|bytes| {
            format!(
                "{bytes} bytes for sinks and windows are too few for those of one text, {near}: \
                 raise window-bytes or gpu-bytes, or lower window-tokens or chunk-tokens"
            )
        })
    }

    /// The sum, where it is more than is free.
    fn excess(&self, needs: &MemoryNeeds) -> Option<String> {
        let Self { free_bytes, unit_bytes, index_bytes, window_bytes } = *self;
        let free = free_bytes?;
        let (windows, spare) = (window_bytes.unwrap_or(needs.near_bytes), free / SPARE);
        let parts = [unit_bytes, index_bytes, windows, spare];
        let sum = parts.into_iter().fold(0, usize::saturating_add);
        (sum > free).then(|| {
            format!(
                "{unit_bytes} bytes for units (gpu-unit-bytes) + {index_bytes} for what stands for \
                 them (gpu-index-bytes) + {windows} for sinks and windows (window-bytes) + {spare} \
                 for what kernels pass on are {sum}, and {free} are free beside weights and \
                 buffers: lower one of them, or raise gpu-bytes"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{HeadShape, KvType, PageLayout};

    fn needs(n_units: usize, near_bytes: usize) -> MemoryNeeds {
        let heads = HeadShape { n_heads: 4, n_kv_heads: 2, head_dim: 32, n_pairs: 16 };
        let layout = PageLayout { n_layers: 3, heads, page_len: 64, kv_type: KvType::F16 };
        MemoryNeeds {
            layout,
            far_pages: false,
            key_masses: false,
            n_units,
            near_bytes,
            index_bytes: 4096,
        }
    }

    fn told(free: usize, stated: &GpuMemory, window: Option<usize>, needs: &MemoryNeeds) -> String {
        match MemoryPlan::new(Some(free), (stated, window), needs) {
            Err(BackendError::DoesNotFit { what }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_stated_is_a_quarter_each() {
        let (stated, needs) = (GpuMemory::default(), needs(4, 1000));
        let plan = MemoryPlan::new(Some(1 << 20), (&stated, None), &needs).unwrap();
        assert_eq!((plan.unit_bytes, plan.index_bytes), (1 << 18, 1 << 18));
        assert_eq!(plan.window_bytes, Some(1 << 18));
        let unknown = MemoryPlan::new(None, (&stated, None), &needs).unwrap();
        assert_eq!((unknown.unit_bytes, unknown.window_bytes), (UNKNOWN_BYTES, None));
        let without = MemoryNeeds { index_bytes: 0, ..needs };
        let plan = MemoryPlan::new(Some(1 << 20), (&stated, None), &without).unwrap();
        assert_eq!(plan.index_bytes, 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_sum_and_what_to_change() {
        let part = unit_part_bytes(needs(0, 0).layout);
        let stated = GpuMemory {
            unit_bytes: Some(600_000),
            index_bytes: Some(300_000),
            ..GpuMemory::default()
        };
        let what = told(1_000_000, &stated, Some(100_000), &needs(4, 1000));
        assert!(what.contains("600000 bytes for units (gpu-unit-bytes) + 300000"), "{what}");
        assert!(what.contains("+ 100000 for sinks and windows"), "{what}");
        assert!(
            what.contains("+ 62500 for what kernels pass on are 1062500, and 1000000"),
            "{what}"
        );
        let fits = MemoryPlan::new(Some(1_066_667), (&stated, Some(100_000)), &needs(4, 1000));
        assert!(fits.is_ok(), "{fits:?}");
        let few = GpuMemory { unit_bytes: Some(3 * part), ..GpuMemory::default() };
        let what = told(1 << 20, &few, None, &needs(4, 1000));
        assert!(what.contains("room for 3 of a layer, and a step reads 4"), "{what}");
        let what = told(1 << 20, &GpuMemory::default(), None, &needs(4, (1 << 18) + 1));
        assert!(what.contains("too few for those of one text, 262145"), "{what}");
        let huge = GpuMemory { unit_bytes: Some(usize::MAX), ..stated };
        assert!(told(1_000_000, &huge, None, &needs(4, 1000)).contains("lower one of them"));
    }
}
