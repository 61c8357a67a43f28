//! Where on the device are parts of what the host has? In slots of one buffer, as many as its bytes
//! allow; who needs one that is not there has it copied.

use kernels::{AnyBuffer, AnyDevice, Device, DeviceError};

use super::slots::{Found, NoSlot, Part, SlotCounts, Slots};

/// Parts of one size, at most.
pub struct Parts {
    buffer: AnyBuffer, // [slot][slot_bytes]
    slot_bytes: usize,
    slots: Slots,
}

/// What kept a part from the device.
pub enum PartError {
    /// The step at hand needs more parts than there are slots.
    NoSlot(usize),
    /// The device failed.
    Device(DeviceError),
}

/// Bytes of a slot for parts of `part_bytes`.
fn slot_bytes(part_bytes: usize) -> usize {
    part_bytes.next_multiple_of(256).max(256)
}

/// Parts of `part_bytes` for which there is room in `n_bytes`: one at least.
pub fn n_slots(part_bytes: usize, n_bytes: usize) -> usize {
    (n_bytes / slot_bytes(part_bytes)).max(1)
}

impl Parts {
    /// Room for parts of `part_bytes` in `n_bytes`, for one at least.
    ///
    /// # Errors
    /// When the device has no such room.
    pub fn new(device: &AnyDevice, part_bytes: usize, n_bytes: usize) -> Result<Self, DeviceError> {
        let (slot_bytes, n_slots) = (slot_bytes(part_bytes), n_slots(part_bytes, n_bytes));
        let buffer = device.allocate(n_slots * slot_bytes)?;
        Ok(Self { buffer, slot_bytes, slots: Slots::new(n_slots) })
    }

    /// What they lie in.
    pub fn buffer(&self) -> &AnyBuffer {
        &self.buffer
    }

    /// Bytes that they take.
    pub fn n_bytes(&self) -> usize {
        self.slot_bytes * self.slots.len()
    }

    /// Parts that there may be.
    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether they are for parts of `part_bytes`.
    pub fn is_for(&self, part_bytes: usize) -> bool {
        self.slot_bytes == slot_bytes(part_bytes)
    }

    /// Which parts were there, and which were not.
    pub fn counts(&self) -> SlotCounts {
        self.slots.counts()
    }

    /// Begins a step: what was asked for before may make room.
    pub fn begin_step(&mut self) {
        self.slots.begin_step();
    }

    /// Where `part` is in the buffer, whose content is `bytes`.
    ///
    /// # Errors
    /// When the step needs all slots for others, or the device fails.
    pub fn bring(
        &mut self,
        device: &AnyDevice,
        part: Part,
        bytes: &[u8],
    ) -> Result<usize, PartError> {
        match self.slots.place(part) {
            Ok(Found::There(slot)) => Ok(slot * self.slot_bytes),
            Ok(Found::Missing(slot)) => {
                let offset = slot * self.slot_bytes;
                let written = device.write(&mut self.buffer, offset, bytes);
                written.map_err(PartError::Device)?;
                Ok(offset)
            }
            Err(NoSlot) => Err(PartError::NoSlot(self.slots.len())),
        }
    }
}
