//! How fast is the store? `cargo bench -p memory_store`, in the directory for temporary files.

use std::time::Instant;

use memory_store::{
    Commit, Fingerprint, OpenContext, PrefixKey, RecordId, Store, StoreOptions, StreamShape,
};

/// A unit of a small model: 64 keys and values of all its layers, a section a layer.
const SHAPES: [StreamShape; 2] = [
    StreamShape { record_bytes: 1_474_560, section_bytes: 49_152 },
    StreamShape { record_bytes: 400, section_bytes: 400 },
];

/// About 64,000 tokens of it.
const RECORDS: u64 = 1000;

fn commit(name: &str, records: u64) -> Commit {
    Commit {
        tenant: String::new(),
        name: name.to_owned(),
        fingerprint: Fingerprint([0; 32]),
        prefix_key: PrefixKey([0; 32]),
        length: records,
        meta: Vec::new(),
        records: vec![records, records],
        tail: vec![7; 100_000],
    }
}

fn ms(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1000.0
}

/// The median of `n` times, in milliseconds.
fn median(n: usize, mut once: impl FnMut(usize)) -> f64 {
    let time = |i| {
        let started = Instant::now();
        once(i);
        ms(started)
    };
    let mut times: Vec<f64> = (0..n).map(time).collect();
    times.sort_by(f64::total_cmp);
    times[n / 2]
}

fn ingest(store: &Store) -> OpenContext {
    let record: Vec<u8> = (0..SHAPES[0].record_bytes).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut context = store.create(&SHAPES);
    let mut streams = [context.stream(0), context.stream(1)];
    let started = Instant::now();
    let mut append_ms = Vec::new();
    for _ in 0..RECORDS {
        let started = Instant::now();
        streams[0].append(&record).unwrap();
        append_ms.push(ms(started));
        streams[1].append(&record[..400]).unwrap();
    }
    let megabytes = (RECORDS as usize * SHAPES[0].record_bytes) as f64 / 1e6;
    let all = ms(started);
    append_ms.sort_by(f64::total_cmp);
    let median = append_ms[append_ms.len() / 2];
    println!("append, the disk's back-pressure included: {:.0} MB/s", megabytes / all * 1000.0);
    println!(
        "append, median of a record: {:.0} MB/s",
        megabytes / RECORDS as f64 / median * 1000.0
    );
    println!(
        "memory of records that are not on disk yet: {} MB",
        streams[0].resident_bytes() >> 20
    );
    let started = Instant::now();
    context.commit(commit("large", RECORDS)).unwrap();
    context.sync().unwrap();
    println!("last commit of {megabytes:.0} MB, queue included: {:.0} ms", ms(started));
    context
}

fn reads(store: &Store) {
    let context = store.open_context("", "large").unwrap().unwrap();
    let stream = context.stream(0);
    let read_all = || {
        let started = Instant::now();
        for number in 0..500 {
            for section in 0..30 {
                std::hint::black_box(stream.read(RecordId(number), section).unwrap());
            }
        }
        ms(started) / 15.0
    };
    println!("first read of a section of 49 KB: {:.2} µs", read_all());
    println!("every later one: {:.3} µs", read_all());
}

fn main() {
    let dir = std::env::temp_dir().join(format!("store-bench-{}", std::process::id()));
    let store = Store::open(&dir, StoreOptions::default()).unwrap();
    drop(ingest(&store));
    println!(
        "fork of it: {:.1} ms",
        median(21, |i| {
            store.fork("", "large", &format!("fork {i}")).unwrap();
        })
    );
    println!(
        "open it: {:.3} ms",
        median(21, |_| {
            drop(store.open_context("", "large").unwrap().unwrap());
        })
    );
    let mut context = store.create(&SHAPES);
    let mut stream = context.stream(1);
    println!(
        "commit of a record and a tail of 100 KB, and sync: {:.1} ms",
        median(51, |i| {
            stream.append(&[1; 400]).unwrap();
            let records = vec![0, i as u64 + 1];
            context.commit(Commit { records, ..commit("small", 0) }).unwrap();
            context.sync().unwrap();
        })
    );
    drop((context, stream));
    println!(
        "delete of a fork: {:.1} ms",
        median(20, |i| {
            store.delete("", &format!("fork {i}")).unwrap();
        })
    );
    drop(store);
    println!(
        "open the store again: {:.1} ms",
        median(5, |_| {
            drop(Store::open(&dir, StoreOptions::default()).unwrap());
        })
    );
    let store = Store::open(&dir, StoreOptions::default()).unwrap();
    reads(&store);
    drop(store);
    std::fs::remove_dir_all(&dir).unwrap();
}
