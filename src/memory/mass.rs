//! Which keys were attended to while they were near? The softmax mass that each key of the window
//! has received so far: by it InfLLM (arXiv 2402.04617) chooses the keys that stand for a unit.

use std::collections::VecDeque;

use crate::backend::PageLayout;
use crate::bytes::{ByteReader, ByteWriter, Malformed};

/// Keys that stand for a unit, together, by their mean.
pub(super) const KEYS_OF_A_UNIT: usize = 4;

/// Masses of the window's keys.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyMassTally {
    pages: VecDeque<Vec<f32>>, // a window page each: [layer][kv_head][page_len]
    step: Vec<f32>,            // an allocation for steps
}

impl KeyMassTally {
    /// Makes room for a window of `n_pages` pages.
    pub fn reserve(&mut self, n_pages: usize, layout: PageLayout) {
        let n = page_masses(layout);
        while self.pages.len() < n_pages {
            self.pages.push_back(vec![0.0; n]);
        }
    }

    /// Room for the masses of a step, `[kv_head][page][page_len]`: zeros.
    pub fn of_step(&mut self, layout: PageLayout) -> Vec<f32> {
        let mut step = std::mem::take(&mut self.step);
        step.clear();
        step.resize(layout.heads.n_kv_heads * self.pages.len() * layout.page_len, 0.0);
        step
    }

    /// Adds what a step's keys of layer `layer` received, and takes its room back.
    pub fn add(&mut self, layout: PageLayout, layer: usize, step: Vec<f32>) {
        let (n_pages, page_len) = (self.pages.len(), layout.page_len);
        for (i, received) in step.chunks_exact(page_len).enumerate() {
            let (kv_head, page) = (i / n_pages, i % n_pages);
            let at = (layer * layout.heads.n_kv_heads + kv_head) * page_len;
            let masses = &mut self.pages[page][at..][..page_len];
            masses.iter_mut().zip(received).for_each(|(mass, received)| *mass += received);
        }
        self.step = step;
    }

    /// Writes the masses of all pages.
    pub fn write(&self, out: &mut ByteWriter) {
        out.len(self.pages.len());
        self.pages.iter().for_each(|page| out.f32s(page));
    }

    /// Reads what was written.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn read(&mut self, from: &mut ByteReader<'_>, layout: PageLayout) -> Result<(), Malformed> {
        let n_pages = from.len("pages of attention")?;
        for _ in 0..n_pages {
            let masses = from.f32s("attention that keys received")?;
            if masses.len() != page_masses(layout) {
                return Err(from.malformed("attention that keys received"));
            }
            self.pages.push_back(masses);
        }
        Ok(())
    }

    /// The masses of the window's oldest page, `[layer][kv_head][page_len]`.
    pub fn oldest(&self) -> Option<&[f32]> {
        self.pages.front().map(Vec::as_slice)
    }

    /// Forgets the window's oldest page.
    pub fn drop_oldest(&mut self) {
        self.pages.pop_front();
    }
}

/// Masses of a page.
fn page_masses(layout: PageLayout) -> usize {
    layout.n_layers * layout.heads.n_kv_heads * layout.page_len
}

/// The keys with the largest masses, at most [`KEYS_OF_A_UNIT`]; of equals the earlier ones.
pub(super) fn most_attended(masses: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..masses.len()).collect();
    order.sort_by(|a, b| masses[*b].total_cmp(&masses[*a]));
    order.truncate(KEYS_OF_A_UNIT);
    order
}
