//! Which vocabularies do the tests make? Small ones of every kind, as the files that hold them.

use std::path::PathBuf;

use mneme::tokenizer::{Tokenizer, TokenizerError};
use serde_json::json;

use crate::fixtures::{GgufWriter, ScratchFolder, Value};

/// A GGUF file without tensors.
#[derive(Clone)]
pub struct GgufVocab(GgufWriter);

impl GgufVocab {
    fn new(keys: Vec<(&str, Value)>) -> Self {
        let mut writer = GgufWriter::default();
        for (key, value) in keys {
            writer.set(key, value);
        }
        Self(writer)
    }

    /// With `value` in place of whatever `key` had.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0.set(key, value);
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.0.remove(key);
        self
    }

    /// With another text for token `id`.
    pub fn with_token(self, id: usize, text: &str) -> Self {
        let key = "tokenizer.ggml.tokens";
        let tokens = self.0.keys.iter().find(|(found, _)| found == key.as_bytes());
        let Some((_, Value::Strings(tokens))) = tokens else { panic!("no tokens") };
        let mut tokens = tokens.clone();
        tokens[id] = text.to_owned();
        self.with(key, Value::Strings(tokens))
    }

    pub fn open(&self) -> Result<Tokenizer, TokenizerError> {
        let folder = ScratchFolder::new();
        Tokenizer::open(&folder.file("made.gguf", &self.bytes()))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes()
    }
}

pub fn text(value: &str) -> Value {
    Value::string(value)
}

pub fn texts<S: AsRef<str>>(values: &[S]) -> Value {
    Value::Strings(values.iter().map(|value| value.as_ref().to_owned()).collect())
}

/// The 256 letters of the byte-level alphabet.
fn byte_letters() -> Vec<String> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 256;
    let letters = (0..=255_u8).map(|byte| {
        let code = if printable(byte) {
            u32::from(byte)
        } else {
            next += 1;
            next - 1
        };
        char::from_u32(code).unwrap().to_string()
    });
    letters.collect()
}

pub const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Byte-level words: the letters (0 to 255), what two merges make of them, and control tokens.
pub const BYTE_LEVEL_MERGES: [&str; 4] = ["Ġ s", "e a", "Ġs ea", "1 2"];
const BYTE_LEVEL_WORDS: [&str; 4] = ["Ġs", "ea", "Ġsea", "12"];
pub const CONTROLS: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];

fn byte_level_tokens() -> Vec<String> {
    let mut tokens = byte_letters();
    tokens.extend(BYTE_LEVEL_WORDS.into_iter().chain(CONTROLS).map(str::to_owned));
    tokens
}

/// A GGUF file of kind `gpt2`.
pub fn byte_level_gguf() -> GgufVocab {
    let tokens = byte_level_tokens();
    let n_words = tokens.len() - CONTROLS.len();
    let kinds = (0..tokens.len()).map(|id| if id < n_words { 1 } else { 3 }).collect();
    GgufVocab::new(vec![
        ("general.architecture", text("llama")),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", Value::Strings(tokens)),
        ("tokenizer.ggml.token_type", Value::I32s(kinds)),
        ("tokenizer.ggml.merges", texts(&BYTE_LEVEL_MERGES)),
        ("tokenizer.ggml.bos_token_id", Value::U32(260)),
        ("tokenizer.ggml.eos_token_id", Value::U32(261)),
        ("tokenizer.chat_template", text(CHATML)),
    ])
}

/// SentencePiece tokens with their scores; then the 256 bytes.
const PIECES: [(&str, f32, i32); 12] = [
    ("<unk>", 0.0, 2),
    ("<s>", 0.0, 3),
    ("</s>", 0.0, 3),
    ("▁", -1.0, 1),
    ("s", -2.0, 1),
    ("e", -3.0, 1),
    ("a", -4.0, 1),
    ("▁s", -0.5, 1),
    ("ea", -0.4, 1),
    ("▁sea", -0.9, 1),
    ("se", -0.7, 1),
    ("▁▁", -0.6, 1),
];

/// A GGUF file of kind `llama`.
pub fn sentence_piece_gguf() -> GgufVocab {
    let bytes = (0..=255_u8).map(|byte| format!("<0x{byte:02X}>"));
    let tokens = PIECES.iter().map(|piece| piece.0.to_owned()).chain(bytes).collect();
    let scores = PIECES.iter().map(|piece| piece.1).chain([0.0; 256]).collect();
    let kinds = PIECES.iter().map(|piece| piece.2).chain([6; 256]).collect();
    GgufVocab::new(vec![
        ("general.architecture", text("llama")),
        ("tokenizer.ggml.model", text("llama")),
        ("tokenizer.ggml.tokens", Value::Strings(tokens)),
        ("tokenizer.ggml.token_type", Value::I32s(kinds)),
        ("tokenizer.ggml.scores", Value::F32s(scores)),
        ("tokenizer.ggml.bos_token_id", Value::U32(1)),
        ("tokenizer.ggml.eos_token_id", Value::U32(2)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
    ])
}

/// A Hugging Face folder.
pub struct Folder {
    folder: ScratchFolder,
}

impl Folder {
    pub fn new(tokenizer: &serde_json::Value) -> Self {
        let folder = ScratchFolder::new();
        folder.file("tokenizer.json", tokenizer.to_string().as_bytes());
        Self { folder }
    }

    pub fn with(self, name: &str, contents: &str) -> Self {
        self.folder.file(name, contents.as_bytes());
        self
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn open(&self) -> Result<Tokenizer, TokenizerError> {
        Tokenizer::open(self.folder.path())
    }
}

/// The vocabulary of [`byte_level_gguf`] as `tokenizer.json`.
pub fn byte_level_json() -> serde_json::Value {
    let tokens = byte_level_tokens();
    let n_words = tokens.len() - CONTROLS.len();
    let vocab: serde_json::Map<String, serde_json::Value> = tokens[..n_words]
        .iter()
        .zip(0..)
        .map(|(token, id): (_, u32)| (token.clone(), id.into()))
        .collect();
    let added: Vec<serde_json::Value> = CONTROLS
        .iter()
        .zip(n_words..)
        .map(|(content, id)| {
            json!({ "id": id, "content": content, "special": true,
            "lstrip": false, "rstrip": false, "single_word": false, "normalized": false })
        })
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": true },
        "post_processor": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false,
            "use_regex": true },
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true },
        "model": { "type": "BPE", "unk_token": null, "vocab": vocab, "merges": BYTE_LEVEL_MERGES },
    })
}

/// The vocabulary of [`sentence_piece_gguf`] as `tokenizer.json`, as Llama 2 has it.
pub fn sentence_piece_json() -> serde_json::Value {
    let mut vocab = serde_json::Map::new();
    for (id, piece) in PIECES.iter().enumerate() {
        vocab.insert(piece.0.to_owned(), id.into());
    }
    for byte in 0..256_usize {
        vocab.insert(format!("<0x{byte:02X}>"), (PIECES.len() + byte).into());
    }
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "special": true, "lstrip": false, "rstrip": false,
            "single_word": false, "normalized": false })
    };
    json!({
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ] },
        "pre_tokenizer": null,
        "post_processor": { "type": "TemplateProcessing",
            "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } },
                { "Sequence": { "id": "A", "type_id": 0 } }],
            "pair": [], "special_tokens": {} },
        "decoder": { "type": "Sequence", "decoders": [] },
        "model": { "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab,
            "merges": [["e", "a"], ["▁", "s"], ["▁", "▁"], ["s", "e"], ["▁s", "ea"]] },
    })
}
