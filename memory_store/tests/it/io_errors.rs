//! R4, R5: when any operation of the disk fails, is what is found afterwards still right, with the
//! store running on and after a power cut?

use std::io::ErrorKind;
use std::sync::Arc;

use memory_store::{Fault, FaultMode, SimStorage, Store, Survival};

use crate::scratch::options;
use crate::script::{State, check, holds, script};

/// Lives through the script with one fault; what fails is left out, and what it may have done all
/// the same is allowed until something else happens to that context.
fn live_with(fault: Fault) -> bool {
    let disk = SimStorage::new();
    disk.set_fault(Some(fault));
    let Ok(store) = Store::open_on(Arc::new(disk.clone()), options()) else {
        check_after(&disk, &[&State::new()], fault);
        return true;
    };
    let (mut state, mut has_failed) = (State::new(), false);
    // What steps that failed may have led to.
    let mut maybe: Vec<State> = Vec::new();
    for step in script() {
        let states = step.states(&state);
        if step.run(&store, &state).is_ok() {
            let name = step.name();
            maybe.iter_mut().for_each(|state| drop(name.map(|name| state.remove(name))));
            state = states.last().unwrap().clone();
            for (name, context) in &state {
                for maybe in &mut maybe {
                    if step.name() == Some(name) {
                        maybe.insert(name.clone(), context.clone());
                    }
                }
            }
            continue;
        }
        has_failed = true;
        if fault.mode == FaultMode::FromThenOn {
            disk.set_fault(None);
        }
        // Seen from inside it is one of them; from outside it may be another.
        let seen =
            |state: &&State| step.name().is_none_or(|name| holds(&store, name, state.get(name)));
        let mut all = vec![state.clone()];
        all.extend(states);
        let now = all.iter().find(seen);
        state = now.unwrap_or_else(|| panic!("{fault:?}: {step:?} left neither")).clone();
        maybe.extend(all);
    }
    disk.set_fault(None);
    let allowed: Vec<&State> = std::iter::once(&state).chain(&maybe).collect();
    check(&store, &[&state], &|| format!("{fault:?}, running on"));
    check_after(&disk, &allowed, fault);
    drop(store);
    has_failed
}

fn check_after(disk: &SimStorage, allowed: &[&State], fault: Fault) {
    disk.set_fault(None);
    let n_changes = disk.n_changes();
    for survival in [Survival::Nothing, Survival::Everything, Survival::Some(fault.at)] {
        let found = Arc::new(disk.after_power_cut(n_changes, survival));
        let store = Store::open_on(found, options()).unwrap();
        check(&store, allowed, &|| format!("{fault:?}, then a power cut, {survival:?}"));
    }
}

/// Operations of a life in which nothing fails.
fn n_operations() -> u64 {
    let disk = SimStorage::new();
    let store = Store::open_on(Arc::new(disk.clone()), options()).unwrap();
    let mut state = State::new();
    for step in script() {
        step.run(&store, &state).unwrap();
        state = step.states(&state).pop().unwrap();
    }
    disk.n_operations()
}

#[test]
fn r4_r5_an_error_at_any_operation_leaves_every_context_whole() {
    let n_operations = n_operations();
    let (mut n_faults, mut n_felt) = (0, 0);
    for at in 0..n_operations {
        for mode in [FaultMode::Once, FaultMode::FromThenOn] {
            let kind = if at % 2 == 0 { ErrorKind::StorageFull } else { ErrorKind::Other };
            n_felt += u64::from(live_with(Fault { at, kind, mode }));
            n_faults += 1;
        }
    }
    println!("{n_faults} errors at {n_operations} operations, {n_felt} of them told to the caller");
}
