//! Are texts scored as an independent implementation scores them, and ranges of them as told?

use serde_json::Value;

use super::{SMALL, VOYAGE, check_refused, run, run_with, voyage};

const GOLDEN: &str = include_str!("../../golden/smollm2-135m-instruct-q4_1.json");

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[test]
fn a_golden_text_gets_its_golden_score() {
    let goldens: Value = serde_json::from_str(GOLDEN).unwrap();
    let golden = &goldens[1]; // a conversation, with control tokens
    let text = golden["text"].as_str().unwrap();
    let words = ["score", "--attention", "full", "--json", "-"];
    let score = |flags: &[&str]| run_with(&[&words, flags].concat(), text.as_bytes()).json();
    let report = score(&[]);
    assert_eq!(report["token_ids"], golden["token_ids"]);
    let mean = |report: &Value| report["mean_nll"].as_f64().unwrap();
    assert!((mean(&report) - mean(golden)).abs() < 0.03, "{report}");
    let halves = score(&["--kv-type", "f16"]);
    assert!((mean(&halves) - mean(golden)).abs() < 0.01, "{halves}");
    assert!((report["perplexity"].as_f64().unwrap().ln() - mean(&report)).abs() < 1e-9);
    assert_eq!(
        report["nll"].as_array().unwrap().len() + 1,
        golden["token_ids"].as_array().unwrap().len()
    );
    let top = |value: &Value| value[0][0].clone();
    assert_eq!(top(&report["last_logits_top"]), top(&golden["last_logits_top10"]));
    assert_eq!(report["last_logits_top"].as_array().unwrap().len(), 10);
}

#[test]
fn a_range_scores_the_same_tokens_the_same() {
    let text = voyage(2500);
    let score = |range: &[&str]| {
        let mut words = vec!["score", "--json", "-"];
        words.extend(SMALL);
        words.extend(range);
        run_with(&words, text.as_bytes()).json()
    };
    let whole = score(&["--to-token", "500"]);
    assert_eq!(whole["token_ids"].as_array().unwrap().len(), 500);
    let tail = score(&["--from-token", "400", "--to-token", "500"]);
    assert_eq!(tail["token_ids"], whole["token_ids"]);
    assert_eq!(numbers(&tail["nll"]), numbers(&whole["nll"])[399..]);
    assert_eq!(tail["last_logits_top"], whole["last_logits_top"]);

    let late = score(&["--start-token", "300", "--to-token", "500"]);
    assert_eq!(
        late["token_ids"].as_array().unwrap()[..],
        whole["token_ids"].as_array().unwrap()[300..]
    );
    assert_eq!(late["from_token"], 301);
    assert_eq!(late["nll"].as_array().unwrap().len(), 199);
    assert_ne!(numbers(&late["nll"]), numbers(&whole["nll"])[300..], "it has not read the rest");
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let to = ["score", VOYAGE, "--to-token", "60000"];
    check_refused(&to, 2, &["--to-token 60000", "it has 11,0"]);
    let empty = ["score", VOYAGE, "--start-token", "50", "--from-token", "50"];
    check_refused(&empty, 2, &["no token to score"]);
    let short = ["score", VOYAGE, "--to-token", "1"];
    check_refused(&short, 2, &["no token to score"]);
}

#[test]
fn people_get_three_lines() {
    let ran = run_with(&["score", "-"], b"The capital of France is Paris.");
    let words: Vec<&str> = ran.stdout.lines().filter_map(|line| line.split("  ").next()).collect();
    assert_eq!(words, ["perplexity", "mean nll", "scored"], "{ran:?}");
    assert_eq!(run(&["score", "/nowhere.txt"]).code, Some(1));
}
