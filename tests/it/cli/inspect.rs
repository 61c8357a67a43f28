//! Is a model's file summed up truly?

use serde_json::{Value, json};

use super::{check_refused, run};
use crate::fixtures::{ScratchFolder, default_model};

#[test]
fn the_default_model_is_summed_up() {
    let model = default_model().display().to_string();
    let report = run(&["inspect", &model, "--json"]).json();
    let elements = 30 * 3 * 64;
    let int8 = 2 * elements + 30 * 3 * (64 / 16 * 2 + 4);
    // Keys have a step and a middle for each channel of a unit of 64 tokens, values one each.
    let int4 = elements + 30 * 3 * (64 * 2 * 2 / 64 + 4);
    let expected: [(&str, Value); 6] = [
        ("architecture", "llama".into()),
        ("layers", 30.into()),
        ("kv_heads", 3.into()),
        ("trained_tokens", 8192.into()),
        ("key_value_bytes_per_token", json!({ "int4": int4, "int8": int8, "f16": 4 * elements })),
        ("chat_template", true.into()),
    ];
    for (key, value) in expected {
        assert_eq!(report[key], value, "{key}");
    }
    assert_eq!(report["types"][0]["dtype"], "Q4_1");
    let people = run(&["inspect", &model]).stdout;
    for words in
        ["llama", "8,192 tokens", "Q4_1", "present", "12.6 kB as int8", "134,515,008 parameters"]
    {
        assert!(people.contains(words), "{people} lacks {words}");
    }
}

#[test]
fn what_is_no_model_is_refused_by_name() {
    let folder = ScratchFolder::new();
    let file = folder.file("letter.gguf", b"Dear Sir or Madam").display().to_string();
    check_refused(&["inspect", &file], 1, &[&file]);
    let folder = folder.path().display().to_string();
    check_refused(&["inspect", &folder], 1, &[&folder, "config.json"]);
}
