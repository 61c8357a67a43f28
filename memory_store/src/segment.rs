//! What is a segment? A file of records, written whole and once, then mapped and never changed.
//!
//! ```text
//! | header 64 | record 0 | pad | record 1 | pad | ... | table: a slot a record | checksums |
//! ```
//!
//! | file | role |
//! |---|---|
//! | `format` | the bytes, and their checks |
//! | `writer` | records in host memory -> a file |
//! | `reader` | a mapped file -> records, each section verified when it is first read |
//! | `cell` | a segment that may not be on disk, or not be mapped, yet |

pub(crate) mod cell;
pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod writer;

pub(crate) use cell::SegmentCell;
pub(crate) use format::TAIL_STREAM;
pub(crate) use reader::{Segment, Wanted};
pub(crate) use writer::{Part, Parts};

/// The folder of segments and rows.
pub(crate) const FOLDER: &str = "segments";

/// The file of segment `id`.
pub(crate) fn file_name(id: u64) -> String {
    format!("{FOLDER}/{id:016x}.seg")
}
