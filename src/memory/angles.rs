//! Where does a page stand? The cosines and sines of all positions that pages and queries may have.

use super::config::MemoryConfig;
use super::pages::FastPages;
use crate::attention::Rotary;

/// Cosines and sines of positions.
#[derive(Debug)]
pub(super) struct Angles {
    pub sinks: Vec<Vec<f32>>,                 // [sink page]: of its first key
    pub slots: Vec<Vec<f32>>, // [slot]: of position S + slot * U, where units are placed
    window: Vec<f32>,         // [window page]: of its first key
    window_at: Option<(usize, usize, usize)>, // what `window` is of: position, first token, pages
    pub far: Vec<f32>,        // of the fixed far distance
    pub far_keys: Vec<f32>,   // of half a page more
    pub offsets: Vec<f32>,    // cosines [pair][page_len], then sines
    pub offset_rows: Vec<f32>, // [offset]: cosines, then sines
}

impl Angles {
    pub fn new(rotary: &Rotary, config: &MemoryConfig) -> Self {
        let unit = config.unit_tokens;
        Self {
            sinks: Vec::new(),
            slots: Vec::new(),
            window: Vec::new(),
            window_at: None,
            far: rotary.angles_at(config.far_tokens()),
            far_keys: rotary.angles_at(config.window_tokens + unit / 2),
            offsets: rotary.offset_angles(unit),
            offset_rows: (0..unit).flat_map(|offset| rotary.angles_at(offset)).collect(),
        }
    }

    /// Places the window's pages one after the other from `position` on.
    pub fn place_window(&mut self, rotary: &Rotary, position: usize, pages: &FastPages) {
        let at = (position, pages.window_start(), pages.n_window_pages());
        if self.window_at.replace(at) == Some(at) {
            return;
        }
        let width = 2 * rotary.n_pairs();
        self.window.resize(pages.n_window_pages() * width, 0.0);
        if width == 0 {
            return;
        }
        for (first, angles) in pages.window_starts().zip(self.window.chunks_exact_mut(width)) {
            rotary.write_angles(position + first - pages.window_start(), angles);
        }
    }

    /// Says that pages of the window have moved.
    pub fn forget_window(&mut self) {
        self.window_at = None;
    }

    /// Angles of a window page's first key.
    pub fn of_window_page(&self, page: usize) -> &[f32] {
        let width = self.far.len();
        &self.window[page * width..][..width]
    }
}
