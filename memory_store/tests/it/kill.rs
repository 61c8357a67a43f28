//! R2 with real processes: does a context survive that whoever writes it is killed at any moment?

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::scratch::{SHAPES, Scratch, check_context, commit, extend, options};

/// Tells the child where to write.
const DIR: &str = "STORE_TEST_KILL_DIR";

/// How many processes are killed.
const N_KILLS: u64 = 200;

/// Commits for ever, and says each generation once it is durable. Only run by the test below.
#[test]
#[ignore = "the process that is killed"]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = memory_store::Store::open(dir.as_ref(), options()).unwrap();
    let opened = store.open_context("t", "a").unwrap();
    let mut generation = 0;
    let mut context = opened.unwrap_or_else(|| store.create(&SHAPES));
    if let Some(summary) = context.summary() {
        generation = summary.generation;
    }
    let mut streams = [context.stream(0), context.stream(1)];
    loop {
        generation += 1;
        let records = [generation * 2, generation * 3];
        for (i, stream) in streams.iter_mut().enumerate() {
            extend(&mut **stream, 1, i, records[i]).unwrap();
        }
        context.commit(commit("a", 1, generation, &records)).unwrap();
        if generation % 3 == 0 {
            context.sync().unwrap();
            println!("durable {generation}");
            std::io::stdout().flush().unwrap();
        }
    }
}

#[test]
fn r2_a_process_killed_at_any_moment_loses_nothing_that_it_said_was_durable() {
    let scratch = Scratch::new("kill");
    let (mut durable, mut n_leftovers) = (0, 0);
    for round in 0..N_KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--ignored", "--nocapture"])
            .env(DIR, scratch.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let generation = |line: &str| line.split("durable ").nth(1)?.trim().parse::<u64>().ok();
        durable = lines.find_map(|line| generation(&line.unwrap())).unwrap();
        std::thread::sleep(Duration::from_micros(round * 7919 % 12_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = lines.filter_map(|line| generation(&line.ok()?)).last();
        durable = last.unwrap_or(durable);
        let store = scratch.open();
        let report = store.report();
        assert!(report.set_aside.is_empty() && report.incomplete.is_empty(), "{report:?}");
        n_leftovers += report.leftovers.len();
        let context = store.open_context("t", "a").unwrap().unwrap();
        let summary = context.summary().unwrap().clone();
        assert!(summary.generation >= durable, "{durable} was durable: {summary:?}");
        let n = summary.generation;
        assert_eq!((summary.length, &summary.records[..]), (n, &[n * 2, n * 3][..]));
        if round % 20 == 19 {
            check_context(&context, 1);
            drop(context);
            store.compact().unwrap();
        }
    }
    println!("{N_KILLS} kills, {durable} generations, {n_leftovers} leftovers removed");
}
