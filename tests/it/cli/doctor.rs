//! Does the doctor say what is there, what is used and what is missing?

use super::run;

/// A table without its columns.
fn words_of(table: &str) -> String {
    table.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_there_is_to_compute_with_is_told() {
    let report = run(&["doctor", "--json"]).json();
    let processor = report["processor"].as_str().unwrap();
    assert!(processor.starts_with("cpu, "), "{processor}");
    assert_eq!(report["computes_on"]["found"], *processor);
    assert!(report["models"]["free_bytes"].as_u64().unwrap() > 0);
    let people = words_of(&run(&["doctor"]).stdout);
    for words in [
        "processor",
        "memory",
        "models",
        "contexts",
        "NVIDIA driver",
        "GPU products",
        "computes on cpu",
    ] {
        assert!(people.contains(words), "{people} lacks {words}");
    }
    let emulated = words_of(&run(&["doctor", "--device", "emulated"]).stdout);
    assert!(emulated.contains("computes on host emulation"), "{emulated}");
}

#[test]
fn a_gpu_that_is_asked_for_and_missing_is_a_failure_with_what_to_do() {
    let is_there = run(&["doctor", "--json"]).json()["gpu"]["found"].is_string();
    let asked = run(&["doctor", "--device", "cuda"]);
    assert_eq!(asked.code, Some(if is_there { 0 } else { 1 }));
    if !is_there {
        assert!(asked.stderr.contains("driver") && asked.stderr.contains("install"), "{asked:?}");
        assert!(words_of(&asked.stdout).contains("computes on missing: "), "{asked:?}");
    }
    let found = run(&["doctor", "--device", "auto"]);
    assert_eq!(found.code, Some(0));
    assert!(is_there || words_of(&found.stdout).contains("computes on cpu"), "{found:?}");
}
