//! Is a question answered, with passages that are truly in the document, and is every bad document
//! refused with what to do?

use std::collections::BTreeSet;

use serde_json::Value;

use super::{SMALL, VOYAGE, check_refused, run, run_with, voyage};
use crate::fixtures::ScratchFolder;

const QUESTION: &str = "What is the pass key of the chart room?";

/// The object has the fields that it should, and its passages are the document's.
fn check_report(report: &Value, document: &str) {
    let fields: BTreeSet<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "answer",
        "attended_tokens_max",
        "cached_tokens",
        "completion_tokens",
        "decode_seconds",
        "evidence",
        "finish_reason",
        "memory_units",
        "prefill_seconds",
        "prompt_tokens",
    ];
    assert_eq!(fields, BTreeSet::from(expected));
    assert!(report["prefill_seconds"].as_f64().unwrap() > 0.0);
    assert!(["stop", "length"].contains(&report["finish_reason"].as_str().unwrap()));
    let evidence = report["evidence"].as_array().unwrap();
    assert!(!evidence.is_empty());
    let mut weights = Vec::new();
    for passage in evidence {
        let at = |key: &str| passage[key].as_u64().unwrap() as usize;
        assert_eq!(passage["text"].as_str(), document.get(at("start")..at("end")), "{passage}");
        assert!(at("start") < at("end"));
        weights.push(passage["weight"].as_f64().unwrap());
    }
    assert!(weights.is_sorted_by(|a, b| a >= b) && weights.iter().all(|w| *w > 0.0));
    assert!(weights.iter().sum::<f64>() <= 1.001, "shares of one whole: {weights:?}");
}

#[test]
fn the_voyage_is_answered_from_the_passage_that_says_so() {
    let report = run(&["ask", "--document", VOYAGE, "--json", QUESTION]).json();
    check_report(&report, &std::fs::read_to_string(VOYAGE).unwrap());
    assert!(report["answer"].as_str().unwrap().contains("71946"), "{report}");
    assert_eq!(report["finish_reason"], "stop");
    let n_tokens = report["prompt_tokens"].as_u64().unwrap();
    assert!(n_tokens > 8192, "longer than the model was trained to read");
    assert!(report["attended_tokens_max"].as_u64().unwrap() < n_tokens / 4);
    assert!(report["memory_units"].as_u64().unwrap() > 100);
}

#[test]
fn the_same_seed_gives_the_same_answer_whatever_the_number_of_threads() {
    let document = voyage(4000);
    let ask = |threads: &str, seed: &str| {
        let mut words = vec!["ask", "--document", "-", "--json", "--temperature", "0.9"];
        words.extend(SMALL);
        words.extend(["--max-tokens", "16", "--threads", threads, "--seed", seed]);
        words.extend(["Where", "was", "the", "ship?"]);
        let mut report = run_with(&words, document.as_bytes()).json();
        check_report(&report, &document);
        for seconds in ["prefill_seconds", "decode_seconds"] {
            report[seconds] = 0.into();
        }
        report
    };
    let one = ask("1", "7");
    assert_eq!(one, ask("2", "7"));
    assert_ne!(one["answer"], ask("2", "8")["answer"]);
}

#[test]
fn the_answer_goes_to_stdout_and_all_else_to_stderr() {
    let mut words = vec!["ask", "--document", "-", "--max-tokens", "4"];
    words.extend(SMALL);
    words.push("Where was the ship?");
    let ran = run_with(&words, voyage(3000).as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.ends_with('\n') && ran.stdout.lines().count() <= 2, "{:?}", ran.stdout);
    for word in ["bytes ", " %", "tokens/s", "cut at 4 tokens", "units in memory"] {
        assert!(ran.stderr.contains(word), "{:?} lacks {word:?}", ran.stderr);
    }
    assert!(ran.stderr.lines().all(|line| line.chars().count() <= 80), "{}", ran.stderr);
}

#[test]
fn a_document_in_view_as_a_whole_needs_no_passages_and_says_so() {
    let ran = run_with(&["ask", "--document", "-", "--max-tokens", "2", "Who?"], b"Ada was here.");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("Nothing was looked up"), "{}", ran.stderr);
}

#[test]
fn bad_documents_are_refused_with_what_to_do() {
    let folder = ScratchFolder::new();
    let file = |name: &str, bytes: &[u8]| folder.file(name, bytes).display().to_string();
    let refused = [
        (file("empty.txt", b""), "is empty"),
        (file("blank.txt", b"  \n\n"), "is empty"),
        (file("zero.bin", b"abc\0def"), "zero byte at byte 3"),
        (file("a.pdf", b"%PDF-1.7\n%\xff"), "pdftotext"),
        (file("latin.txt", b"caf\xe9 noir"), "byte 3 (line 1) is 0xE9"),
        (folder.path().display().to_string(), "is a folder"),
        (folder.path().join("none.txt").display().to_string(), "no such file"),
    ];
    for (document, expected) in refused {
        check_refused(&["ask", "--document", &document, "Who?"], 1, &[&document, expected]);
    }
    let latin = folder.path().join("latin.txt").display().to_string();
    check_refused(&["ask", "--document", &latin, "Who?"], 1, &["--lossy"]);
    let words = ["ask", "--document", &latin, "--lossy", "--max-tokens", "1", "--json", "Who?"];
    assert_eq!(run(&words).json()["completion_tokens"], 1);
    check_refused(&["ask", "--document", "-", "Who?"], 1, &["standard input: is empty"]);
}

#[test]
fn bad_questions_are_refused_as_misuse() {
    check_refused(&["ask", "--document", VOYAGE], 2, &["<QUESTION>"]);
    check_refused(&["ask", "--document", VOYAGE, " ", ""], 2, &["the question is empty"]);
    check_refused(&["ask", "What?"], 2, &["--document"]);
    let long = "Where was the ship? ".repeat(40);
    let folder = ScratchFolder::new();
    let document = folder.file("short.txt", b"At sea.").display().to_string();
    let words = ["ask", "--document", &document, "--window-tokens", "128", &long];
    check_refused(&words, 2, &["the window holds 128", "window-tokens"]);
}
