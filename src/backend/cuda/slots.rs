//! Which units stay on the device? As many as there are slots; the one that was attended to longest
//! ago makes room, and none that the step at hand reads.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::backend::UnitId;

/// A layer's part of a unit.
pub type Part = (UnitId, u32);

/// Which part is in which slot.
#[derive(Debug, Default)]
pub struct Slots {
    parts: Vec<Option<Part>>,   // [slot]
    used: Vec<u64>,             // [slot]: the stamp of its last use, each another
    places: HashMap<Part, u32>, // slots of parts
    order: BTreeMap<u64, u32>,  // slots by their stamps
    next: u64,
    step_began: u64,
    counts: SlotCounts,
}

/// What became of the parts that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlotCounts {
    /// Were on the device.
    pub hits: u64,
    /// Had to be copied there.
    pub misses: u64,
}

/// Where a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// In this slot.
    There(usize),
    /// It is to be copied to this slot.
    Missing(usize),
}

/// All slots are read by the step at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot;

impl Slots {
    /// `n` empty slots.
    pub fn new(n: usize) -> Self {
        Self { parts: vec![None; n], used: vec![0; n], ..Self::default() }
    }

    /// Slots.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// What was asked for until now.
    pub fn counts(&self) -> SlotCounts {
        self.counts
    }

    /// Begins a step: what was asked for before may make room.
    pub fn begin_step(&mut self) {
        self.step_began = self.next;
    }

    /// The slot of `part`, which is the caller's to fill where it was missing.
    ///
    /// # Errors
    /// When the step at hand reads all slots.
    pub fn place(&mut self, part: Part) -> Result<Found, NoSlot> {
        if let Some(slot) = self.places.get(&part).copied() {
            self.counts.hits += 1;
            self.order.remove(&self.used[slot as usize]);
            self.stamp(slot);
            return Ok(Found::There(slot as usize));
        }
        let n_taken = self.places.len();
        let slot = if n_taken < self.parts.len() { n_taken as u32 } else { self.make_room()? };
        self.counts.misses += 1;
        self.parts[slot as usize] = Some(part);
        self.places.insert(part, slot);
        self.stamp(slot);
        Ok(Found::Missing(slot as usize))
    }

    fn make_room(&mut self) -> Result<u32, NoSlot> {
        let (stamp, slot) = self.order.first_key_value().ok_or(NoSlot)?;
        let (stamp, slot) = (*stamp, *slot);
        if stamp >= self.step_began {
            return Err(NoSlot);
        }
        self.order.remove(&stamp);
        if let Some(part) = self.parts[slot as usize].take() {
            self.places.remove(&part);
        }
        Ok(slot)
    }

    fn stamp(&mut self, slot: u32) {
        self.used[slot as usize] = self.next;
        self.order.insert(self.next, slot);
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_used_longest_ago_makes_room_and_none_of_the_step() {
        let units: Vec<UnitId> = (0..5).map(|_| UnitId::new()).collect();
        let mut slots = Slots::new(3);
        let place = |slots: &mut Slots, unit: usize| slots.place((units[unit], 7));
        slots.begin_step();
        assert_eq!(place(&mut slots, 0), Ok(Found::Missing(0)));
        assert_eq!(place(&mut slots, 1), Ok(Found::Missing(1)));
        assert_eq!(place(&mut slots, 2), Ok(Found::Missing(2)));
        assert_eq!(place(&mut slots, 3), Err(NoSlot), "the step reads all three");
        slots.begin_step();
        assert_eq!(place(&mut slots, 0), Ok(Found::There(0)));
        assert_eq!(place(&mut slots, 3), Ok(Found::Missing(1)));
        assert_eq!(place(&mut slots, 1), Ok(Found::Missing(2)));
        assert_eq!(place(&mut slots, 4), Err(NoSlot));
        slots.begin_step();
        assert_eq!(place(&mut slots, 3), Ok(Found::There(1)));
        assert_eq!(slots.counts(), SlotCounts { hits: 2, misses: 5 });
        assert_eq!(Slots::new(0).place((units[0], 0)), Err(NoSlot));
    }

    #[test]
    fn each_layer_of_a_unit_has_a_slot_and_none_has_two_parts() {
        let units: Vec<UnitId> = (0..9).map(|_| UnitId::new()).collect();
        let mut slots = Slots::new(8);
        let mut there = [None; 8]; // what a device would hold
        let mut seed = 1u32;
        for _ in 0..500 {
            slots.begin_step();
            for _ in 0..4 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let part = (units[(seed >> 8) as usize % 9], seed >> 20 & 1);
                match slots.place(part).unwrap() {
                    Found::There(slot) => assert_eq!(there[slot], Some(part)),
                    Found::Missing(slot) => {
                        assert!(!there.contains(&Some(part)));
                        there[slot] = Some(part);
                    }
                }
            }
        }
        let counts = slots.counts();
        assert!(counts.hits > 500 && counts.misses > 500, "{counts:?}");
    }
}
