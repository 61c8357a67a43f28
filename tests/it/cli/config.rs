//! Do flags win over the file, the file over the defaults, and is every mistake named?

use super::{VOYAGE, check_refused, run};
use crate::fixtures::ScratchFolder;

const BENCH: [&str; 8] =
    ["bench", "--prompt-file", VOYAGE, "--prompt-tokens", "20", "--decode-tokens", "1", "--json"];

#[test]
fn flags_win_over_the_file_and_the_file_over_the_defaults() {
    let folder = ScratchFolder::new();
    let text =
        "threads = 1\nactivations = \"f32\"\n[memory]\nretrieved-units = 3\nsink-tokens = 32\n";
    let file = folder.file("mneme.toml", text.as_bytes()).display().to_string();
    let flags = ["--config", &file, "--retrieved-units", "5", "--activations", "int8"];
    let report = run(&[&BENCH[..], &flags].concat()).json();
    assert_eq!(report["threads"], 1);
    assert_eq!(report["activations"], "int8");
    assert_eq!(report["memory"]["retrieved-units"], 5);
    assert_eq!(report["memory"]["sink-tokens"], 32);
    assert_eq!(report["memory"]["window-tokens"], 832);
}

#[test]
fn the_files_of_the_repository_are_understood() {
    let folder = format!("{}/configs", env!("CARGO_MANIFEST_DIR"));
    let files = ["", "policies"].iter().flat_map(|name| {
        let entries = std::fs::read_dir(format!("{folder}/{name}")).unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file())
    });
    let mut n_files = 0;
    for file in files {
        run(&[&BENCH[..], &["--config", &file.display().to_string()]].concat()).json();
        n_files += 1;
    }
    assert!(n_files >= 8, "{n_files} files");
}

#[test]
fn mistakes_in_a_file_are_named_with_file_line_and_key() {
    let folder = ScratchFolder::new();
    let check = |text: &str, words: &[&str]| {
        let file = folder.file("bad.toml", text.as_bytes()).display().to_string();
        check_refused(
            &[&BENCH[..], &["--config", &file]].concat(),
            2,
            &[&[&file[..]], words].concat(),
        );
    };
    check("threads = 1\n\n[memory]\nwindow = 12\n", &["line 4", "window", "window-tokens"]);
    check("threads = \"all\"\n", &["line 1", "threads"]);
    check("[memory\n", &["line 1"]);
    check("[answer]\ntemperature = -1.0\n", &["answer.temperature"]);
    check_refused(&[&BENCH[..], &["--config", "/nowhere.toml"]].concat(), 1, &["/nowhere.toml"]);
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_the_sum() {
    let refused = |flags: &[&str], words: &[&str]| {
        check_refused(&[&BENCH[..], flags].concat(), 2, words);
    };
    refused(&["--window-tokens", "8000"], &["= 8896 positions", "trained for 8192"]);
    refused(&["--unit-tokens", "24"], &["unit-tokens = 24", "multiple of 16"]);
    refused(&["--window-tokens", "many"], &["--window-tokens", "many"]);
    refused(&["--attention", "some"], &["retrieval", "window", "full"]);
    refused(&["--model", "no-such-model"], &["no-such-model", "hf:OWNER/NAME"]);
}
