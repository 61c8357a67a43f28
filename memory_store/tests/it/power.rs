//! R2, R3: does the power cut at every single change of the disk, in the middle of recovery as
//! well, leave every context as it was before or after the step that was under way?

use std::sync::Arc;

use memory_store::{SimStorage, Store, Survival};

use crate::scratch::{make, options};
use crate::script::{State, check, script};

/// The states that may be found once the disk has seen so many changes.
struct Milestone {
    n_changes: usize,
    states: Vec<State>,
}

/// Runs the script and notes what may be found when.
fn live(disk: &SimStorage) -> Vec<Milestone> {
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    let mut state = State::new();
    let mut milestones = vec![Milestone { n_changes: 0, states: vec![state.clone()] }];
    for step in script() {
        let mut states = step.states(&state);
        step.run(&store, &state).unwrap();
        state = states.last().unwrap().clone();
        milestones.last_mut().unwrap().states.append(&mut states);
        // Acknowledged: from here on only this state and what the next step makes of it.
        milestones.push(Milestone { n_changes: disk.n_changes(), states: vec![state.clone()] });
    }
    milestones
}

fn allowed(milestones: &[Milestone], n_changes: usize) -> Vec<&State> {
    let idx = milestones.partition_point(|milestone| milestone.n_changes <= n_changes) - 1;
    milestones[idx].states.iter().collect()
}

const SURVIVALS: [Survival; 6] = [
    Survival::Nothing,
    Survival::Everything,
    Survival::Some(1),
    Survival::Some(2),
    Survival::Some(3),
    Survival::Some(4),
];

#[test]
fn r2_what_was_acknowledged_survives_a_power_cut_at_every_change_and_the_rest_is_absent_or_whole() {
    let disk = SimStorage::new();
    let milestones = live(&disk);
    let n_changes = disk.n_changes();
    let mut n_cuts = 0;
    for at in 0..=n_changes {
        for survival in SURVIVALS {
            let place = || format!("power cut after change {at} of {n_changes}, {survival:?}");
            let found = Arc::new(disk.after_power_cut(at, survival));
            let store = Store::open_on(found.clone(), options()).unwrap();
            let report = store.report();
            assert!(report.set_aside.is_empty(), "{}: {report:?}", place());
            assert!(report.incomplete.is_empty(), "{}: {report:?}", place());
            let allowed = allowed(&milestones, at);
            check(&store, &allowed, &place);
            n_cuts += 1;
            if at % 7 == 0 {
                // It is a store like any other.
                drop(make(&store, "new", 99, [3, 3]));
                store.delete("t", "new").unwrap();
                drop(store);
                let store = Store::open_on(found, options()).unwrap();
                check(&store, &allowed, &place);
                assert!(store.verify(&mut |_| {}).unwrap().is_clean(), "{}", place());
            }
        }
    }
    println!("{n_cuts} power cuts at {} points of {} changes", n_changes + 1, n_changes);
}

#[test]
fn r3_a_power_cut_during_recovery_is_as_harmless_as_one_before_it() {
    let disk = SimStorage::new();
    let milestones = live(&disk);
    let mut n_cuts = 0;
    for at in (0..=disk.n_changes()).step_by(5) {
        for first in [Survival::Some(at as u64 + 10), Survival::Nothing] {
            let found = disk.after_power_cut(at, first);
            drop(Store::open_on(Arc::new(found.clone()), options()).unwrap());
            for during in 0..found.n_changes() {
                let second = SURVIVALS[(at + during) % SURVIVALS.len()];
                let again = Arc::new(found.after_power_cut(during, second));
                let store = Store::open_on(again, options()).unwrap();
                let place =
                    || format!("cut after {at}, {first:?}, then after {during}, {second:?}");
                check(&store, &allowed(&milestones, at), &place);
                assert!(store.report().set_aside.is_empty(), "{}", place());
                n_cuts += 1;
            }
        }
    }
    println!("{n_cuts} power cuts during recovery");
}

#[test]
fn r6_nothing_is_mapped_that_is_not_durable_or_that_anybody_changes() {
    let disk = SimStorage::new();
    live(&disk);
    assert_eq!(disk.n_unsafe_maps(), 0);
}
