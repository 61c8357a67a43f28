//! Does a benchmark say what it measured, and on what?

use super::{VOYAGE, check_refused, run};

#[test]
fn speeds_memory_and_configuration_are_told() {
    let words =
        ["bench", "--prompt-file", VOYAGE, "--prompt-tokens", "200", "--decode-tokens", "5"];
    let report = run(&[&words[..], &["--json"]].concat()).json();
    for speed in ["prefill_tokens_per_second", "decode_tokens_per_second"] {
        assert!(report[speed].as_f64().unwrap() > 0.0, "{report}");
    }
    assert_eq!((&report["prompt_tokens"], &report["decode_tokens"]), (&200.into(), &5.into()));
    assert_eq!(report["model"], "smollm2-135m");
    assert_eq!(report["memory"]["window-tokens"], 768);
    assert!(report["device"].is_string() && report["threads"].as_u64().unwrap() > 0);
    if cfg!(target_os = "linux") {
        assert!(report["peak_rss_bytes"].as_u64().unwrap() > 50_000_000, "{report}");
    }
    let people = run(&words);
    assert!(people.stdout.contains("peak memory"), "{people:?}");
}

#[test]
fn a_prompt_longer_than_the_file_is_refused_with_its_length() {
    let words = ["bench", "--prompt-file", VOYAGE, "--prompt-tokens", "1000000"];
    check_refused(&words, 2, &["voyage.txt has 11,0", "--prompt-tokens 1000000"]);
    let none = ["bench", "--prompt-file", VOYAGE, "--decode-tokens", "0"];
    check_refused(&none, 2, &["at least 1"]);
}
