//! What did the answer rest on? The squared softmax mass that answer tokens gave to retrieved units,
//! summed over tokens, heads and layers: attention that is focused counts, glances hardly do.

/// A unit and the attention mass it received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnitMass {
    /// The unit.
    pub unit: u32,
    /// Squared softmax mass, summed over answer tokens, heads and layers.
    pub mass: f32,
}

/// Heaviest first, of equals the earlier.
pub(super) fn by_mass(a: &UnitMass, b: &UnitMass) -> std::cmp::Ordering {
    b.mass.total_cmp(&a.mass).then(a.unit.cmp(&b.unit))
}

/// Masses of units since the last [`take`](Self::take).
#[derive(Clone, Debug, Default)]
pub(super) struct EvidenceTally {
    masses: Vec<f32>,      // [unit]
    page_masses: Vec<f32>, // an allocation for steps
}

impl EvidenceTally {
    /// Room for the masses of a step's pages: empty, an allocation to use again.
    pub fn room(&mut self) -> Vec<f32> {
        let mut room = std::mem::take(&mut self.page_masses);
        room.clear();
        room
    }

    /// Takes the room back.
    pub fn take_back(&mut self, room: Vec<f32>) {
        self.page_masses = room;
    }

    /// Adds what the pages of `units` received.
    pub fn add(&mut self, units: &[u32], received: &[f32]) {
        for (unit, mass) in units.iter().zip(received) {
            let unit = *unit as usize;
            if self.masses.len() <= unit {
                self.masses.resize(unit + 1, 0.0);
            }
            self.masses[unit] += mass;
        }
    }

    /// All masses, heaviest first; forgets them.
    pub fn take(&mut self) -> Vec<UnitMass> {
        let mut masses: Vec<UnitMass> = (0..)
            .zip(self.masses.drain(..))
            .filter(|(_, mass)| *mass > 0.0)
            .map(|(unit, mass)| UnitMass { unit, mass })
            .collect();
        masses.sort_by(by_mass);
        masses
    }
}
