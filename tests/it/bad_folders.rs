//! What happens to Hugging Face folders that lie? Each is refused with a message that names the
//! file and the field.

use std::path::Path;

use mneme::model::{Architecture, Model};
use serde_json::{Value, json};

use crate::fixtures::{ScratchFolder, TinyModel};

fn refusal(folder: &Path) -> String {
    let Err(error) = Model::open(folder) else { panic!("a lie was believed") };
    error.to_string()
}

fn check(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
}

fn read(folder: &ScratchFolder, name: &str) -> Vec<u8> {
    std::fs::read(folder.path().join(name)).unwrap()
}

#[test]
fn fields_of_the_configuration_that_make_no_model_are_refused_by_name() {
    let folder = ScratchFolder::new();
    TinyModel::default().write_folder(folder.path(), 1);
    let huge = json!(1u64 << 63);
    let scaling = |value: Value| ("rope_scaling", value);
    let cases: Vec<((&str, Value), &[&str])> = vec![
        (("model_type", json!("mamba")), &["\"mamba\"", "llama, mistral, qwen2, qwen3"]),
        (("model_type", json!(7)), &["model_type is 7", "a string"]),
        (("hidden_act", json!("gelu")), &["hidden_act is \"gelu\"", "silu"]),
        (("hidden_size", json!(0)), &["hidden_size is 0", "from 1"]),
        (("hidden_size", huge), &["hidden_size is 9223372036854775808"]),
        (("hidden_size", json!(-64)), &["hidden_size is -64", "positive"]),
        (("hidden_size", json!("64")), &["hidden_size is \"64\""]),
        (("hidden_size", Value::Null), &["hidden_size is missing"]),
        (("hidden_size", json!(128)), &["model.embed_tokens.weight", "[288, 128]"]),
        (("num_attention_heads", json!([4])), &["num_attention_heads is an array"]),
        (("num_key_value_heads", json!(3)), &["num_key_value_heads is 3", "divisor of the 4"]),
        (("head_dim", json!(1 << 20)), &["head_dim is 1048576", "at most"]),
        (("head_dim", json!(8)), &["q_proj.weight", "[64, 64]", "[32, 64]"]),
        (("num_hidden_layers", json!(3)), &["model.layers.2.", "missing"]),
        (("num_hidden_layers", json!(1)), &["without a place", "model.layers.1."]),
        (("vocab_size", json!(289)), &["model.embed_tokens.weight", "[289, 64]"]),
        (("tie_word_embeddings", json!(false)), &["lm_head.weight", "missing"]),
        (("rope_theta", json!(0)), &["rope_theta is 0", "positive"]),
        (("partial_rotary_factor", json!(0.2)), &["partial_rotary_factor", "even"]),
        (("partial_rotary_factor", json!(2)), &["partial_rotary_factor", "16"]),
        (("layer_types", json!(["full_attention", "sliding_attention"])), &["layer_types"]),
        (("layer_types", json!(["linear_attention"])), &["layer_types"]),
        (
            scaling(json!({"type": "dynamic", "factor": 2})),
            &["rope_scaling.type", "\"dynamic\"", "none, default, linear, llama3, yarn"],
        ),
        (scaling(json!({"rope_type": "longrope"})), &["rope_scaling.rope_type", "\"longrope\""]),
        (scaling(json!({"type": "linear"})), &["rope_scaling.factor is missing"]),
        (scaling(json!({"type": "linear", "factor": -1})), &["rope_scaling.factor is -1"]),
        (scaling(json!({"type": "yarn"})), &["rope_scaling.factor is missing"]),
        (scaling(json!({"type": "llama3", "factor": 8})), &["rope_scaling.low_freq_factor"]),
        (scaling(json!("yarn")), &["rope_scaling is \"yarn\"", "an object"]),
    ];
    for ((field, value), words) in cases {
        let mut config = TinyModel::default().config_json();
        config[field] = value;
        folder.file("config.json", config.to_string().as_bytes());
        let message = refusal(folder.path());
        check(&message, words);
        check(&message, &[folder.path().to_str().unwrap()]);
    }
}

#[test]
fn a_qwen_whose_layers_differ_in_their_window_is_refused() {
    let folder = ScratchFolder::new();
    let tiny = TinyModel { sliding_window: Some(64), ..TinyModel::new(Architecture::Qwen2) };
    tiny.write_folder(folder.path(), 1);
    let mut config = tiny.config_json();
    config["max_window_layers"] = json!(1);
    folder.file("config.json", config.to_string().as_bytes());
    check(&refusal(folder.path()), &["max_window_layers is 1", "one window for all layers"]);
}

#[test]
fn what_is_no_folder_of_a_model_is_refused() {
    let folder = ScratchFolder::new();
    check(&refusal(folder.path()), &["without config.json", "GGUF"]);
    for (text, words) in [
        (&b""[..], &["config.json", "not a JSON object"]),
        (b"[1]", &["config.json", "not a JSON object"]),
        (b"{\"a\":\xff}", &["config.json", "not a JSON object"]),
    ] {
        folder.file("config.json", text);
        check(&refusal(folder.path()), words);
    }
    let deep = "[".repeat(100_000);
    folder.file("config.json", format!("{{\"a\":{deep}").as_bytes());
    check(&refusal(folder.path()), &["config.json", "recursion limit"]);
    folder.file("config.json", &vec![b' '; 5 << 20]);
    check(&refusal(folder.path()), &["config.json", "5242880", "allowed"]);
    folder.file("config.json", TinyModel::default().config_json().to_string().as_bytes());
    check(&refusal(folder.path()), &["model.safetensors", "missing", ".bin"]);
}

#[test]
fn shards_that_contradict_their_index_are_refused() {
    const INDEX: &str = "model.safetensors.index.json";
    const FIRST: &str = "model-00001-of-00002.safetensors";
    const SECOND: &str = "model-00002-of-00002.safetensors";
    let folder = ScratchFolder::new();
    TinyModel::default().write_folder(folder.path(), 2);
    let index: Value = serde_json::from_slice(&read(&folder, INDEX)).unwrap();
    let changed = |tensor: &str, shard: Value| {
        let mut index = index.clone();
        index["weight_map"][tensor] = shard;
        folder.file(INDEX, index.to_string().as_bytes());
        refusal(folder.path())
    };
    check(&changed("model.norm.weight", json!("../secret")), &[INDEX, "../secret", "file's name"]);
    check(&changed("model.norm.weight", json!("/etc/passwd")), &[INDEX, "file's name"]);
    check(&changed("model.norm.weight", json!(3)), &[INDEX, "gives 3"]);
    check(&changed("model.norm.weight", json!("gone.safetensors")), &["gone", "cannot be opened"]);
    check(&changed("extra", json!(FIRST)), &[FIRST, "\"extra\"", "missing from this shard"]);
    let first_tensor = "model.embed_tokens.weight";
    check(&changed(first_tensor, json!(SECOND)), &[SECOND, first_tensor, "missing from this"]);
    for text in ["", "{}", "{\"weight_map\": []}"] {
        folder.file(INDEX, text.as_bytes());
        check(&refusal(folder.path()), &[INDEX, "not an index"]);
    }
    folder.file(INDEX, index.to_string().as_bytes());
    assert!(Model::open(folder.path()).is_ok());
    let first = read(&folder, FIRST);
    folder.file(SECOND, &first);
    check(&refusal(folder.path()), &[SECOND, first_tensor, "twice", FIRST]);
    std::fs::remove_file(folder.path().join(SECOND)).unwrap();
    check(&refusal(folder.path()), &[SECOND, "cannot be opened"]);
}

#[test]
fn broken_safetensors_files_are_refused() {
    const FILE: &str = "model.safetensors";
    let folder = ScratchFolder::new();
    TinyModel::default().write_folder(folder.path(), 1);
    let good = read(&folder, FILE);
    let header_len = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let with_header = |edit: &dyn Fn(&mut Value)| {
        let mut header: Value = serde_json::from_slice(&good[8..8 + header_len]).unwrap();
        edit(&mut header);
        let header = serde_json::to_vec(&header).unwrap();
        let length = (header.len() as u64).to_le_bytes();
        [&length[..], &header, &good[8 + header_len..]].concat()
    };
    let refused = |bytes: &[u8], words: &[&str]| {
        folder.file(FILE, bytes);
        let message = refusal(folder.path());
        check(&message, words);
        check(&message, &[FILE]);
    };
    refused(b"", &["ends inside its header", "it has 0"]);
    refused(&good[..7], &["ends inside its header"]);
    refused(&good[..100], &["ends inside its header"]);
    refused(&good[..good.len() - 1], &["describes", "complete?"]);
    refused(&[&good[..], b"x"].concat(), &["describes", "complete?"]);
    refused(&[&u64::MAX.to_le_bytes()[..], &good[8..]].concat(), &["18446744073709551615"]);
    refused(&[&good[..8], &vec![0xff; good.len() - 8][..]].concat(), &["header is broken"]);
    const NORM: &str = "model.norm.weight";
    let dtype =
        |dtype: &'static str| with_header(&move |h: &mut Value| h[NORM]["dtype"] = json!(dtype));
    refused(&dtype("I32"), &[NORM, "I32", "F32, F16, BF16"]);
    refused(&dtype("Q9"), &["header is broken", "Q9"]);
    refused(&dtype("F16"), &["header is broken"]);
    let shape = |shape: Value| with_header(&move |h: &mut Value| h[NORM]["shape"] = shape.clone());
    refused(&shape(json!([8, 8])), &[NORM, "[8, 8]", "[64]"]);
    refused(&shape(json!([u64::MAX, 2])), &["header is broken"]);
    refused(&shape(json!([1u64 << 60])), &["header is broken"]);
    refused(&shape(json!([-1])), &["header is broken"]);
    let offsets = |from: u64, to: u64| {
        with_header(&move |h: &mut Value| h[NORM]["data_offsets"] = json!([from, to]))
    };
    refused(&offsets(0, 256), &["header is broken"]);
    refused(&offsets(u64::MAX - 255, u64::MAX), &["header is broken"]);
    refused(&offsets(512, 256), &["header is broken"]);
    let spare = json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]});
    let with_spare = with_header(&move |h: &mut Value| h["spare.weight"] = spare.clone());
    refused(&with_spare, &["spare.weight", "without a place in the architecture llama"]);
}
