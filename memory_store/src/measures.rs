//! How do a stream's records lie in host memory? In groups, each an allocation of its own: one
//! large record, or as many small ones as make a megabyte.

use crate::{RECORD_ALIGN, StreamShape};

/// What a group of small records aims at, in bytes.
const GROUP_BYTES: usize = 1 << 20;

/// From this size on a record is a group of its own, and is not copied for the writer.
const LARGE_RECORD_BYTES: usize = 64 << 10;

/// A stream's measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measures {
    pub(crate) stream: u32,
    pub(crate) shape: StreamShape,
    /// Bytes from record to record of a group.
    pub(crate) stride: usize,
    /// Records of a group.
    pub(crate) group_records: usize,
}

impl Measures {
    /// The measures of stream `stream` of a store whose segments aim at `segment_bytes`.
    pub(crate) fn new(stream: u32, shape: StreamShape, segment_bytes: usize) -> Self {
        let stride = shape.record_bytes.checked_next_multiple_of(RECORD_ALIGN);
        let stride = stride.unwrap_or(usize::MAX);
        let is_large = stride >= LARGE_RECORD_BYTES;
        // Several groups a segment, so that few bytes wait for the next one.
        let aim = if is_large { 0 } else { GROUP_BYTES.min(segment_bytes / 4) };
        Self { stream, shape, stride, group_records: (aim / stride).max(1) }
    }
}
