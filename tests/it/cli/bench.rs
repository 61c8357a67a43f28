//! Does a benchmark say what it measured, and on what?

use super::{Ran, VOYAGE, check_refused, mneme, run};
use crate::fixtures::ScratchFolder;

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
    assert_eq!(report["memory"]["window-tokens"], 832);
    assert!(report["device"].is_string() && report["threads"].as_u64().unwrap() > 0);
    assert!(report["gpu"].is_null(), "the processor has computed: {report}");
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

#[test]
fn any_shape_is_measured_without_anybodys_weights() {
    let folder = ScratchFolder::new();
    let shape = folder.file("shape.json", SHAPE.as_bytes()).display().to_string();
    let words = ["--random-weights", &shape, "--prompt-file", VOYAGE, "--prompt-tokens", "300"];
    let words = [&["bench"], &words[..], &["--decode-tokens", "3", "--json"]].concat();
    let bench = |words: &[&str]| {
        let mut command = mneme(words);
        command.env("MNEME_CACHE", folder.path().join("cache"));
        Ran::from(command.output().unwrap())
    };
    let first = bench(&words).json();
    assert_eq!(first["prompt_tokens"], 300);
    assert_eq!(first["model"], format!("random weights of {shape}"));
    // It was made once: what is there now is read.
    let made = std::fs::read_dir(folder.path().join("cache/random")).unwrap();
    let made: Vec<_> = made.map(|entry| entry.unwrap().path()).collect();
    let [model] = &made[..] else { panic!("{made:?}") };
    let written = std::fs::metadata(model.join("model.safetensors")).unwrap().modified().unwrap();
    assert!(bench(&words).json()["decode_tokens"] == 3);
    let again = std::fs::metadata(model.join("model.safetensors")).unwrap().modified().unwrap();
    assert_eq!(written, again);
    let inspected = run(&["inspect", &model.display().to_string(), "--json"]).json();
    let (hidden, intermediate, heads, vocab) = (64, 96, 64 + 2 * 32, 300);
    let layer = hidden * (heads + 64 + 3 * intermediate + 2) + 2 * 16;
    assert_eq!(inspected["parameters"], vocab * hidden + hidden + 2 * layer);

    let broken = folder.file("broken.json", b"{\"model_type\": \"gpt9\"}").display().to_string();
    let broken = ["bench", "--random-weights", &broken, "--prompt-file", VOYAGE];
    let refused = bench(&broken);
    assert!(refused.code == Some(1) && refused.stderr.contains("gpt9"), "{refused:?}");
    let few = SHAPE.replace("300", "200");
    let few = folder.file("few.json", few.as_bytes()).display().to_string();
    let refused = bench(&["bench", "--random-weights", &few, "--prompt-file", VOYAGE]);
    assert!(refused.code == Some(1) && refused.stderr.contains("vocabulary of 200"), "{refused:?}");
    let left = std::fs::read_dir(folder.path().join("cache/random")).unwrap().count();
    assert_eq!(left, 1, "nothing is left of what failed");
}

/// Heads have norms of their own; the output matrix is the embedding.
const SHAPE: &str = r#"{
    "model_type": "qwen3", "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "vocab_size": 300, "max_position_embeddings": 8192, "tie_word_embeddings": true
}"#;
