//! Do contexts last, and do they change as asked?

use memory_store::{Pinned, RecordId, Store, StoreError, UnitStore};

use crate::scratch::{
    SHAPES, Scratch, check_context, check_records, commit, extend, make, options, record,
};

#[test]
fn a_context_is_there_after_the_store_was_closed() {
    let scratch = Scratch::new("last");
    let store = scratch.open();
    drop(make(&store, "a", 1, [40, 2000]));
    drop(store);
    let store = scratch.open();
    assert_eq!(store.report().leftovers, Vec::<String>::new());
    let context = store.open_context("t", "a").unwrap().unwrap();
    check_context(&context, 1);
    let summary = context.summary().unwrap();
    assert_eq!((summary.generation, &summary.records[..]), (1, &[40, 2000][..]));
    assert_eq!(summary.disk_bytes, summary.own_bytes);
    assert!(summary.disk_bytes > 40 * 1024 + 2000 * 64);
}

#[test]
fn a_context_grows_by_commits_and_is_read_meanwhile() {
    let scratch = Scratch::new("grow");
    let store = scratch.open();
    let mut context = store.create(&SHAPES);
    assert!(context.summary().is_none());
    let mut streams = [context.stream(0), context.stream(1)];
    for generation in 1..20 {
        let records = [generation * 7, generation * 130];
        for i in 0..2 {
            extend(&mut *streams[i], 3, i, records[i]).unwrap();
            streams[i].catch_up();
            check_records(&*streams[i], 3, i, records[i]);
        }
        context.commit(commit("grows", 3, generation, &records)).unwrap();
        assert_eq!(context.summary().unwrap().generation, generation);
    }
    context.sync().unwrap();
    for (i, stream) in streams.iter_mut().enumerate() {
        stream.catch_up();
        // What is on disk takes up no host memory, but for the group that is open.
        assert!(stream.resident_bytes() <= 1 << 20, "stream {i}");
        check_records(&**stream, 3, i, [133, 2470][i]);
    }
    drop((context, streams, store));
    check_context(&scratch.open().open_context("t", "grows").unwrap().unwrap(), 3);
}

#[test]
fn what_no_commit_counts_is_gone_after_the_store_was_closed() {
    let scratch = Scratch::new("uncounted");
    let store = scratch.open();
    let mut context = store.create(&SHAPES);
    let mut stream = context.stream(0);
    extend(&mut *stream, 1, 0, 100).unwrap();
    context.commit(commit("a", 1, 1, &[60, 0])).unwrap();
    extend(&mut *stream, 1, 0, 300).unwrap();
    drop((context, stream, store));
    let store = scratch.open();
    let context = store.open_context("t", "a").unwrap().unwrap();
    assert_eq!(context.summary().unwrap().records, [60, 0]);
    check_context(&context, 1);
    // Segments that only held what nobody counted are gone.
    let n_files = std::fs::read_dir(scratch.path().join("segments")).unwrap().count();
    assert!(n_files <= 1 + 100 * 1024 / (8 << 10) + 1, "{n_files}");
}

// The segments of a large context used to be removed as nobody's when whoever committed it was gone
// before the writer came to the commit.
#[test]
fn a_commit_counts_although_whoever_made_it_is_gone_at_once() {
    let scratch = Scratch::new("gone");
    let store = scratch.open();
    for i in 0..20 {
        let mut context = store.create(&SHAPES);
        extend(&mut *context.stream(0), 1, 0, 60).unwrap();
        context.commit(commit(&format!("{i}"), 1, 1, &[60, 0])).unwrap();
    }
    drop(store);
    let store = scratch.open();
    for i in 0..20 {
        check_context(&store.open_context("t", &format!("{i}")).unwrap().unwrap(), 1);
    }
}

#[test]
fn a_rewound_context_goes_on_from_there() {
    let scratch = Scratch::new("rewind");
    let store = scratch.open();
    drop(make(&store, "a", 1, [50, 500]));
    let mut context = store.open_context("t", "a").unwrap().unwrap();
    let mut stream = context.stream(0);
    stream.truncate(20);
    assert_eq!(stream.len(), 20);
    for number in 20..40 {
        assert_eq!(stream.append(&record(9, 0, number)), Ok(RecordId(number as u32)));
    }
    check_mixed(&*stream, 20, 40);
    context.commit(commit("a", 1, 2, &[40, 100])).unwrap();
    context.sync().unwrap();
    stream.catch_up();
    check_mixed(&*stream, 20, 40);
    drop((stream, context, store));
    let store = scratch.open();
    let context = store.open_context("t", "a").unwrap().unwrap();
    check_mixed(&*context.stream(0), 20, 40);
    check_records(&*context.stream(1), 1, 1, 100);
}

/// The first records of seed 1, the others of seed 9.
fn check_mixed(stream: &dyn UnitStore, border: u64, n: u64) {
    assert_eq!(stream.len() as u64, n);
    for number in 0..n {
        let seed = if number < border { 1 } else { 9 };
        for section in 0..3 {
            let read = stream.read(RecordId(number as u32), section).unwrap();
            assert_eq!(&*read, record(seed, 0, number), "record {number}");
        }
    }
}

#[test]
fn a_fork_shares_all_records_and_outlives_what_it_came_from() {
    let scratch = Scratch::new("fork");
    let store = scratch.open();
    drop(make(&store, "a", 1, [50, 500]));
    let fork = store.fork("t", "a", "b").unwrap();
    assert_eq!((fork.parent.as_deref(), fork.own_bytes), (Some("a"), 0));
    assert_eq!(store.fork("t", "a", "b").unwrap_err(), StoreError::NameTaken { name: "b".into() });
    assert!(matches!(store.fork("t", "x", "c"), Err(StoreError::UnknownContext { .. })));
    let mut context = store.open_context("t", "b").unwrap().unwrap();
    extend(&mut *context.stream(0), 1, 0, 60).unwrap();
    context.commit(commit("b", 1, 2, &[60, 500])).unwrap();
    context.sync().unwrap();
    store.delete("t", "a").unwrap();
    assert!(store.open_context("t", "a").unwrap().is_none());
    check_context(&context, 1);
    drop((context, store));
    let store = scratch.open();
    assert!(store.open_context("t", "a").unwrap().is_none());
    check_context(&store.open_context("t", "b").unwrap().unwrap(), 1);
    store.delete("t", "b").unwrap();
    let is_record = |name: &str| name.ends_with(".seg") || name.ends_with(".row");
    let files = std::fs::read_dir(scratch.path().join("segments")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| is_record(name)).count(), 0);
}

#[test]
fn a_stream_forked_in_memory_goes_its_own_way() {
    let scratch = Scratch::new("memory");
    let store = scratch.open();
    let mut context = store.create(&SHAPES);
    let mut stream = context.stream(1);
    extend(&mut *stream, 1, 1, 333).unwrap();
    let mut fork = stream.fork().unwrap();
    extend(&mut *stream, 1, 1, 400).unwrap();
    extend(&mut *fork, 1, 1, 900).unwrap();
    context.commit(commit("a", 1, 1, &[0, 400])).unwrap();
    context.sync().unwrap();
    stream.catch_up();
    fork.catch_up();
    check_records(&*stream, 1, 1, 400);
    check_records(&*fork, 1, 1, 900);
    fork.truncate(10);
    check_records(&*fork, 1, 1, 10);
    assert_eq!(context.summary().unwrap().records, [0, 400]);
}

#[test]
fn a_context_that_is_open_is_read_on_after_it_was_deleted() {
    let scratch = Scratch::new("delete");
    let store = scratch.open();
    drop(make(&store, "a", 1, [50, 500]));
    drop(store);
    let store = scratch.open();
    let mut context = store.open_context("t", "a").unwrap().unwrap();
    store.delete("t", "a").unwrap();
    assert!(matches!(store.delete("t", "a"), Err(StoreError::UnknownContext { .. })));
    check_context(&context, 1);
    // But nothing can be built on it.
    let committed = context.commit(commit("a", 1, 2, &[50, 500]));
    let conflict = committed.and_then(|()| context.sync()).unwrap_err();
    assert_eq!(conflict, StoreError::Conflict { name: "a".into(), expected: 1, found: None });
    assert_eq!(context.commit(commit("other", 1, 1, &[50, 500])), Err(conflict));
}

#[test]
fn two_who_change_one_context_do_not_overwrite_each_other() {
    let scratch = Scratch::new("conflict");
    let store = scratch.open();
    drop(make(&store, "a", 1, [5, 5]));
    let mut first = store.open_context("t", "a").unwrap().unwrap();
    let mut second = store.open_context("t", "a").unwrap().unwrap();
    first.commit(commit("a", 1, 2, &[4, 4])).unwrap();
    first.sync().unwrap();
    let refused = second.commit(commit("a", 1, 2, &[3, 3])).unwrap_err();
    assert_eq!(refused, StoreError::Conflict { name: "a".into(), expected: 1, found: Some(2) });
    let mut third = store.create(&SHAPES);
    assert!(matches!(
        third.commit(commit("a", 1, 1, &[0, 0])),
        Err(StoreError::Conflict { expected: 0, found: Some(2), .. })
    ));
    assert_eq!(store.show("t", "a").unwrap().unwrap().records, [4, 4]);
}

#[test]
fn contexts_are_listed_by_name_and_tenant_and_pins_and_times_are_kept() {
    let scratch = Scratch::new("list");
    let store = scratch.open();
    for name in ["b", "a", "c"] {
        drop(make(&store, name, 1, [1, 1]));
    }
    let mut other = store.create(&SHAPES);
    other
        .commit(memory_store::Commit { tenant: "u".into(), ..commit("a", 2, 1, &[0, 0]) })
        .unwrap();
    other.sync().unwrap();
    store.set_pinned("t", "b", Pinned::Yes).unwrap();
    store.set_expiry("t", "c", Some(5000)).unwrap();
    drop((other, store));
    let store = scratch.open();
    let names = |tenant| -> Vec<String> {
        store.list(tenant).unwrap().into_iter().map(|summary| summary.name).collect()
    };
    assert_eq!(names("t"), ["a", "b", "c"]);
    assert_eq!(names("u"), ["a"]);
    assert_eq!(names(""), Vec::<String>::new());
    assert_eq!(store.show("t", "b").unwrap().unwrap().pinned, Pinned::Yes);
    assert_eq!(store.show("t", "c").unwrap().unwrap().expires, Some(5000));
    assert_eq!(store.show("t", "c").unwrap().unwrap().used, 1000);
}

#[test]
fn what_has_expired_is_never_served_and_is_removed() {
    let scratch = Scratch::new("expire");
    let store = scratch.open();
    drop(make(&store, "a", 1, [1, 1]));
    drop(make(&store, "b", 1, [1, 1]));
    store.set_expiry("t", "a", Some(1000)).unwrap();
    store.set_expiry("t", "b", Some(1001)).unwrap();
    assert!(store.open_context("t", "a").unwrap().is_none());
    assert!(store.show("t", "a").unwrap().is_none());
    assert!(store.open_context("t", "b").unwrap().is_some());
    let swept = store.sweep().unwrap();
    assert_eq!(swept.iter().map(|summary| &*summary.name).collect::<Vec<_>>(), ["a"]);
    assert_eq!(store.events().expirations, 1);
}

#[test]
fn a_commit_of_what_is_not_there_is_refused() {
    let scratch = Scratch::new("refuse");
    let store = scratch.open();
    let mut context = store.create(&SHAPES);
    let mut stream = context.stream(0);
    assert_eq!(
        stream.append(&[0; 999]),
        Err(StoreError::WrongLength { expected: 1000, actual: 999 })
    );
    for records in [&[1, 0][..], &[0], &[0, 0, 0], &[]] {
        let refused = context.commit(commit("a", 1, 1, records));
        assert!(matches!(refused, Err(StoreError::TooFewRecords { .. })), "{records:?}");
    }
    let long = "x".repeat(1025);
    assert!(matches!(
        context.commit(commit(&long, 1, 1, &[0, 0])),
        Err(StoreError::NameTooLong { .. })
    ));
    context.commit(commit("a", 1, 1, &[0, 0])).unwrap();
    context.sync().unwrap();
}

#[test]
fn a_second_process_is_told_who_has_the_store() {
    let scratch = Scratch::new("lock");
    let store = scratch.open();
    let refused = Store::open(scratch.path(), options()).err().unwrap();
    let StoreError::Locked { owner, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(owner, format!("process {}", std::process::id()));
    drop(store);
    drop(scratch.open());
}

#[test]
fn what_is_expected_is_read_as_ever_and_what_is_not_there_does_no_harm() {
    let scratch = Scratch::new("expect");
    drop(make(&scratch.open(), "a", 1, [3, 4]));
    let store = scratch.open(); // so that the records are on the disk
    let context = store.open_context("t", "a").unwrap().unwrap();
    for section in [0, 1, 99] {
        context.stream(0).expect(&mut (0..9).map(RecordId), section);
    }
    check_context(&context, 1);
}
