//! Is what was written once read for ever, is what a newer program wrote left alone, and does any
//! sequence of bytes make a parser panic?

use std::path::{Path, PathBuf};
use std::sync::Arc;

use memory_store::{Pinned, SimStorage, Store, StoreError, fuzz};

use crate::scratch::{Scratch, check_context, commit, extend, make, options};

/// A page of the catalogue, the unit in which the golden file leaves out zeros.
const PAGE: usize = 4096;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// What the golden store of version 1 was made with. Never to be changed: a newer version gets a
/// golden directory of its own.
fn make_v1(store: &Store) {
    drop(make(store, "first", 1, [9, 50]));
    let mut context = store.open_context("t", "first").unwrap().unwrap();
    extend(&mut *context.stream(0), 1, 0, 12).unwrap();
    context.commit(commit("first", 1, 2, &[12, 50])).unwrap();
    context.sync().unwrap();
    drop(context);
    store.fork("t", "first", "fork").unwrap();
    drop(make(store, "pinned", 2, [1, 1]));
    store.set_pinned("t", "pinned", Pinned::Yes).unwrap();
    store.set_expiry("t", "pinned", Some(u64::MAX)).unwrap();
}

fn check_v1(store: &Store) {
    for (name, seed, records) in
        [("first", 1, [12, 50]), ("fork", 1, [12, 50]), ("pinned", 2, [1, 1])]
    {
        let context = store.open_context("t", name).unwrap().unwrap();
        check_context(&context, seed);
        assert_eq!(context.summary().unwrap().records, records);
    }
    let pinned = store.show("t", "pinned").unwrap().unwrap();
    assert_eq!((pinned.pinned, pinned.expires), (Pinned::Yes, Some(u64::MAX)));
    let fork = store.show("t", "fork").unwrap().unwrap();
    assert_eq!((fork.parent.as_deref(), fork.generation), (Some("first"), 1));
    assert!(store.verify(&mut |_| {}).unwrap().is_clean());
}

/// Writes the golden store anew: `cargo test -p memory_store -- --ignored golden`.
#[test]
#[ignore = "only for a new version of the format"]
fn make_the_golden_store() {
    let scratch = Scratch::new("golden");
    make_v1(&scratch.open());
    for name in ["FORMAT", "catalogue.redb", "segments"] {
        let from = scratch.path().join(name);
        if from.is_dir() {
            std::fs::create_dir_all(golden().join(name)).unwrap();
            for file in std::fs::read_dir(&from).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), golden().join(name).join(file.file_name())).unwrap();
            }
        } else if name == "catalogue.redb" {
            let packed = pack(&std::fs::read(&from).unwrap());
            std::fs::write(golden().join("catalogue.pages"), packed).unwrap();
        } else {
            std::fs::copy(&from, golden().join(name)).unwrap();
        }
    }
}

/// The length, then each page that is not zero behind its number.
fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = (bytes.len() as u64).to_le_bytes().to_vec();
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().any(|byte| *byte != 0) {
            packed.extend_from_slice(&(number as u64).to_le_bytes());
            packed.extend_from_slice(page);
        }
    }
    packed
}

fn unpack(packed: &[u8]) -> Vec<u8> {
    let (len, pages) = packed.split_first_chunk().unwrap();
    let mut bytes = vec![0; u64::from_le_bytes(*len) as usize];
    for page in pages.chunks(8 + PAGE) {
        let (number, page) = page.split_first_chunk().unwrap();
        let at = u64::from_le_bytes(*number) as usize * PAGE;
        bytes[at..at + page.len()].copy_from_slice(page);
    }
    bytes
}

/// A copy of the golden store that may be written.
fn copy_of_v1() -> Scratch {
    let scratch = Scratch::new("v1");
    let segments = scratch.path().join("segments");
    std::fs::create_dir_all(&segments).unwrap();
    for file in std::fs::read_dir(golden().join("segments")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), segments.join(file.file_name())).unwrap();
    }
    std::fs::copy(golden().join("FORMAT"), scratch.path().join("FORMAT")).unwrap();
    let packed = std::fs::read(golden().join("catalogue.pages")).unwrap();
    std::fs::write(scratch.path().join("catalogue.redb"), unpack(&packed)).unwrap();
    scratch
}

#[test]
fn a_store_of_version_1_opens_for_ever() {
    let scratch = copy_of_v1();
    let store = scratch.open();
    let report = store.report();
    assert!(!report.catalogue_rebuilt && report.set_aside.is_empty(), "{report:?}");
    assert_eq!((report.adopted, report.leftovers.len()), (0, 0));
    check_v1(&store);
    // And goes on.
    drop(make(&store, "new", 3, [5, 5]));
    drop(store);
    check_v1(&scratch.open());
}

#[test]
fn a_store_of_version_1_opens_without_its_catalogue() {
    let scratch = copy_of_v1();
    std::fs::remove_file(scratch.path().join("catalogue.redb")).unwrap();
    check_v1(&scratch.open());
}

/// A sound file of each kind.
fn sound_files() -> (SimStorage, Vec<u8>) {
    let disk = SimStorage::new();
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    drop(make(&store, "a", 1, [4, 6]));
    let mut export = Vec::new();
    store.export("t", "a", &mut export).unwrap();
    drop(store);
    (disk, export)
}

fn file(disk: &SimStorage, ending: &str) -> (String, Vec<u8>) {
    disk.files().into_iter().find(|(name, _)| name.ends_with(ending)).unwrap()
}

/// `bytes` with a checksum of its own at the end.
fn resealed(mut bytes: Vec<u8>, body: std::ops::Range<usize>) -> Vec<u8> {
    let sum = xxhash_rust::xxh3::xxh3_64(&bytes[body.clone()]);
    bytes[body.end..body.end + 8].copy_from_slice(&sum.to_le_bytes());
    bytes
}

#[test]
fn what_a_newer_program_wrote_is_named_and_left_alone() {
    let (disk, export) = sound_files();
    let open = |disk: &SimStorage| Store::open_on(Arc::new(disk.clone()), options());
    let is_newer = |error: &StoreError| matches!(error, StoreError::NewerFormat { found: 2, .. });
    // The store as a whole.
    let newer = disk.copy();
    let words = "mneme-store 2";
    let sum = xxhash_rust::xxh3::xxh3_64(words.as_bytes());
    newer.set_file("FORMAT", Some(format!("{words} {sum:016x}\n").into_bytes()));
    let before = newer.files();
    assert!(is_newer(&open(&newer).err().unwrap()));
    assert!(newer.files() == before, "nothing was touched");
    // A row, which only its file has.
    let (name, mut row) = file(&disk, ".row");
    row[8] = 2;
    let body = 0..row.len() - 8;
    let newer = disk.copy();
    newer.set_file(&name, Some(resealed(row, body)));
    newer.set_file("catalogue.redb", None);
    assert!(is_newer(&open(&newer).err().unwrap()));
    // A segment.
    let (name, mut segment) = file(&disk, ".seg");
    segment[8] = 2;
    let newer = disk.copy();
    newer.set_file(&name, Some(resealed(segment, 0..56)));
    let store = open(&newer).unwrap();
    let context = store.open_context("t", "a").unwrap().unwrap();
    assert!(is_newer(&context.tail().unwrap_err()));
    // An export.
    let mut newer = export.clone();
    newer[8] = 2;
    assert!(is_newer(&store.import("t", Some("b"), &mut &newer[..]).unwrap_err()));
}

/// Runs `parse` over `bytes` and thousands of changed versions of it, checksums put right again as
/// `reseal` does, so that what is behind the checksums is tried as well.
fn fuzz_over(
    bytes: &[u8],
    n: u64,
    parse: &dyn Fn(&[u8]) -> bool,
    reseal: &dyn Fn(Vec<u8>) -> Vec<u8>,
) {
    assert!(parse(bytes), "the sound one is read");
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    for round in 0..n {
        let mut changed = bytes.to_vec();
        for _ in 0..1 + next(4) {
            let at = next(changed.len().min(if round % 2 == 0 { 200 } else { usize::MAX }));
            match next(5) {
                0 => changed[at] ^= 1 << next(8),
                1 => changed[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
                2 => changed.truncate(at),
                3 => {
                    let until = (at + 8).min(changed.len());
                    changed[at..until].fill([0, 0xff][next(2)]);
                }
                _ => {
                    let from = next(changed.len());
                    let run = changed[from..(from + 16).min(changed.len())].to_vec();
                    changed.splice(at..at, run);
                }
            }
            if changed.is_empty() {
                break;
            }
        }
        parse(&changed);
        if round % 3 != 0 {
            parse(&reseal(changed));
        }
    }
}

#[test]
fn no_bytes_make_a_parser_panic() {
    let (disk, export) = sound_files();
    let (_, row) = file(&disk, ".row");
    let (_, segment) = file(&disk, ".seg");
    let seal_end = |bytes: Vec<u8>| {
        let Some(end) = bytes.len().checked_sub(8) else { return bytes };
        resealed(bytes, 0..end)
    };
    fuzz_over(&row, 20_000, &fuzz::row, &seal_end);
    fuzz_over(&segment, 10_000, &fuzz::segment, &|mut bytes| {
        if bytes.len() < 64 {
            return bytes;
        }
        let table_at = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
        if let Some(table) = bytes.get(table_at..) {
            let sum = xxhash_rust::xxh3::xxh3_64(table);
            bytes[48..56].copy_from_slice(&sum.to_le_bytes());
        }
        resealed(bytes, 0..56)
    });
    // The header's row carries a checksum, and the file a digest.
    fuzz_over(&export, 300, &fuzz::export, &|mut bytes| {
        let row_end = bytes.get(12..20).map(|len| u64::from_le_bytes(len.try_into().unwrap()));
        let row_end = row_end.and_then(|len| usize::try_from(len).ok()?.checked_add(20));
        if let Some(end) = row_end.filter(|end| (28..=bytes.len()).contains(end)) {
            bytes = resealed(bytes, 20..end - 8);
        }
        if let Some(end) = bytes.len().checked_sub(32) {
            let digest = blake3::hash(&bytes[..end]);
            bytes[end..].copy_from_slice(digest.as_bytes());
        }
        bytes
    });
}

#[test]
fn an_export_that_claims_to_be_huge_takes_no_memory() {
    let mut claims = Vec::new();
    claims.extend_from_slice(b"MNEMEEXP");
    claims.extend_from_slice(&1u32.to_le_bytes());
    claims.extend_from_slice(&(1u64 << 29).to_le_bytes());
    claims.extend_from_slice(&[1; 100]);
    assert!(!fuzz::export(&claims));
    assert!(!fuzz::row(&claims));
    assert!(!fuzz::segment(&claims));
}
