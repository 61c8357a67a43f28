//! Where does a page stand? The cosines and sines of all positions that pages and queries may have.

use super::config::MemoryConfig;
use super::pages::FastPages;
use crate::attention::Rotary;

/// Cosines and sines of positions.
#[derive(Debug)]
pub(super) struct Angles {
    pub sinks: Vec<Vec<f32>>, // [sink page]: of its first key
    pub slots: Vec<Vec<f32>>, // [slot]: of the positions where units are placed
    slots_at: usize,          // position of the first of them
    window: Vec<f32>,         // [window page]: of its first key
    window_at: Option<WindowAt>,
    pub far: Vec<f32>,         // of the fixed far distance
    pub far_keys: Vec<f32>,    // of half a page more
    pub offsets: Vec<f32>,     // cosines [pair][page_len], then sines
    pub offset_rows: Vec<f32>, // [offset]: cosines, then sines
}

/// What the window's angles are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WindowAt {
    before: usize,
    position: usize,
    window_start: usize,
    n_pages: usize,
}

impl Angles {
    pub fn new(rotary: &Rotary, config: &MemoryConfig) -> Self {
        let unit = config.unit_tokens;
        Self {
            sinks: Vec::new(),
            slots: Vec::new(),
            slots_at: 0,
            window: Vec::new(),
            window_at: None,
            far: rotary.angles_at(config.far_tokens()),
            far_keys: rotary.angles_at(config.window_tokens + unit / 2),
            offsets: rotary.offset_angles(unit),
            offset_rows: (0..unit).flat_map(|offset| rotary.angles_at(offset)).collect(),
        }
    }

    /// Makes `n` slots for units, of `unit` tokens each, from position `first` on.
    pub fn place_slots(&mut self, rotary: &Rotary, (first, unit): (usize, usize), n: usize) {
        if self.slots_at != first {
            self.slots_at = first;
            let width = self.far.len();
            for (slot, angles) in self.slots.iter_mut().enumerate() {
                angles.resize(width, 0.0);
                rotary.write_angles(first + slot * unit, angles);
            }
        }
        for slot in self.slots.len()..n {
            self.slots.push(rotary.angles_at(first + slot * unit));
        }
    }

    /// Places the window's pages: those of its first `before` tokens from position `first` on, the
    /// others as if the whole window began at `position`.
    pub fn place_window<P>(
        &mut self,
        rotary: &Rotary,
        (first, before, position): (usize, usize, usize),
        pages: &FastPages<P>,
    ) {
        let at = WindowAt {
            before,
            position,
            window_start: pages.window_start(),
            n_pages: pages.n_window_pages(),
        };
        if self.window_at.replace(at) == Some(at) {
            return;
        }
        let width = 2 * rotary.n_pairs();
        self.window.resize(pages.n_window_pages() * width, 0.0);
        if width == 0 {
            return;
        }
        for (start, angles) in pages.window_starts().zip(self.window.chunks_exact_mut(width)) {
            let past = start - pages.window_start();
            let window = if past < before { first } else { position };
            rotary.write_angles(window + past, angles);
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
