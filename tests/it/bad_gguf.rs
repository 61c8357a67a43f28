//! What happens to GGUF files that lie? Each is refused with a message that names the field.

use mneme::model::{Architecture, Model};
use mneme::tensor::gguf::GgufFile;

use crate::allocation::peak_bytes;
use crate::fixtures::{GgufWriter, ScratchFolder, TinyModel, Value};

/// A change to a good file, and words that the message must have.
type Lie = (fn(&mut GgufWriter), &'static [&'static str]);

fn good() -> GgufWriter {
    TinyModel::default().gguf()
}

/// The message with which a file is refused; it names the file and allocates little.
fn refusal(scratch: &ScratchFolder, bytes: &[u8]) -> String {
    let path = scratch.file("lie.gguf", bytes);
    let (result, peak) = peak_bytes(|| Model::open(&path));
    let Err(error) = result else { panic!("a lie was believed") };
    let message = error.to_string();
    assert!(message.contains("lie.gguf"), "{message}");
    assert!(peak <= bytes.len() + 64 * 1024, "{peak} bytes allocated for {}", bytes.len());
    message
}

fn check(lies: &[Lie]) {
    let scratch = ScratchFolder::new();
    for (idx, (lie, expected)) in lies.iter().enumerate() {
        let mut writer = good();
        lie(&mut writer);
        let message = refusal(&scratch, &writer.bytes());
        for word in *expected {
            assert!(message.contains(word), "lie {idx}: no {word:?} in {message:?}");
        }
    }
}

/// The bytes of an array that claims `n` elements of type `id`.
fn array(id: u32, n: u64, elements: &[u8]) -> Value {
    Value::Raw(9, [&id.to_le_bytes()[..], &n.to_le_bytes(), elements].concat())
}

#[test]
fn what_is_no_gguf_file_is_refused() {
    check(&[
        (|w| w.magic = *b"GGML", &["not a GGUF file", "GGML"]),
        (|w| w.magic = *b"\x00\xff\"\n", &["not a GGUF file", r#"\\x00"#]),
        (|w| w.version = 1, &["version 1", "2 and 3"]),
        (|w| w.version = 0, &["version 0"]),
        (|w| w.version = 4, &["version 4"]),
        (|w| w.version = 3u32.swap_bytes(), &["big-endian", "version 3", "little-endian"]),
    ]);
    let scratch = ScratchFolder::new();
    for bytes in [&b""[..], b"G", b"GGU", b"GGUF", b"GGUF\x03\0\0"] {
        assert!(refusal(&scratch, bytes).contains("the file ends inside"), "{bytes:?}");
    }
    let missing = Model::open(&scratch.path().join("missing.gguf")).unwrap_err().to_string();
    assert!(missing.contains("missing.gguf") && missing.contains("cannot be opened"), "{missing}");
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused() {
    check(&[
        (|w| w.n_tensors = Some(1 << 63), &["tensor count", "9223372036854775808", "room for"]),
        (|w| w.n_tensors = Some(u64::MAX), &["tensor count"]),
        (|w| w.n_tensors = Some(1 << 20), &["tensor count", "1048576"]),
        (|w| w.n_keys = Some(1 << 63), &["metadata key count", "9223372036854775808"]),
        (|w| w.n_keys = Some(u64::MAX), &["metadata key count"]),
        (|w| w.n_tensors = Some(40), &["axes"]),
        (|w| w.set("s", Value::Raw(8, (1u64 << 63).to_le_bytes().into())), &["\"s\"", "bytes are"]),
        (|w| w.set("a", array(8, 1 << 63, &[])), &["element count", "\"a\"", "room for"]),
        (|w| w.set("a", array(8, 2, &[0xff; 8])), &["string 0", "\"a\"", "bytes are needed"]),
        (|w| w.set("a", array(4, u64::MAX / 4 + 2, &[])), &["element count", "\"a\""]),
        (|w| w.set("a", array(12, 1 << 61, &[])), &["element count", "\"a\""]),
        (|w| w.set(&"k".repeat(1 << 16), Value::U32(1)), &["metadata key", "65536", "65535"]),
        (|w| w.tensor("blk.0.attn_q.weight").name = "n".repeat(300), &["name of tensor", "300"]),
    ]);
}

#[test]
fn broken_metadata_is_refused() {
    check(&[
        (|w| w.set("k", Value::Raw(13, vec![])), &["\"k\"", "value type 13"]),
        (|w| w.set("k", Value::Raw(u32::MAX, vec![])), &["\"k\"", "4294967295"]),
        (|w| w.set("k", array(13, 0, &[])), &["\"k\"", "value type 13"]),
        (|w| w.set("k", array(9, 1, &[])), &["\"k\"", "array of arrays"]),
        (|w| w.set("k", Value::Raw(7, vec![2])), &["\"k\"", "boolean 2"]),
        (|w| w.set("k", array(7, 2, &[1, 3])), &["\"k\"", "boolean 3"]),
        (|w| w.keys.push((b"\xff".to_vec(), Value::U32(1))), &["metadata key", "UTF-8"]),
        (|w| w.keys.push((b"general.name".to_vec(), Value::U32(1))), &["general.name", "twice"]),
        (
            |w| w.set("general.name", Value::Raw(8, [&1u64.to_le_bytes()[..], b"\xff"].concat())),
            &["general.name", "UTF-8"],
        ),
        (
            |w| w.set("general.alignment", Value::U32(0)),
            &["general.alignment is 0", "power of two"],
        ),
        (|w| w.set("general.alignment", Value::U32(48)), &["general.alignment is 48"]),
        (|w| w.set("general.alignment", Value::U64(1 << 63)), &["general.alignment is"]),
        (|w| w.set("general.alignment", Value::I32(-32)), &["general.alignment", "i32 -32"]),
        (|w| w.set("general.alignment", Value::string("32")), &["general.alignment", "a string"]),
        (|w| w.set("general.alignment", Value::U32(1 << 31)), &["alignment 2147483648"]),
    ]);
}

#[test]
fn lies_about_tensors_are_refused() {
    const Q: &str = "blk.0.attn_q.weight";
    check(&[
        (|w| w.tensor(Q).axes = vec![], &[Q, "0 axes", "1 to 4"]),
        (|w| w.tensor(Q).axes = vec![1; 5], &[Q, "5 axes"]),
        (|w| w.tensor(Q).axes = vec![64, 0], &[Q, "length 0", "[64, 0]"]),
        (|w| w.tensor(Q).axes = vec![0], &[Q, "length 0"]),
        (|w| w.tensor(Q).axes = vec![1 << 32, 1 << 32], &[Q, "impossible shape"]),
        (|w| w.tensor(Q).axes = vec![1 << 62, 4], &[Q, "impossible shape"]),
        (|w| w.tensor(Q).axes = vec![1 << 61, 3], &[Q, "impossible shape"]),
        (|w| w.tensor(Q).axes = vec![1 << 62], &[Q, "impossible shape"]),
        (|w| w.tensor(Q).axes = vec![1 << 60], &[Q, "outside the file", "complete?"]),
        (|w| w.tensor(Q).type_id = 4, &[Q, "element type 4", "Q4_0", "Q6_K", "BF16"]),
        (|w| w.tensor(Q).type_id = 20, &[Q, "element type 20"]),
        (|w| w.tensor(Q).type_id = u32::MAX, &[Q, "element type 4294967295"]),
        (
            |w| {
                w.tensor(Q).type_id = 2;
                w.tensor(Q).axes = vec![65, 64];
            },
            &[Q, "65 elements", "32", "Q4_0"],
        ),
        (|w| w.tensor(Q).type_id = 14, &[Q, "64 elements", "256", "Q6_K"]),
        (|w| w.tensor(Q).offset = Some(4), &[Q, "lies at 4", "alignment 32"]),
        (|w| w.tensor(Q).offset = Some(1 << 40), &[Q, "outside the file"]),
        (|w| w.tensor(Q).offset = Some(u64::MAX - 31), &[Q, "outside the file"]),
        (|w| w.tensor(Q).offset = Some(0), &[Q, "token_embd.weight", "overlap"]),
        (|w| w.tensor(Q).name = "token_embd.weight".into(), &["token_embd.weight", "twice"]),
        (
            |w| {
                w.tensor(Q).axes = vec![];
                w.tensor(Q).name = "\u{1b}[2J\"".into();
            },
            &[r#""\u{1b}[2J\"""#, "0 axes"],
        ),
        (|w| w.tensor(Q).name = "spare.weight".into(), &[Q, "is missing"]),
    ]);
}

#[test]
fn shapes_that_contradict_the_sizes_are_refused() {
    check(&[
        (
            |w| w.tensor("blk.1.attn_k.weight").axes = vec![32, 64],
            &["blk.1.attn_k.weight", "[64, 32]", "[32, 64]"],
        ),
        (|w| w.tensor("blk.1.ffn_down.weight").axes = vec![64, 96], &["ffn_down", "[64, 96]"]),
        (|w| w.tensor("blk.0.attn_norm.weight").axes = vec![32], &["attn_norm", "[32]", "[64]"]),
        (|w| w.tensor("blk.0.attn_norm.weight").axes = vec![64, 1], &["attn_norm", "[1, 64]"]),
        (|w| w.tensor("output_norm.weight").axes = vec![1], &["output_norm", "[1]", "[64]"]),
        (
            |w| w.tensor("token_embd.weight").axes = vec![32, 576],
            &["token_embd", "[576, 32]", "[576, 64]"],
        ),
        (|w| w.tensor("token_embd.weight").axes = vec![288 * 64], &["token_embd"]),
        (|w| w.set("llama.block_count", Value::U32(3)), &["blk.2.", "missing"]),
        (|w| w.set("llama.block_count", Value::U32(1)), &["without a place", "blk.1.", "llama"]),
        (|w| w.set("llama.attention.key_length", Value::U32(32)), &["value_length", "16", "32"]),
        (|w| w.set("llama.attention.head_count", Value::U32(8)), &["attn_q", "[64, 64]"]),
        (|w| w.set("llama.feed_forward_length", Value::U32(64)), &["ffn_gate", "[64, 64]"]),
    ]);
}

#[test]
fn sizes_that_make_no_model_are_refused() {
    const KV: &str = "llama.attention.head_count_kv";
    check(&[
        (|w| w.set("llama.block_count", Value::U32(0)), &["llama.block_count is 0", "from 1"]),
        (
            |w| w.set("llama.block_count", Value::U64(1 << 63)),
            &["block_count", "9223372036854775808"],
        ),
        (|w| w.set("llama.block_count", Value::I32(-1)), &["block_count", "i32 -1"]),
        (|w| w.set("llama.block_count", Value::string("2")), &["block_count", "a string"]),
        (|w| w.set("llama.block_count", Value::I32s(vec![2, 2])), &["an array of 2 of type i32"]),
        (|w| w.set("llama.block_count", Value::U32(i32::MAX as u32)), &["blk.2.", "missing"]),
        (|w| w.remove("llama.embedding_length"), &["llama.embedding_length is missing"]),
        (|w| w.remove("llama.context_length"), &["llama.context_length is missing"]),
        (|w| w.remove("llama.attention.layer_norm_rms_epsilon"), &["rms_epsilon is missing"]),
        (|w| w.set("llama.attention.head_count", Value::U32(0)), &["head_count is 0"]),
        (|w| w.set(KV, Value::U32(3)), &[KV, "is 3", "divisor of the 4"]),
        (|w| w.set(KV, Value::U32(0)), &[KV, "is 0"]),
        (|w| w.set(KV, Value::U32(8)), &[KV, "is 8"]),
        (
            |w| {
                w.remove("llama.attention.key_length");
                w.set("llama.attention.head_count", Value::U32(7));
            },
            &["llama.attention.key_length", "7 heads", "64"],
        ),
        (|w| w.set("llama.attention.key_length", Value::U32(1 << 30)), &["key_length", "at most"]),
        (
            |w| w.set("llama.rope.dimension_count", Value::U32(15)),
            &["dimension_count is 15", "even"],
        ),
        (|w| w.set("llama.rope.dimension_count", Value::U32(18)), &["dimension_count is 18", "16"]),
        (|w| w.set("llama.rope.freq_base", Value::F32(f32::NAN)), &["freq_base is NaN"]),
        (|w| w.set("llama.rope.freq_base", Value::F32(0.0)), &["freq_base is 0"]),
        (|w| w.set("llama.rope.freq_base", Value::F32(-1.0)), &["freq_base is -1"]),
        (|w| w.set("llama.expert_count", Value::U32(8)), &["expert_count is 8", "mixture"]),
        (
            |w| w.set("tokenizer.ggml.tokens", Value::Strings(vec![String::new(); 289])),
            &["tokenizer.ggml.tokens", "289", "288 rows"],
        ),
    ]);
}

#[test]
fn kinds_of_models_that_are_not_computed_are_refused_by_name() {
    const SUPPORTED: &str = "llama, mistral, qwen2, qwen3";
    check(&[
        (|w| w.set("general.architecture", Value::string("mamba")), &["\"mamba\"", SUPPORTED]),
        (|w| w.set("general.architecture", Value::string("")), &["\"\"", SUPPORTED]),
        (|w| w.remove("general.architecture"), &["general.architecture is missing"]),
        (
            |w| w.set("llama.rope.scaling.type", Value::string("longrope")),
            &["llama.rope.scaling.type", "\"longrope\"", "none, default, linear, llama3, yarn"],
        ),
        (
            |w| {
                w.set("llama.rope.scaling.type", Value::string("yarn"));
                w.set("llama.rope.scaling.factor", Value::F32(f32::INFINITY));
            },
            &["llama.rope.scaling.factor is inf", "positive"],
        ),
        (
            |w| {
                let mut divisors = w.tensor("blk.0.attn_norm.weight").clone();
                divisors.name = "rope_freqs.weight".into();
                w.tensors.push(divisors);
            },
            &["rope_freqs.weight", "[64]", "[8]"],
        ),
        (
            |w| {
                let mut divisors = w.tensor("blk.0.attn_norm.weight").clone();
                divisors.name = "rope_freqs.weight".into();
                divisors.axes = vec![8];
                divisors.bytes = vec![0; 32];
                w.tensors.push(divisors);
            },
            &["rope_freqs.weight", "holds 0", "positive"],
        ),
    ]);
}

#[test]
fn tensors_that_an_architecture_demands_may_not_be_missing() {
    let scratch = ScratchFolder::new();
    for (architecture, tensor) in [
        (Architecture::Qwen2, "blk.1.attn_v.bias"),
        (Architecture::Qwen3, "blk.0.attn_k_norm.weight"),
        (Architecture::Llama, "output_norm.weight"),
        (Architecture::Llama, "token_embd.weight"),
    ] {
        let mut writer = TinyModel::new(architecture).gguf();
        writer.tensors.retain(|found| found.name != tensor);
        let message = refusal(&scratch, &writer.bytes());
        assert!(message.contains(tensor) && message.contains("missing"), "{message}");
    }
}

#[test]
fn metadata_of_the_wrong_type_is_an_error_and_missing_metadata_is_not() {
    let scratch = ScratchFolder::new();
    let mut writer = good();
    writer.set("f", Value::F32s(vec![0.5, 1.5]));
    writer.set("i", Value::I32s(vec![1, -2]));
    let not_text = [&1u64.to_le_bytes()[..], b"\xff"].concat();
    writer.set("bad", array(8, 1, &not_text));
    let file = GgufFile::open(&scratch.file("good.gguf", &writer.bytes())).unwrap();

    assert_eq!(file.string("tokenizer.ggml.model").unwrap(), Some("gpt2"));
    assert_eq!(file.strings("tokenizer.ggml.tokens").unwrap().unwrap().len(), 272);
    assert_eq!(file.boolean("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    assert_eq!(file.u32("llama.block_count").unwrap(), Some(2));
    assert_eq!(file.i64("llama.block_count").unwrap(), Some(2));
    assert_eq!(file.f32("llama.rope.freq_base").unwrap(), Some(10_000.0));
    assert_eq!(file.f32s("f").unwrap(), Some(vec![0.5, 1.5]));
    assert_eq!(file.i32s("i").unwrap(), Some(vec![1, -2]));
    assert_eq!(file.array_len("i"), Some(2));
    assert_eq!(file.string("nowhere").unwrap(), None);
    assert_eq!(file.strings("nowhere").unwrap(), None);
    assert!(file.keys().any(|key| key == "general.name"));

    for (message, words) in [
        (file.string("llama.block_count").unwrap_err().to_string(), "the u32 2; a string"),
        (file.u32("general.name").unwrap_err().to_string(), "a string; an integer"),
        (file.u32s("i").unwrap_err().to_string(), "an array of 2 of type i32"),
        (file.f32s("i").unwrap_err().to_string(), "an array of floating-point"),
        (file.strings("i").unwrap_err().to_string(), "an array of strings"),
        (file.i32s("tokenizer.ggml.tokens").unwrap_err().to_string(), "of type string"),
        (file.boolean("i").unwrap_err().to_string(), "a boolean"),
        (file.f64("i").unwrap_err().to_string(), "a floating-point number"),
        (file.strings("bad").unwrap_err().to_string(), "string 0 of the metadata key \"bad\""),
    ] {
        assert!(message.contains(words) && message.contains("good.gguf"), "{message}");
    }
}

#[test]
fn headers_made_of_the_smallest_entries_allocate_in_proportion() {
    let mut writer = GgufWriter::default();
    for idx in 0..20_000 {
        let key = [idx as u8 & 0x7f, (idx >> 7) as u8 & 0x7f, (idx >> 14) as u8];
        writer.keys.push((key.to_vec(), Value::Bool(true)));
    }
    let bytes = writer.bytes();
    let (result, peak) = peak_bytes(|| mneme::tensor::gguf::Header::parse(&bytes).map(|_| ()));
    result.unwrap();
    assert!(peak <= 8 * bytes.len(), "{peak} bytes for {}", bytes.len());
}
