//! How is a panel filled? With rows turned as they lie in the file (`turn.rs`) where their format
//! allows it; rows of the other formats are unpacked to bytes first (`unpack.rs`).

use std::ops::Range;

use super::panel::{PANEL_ROWS, Panel};
use super::turn::{BlockFormat, Q4_0, Q4_1, Q8_0, Sink, Source, turn};
use super::unpack::{Unpack, UnpackedRows, group_of};
use super::vector::{Kernel, Simd};
use crate::tensor::{DType, Matrix};

/// Which part of a matrix is to fill a panel.
#[derive(Clone, Debug)]
pub struct Fill<'a> {
    /// Of a quantised type.
    pub matrix: &'a Matrix,
    /// At most `PANEL_ROWS`. Where there are fewer, the other lanes hold anything.
    pub rows: Range<usize>,
    /// At most `PANEL_COLS`, from a multiple of that on.
    pub cols: Range<usize>,
    /// What will fill the panel after this one, for prefetching alone.
    pub next: *const u8,
    /// Whether sixteen times its quants go before those of each block (`tiles.rs`).
    pub sixteenfold: bool,
}

/// Rows on their way into a panel.
#[derive(Debug, Default)]
pub struct FillScratch {
    unpacked: UnpackedRows, // a row a lane
    /// Rows as they lie in the file, where they are fewer than lanes.
    pub rows: Vec<u8>,
}

impl Fill<'_> {
    /// Fills `panel`.
    ///
    /// # Safety
    /// The instruction set is present.
    #[inline(always)]
    pub unsafe fn run<S: Simd>(&self, panel: &mut Panel, scratch: &mut FillScratch) {
        for lane in (0..self.rows.len()).step_by(S::LANES) {
            let lanes = Lanes { panel: &mut *panel, lane, sixteenfold: self.sixteenfold };
            // SAFETY: by the caller's word.
            unsafe {
                match self.matrix.dtype {
                    DType::Q4_0 => self.turn::<S, Q4_0>(lanes, scratch),
                    DType::Q4_1 => self.turn::<S, Q4_1>(lanes, scratch),
                    DType::Q8_0 => self.turn::<S, Q8_0>(lanes, scratch),
                    _ => self.unpack::<S>(lanes, scratch),
                }
            }
        }
    }

    /// The rows of `LANES` lanes from `lane` on, or as many as are left.
    #[inline(always)]
    fn rows_from<S: Simd>(&self, lane: usize) -> Range<usize> {
        let first = self.rows.start + lane;
        first..self.rows.end.min(first + S::LANES)
    }

    #[inline(always)]
    unsafe fn turn<S: Simd, B: BlockFormat>(
        &self,
        mut lanes: Lanes<'_>,
        scratch: &mut FillScratch,
    ) {
        let rows = self.rows_from::<S>(lanes.lane);
        let blocks = self.cols.start / 32..self.cols.end / 32;
        let done = blocks.start * PANEL_ROWS + blocks.len() * lanes.lane;
        let source = Source::new::<S, B>(self.matrix, rows, blocks, &mut scratch.rows);
        let source = source.followed_by(self.next.wrapping_add(done * B::BYTES));
        // SAFETY: by the caller's word; what `source` points at is borrowed here.
        unsafe { turn::<S, B>(source, &mut lanes) }
    }

    #[inline(always)]
    unsafe fn unpack<S: Simd>(&self, mut lanes: Lanes<'_>, scratch: &mut FillScratch) {
        let dtype = self.matrix.dtype;
        let group = group_of(dtype).expect("because only quantised types come here");
        let n_cols = self.cols.len();
        let unpacked = &mut scratch.unpacked;
        unpacked.resize(S::LANES, n_cols);
        for (i, row) in self.rows_from::<S>(lanes.lane).enumerate() {
            let bytes = &self.matrix.row(row)[dtype.row_bytes(self.cols.start)..];
            let (bytes, out) = (&bytes[..dtype.row_bytes(n_cols)], unpacked.row(i));
            // SAFETY: the caller vouches for the instruction set.
            unsafe { Unpack { dtype, bytes, out }.run::<S>() }
        }
        // SAFETY: `LANES` rows are in `unpacked`, their scales in fours, and in the panel.
        unsafe {
            for quad in (0..n_cols / 4).step_by(4) {
                let words = S::transpose_words(unpacked.q.as_ptr().add(4 * quad), n_cols);
                for (j, word) in words.into_iter().enumerate() {
                    Sink::<S>::quad(&mut lanes, 0, quad + j, word);
                }
            }
            let stride = unpacked.scales_stride();
            let Lanes { panel, lane, .. } = lanes;
            for at in (0..n_cols / group).step_by(4) {
                let place = at * PANEL_ROWS + lane;
                let scales = unpacked.scales.as_ptr().add(at);
                turn_floats::<S>(scales, stride, panel.scales.as_mut_ptr().add(place));
                let offsets = unpacked.offsets.as_ptr().add(at);
                turn_floats::<S>(offsets, stride, panel.offsets.as_mut_ptr().add(place));
            }
        }
    }
}

/// Puts four floats of each of `LANES` rows, `stride` floats apart, into four rows of a panel.
#[inline(always)]
unsafe fn turn_floats<S: Simd>(from: *const f32, stride: usize, to: *mut f32) {
    // SAFETY: by the caller's word.
    unsafe {
        let words = S::transpose_words(from.cast(), 4 * stride);
        for (j, word) in words.into_iter().enumerate() {
            S::store_i(to.add(j * PANEL_ROWS).cast(), word);
        }
    }
}

/// Lays blocks down in a panel, from lane `lane` on.
struct Lanes<'a> {
    panel: &'a mut Panel,
    lane: usize,
    sixteenfold: bool,
}

impl<S: Simd> Sink<S> for Lanes<'_> {
    #[inline(always)]
    unsafe fn scales(&mut self, block: usize, scale: S::F, offset: S::F) {
        let at = block * PANEL_ROWS + self.lane;
        // SAFETY: by the caller's word: the block lies in the panel.
        unsafe {
            S::store(self.panel.scales.as_mut_ptr().add(at), scale);
            S::store(self.panel.offsets.as_mut_ptr().add(at), offset);
        }
    }

    #[inline(always)]
    unsafe fn quad(&mut self, block: usize, quad: usize, weights: S::I) {
        const QUAD: usize = 4 * PANEL_ROWS;
        // Where rows were unpacked first, their quads are counted through all blocks.
        let (block, quad) = (block + quad / 8, quad % 8);
        // SAFETY: by the caller's word: the block lies in the panel.
        unsafe {
            let q = self.panel.q.as_mut_ptr().add(4 * self.lane);
            if self.sixteenfold {
                let at = (16 * block + quad) * QUAD;
                S::store_i(q.add(at), S::shift_left_4(weights));
                S::store_i(q.add(at + 8 * QUAD), weights);
            } else {
                S::store_i(q.add((8 * block + quad) * QUAD), weights);
            }
        }
    }

    #[inline(always)]
    unsafe fn end(&mut self, _block: usize) {}
}
