//! Do policies look up beside an oracle, at several lengths of one reading?

use serde_json::Value;

use super::{SMALL, VOYAGE, check_refused, run};
use crate::fixtures::ScratchFolder;

#[test]
fn policies_are_compared_with_an_exact_oracle() {
    let folder = ScratchFolder::new();
    let files = ["exact", "two-stage", "none"].map(|lookup| {
        let text = format!("[memory]\nread-query-tokens = 0\nlookup = \"{lookup}\"");
        folder.file(&format!("{lookup}.toml"), text.as_bytes()).display().to_string()
    });
    let compare = files.join(",");
    let words = ["recall", "--haystack", VOYAGE, "--lengths", "1500,900", "--compare", &compare];
    let json = run(&[&words[..], &["--json"], &SMALL].concat());
    assert_eq!(json.code, Some(0), "{json:?}");
    let lines: Vec<Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let order: Vec<_> =
        lines.iter().map(|line| (line["tokens"].as_u64(), line["policy"].as_str())).collect();
    let expected =
        [900, 1500].map(|n| ["exact", "two-stage", "none"].map(|name| (Some(n), Some(name))));
    assert_eq!(order, expected.concat());
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    for lines in lines.chunks(3) {
        let [exact, two_stage, none] = lines else { panic!("three policies") };
        assert_eq!(number(exact, "overlap"), 1.0);
        assert_eq!(number(exact, "mass"), number(exact, "oracle_mass"));
        assert!((0.05..0.999).contains(&number(two_stage, "overlap")), "{two_stage}");
        assert!((0.01..1.0).contains(&number(two_stage, "mass")), "{two_stage}");
        assert_eq!((number(none, "overlap"), number(none, "bytes")), (0.0, 0.0));
        // Keys of units of 32 tokens: 64 bytes and 4 halves of scales, in three KV heads.
        let keys = number(exact, "units") * 32.0 * 3.0 * 72.0;
        let bytes = number(exact, "bytes");
        assert!(bytes >= keys && bytes < keys * 1.1, "{bytes} {keys}");
        assert!(number(two_stage, "bytes") < bytes);
    }
    let table = run(&[&words[..], &SMALL].concat());
    for words in ["900", "1,500", "two-stage", "100.0 %", "a lookup"] {
        assert!(table.stdout.contains(words), "{} lacks {words}", table.stdout);
    }
}

#[test]
fn a_text_that_is_too_short_is_refused() {
    let words = ["recall", "--haystack", VOYAGE, "--lengths", "900000"];
    check_refused(&words, 2, &["voyage", "900000", "--repeat"]);
}
