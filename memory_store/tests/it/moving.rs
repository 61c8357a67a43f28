//! Do contexts survive being moved: to another machine by an export, to other segments by a
//! compaction?

use std::sync::Arc;

use memory_store::{SimStorage, Store, StoreError};

use crate::scratch::{Scratch, check_context, commit, extend, make, options};

fn sim() -> (SimStorage, Store) {
    let disk = SimStorage::new();
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    (disk, store)
}

#[test]
fn an_export_is_the_same_context_in_another_store() {
    let (_, store) = sim();
    drop(make(&store, "a", 1, [30, 200]));
    let mut file = Vec::new();
    let exported = store.export("t", "a", &mut file).unwrap();
    let (_, other) = sim();
    let imported = other.import("u", Some("b"), &mut &file[..]).unwrap();
    assert_eq!((&*imported.tenant, &*imported.name), ("u", "b"));
    assert_eq!(imported.records, exported.records);
    assert_eq!((imported.length, &imported.meta), (exported.length, &exported.meta));
    assert_eq!(imported.fingerprint, exported.fingerprint);
    check_context(&other.open_context("u", "b").unwrap().unwrap(), 1);
    let taken = other.import("u", Some("b"), &mut &file[..]).unwrap_err();
    assert_eq!(taken, StoreError::NameTaken { name: "b".into() });
    assert_eq!(other.import("u", None, &mut &file[..]).unwrap().name, "a");
    // The same bytes come out again.
    let mut again = Vec::new();
    other.export("u", "a", &mut again).unwrap();
    assert_eq!(again.len(), file.len());
}

#[test]
fn an_export_that_was_changed_or_cut_is_refused_and_leaves_nothing() {
    let (_, store) = sim();
    drop(make(&store, "a", 1, [3, 4]));
    let mut file = Vec::new();
    store.export("t", "a", &mut file).unwrap();
    let (disk, other) = sim();
    let n_files = disk.files().len();
    for at in 0..file.len() {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << (at % 8);
        let refused = other.import("t", None, &mut &flipped[..]);
        assert!(refused.is_err(), "byte {at} flipped");
    }
    for len in (0..file.len()).step_by(7) {
        assert!(other.import("t", None, &mut &file[..len]).is_err(), "cut to {len}");
    }
    assert!(other.import("t", None, &mut [&file[..], &[0]].concat().as_slice()).is_err());
    assert_eq!(other.list("t").unwrap(), []);
    drop(make(&other, "x", 1, [1, 1])); // whatever was written in vain goes with the next write
    assert!(disk.files().len() <= n_files + 2, "{:?}", disk.files().len());
}

#[test]
fn a_damaged_record_is_not_exported() {
    let (disk, store) = sim();
    drop(make(&store, "a", 1, [3, 4]));
    drop(store);
    let (name, mut bytes) =
        disk.files().into_iter().find(|(name, _)| name.ends_with("seg")).unwrap();
    bytes[100] ^= 1;
    disk.set_file(&name, Some(bytes));
    let store = Store::open_on(Arc::new(disk), options()).unwrap();
    let refused = store.export("t", "a", &mut Vec::new()).unwrap_err();
    assert!(matches!(refused, StoreError::DamagedRecord { stream: 0, record: 0, .. }));
}

#[test]
fn compaction_merges_small_segments_and_drops_dead_records() {
    let scratch = Scratch::new("compact");
    let store = scratch.open();
    let mut context = store.create(&crate::scratch::SHAPES);
    let mut streams = [context.stream(0), context.stream(1)];
    for generation in 1..=12 {
        for (i, stream) in streams.iter_mut().enumerate() {
            extend(&mut **stream, 1, i, generation * 2).unwrap();
        }
        context.commit(commit("a", 1, generation, &[generation * 2; 2])).unwrap();
        context.sync().unwrap();
    }
    drop((context, streams));
    store.fork("t", "a", "b").unwrap();
    let before = store.show("t", "a").unwrap().unwrap();
    let done = store.compact().unwrap();
    assert!(done.segments_removed >= 12 && done.segments_written < 6, "{done:?}");
    assert!(done.bytes_after < done.bytes_before, "{done:?}");
    let after = store.show("t", "a").unwrap().unwrap();
    assert_eq!((after.generation, &after.records), (before.generation, &before.records));
    assert_eq!(after.own_bytes, 0, "the fork still shares all of it");
    for name in ["a", "b"] {
        check_context(&store.open_context("t", name).unwrap().unwrap(), 1);
    }
    assert!(store.verify(&mut |_| {}).unwrap().is_clean());
    // A second time there is nothing to do but what is small still.
    assert!(store.compact().unwrap().segments_removed <= 1);
    // And an open context goes on from what it was when it was opened.
    let mut context = store.open_context("t", "a").unwrap().unwrap();
    let mut stream = context.stream(0);
    store.compact().unwrap();
    extend(&mut *stream, 1, 0, 30).unwrap();
    context.commit(commit("a", 1, 13, &[30, 24])).unwrap();
    context.sync().unwrap();
    drop((context, stream, store));
    let store = scratch.open();
    check_context(&store.open_context("t", "a").unwrap().unwrap(), 1);
    check_context(&store.open_context("t", "b").unwrap().unwrap(), 1);
}

#[test]
fn compaction_leaves_damaged_segments_alone() {
    let (disk, store) = sim();
    drop(make(&store, "a", 1, [3, 4]));
    drop(make(&store, "b", 1, [3, 4]));
    drop(store);
    let (name, mut bytes) =
        disk.files().into_iter().find(|(name, _)| name.ends_with("seg")).unwrap();
    bytes[100] ^= 1;
    disk.set_file(&name, Some(bytes));
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    store.compact().unwrap();
    assert_eq!(store.damaged("t", "a").unwrap().len(), 1);
    assert!(disk.files().iter().any(|(file, _)| *file == name));
}
