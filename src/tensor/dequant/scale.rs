//! How is the f16 of a block's header read?

use half::f16;

/// One little-endian f16.
pub(super) fn scale(raw: [u8; 2]) -> f32 {
    f16::from_le_bytes(raw).to_f32()
}
