//! How does a quantised row become f32?

use super::DType;

/// Expands one row. `bytes.len() == dtype.row_bytes(out.len())`.
///
/// # Panics
/// When the lengths do not fit each other.
pub fn dequantize_row(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    let _ = (dtype, bytes, out);
}
