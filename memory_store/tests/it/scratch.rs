//! What do the tests of this binary share? Stores in directories of their own, and records whose
//! bytes tell which they are.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memory_store::{
    Commit, Fingerprint, OpenContext, PrefixKey, RecordId, Store, StoreError, StoreOptions,
    StreamShape, UnitStore,
};

/// The streams of the tests' contexts: a large record of several sections, and a small one.
pub const SHAPES: [StreamShape; 2] = [
    StreamShape { record_bytes: 1000, section_bytes: 400 },
    StreamShape { record_bytes: 24, section_bytes: 24 },
];

/// A directory that is removed when the test is over.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static N: AtomicU64 = AtomicU64::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("store-{name}-{}-{n}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub fn open(&self) -> Store {
        Store::open(&self.0, options()).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Small segments and a clock that stands still.
pub fn options() -> StoreOptions {
    StoreOptions { segment_bytes: 8 << 10, clock: Arc::new(|| 1000), ..StoreOptions::default() }
}

/// The bytes of a record: every one depends on what it is.
pub fn record(seed: u64, stream: usize, number: u64) -> Vec<u8> {
    let mut state = seed << 40 ^ (stream as u64) << 32 ^ number;
    let mut bytes = Vec::with_capacity(SHAPES[stream].record_bytes);
    while bytes.len() < SHAPES[stream].record_bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    bytes.truncate(SHAPES[stream].record_bytes);
    bytes
}

/// The tail of a commit.
pub fn tail(seed: u64, generation: u64) -> Vec<u8> {
    format!("tail {seed} of generation {generation}").into_bytes()
}

/// A commit of so many records a stream.
pub fn commit(name: &str, seed: u64, generation: u64, records: &[u64]) -> Commit {
    Commit {
        tenant: "t".to_owned(),
        name: name.to_owned(),
        fingerprint: Fingerprint([seed as u8; 32]),
        prefix_key: PrefixKey([7; 32]),
        length: generation,
        meta: format!("meta of {seed}").into_bytes(),
        records: records.to_vec(),
        tail: tail(seed, generation),
    }
}

/// Appends records up to `until` to stream `i`.
pub fn extend(
    stream: &mut dyn UnitStore,
    seed: u64,
    i: usize,
    until: u64,
) -> Result<(), StoreError> {
    for number in stream.len() as u64..until {
        stream.append(&record(seed, i, number))?;
    }
    Ok(())
}

/// Every section of every record is what was appended.
pub fn check_records(stream: &dyn UnitStore, seed: u64, i: usize, n: u64) {
    assert_eq!(stream.len() as u64, n);
    let section_bytes = SHAPES[i].section_bytes;
    for number in 0..n {
        let expected = record(seed, i, number);
        for (section, bytes) in expected.chunks(section_bytes).enumerate() {
            let read = stream.read(RecordId(number as u32), section).unwrap();
            let at = section * section_bytes;
            assert_eq!(&read[at..at + bytes.len()], bytes, "record {number} of stream {i}");
        }
    }
}

/// All of a context is what `seed` made.
pub fn check_context(context: &OpenContext, seed: u64) {
    let summary = context.summary().unwrap().clone();
    assert_eq!(context.tail().unwrap(), tail(seed, summary.length));
    for (i, n) in summary.records.iter().enumerate() {
        check_records(&*context.stream(i), seed, i, *n);
    }
}

/// A context of one commit.
pub fn make(store: &Store, name: &str, seed: u64, records: [u64; 2]) -> OpenContext {
    let mut context = store.create(&SHAPES);
    for (i, n) in records.iter().enumerate() {
        extend(&mut *context.stream(i), seed, i, *n).unwrap();
    }
    context.commit(commit(name, seed, 1, &records)).unwrap();
    context.sync().unwrap();
    context
}
