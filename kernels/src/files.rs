//! How are compiled things kept in a folder? Under names made of what they depend on, written as a
//! whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// FNV-1a (Fowler, Noll, Vo) of parts, each with its end.
pub(crate) fn hash_of(parts: &[&[u8]]) -> u64 {
    let with_length = parts.iter().flat_map(|part| {
        let length = (part.len() as u64).to_le_bytes();
        length.into_iter().chain(part.iter().copied())
    });
    with_length.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Writes a file that is not there yet: who reads it meanwhile finds all of it or nothing.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let part = unique(path);
    fs::write(&part, bytes).and_then(|()| fs::rename(&part, path))
}

/// A name beside `path` that nobody else uses.
pub(crate) fn unique(path: &Path) -> PathBuf {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    path.with_extension(format!("part-{}-{number}", std::process::id()))
}
