//! Where does a page stand? The cosines and sines of all positions that pages and queries may have.

use super::config::MemoryConfig;
use crate::attention::Rotary;

/// Cosines and sines of positions.
#[derive(Debug)]
pub(super) struct Angles {
    pub sinks: Vec<Vec<f32>>,  // [sink page]: of its first key
    pub slots: Vec<Vec<f32>>,  // [slot]: of position S + slot * U
    pub far: Vec<f32>,         // of the fixed far distance
    pub far_keys: Vec<f32>,    // of half a page more
    pub offsets: Vec<f32>,     // cosines [pair][page_len], then sines
    pub offset_rows: Vec<f32>, // [offset]: cosines, then sines
}

impl Angles {
    pub fn new(rotary: &Rotary, config: &MemoryConfig) -> Self {
        let unit = config.unit_tokens;
        Self {
            sinks: Vec::new(),
            slots: Vec::new(),
            far: rotary.angles_at(config.far_tokens()),
            far_keys: rotary.angles_at(config.window_tokens + unit / 2),
            offsets: rotary.offset_angles(unit),
            offset_rows: (0..unit).flat_map(|offset| rotary.angles_at(offset)).collect(),
        }
    }
}
