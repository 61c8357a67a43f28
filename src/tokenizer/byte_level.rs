//! What does a model read that has no tokenizer of its own? Bytes, a token each: for models whose
//! weights are random.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Map, json};

/// Tokens beside those that stand for nothing: the bytes, and the end of a text.
pub const BYTE_TOKENS: usize = 257;

const END: &str = "<|endoftext|>";

/// Writes tokenizer.json and tokenizer_config.json of `vocab_size` tokens: the bytes, the end of a
/// text, and names for the others, which no text becomes.
///
/// # Errors
/// When the files cannot be written, or there are fewer tokens than [`BYTE_TOKENS`].
pub fn write_byte_level(folder: &Path, vocab_size: usize) -> io::Result<()> {
    if vocab_size < BYTE_TOKENS {
        let what = format!("a vocabulary of {vocab_size} has no room for {BYTE_TOKENS} tokens");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let bytes = (0..=255).map(|byte| byte_char(byte).to_string());
    let others = (BYTE_TOKENS..vocab_size).map(|id| format!("<{id}>"));
    let tokens = bytes.chain(std::iter::once(END.to_owned())).chain(others);
    let vocab: Map<_, _> = tokens.enumerate().map(|(id, token)| (token, id.into())).collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true,
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{
            "id": BYTE_TOKENS - 1, "content": END, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        }],
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    });
    let config = json!({
        "tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END,
        "add_bos_token": false, "add_prefix_space": false,
    });
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string())?;
    fs::write(folder.join("tokenizer_config.json"), config.to_string())
}

/// GPT-2's letter for a byte: itself where it can be seen, else one after the first 256.
fn byte_char(byte: u8) -> char {
    let is_seen = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match is_seen(byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|byte| !is_seen(*byte)).count();
            char::from_u32(256 + before as u32).expect("because letters go on after the 256th")
        }
    }
}
