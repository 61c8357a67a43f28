//! R1, R7: whatever was done to the files behind the store's back, does it open, serve only bytes
//! that were appended, and say what it cannot serve?

use std::sync::Arc;
use std::time::{Duration, Instant};

use memory_store::{DamagedRecord, Pinned, RecordId, SimStorage, Store, StoreError};

use crate::scratch::{SHAPES, check_context, commit, extend, make, options, record, tail};

/// A store of three contexts, two of which share records, properly closed. All records are of seed
/// 1, so that any that is served can be checked.
fn small_store() -> SimStorage {
    let disk = SimStorage::new();
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    drop(make(&store, "a", 1, [3, 9]));
    store.fork("t", "a", "b").unwrap();
    let mut context = store.open_context("t", "b").unwrap().unwrap();
    extend(&mut *context.stream(0), 1, 0, 5).unwrap();
    context.commit(commit("b", 1, 2, &[5, 9])).unwrap();
    context.sync().unwrap();
    drop(make(&store, "c", 1, [1, 1]));
    store.set_pinned("t", "c", Pinned::Yes).unwrap();
    drop((context, store));
    disk
}

/// What was seen of a damaged store.
#[derive(Default, Debug)]
struct Seen {
    contexts: usize,
    errors: usize,
}

/// Opens the store and reads all it serves; wrong bytes are fatal.
fn read_all(disk: &SimStorage, place: &dyn Fn() -> String) -> Seen {
    let started = Instant::now();
    let store = Store::open_on(Arc::new(disk.copy()), options());
    let store = store.unwrap_or_else(|error| panic!("{}: {error}", place()));
    let mut seen = Seen::default();
    for summary in store.list("t").unwrap() {
        let context = store.open_context("t", &summary.name).unwrap().unwrap();
        seen.contexts += 1;
        match context.tail() {
            Ok(bytes) => assert_eq!(bytes, tail(1, summary.length), "{}", place()),
            Err(_) => seen.errors += 1,
        }
        let damaged = store.damaged("t", &summary.name).unwrap();
        let mut found = Vec::new();
        for i in 0..2 {
            let stream = context.stream(i);
            assert_eq!(stream.len() as u64, summary.records[i], "{}", place());
            for number in 0..summary.records[i] {
                if !reads_right(&*stream, i, number, place) {
                    found.push(DamagedRecord { stream: i, record: number });
                    seen.errors += 1;
                }
            }
        }
        assert_eq!(found, damaged, "{}", place());
    }
    let report = store.verify(&mut |_| {}).unwrap();
    seen.errors += report.damaged_files.len() + report.damaged_contexts.len();
    seen.errors += store.report().set_aside.len() + store.report().incomplete.len();
    seen.errors += store.events().checksum_mismatches as usize;
    assert!(started.elapsed() < Duration::from_secs(2), "{}", place());
    seen
}

/// Whether all of a record is served; what is served must be right.
fn reads_right(
    stream: &dyn memory_store::UnitStore,
    i: usize,
    number: u64,
    place: &dyn Fn() -> String,
) -> bool {
    let expected = record(1, i, number);
    let mut is_whole = true;
    for (section, bytes) in expected.chunks(SHAPES[i].section_bytes).enumerate() {
        let at = section * SHAPES[i].section_bytes;
        match stream.read(RecordId(number as u32), section) {
            Ok(read) => assert_eq!(&read[at..at + bytes.len()], bytes, "{}", place()),
            Err(_) => is_whole = false,
        }
    }
    is_whole
}

/// Bytes to try: all of what is small; of the rest the beginning, what is not zero now and then,
/// and every so many of the others.
fn places(name: &str, bytes: &[u8]) -> Vec<usize> {
    if !name.ends_with(".redb") {
        return (0..bytes.len()).collect();
    }
    let (used, empty): (Vec<usize>, Vec<usize>) =
        (512..bytes.len()).partition(|at| bytes[*at] != 0);
    let some = used.into_iter().step_by(7).chain(empty.into_iter().step_by(997));
    (0..512).chain(some).collect()
}

#[test]
fn r1_r7_a_flipped_byte_anywhere_is_noticed_and_never_served() {
    let disk = small_store();
    let whole = read_all(&disk, &|| "untouched".to_owned());
    assert_eq!((whole.contexts, whole.errors), (3, 0));
    let mut n_flips = 0;
    for (name, bytes) in disk.files() {
        for at in places(&name, &bytes) {
            let bit = 1 << (at % 8);
            let place = || format!("byte {at} of {name} with bit {bit} flipped");
            let mut flipped = bytes.clone();
            flipped[at] ^= bit;
            let damaged = disk.copy();
            damaged.set_file(&name, Some(flipped));
            let seen = read_all(&damaged, &place);
            if !name.ends_with(".redb") {
                assert!(seen.errors > 0, "{} was not noticed", place());
            }
            // A row is in two files: one of them may be damaged.
            assert_eq!(seen.contexts, 3, "{}", place());
            n_flips += 1;
        }
    }
    println!("{n_flips} bytes flipped");
}

#[test]
fn r7_files_cut_emptied_zeroed_swapped_or_lost_never_stop_the_store() {
    let disk = small_store();
    let files = disk.files();
    let mut n_tried = 0;
    let mut check = |name: &str, bytes: Option<Vec<u8>>, what: String| {
        let damaged = disk.copy();
        damaged.set_file(name, bytes);
        let seen = read_all(&damaged, &|| format!("{name} {what}"));
        // A row is in two files: one of them may be lost.
        assert_eq!(seen.contexts, 3, "{name} {what}");
        n_tried += 1;
    };
    for (name, bytes) in &files {
        let lens = (0..bytes.len()).step_by((bytes.len() / 60).max(1));
        for len in lens {
            check(name, Some(bytes[..len].to_vec()), format!("cut to {len}"));
            let mut zeroed = bytes.clone();
            let until = (len + 64).min(bytes.len());
            zeroed[len..until].fill(0);
            check(name, Some(zeroed), format!("zero from {len} on"));
            let mut ones = bytes.clone();
            ones[len..until].fill(0xff);
            check(name, Some(ones), format!("all ones from {len} on"));
        }
        check(name, None, "lost".to_owned());
        check(name, Some([&bytes[..], &[0; 100]].concat()), "longer".to_owned());
        for (other, bytes) in &files {
            check(name, Some(bytes.clone()), format!("is {other}"));
        }
    }
    println!("{n_tried} files damaged");
}

#[test]
fn r7_without_its_catalogue_the_store_finds_every_context_in_the_rows_files() {
    let disk = small_store();
    let (name, bytes) = disk.files().into_iter().find(|(name, _)| name.ends_with("redb")).unwrap();
    for damage in [None, Some(vec![7; bytes.len()]), Some(Vec::new())] {
        let is_lost = damage.is_none();
        let damaged = disk.copy();
        damaged.set_file(&name, damage);
        let store = Store::open_on(Arc::new(damaged.clone()), options()).unwrap();
        assert_eq!(store.report().adopted, 3);
        assert_eq!(store.report().catalogue_rebuilt, !is_lost);
        for name in ["a", "b", "c"] {
            check_context(&store.open_context("t", name).unwrap().unwrap(), 1);
        }
        assert_eq!(store.show("t", "c").unwrap().unwrap().pinned, Pinned::Yes);
        drop(store);
        let store = Store::open_on(Arc::new(damaged), options()).unwrap();
        assert_eq!((store.report().adopted, store.list("t").unwrap().len()), (0, 3));
    }
}

#[test]
fn r1_a_damaged_section_is_refused_by_name_and_its_neighbours_are_served() {
    let disk = SimStorage::new();
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    drop(make(&store, "a", 1, [3, 9]));
    drop(store);
    let (name, mut bytes) =
        disk.files().into_iter().find(|(name, _)| name.ends_with("seg")).unwrap();
    // Record 1 begins at 64 + 1024; byte 500 of it is in its second section.
    bytes[64 + 1024 + 500] ^= 1;
    disk.set_file(&name, Some(bytes));
    let store = Store::open_on(Arc::new(disk), options()).unwrap();
    let context = store.open_context("t", "a").unwrap().unwrap();
    let stream = context.stream(0);
    let refused = stream.read(RecordId(1), 1).unwrap_err();
    let expected = StoreError::DamagedRecord { file: name, stream: 0, record: 1, section: 1 };
    assert_eq!(refused, expected);
    assert_eq!(store.events().checksum_mismatches, 1);
    for (id, section) in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1)] {
        assert!(stream.read(RecordId(id), section).is_ok());
    }
    assert_eq!(store.damaged("t", "a").unwrap(), [DamagedRecord { stream: 0, record: 1 }]);
    assert_eq!(context.tail().unwrap(), tail(1, 1));
    // A section that there is not is no section.
    assert!(stream.read(RecordId(0), 3).is_err());
}

#[test]
fn r1_a_damaged_tail_leaves_the_records_readable() {
    let disk = SimStorage::new();
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    drop(make(&store, "a", 1, [3, 9]));
    drop(store);
    let (name, mut bytes) =
        disk.files().into_iter().find(|(name, _)| name.ends_with("seg")).unwrap();
    let text = b"tail 1 of generation 1";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at] = b'T';
    disk.set_file(&name, Some(bytes));
    let store = Store::open_on(Arc::new(disk), options()).unwrap();
    let context = store.open_context("t", "a").unwrap().unwrap();
    assert!(matches!(context.tail(), Err(StoreError::DamagedRecord { .. })));
    crate::scratch::check_records(&*context.stream(0), 1, 0, 3);
    assert_eq!(store.damaged("t", "a").unwrap(), []);
    let report = store.verify(&mut |_| {}).unwrap();
    assert_eq!(report.damaged_contexts, [("t".to_owned(), "a".to_owned())]);
}
