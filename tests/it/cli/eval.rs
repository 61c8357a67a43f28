//! Are results kept, gone on with, and summed up?

use serde_json::Value;

use super::{SMALL, VOYAGE, check_refused, run};
use crate::fixtures::ScratchFolder;

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn results_are_kept_and_gone_on_with() {
    let folder = ScratchFolder::new();
    let out = folder.path().join("results.jsonl");
    let out_word = out.display().to_string();
    let two =
        folder.file("two-stage.toml", b"[memory]\nlookup = \"two-stage\"").display().to_string();
    let none = folder.file("none.toml", b"[memory]\nlookup = \"none\"").display().to_string();
    let compare = format!("{two},{none}");
    let words = ["eval", "--task", "passkey", "--lengths", "900", "--depths", "0.5"];
    let words = [&words[..], &["--compare", &compare, "--out", &out_word], &SMALL].concat();
    let first = run(&words);
    assert_eq!(first.code, Some(0), "{first:?}");
    for words in ["passkey", "two-stage", "none", "900", "found", "log p"] {
        assert!(first.stdout.contains(words), "{} lacks {words}", first.stdout);
    }
    let results = lines(&out);
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|result| result["task"] == "passkey" && result["case"] == 0));
    // The second result was cut off while it was written.
    let text = std::fs::read_to_string(&out).unwrap();
    std::fs::write(&out, &text[..text.len() - 20]).unwrap();
    let again = run(&words);
    assert!(again.stderr.contains("1 result") && again.stderr.contains("cut off"), "{again:?}");
    let strip = |results: Vec<Value>| -> Vec<Value> {
        let without_times = |mut result: Value| {
            result.as_object_mut().unwrap().retain(|key, _| !key.ends_with("seconds"));
            result
        };
        results.into_iter().map(without_times).collect()
    };
    assert_eq!(strip(lines(&out)), strip(results));
    assert_eq!(again.stdout.lines().count(), 3, "{again:?}");
    // Nothing is left to be done, and there is all to be drawn.
    let plot = folder.path().join("pictures");
    let drawn = run(&[&words[..], &["--plot", &plot.display().to_string()]].concat());
    assert_eq!(drawn.code, Some(0), "{drawn:?}");
    for name in ["passkey-heat.svg", "passkey-heat.png", "passkey-length.svg", "passkey-length.png"]
    {
        let path = plot.join(name);
        assert!(drawn.stderr.contains(&path.display().to_string()) && path.exists(), "{drawn:?}");
    }
    let heat = std::fs::read_to_string(plot.join("passkey-heat.svg")).unwrap();
    assert!(heat.contains("two-stage") && heat.contains("none"), "{heat}");
}

#[test]
fn what_cannot_be_evaluated_is_refused_with_what_to_do() {
    let refused: [(&[&str], &[&str]); 6] = [
        (&["--task", "needles"], &["needles", "multi-needle", "common-words"]),
        (&["--task", "needle"], &["--haystack"]),
        (&["--task", "qa"], &["--qa-file"]),
        (&["--task", "passkey", "--depths", "1.5"], &["1.5", "from 0 to 1"]),
        (&["--task", "passkey", "--lengths", "10"], &["10", "at least"]),
        (
            &["--task", "needle", "--haystack", VOYAGE, "--lengths", "900000"],
            &["voyage", "899840", "--repeat"],
        ),
    ];
    for (words, expected) in refused {
        check_refused(&[&["eval"], words].concat(), 2, expected);
    }
    let folder = ScratchFolder::new();
    let more = folder.file("more.toml", b"threads = 1").display().to_string();
    let compare = ["eval", "--task", "passkey", "--compare", &more];
    check_refused(&compare, 2, &["more.toml", "the memory alone"]);
    let twice = format!("{VOYAGE},{VOYAGE}");
    let haystacks = ["eval", "--task", "needle", "--haystack", &twice];
    check_refused(&haystacks, 2, &["voyage", "twice"]);
    let file = ["eval", "--task", "kv", "--kv-file", VOYAGE];
    check_refused(&file, 1, &["voyage.txt", "line 1"]);
    let file = ["eval", "--task", "qa", "--qa-file", VOYAGE];
    check_refused(&file, 1, &["voyage.txt", "SQuAD"]);
    let plot = ["eval", "--task", "passkey", "--plot", &more];
    check_refused(&plot, 1, &["more.toml", "folder of pictures"]);
}
