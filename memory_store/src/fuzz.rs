//! Does any sequence of bytes make a parser panic? Functions over bytes for the test suite and for
//! cargo-fuzz (fuzz/fuzz_targets); nobody else has a use for them.

use std::sync::Arc;

use crate::disk::Disk;
use crate::mapped::Mapping;
use crate::row::Row;
use crate::segment::{Segment, Wanted};
use crate::{AlignedBytes, SimStorage, Store, StoreOptions};

/// Reads `bytes` as a segment: the table, and every section of every record. Says whether all of
/// it is right.
pub fn segment(bytes: &[u8]) -> bool {
    let Ok(mut copy) = AlignedBytes::zeroed(bytes.len()) else { return false };
    copy.copy_from_slice(bytes);
    let id = bytes.get(16..24).map_or(0, |id| u64::from_le_bytes(id.try_into().expect("is 8")));
    let disk = Disk::new(Arc::new(SimStorage::new()));
    let map = (String::new(), Mapping::of_copy(copy));
    let Ok(segment) = Segment::new(&disk, id, map) else { return false };
    let mut slot = 0;
    while let Some(of) = segment.slot(slot) {
        let (stream, number) = (of.stream, of.number);
        let (bytes, section_bytes) = (of.bytes, of.section_bytes);
        let wanted = Wanted { slot, stream, number, bytes, section_bytes };
        for section in 0..=of.n_sections().min(100) as usize {
            let _ = segment.read(&wanted, section);
        }
        slot += 1;
    }
    segment.verify().is_ok()
}

/// Reads `bytes` as a row. Says whether it is one.
///
/// # Panics
/// When the row is not the only way to write what it says.
pub fn row(bytes: &[u8]) -> bool {
    let Ok(row) = Row::decode(bytes) else { return false };
    assert_eq!(Row::decode(&row.encode()), Ok(row), "a row reads back as it was written");
    true
}

/// Reads `bytes` as an export into an empty store. Says whether it is one.
///
/// # Panics
/// When something of a refused export is visible.
pub fn export(bytes: &[u8]) -> bool {
    let options = StoreOptions { segment_bytes: 64 << 10, ..StoreOptions::default() };
    let Ok(store) = Store::open_on(Arc::new(SimStorage::new()), options) else { return false };
    let is_one = store.import("t", None, &mut &bytes[..]).is_ok();
    let n = store.list("t").map_or(0, |list| list.len());
    assert_eq!(n, usize::from(is_one), "an export is taken in whole or not at all");
    is_one
}
