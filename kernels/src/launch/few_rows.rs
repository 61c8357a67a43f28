//! What do products of few rows have in common? Kernels compiled for so many rows, and many rows cut
//! into pieces of as many.

use crate::device::Device;
use crate::error::DeviceError;
use crate::source::ProgramSource;

/// Outputs of a block, four warps of it.
pub(super) const OUTPUTS_A_BLOCK: usize = 8;
/// Rows that a kernel is compiled for.
const ROWS: [usize; 4] = [1, 2, 4, 8];

/// What a product does with what its output held before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputMode {
    /// Overwrites it.
    Set,
    /// Adds to it.
    Add,
}

/// Consecutive rows that one launch multiplies.
pub(super) struct Piece {
    /// The first of them.
    pub first: usize,
    /// How many they are.
    pub n_rows: usize,
    /// For how many the kernel is compiled.
    pub compiled: usize,
}

/// Rows `0..n_rows` in pieces.
pub(super) fn pieces(n_rows: usize) -> impl Iterator<Item = Piece> {
    let most = ROWS[ROWS.len() - 1];
    (0..n_rows).step_by(most).map(move |first| {
        let n_rows = (n_rows - first).min(most);
        let compiled = ROWS.into_iter().find(|rows| *rows >= n_rows).unwrap_or(most);
        Piece { first, n_rows, compiled }
    })
}

/// Programs by what they are compiled for, each compiled when it is first used.
pub(super) struct Programs<D: Device, K> {
    known: Vec<(K, D::Program)>,
}

impl<D: Device, K> Default for Programs<D, K> {
    fn default() -> Self {
        Self { known: Vec::new() }
    }
}

impl<D: Device, K: PartialEq> Programs<D, K> {
    /// The program of `key`, whose source is `source`.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn get(
        &mut self,
        device: &D,
        key: K,
        source: impl FnOnce() -> ProgramSource,
    ) -> Result<&D::Program, DeviceError> {
        let at = match self.known.iter().position(|(known, _)| *known == key) {
            Some(at) => at,
            None => {
                self.known.push((key, device.program(&source())?));
                self.known.len() - 1
            }
        };
        Ok(&self.known[at].1)
    }
}
