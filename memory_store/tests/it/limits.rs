//! R9, R10 and the limits of a disk: whose contexts are seen, and which go when there is no room?

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memory_store::{Commit, Fault, FaultMode, Pinned, SimStorage, Store, StoreError, StoreOptions};

use crate::scratch::{SHAPES, check_context, commit, extend, make, options};

/// A store on `disk` with a clock that goes on by a second a call.
fn open_with(disk: &SimStorage, max_disk_bytes: Option<u64>) -> Result<Store, StoreError> {
    let clock = AtomicU64::new(1000);
    let clock = Arc::new(move || clock.fetch_add(1, Ordering::Relaxed));
    let options = StoreOptions { max_disk_bytes, clock, ..options() };
    Store::open_on(Arc::new(disk.clone()), options)
}

fn bytes_of(disk: &SimStorage) -> u64 {
    disk.files().iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

fn names(store: &Store) -> Vec<String> {
    store.list("t").unwrap().into_iter().map(|summary| summary.name).collect()
}

/// Room for about four contexts of 200 records beside the catalogue.
const BUDGET: u64 = 2_400_000;
const RECORDS: [u64; 2] = [200, 10];

#[test]
fn r10_the_budget_is_kept_by_removing_what_was_used_longest_ago_and_never_what_is_pinned_or_open() {
    let disk = SimStorage::new();
    let store = open_with(&disk, Some(BUDGET)).unwrap();
    drop(make(&store, "pinned", 1, RECORDS));
    store.set_pinned("t", "pinned", Pinned::Yes).unwrap();
    let open = make(&store, "open", 1, RECORDS);
    drop(make(&store, "used", 1, RECORDS));
    for i in 0..8 {
        drop(store.open_context("t", "used").unwrap().unwrap());
        drop(make(&store, &format!("new {i}"), 1, RECORDS));
        assert!(bytes_of(&disk) <= BUDGET, "{} after {i}", bytes_of(&disk));
        let names = names(&store);
        for kept in ["pinned", "open", "used", &format!("new {i}")] {
            assert!(names.iter().any(|name| name == kept), "{kept} of {names:?}");
        }
    }
    let n_evicted = store.events().evictions;
    assert!(n_evicted >= 3, "{n_evicted}");
    // The oldest went, in their order.
    let left: Vec<String> = (n_evicted..8).map(|i| format!("new {i}")).collect();
    let names = names(&store).into_iter().filter(|name| name.starts_with("new"));
    assert_eq!(names.collect::<Vec<_>>(), left);
    check_context(&open, 1);
    assert!(store.verify(&mut |_| {}).unwrap().is_clean());
}

#[test]
fn r10_what_cannot_be_made_room_for_is_refused_with_figures_and_removes_nothing() {
    let disk = SimStorage::new();
    let store = open_with(&disk, Some(BUDGET)).unwrap();
    drop(make(&store, "a", 1, RECORDS));
    let mut big = store.create(&SHAPES);
    let result = extend(&mut *big.stream(0), 1, 0, 3000)
        .and_then(|()| big.commit(commit("big", 1, 1, &[3000, 0])))
        .and_then(|()| big.sync());
    let StoreError::DiskBudget { max_bytes, .. } = result.unwrap_err() else { panic!() };
    assert_eq!(max_bytes, BUDGET);
    drop(big);
    // Evicting is tried only when it helps; what was written of the big one is gone.
    drop(make(&store, "b", 1, [3, 3]));
    assert!(bytes_of(&disk) <= BUDGET);
    assert!(!names(&store).contains(&"big".to_owned()));
    check_context(&store.open_context("t", "b").unwrap().unwrap(), 1);
}

#[test]
fn r4_a_full_disk_refuses_commits_and_takes_them_again_when_there_is_room() {
    let disk = SimStorage::new();
    let store = open_with(&disk, None).unwrap();
    drop(make(&store, "a", 1, [20, 20]));
    let fault = Fault {
        at: disk.n_operations(),
        kind: ErrorKind::StorageFull,
        mode: FaultMode::FromThenOn,
    };
    disk.set_fault(Some(fault));
    let mut context = store.create(&SHAPES);
    let mut stream = context.stream(0);
    let written = extend(&mut *stream, 1, 0, 10)
        .and_then(|()| context.commit(commit("b", 1, 1, &[10, 0])))
        .and_then(|()| context.sync());
    let refused = written.unwrap_err();
    assert!(matches!(refused, StoreError::Io { kind: ErrorKind::StorageFull, .. }), "{refused}");
    // It stays with that context; what was appended can still be read.
    assert_eq!(context.commit(commit("b", 1, 1, &[10, 0])), Err(refused.clone()));
    assert_eq!(stream.append(&[0; 1000]), Err(refused));
    // The thread that writes may have been refused before all ten were appended.
    let n_appended = stream.len() as u64;
    assert!((1..=10).contains(&n_appended));
    crate::scratch::check_records(&*stream, 1, 0, n_appended);
    drop((context, stream));
    disk.set_fault(None);
    drop(make(&store, "b", 1, [10, 0]));
    assert_eq!(names(&store), ["a", "b"]);
    drop(store);
    let store = open_with(&disk, None).unwrap();
    check_context(&store.open_context("t", "a").unwrap().unwrap(), 1);
    check_context(&store.open_context("t", "b").unwrap().unwrap(), 1);
}

/// A commit for a tenant.
fn commit_for(tenant: &str, name: &str, seed: u64) -> Commit {
    Commit { tenant: tenant.to_owned(), ..commit(name, seed, 1, &[0, 0]) }
}

#[test]
fn r9_a_tenant_finds_nothing_of_another_and_gets_the_answer_it_gets_for_nothing() {
    let disk = SimStorage::new();
    let store = open_with(&disk, None).unwrap();
    for (tenant, seed) in [("t", 1), ("u", 2)] {
        let mut context = store.create(&SHAPES);
        context.commit(commit_for(tenant, "same", seed)).unwrap();
        context.sync().unwrap();
        let mut context = store.create(&SHAPES);
        context.commit(commit_for(tenant, &format!("of {tenant}"), seed)).unwrap();
        context.sync().unwrap();
    }
    // Names that run into each other when they are written one after the other.
    let mut context = store.create(&SHAPES);
    context.commit(commit_for("tu", "x", 3)).unwrap();
    context.sync().unwrap();
    assert!(store.open_context("t", "ux").unwrap().is_none());
    let fingerprint = |tenant| store.show(tenant, "same").unwrap().unwrap().fingerprint.0[0];
    assert_eq!((fingerprint("t"), fingerprint("u")), (1, 2));
    assert!(store.open_context("t", "of u").unwrap().is_none());
    assert!(store.show("t", "of u").unwrap().is_none());
    let refusals = |name: &str| {
        let unify = |error: StoreError| error.to_string().replace(name, "NAME");
        [
            unify(store.fork("t", name, "new").unwrap_err()),
            unify(store.delete("t", name).unwrap_err()),
            unify(store.set_pinned("t", name, Pinned::Yes).unwrap_err()),
            unify(store.set_expiry("t", name, None).unwrap_err()),
            unify(store.export("t", name, &mut Vec::new()).unwrap_err()),
            unify(store.damaged("t", name).unwrap_err()),
        ]
    };
    assert_eq!(refusals("of u"), refusals("of nobody"));
    assert_eq!(names(&store), ["of t", "same"]);
    // A tenant may take a name that another has.
    store.fork("t", "same", "of u").unwrap();
    assert_eq!(store.list("u").unwrap().len(), 2);
    store.delete("t", "same").unwrap();
    assert!(store.show("u", "same").unwrap().is_some());
}

#[test]
fn r9_asking_for_another_tenants_context_takes_as_long_as_asking_for_none() {
    let disk = SimStorage::new();
    let store = open_with(&disk, None).unwrap();
    let mut context = store.create(&SHAPES);
    context.commit(commit_for("u", "there", 1)).unwrap();
    context.sync().unwrap();
    let time = |name: &str| {
        let batch = || {
            let started = Instant::now();
            (0..500).for_each(|_| assert!(store.open_context("t", name).unwrap().is_none()));
            started.elapsed()
        };
        (0..60).map(|_| batch()).min().unwrap()
    };
    let (there, nowhere) = (time("there"), time("where"));
    let (fast, slow) = (there.min(nowhere), there.max(nowhere));
    assert!(slow < fast * 2 + Duration::from_micros(50), "{there:?} against {nowhere:?}");
}
