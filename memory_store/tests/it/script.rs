//! What happens to a store in its life, step by step, and what is to be found after each step?

use std::collections::BTreeMap;

use memory_store::{Commit, Fingerprint, Pinned, PrefixKey, RecordId, Store, StoreError};

use crate::scratch::{SHAPES, record, tail};

/// What one context holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub generation: u64,
    /// The seed of each record of each stream: a rewound record is written again with another.
    pub streams: [Vec<u64>; 2],
    pub tail_seed: u64,
}

/// What a store holds, by name.
pub type State = BTreeMap<String, Expected>;

/// A step of the script.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Keep so many records of each stream, then append up to so many, then commit.
    Write {
        name: &'static str,
        seed: u64,
        keep: [u64; 2],
        until: [u64; 2],
    },
    /// Two commits of one more record each, the second queued behind the first.
    Twice {
        name: &'static str,
        seed: u64,
    },
    Fork {
        from: &'static str,
        to: &'static str,
    },
    Delete {
        name: &'static str,
    },
    Pin {
        name: &'static str,
    },
    Compact,
}

/// A life with everything in it.
pub fn script() -> Vec<Step> {
    use Step::*;
    const ALL: [u64; 2] = [u64::MAX; 2];
    vec![
        Write { name: "a", seed: 1, keep: ALL, until: [12, 40] },
        Write { name: "a", seed: 1, keep: ALL, until: [20, 100] },
        Fork { from: "a", to: "b" },
        Write { name: "b", seed: 2, keep: ALL, until: [25, 150] },
        Write { name: "a", seed: 3, keep: [5, 10], until: [9, 30] },
        Write { name: "c", seed: 4, keep: ALL, until: [3, 0] },
        Twice { name: "c", seed: 5 },
        Pin { name: "c" },
        Delete { name: "a" },
        Compact,
        Write { name: "a", seed: 6, keep: ALL, until: [2, 2] },
        Write { name: "b", seed: 7, keep: [25, 150], until: [26, 151] },
        Fork { from: "b", to: "d" },
        Delete { name: "b" },
        Compact,
        Delete { name: "d" },
    ]
}

impl Step {
    /// The states that the step leads through, the last of them when it succeeds.
    pub fn states(self, before: &State) -> Vec<State> {
        let mut state = before.clone();
        match self {
            Step::Write { name, seed, keep, until } => {
                write(&mut state, name, seed, (keep, until));
            }
            Step::Twice { name, seed } => {
                let first = more(&state, name);
                write(&mut state, name, seed, ([u64::MAX; 2], first));
                let between = state.clone();
                write(&mut state, name, seed, ([u64::MAX; 2], more(&between, name)));
                return vec![between, state];
            }
            Step::Fork { from, to } => {
                if let Some(context) = state.get(from) {
                    let fork = Expected { generation: 1, ..context.clone() };
                    state.insert(to.to_owned(), fork);
                }
            }
            Step::Delete { name } => drop(state.remove(name)),
            Step::Pin { .. } | Step::Compact => {}
        }
        vec![state]
    }

    /// Does it.
    pub fn run(self, store: &Store, before: &State) -> Result<(), StoreError> {
        match self {
            Step::Write { name, keep, .. } => run_commits(store, name, keep, &self.states(before)),
            Step::Twice { name, .. } => {
                run_commits(store, name, [u64::MAX; 2], &self.states(before))
            }
            Step::Fork { from, to } => store.fork("t", from, to).map(drop),
            Step::Delete { name } => store.delete("t", name),
            Step::Pin { name } => store.set_pinned("t", name, Pinned::Yes),
            Step::Compact => store.compact().map(drop),
        }
    }

    /// The context that it changes.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Step::Write { name, .. } | Step::Twice { name, .. } | Step::Delete { name } => {
                Some(name)
            }
            Step::Fork { to, .. } => Some(to),
            Step::Pin { .. } | Step::Compact => None,
        }
    }
}

fn more(state: &State, name: &str) -> [u64; 2] {
    let len = |i: usize| state.get(name).map_or(0, |context| context.streams[i].len() as u64);
    [len(0) + 1, len(1) + 1]
}

fn write(state: &mut State, name: &str, seed: u64, (keep, until): ([u64; 2], [u64; 2])) {
    let new = Expected { generation: 0, streams: [vec![], vec![]], tail_seed: 0 };
    let context = state.entry(name.to_owned()).or_insert(new);
    for i in 0..2 {
        context.streams[i].truncate(usize::try_from(keep[i]).unwrap());
        context.streams[i].resize(until[i] as usize, seed);
    }
    context.tail_seed = seed;
    context.generation += 1;
}

/// Commits each of `states` in turn, then waits.
fn run_commits(
    store: &Store,
    name: &str,
    keep: [u64; 2],
    states: &[State],
) -> Result<(), StoreError> {
    let opened = store.open_context("t", name)?;
    let mut context = opened.unwrap_or_else(|| store.create(&SHAPES));
    let mut streams = [context.stream(0), context.stream(1)];
    for (stream, keep) in streams.iter_mut().zip(keep) {
        stream.truncate(usize::try_from(keep).unwrap());
    }
    for state in states {
        let expected = &state[name];
        for (i, stream) in streams.iter_mut().enumerate() {
            for number in stream.len()..expected.streams[i].len() {
                let seed = expected.streams[i][number];
                stream.append(&record(seed, i, number as u64))?;
            }
        }
        context.commit(Commit {
            tenant: "t".to_owned(),
            name: name.to_owned(),
            fingerprint: Fingerprint([1; 32]),
            prefix_key: PrefixKey([2; 32]),
            length: expected.generation,
            meta: vec![expected.tail_seed as u8],
            records: expected.streams.iter().map(|stream| stream.len() as u64).collect(),
            tail: tail(expected.tail_seed, expected.generation),
        })?;
    }
    context.sync()
}

/// Whether the store holds, of this name, exactly this. An error that says so counts as a failure.
pub fn holds(store: &Store, name: &str, expected: Option<&Expected>) -> bool {
    let context = store.open_context("t", name).unwrap();
    let (Some(context), Some(expected)) = (&context, expected) else {
        return context.is_none() == expected.is_none();
    };
    let summary = context.summary().unwrap();
    let counts: Vec<u64> = expected.streams.iter().map(|stream| stream.len() as u64).collect();
    let written = expected.generation.max(1);
    if summary.records != counts || summary.meta != [expected.tail_seed as u8] {
        return false;
    }
    // A fork begins to count anew, but keeps the tail that it came with.
    let is_tail = |generation| context.tail() == Ok(tail(expected.tail_seed, generation));
    if summary.generation != written || !is_tail(summary.length) {
        return false;
    }
    expected.streams.iter().enumerate().all(|(i, seeds)| {
        let stream = context.stream(i);
        seeds.iter().enumerate().all(|(number, seed)| {
            let expected = record(*seed, i, number as u64);
            let n_sections = expected.len().div_ceil(SHAPES[i].section_bytes);
            let id = RecordId(number as u32);
            (0..n_sections).all(|section| {
                let range = section * SHAPES[i].section_bytes;
                let until = (range + SHAPES[i].section_bytes).min(expected.len());
                let read = stream.read(id, section);
                read.is_ok_and(|read| read[range..until] == expected[range..until])
            })
        })
    })
}

/// Of every name the store holds what one of `allowed` says, and nothing else at all.
pub fn check(store: &Store, allowed: &[&State], place: &dyn Fn() -> String) {
    let mut names: Vec<String> = allowed.iter().flat_map(|state| state.keys().cloned()).collect();
    names.extend(store.list("t").unwrap().into_iter().map(|summary| summary.name));
    names.sort();
    names.dedup();
    for name in names {
        let is_held = allowed.iter().any(|state| holds(store, &name, state.get(&name)));
        assert!(is_held, "{}: context {name} is {:?}", place(), store.show("t", &name));
    }
}
