//! A tile unit in plain Rust: the twin that tests run everywhere.

use std::cell::Cell;

use super::panel::PANEL_ROWS;
use super::tiles::{TILE_TOKENS, TILE_WEIGHTS, TileDots, TileInputs, TileUnit};

thread_local! {
    static SHAPE: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// The unit.
pub struct Emulated;

impl TileUnit for Emulated {
    unsafe fn begin(n_tokens: usize, depth: usize) {
        assert!((1..=TILE_TOKENS).contains(&n_tokens) && [32, 64].contains(&depth));
        SHAPE.set(Some((n_tokens, depth)));
    }

    unsafe fn dots<const ODD: bool>(inputs: &TileInputs, out: &mut TileDots) {
        let (n_tokens, depth) = SHAPE.get().expect("because it was made ready");
        for (token, out) in out.0.chunks_exact_mut(TILE_WEIGHTS).take(n_tokens).enumerate() {
            for (row, out) in out.iter_mut().enumerate() {
                // SAFETY: by the caller's word.
                let term = |col: usize| unsafe {
                    let x = inputs.x.add(token * inputs.x_stride + col);
                    let weight = (col / 4 * PANEL_ROWS + row) * 4 + col % 4;
                    i32::from(*x) * i32::from(*inputs.weights.add(weight))
                };
                *out = (0..depth).map(term).sum();
            }
        }
    }

    unsafe fn end() {
        SHAPE.set(None);
    }
}
