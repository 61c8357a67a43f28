//! How are activations multiplied with quantised weights? Each weight is read and unpacked once,
//! whatever the number of tokens: for a few tokens it goes from the file straight into their sums
//! (`dot.rs`), for more a panel of rows is laid down first (`panel.rs`). Both add in one order, so
//! that a token's sums are the same bits whoever comes with it, and on every instruction set with
//! fused multiply-adds.

use std::ops::Range;

use super::dot::{DotRows, MAX_TOKENS, Target};
use super::fill::{Fill, FillScratch};
use super::panel::{PANEL_COLS, PANEL_ROWS, Panel, PanelProduct};
use super::quantize::QuantizedRows;
use super::tiles::{TileDots, Tiles, can_be_tiled};
use super::turn::can_be_turned;
use super::vector::{Kernel, Simd};
use crate::tensor::Matrix;

/// `out[token][row] = weights[row] . x[token]`, quantised weights.
#[derive(Debug)]
pub struct MultiplyRows<'a> {
    /// Of a quantised type.
    pub matrix: &'a Matrix,
    /// Which rows.
    pub rows: Range<usize>,
    /// Any number of tokens.
    pub x: QuantizedRows<'a>,
    /// `[token][padded_rows(rows.len())]`
    pub out: &'a mut [f32],
    /// What this thread reads next; its beginning is asked for as the rows end.
    pub next: &'a [u8],
    /// What multiplies panels, if there is anything better than vectors.
    pub tiles: Tiles,
    /// Reused between calls.
    pub scratch: &'a mut MultiplyScratch,
}

/// What a thread multiplies with.
#[derive(Debug, Default)]
pub struct MultiplyScratch {
    panel: Box<Panel>,
    fill: FillScratch,
    dots: Box<[TileDots; 2]>,
}

/// Tokens from which on making a tile unit ready pays (measured: below, vectors are faster).
const MIN_TILE_TOKENS: usize = 24;

/// Places that `n_rows` sums of a token take: whole vectors and whole panels.
pub fn padded_rows(n_rows: usize) -> usize {
    n_rows.next_multiple_of(PANEL_ROWS)
}

impl Kernel for MultiplyRows<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let n_sums = self.x.n_tokens() * padded_rows(self.rows.len());
        assert_eq!(self.x.layout.cols, self.matrix.cols, "inputs as wide as the weights");
        assert_eq!(self.out.len(), n_sums, "a sum a row and token");
        assert!(self.rows.end <= self.matrix.rows, "rows that there are");
        // With sixteen registers there is room for the sums of one token less.
        let few = if S::TILE_VECTORS == 4 { MAX_TOKENS } else { MAX_TOKENS - 1 };
        let is_direct = can_be_turned(self.matrix.dtype) && self.x.n_tokens() <= few;
        let step = if is_direct { S::LANES } else { PANEL_ROWS };
        for first in self.rows.clone().step_by(step) {
            let rows = first..self.rows.end.min(first + step);
            let has_more = rows.end < self.rows.end;
            let next = if has_more { self.matrix.row(rows.end) } else { self.next }.as_ptr();
            // SAFETY: lengths are checked above; the caller vouches for the instruction set.
            unsafe {
                if is_direct { self.dot::<S>(rows, next) } else { self.by_panels::<S>(rows, next) }
            }
        }
    }
}

impl MultiplyRows<'_> {
    #[inline(always)]
    unsafe fn dot<S: Simd>(&mut self, rows: Range<usize>, next: *const u8) {
        let target = self.target(rows.start);
        let dot = DotRows { matrix: self.matrix, rows, x: self.x, next };
        // SAFETY: `run` has checked lengths.
        unsafe { dot.run::<S>(target, &mut self.scratch.fill.rows) }
    }

    #[inline(always)]
    unsafe fn by_panels<S: Simd>(&mut self, rows: Range<usize>, next: *const u8) {
        let (matrix, x, out) = (self.matrix, self.x, self.target(rows.start));
        let MultiplyScratch { panel, fill, dots } = &mut *self.scratch;
        let n_terms = x.layout.n_terms;
        let is_tiled = x.n_tokens() >= MIN_TILE_TOKENS && can_be_tiled(matrix.dtype, n_terms);
        let tiles = if is_tiled { self.tiles } else { Tiles::Absent };
        let sixteenfold = tiles != Tiles::Absent && n_terms == 2;
        for col in (0..matrix.cols).step_by(PANEL_COLS) {
            let cols = col..matrix.cols.min(col + PANEL_COLS);
            // SAFETY: `run` has checked lengths.
            unsafe {
                let part =
                    Fill { matrix, rows: rows.clone(), cols: cols.clone(), next, sixteenfold };
                part.run::<S>(panel, fill);
                let product = PanelProduct { panel, dtype: matrix.dtype, x, cols, out };
                match tiles {
                    Tiles::Absent => product.run::<S>(),
                    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
                    Tiles::Amx => product.run_tiles::<S, super::amx::Amx>(dots),
                    #[cfg(test)]
                    Tiles::Emulated => {
                        product.run_tiles::<S, super::tiles_emulated::Emulated>(dots);
                    }
                }
            }
        }
    }

    /// Where the sums from row `row` on go.
    #[inline(always)]
    fn target(&mut self, row: usize) -> Target {
        let at = row - self.rows.start;
        Target { first: self.out[at..].as_mut_ptr(), stride: padded_rows(self.rows.len()) }
    }
}
