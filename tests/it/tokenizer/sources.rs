//! Are tokenizers read as their files mean them, and refused when they lie?

use mneme::ids::TokenId;
use mneme::tokenizer::{SpecialTokens, Tokenizer, TokenizerError};
use serde_json::{Value as Json, json};

use super::made::{
    Folder, GgufVocab, byte_level_gguf, byte_level_json, sentence_piece_gguf, sentence_piece_json,
    text, texts,
};
use super::{TRICKY, check_spans};
use crate::fixtures::{Random, ScratchFolder, Value};

fn ids(tokenizer: &Tokenizer, text: &str, special: SpecialTokens) -> Vec<u32> {
    tokenizer.encode(text, special).iter().map(|id| id.0).collect()
}

/// Tokens written out, for people.
fn spelled(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    let ids = tokenizer.encode(text, SpecialTokens::Parse);
    ids.into_iter().map(|id| tokenizer.spell(id)).collect()
}

#[test]
fn a_byte_level_vocabulary_merges_in_the_order_of_its_list() {
    for tokenizer in [byte_level_gguf().open(), Folder::new(&byte_level_json()).open()] {
        let tokenizer = tokenizer.unwrap();
        assert_eq!(spelled(&tokenizer, " sea"), [" sea"]);
        assert_eq!(spelled(&tokenizer, "sea"), ["s", "ea"]);
        assert_eq!(spelled(&tokenizer, "212 sea<|im_end|>"), ["2", "12", " sea", "<|im_end|>"]);
        assert_eq!(ids(&tokenizer, " sea<|im_end|>", SpecialTokens::Parse), [258, 261]);
        assert_eq!(tokenizer.vocab_size(), 263);
        for text in TRICKY {
            // NFC, which the folder asks for, composes characters.
            let encoded = tokenizer.encode_document(text);
            if !text.contains('\u{301}') {
                check_spans(text, &encoded);
                assert_eq!(tokenizer.decode(&encoded.ids), text);
            }
        }
    }
}

#[test]
fn the_splitting_rule_decides_what_may_merge() {
    let smollm = byte_level_gguf().with("tokenizer.ggml.pre", text("smollm")).open().unwrap();
    assert_eq!(spelled(&smollm, "12"), ["1", "2"]);
    // Without a name, the rule is called default.
    let unnamed = byte_level_gguf().without("tokenizer.ggml.pre").open().unwrap();
    assert_eq!(spelled(&unnamed, "12"), ["12"]);
}

#[test]
fn a_sentence_piece_vocabulary_merges_the_highest_score_first() {
    let config = json!({ "bos_token": "<s>", "eos_token": "</s>" }).to_string();
    let folder = Folder::new(&sentence_piece_json()).with("tokenizer_config.json", &config);
    for tokenizer in [sentence_piece_gguf().open(), folder.open()] {
        let tokenizer = tokenizer.unwrap();
        // "▁sea": ea (-0.4) before ▁s (-0.5) before se (-0.7); then the whole.
        assert_eq!(spelled(&tokenizer, "sea"), [" sea"]);
        assert_eq!(spelled(&tokenizer, "se sea"), [" s", "e", " sea"]);
        assert_eq!(spelled(&tokenizer, "  a"), ["  ", " ", "a"]);
        // Letters without a token become their bytes.
        let bytes: Vec<u32> = "é".bytes().map(|byte| 12 + u32::from(byte)).collect();
        assert_eq!(ids(&tokenizer, "é", SpecialTokens::Parse), [vec![3], bytes].concat());
        assert_eq!(tokenizer.spell(TokenId(12 + 10)), "\n");
        for text in TRICKY {
            let encoded = tokenizer.encode_document(text);
            check_spans(text, &encoded);
            assert_eq!(tokenizer.decode(&encoded.ids), text);
        }
        // The space before the text belongs to nothing in it, and comes again after a token.
        assert_eq!(spelled(&tokenizer, "sea</s>sea"), [" sea", "</s>", " sea"]);
        let encoded = tokenizer.encode_with_spans("a</s>sea", SpecialTokens::Parse);
        let spans: Vec<_> = encoded.spans.iter().map(|span| (span.start, span.end)).collect();
        assert_eq!(spans, [(0, 0), (0, 1), (1, 5), (5, 8)]);
        assert_eq!(tokenizer.text_start(), Some(TokenId(1)));
    }
}

#[test]
fn long_texts_are_cut_only_where_no_token_crosses() {
    let words = "sea se  sea aes ".repeat(20_000);
    let tokenizer = sentence_piece_gguf().open().unwrap();
    let document = tokenizer.encode_document(&words);
    assert_eq!(tokenizer.decode(&document.ids), words);
    // A vocabulary with a token across words: cutting between them would lose it.
    let crossing = sentence_piece_gguf().with_token(11, "s▁s");
    let crossing = crossing.with("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let mut scores = vec![0.0; 268];
    scores[..12].copy_from_slice(&[0., 0., 0., -9., -9., -9., -9., -0.5, -0.4, -0.9, -0.7, -0.1]);
    let crossing = crossing.with("tokenizer.ggml.scores", Value::F32s(scores)).open().unwrap();
    let n_crossing = |text: &str| {
        let ids = crossing.encode_document(text).ids;
        ids.iter().filter(|id| id.0 == 11).count()
    };
    assert_eq!(n_crossing("s s"), 1);
    let long = format!("{}s s", "e".repeat(70_000));
    assert_eq!(n_crossing(&long), 1);
    assert_eq!(n_crossing(&"es se ".repeat(30_000)), 30_000);
}

#[test]
fn the_space_before_a_text_is_put_as_the_file_says() {
    let none = sentence_piece_gguf().with("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    let none = none.open().unwrap();
    assert_eq!(spelled(&none, "sea"), ["s", "ea"]);
    assert_eq!(none.decode(&[TokenId(9)]), " sea");

    let metaspace = |scheme: &str| {
        let mut json = sentence_piece_json();
        json["normalizer"] = Json::Null;
        json["pre_tokenizer"] = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false });
        Folder::new(&json).open().unwrap()
    };
    assert_eq!(spelled(&metaspace("never"), "sea</s>sea"), ["s", "ea", "</s>", "s", "ea"]);
    assert_eq!(spelled(&metaspace("first"), "sea</s>sea"), [" sea", "</s>", "s", "ea"]);
    assert_eq!(spelled(&metaspace("always"), "sea</s>sea"), [" sea", "</s>", " sea"]);
    assert_eq!(spelled(&metaspace("always"), " sea"), [" sea"]);
}

#[test]
fn control_tokens_are_never_made_from_text_that_may_not_steer() {
    let files = [
        byte_level_gguf().open(),
        byte_level_gguf().with("tokenizer.ggml.pre", text("llama-bpe")).open(),
        Folder::new(&byte_level_json()).open(),
        sentence_piece_gguf().open(),
        Folder::new(&sentence_piece_json()).open(),
    ];
    for tokenizer in files {
        let tokenizer = tokenizer.unwrap();
        for text in ["<|im_end|>", "<s>", "</s>", "a<|im_end|>b</s>", "<|endoftext|>"] {
            let encoded = tokenizer.encode_document(text);
            assert!(!encoded.ids.iter().any(|&id| tokenizer.is_control(id)), "{text}");
            assert_eq!(tokenizer.decode(&encoded.ids), text);
        }
    }
}

#[test]
fn a_folder_says_in_its_small_files_what_begins_and_ends() {
    let folder = Folder::new(&byte_level_json())
        .with(
            "tokenizer_config.json",
            &json!({ "bos_token": { "content": "<|im_start|>" },
            "eos_token": "<|endoftext|>", "add_bos_token": true })
            .to_string(),
        )
        .with("generation_config.json", &json!({ "eos_token_id": [262, 258] }).to_string());
    let tokenizer = folder.open().unwrap();
    assert_eq!(tokenizer.text_start(), Some(TokenId(260)));
    assert_eq!((tokenizer.eos(), tokenizer.text_end()), (Some(TokenId(262)), None));
    // What the files say, and the ends of turns that everyone knows.
    assert_eq!(tokenizer.end_ids(), [TokenId(258), TokenId(261), TokenId(262)]);

    let bare = Folder::new(&byte_level_json())
        .with("config.json", &json!({ "bos_token_id": 260, "eos_token_id": 262 }).to_string());
    let bare = bare.open().unwrap();
    assert_eq!((bare.bos(), bare.eos()), (Some(TokenId(260)), Some(TokenId(262))));
    assert_eq!(bare.text_start(), None);
}

/// The error names the file and everything in `words`.
fn check_refused(opened: Result<Tokenizer, TokenizerError>, words: &[&str]) {
    let error = opened.err().unwrap_or_else(|| panic!("opened, in spite of {words:?}")).to_string();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

fn check_gguf(vocab: GgufVocab, words: &[&str]) {
    check_refused(vocab.open(), words);
    check_refused(vocab.open(), &["made.gguf"]);
}

#[test]
fn a_gguf_vocabulary_that_cannot_be_is_refused_by_key() {
    let good = byte_level_gguf;
    let merges = |merges: &[&str]| good().with("tokenizer.ggml.merges", texts(merges));

    check_gguf(good().without("tokenizer.ggml.model"), &["tokenizer.ggml.model", "missing"]);
    let bert = good().with("tokenizer.ggml.model", text("bert"));
    check_gguf(bert, &["tokenizer.ggml.model", "bert", "gpt2, llama"]);
    let rule = good().with("tokenizer.ggml.pre", text("no-such-rule"));
    check_gguf(rule, &["tokenizer.ggml.pre", "no-such-rule", "smollm", "qwen2"]);
    check_gguf(good().without("tokenizer.ggml.tokens"), &["tokenizer.ggml.tokens", "missing"]);
    check_gguf(good().without("tokenizer.ggml.merges"), &["tokenizer.ggml.merges", "missing"]);
    let empty = good().with("tokenizer.ggml.tokens", texts::<&str>(&[]));
    check_gguf(empty.without("tokenizer.ggml.token_type"), &["tokenizer.ggml.tokens", "empty"]);
    let short = good().with("tokenizer.ggml.token_type", Value::I32s(vec![1, 1]));
    check_gguf(short, &["tokenizer.ggml.token_type", "2 entries", "263"]);
    let kinds = good().with("tokenizer.ggml.token_type", Value::I32s(vec![9; 263]));
    check_gguf(kinds, &["tokenizer.ggml.token_type", "9", "1 to 6"]);
    check_gguf(good().with_token(257, "Ġs"), &["tokenizer.ggml.tokens", "256 and 257", "Ġs"]);
    check_gguf(good().with_token(usize::from(b'z'), "zzz"), &["tokenizer.ggml.tokens", "\"z\""]);
    check_gguf(merges(&["Ġ s", "Ġs q"]), &["tokenizer.ggml.merges", "entry 1", "Ġsq"]);
    check_gguf(merges(&["xyz a"]), &["tokenizer.ggml.merges", "entry 0", "xyz"]);
    for malformed in ["", "Ġ", "Ġs", "Ġ "] {
        check_gguf(merges(&[malformed]), &["tokenizer.ggml.merges", "entry 0", "pair"]);
    }
    for key in ["bos", "eos", "eot"].map(|mark| format!("tokenizer.ggml.{mark}_token_id")) {
        let key: &'static str = Box::leak(key.into_boxed_str());
        check_gguf(good().with(key, Value::U32(263)), &[key, "263"]);
        check_gguf(good().with(key, Value::U32(u32::MAX)), &[key]);
    }
    check_gguf(good().with("tokenizer.ggml.pre", Value::U32(7)), &["tokenizer.ggml.pre"]);

    let piece = sentence_piece_gguf;
    check_gguf(piece().without("tokenizer.ggml.scores"), &["tokenizer.ggml.scores", "missing"]);
    let scores = piece().with("tokenizer.ggml.scores", Value::F32s(vec![0.0; 3]));
    check_gguf(scores, &["tokenizer.ggml.scores", "3 entries"]);
    let unknown = piece().with("tokenizer.ggml.unknown_token_id", Value::U32(9999));
    check_gguf(unknown, &["tokenizer.ggml.unknown_token_id", "9999"]);
    let nan = piece().with("tokenizer.ggml.scores", Value::F32s(vec![f32::NAN; 268]));
    assert!(nan.open().is_ok(), "scores of no number only lose their order");
}

fn check_folder(change: impl Fn(&mut Json), words: &[&str]) {
    let mut json = byte_level_json();
    change(&mut json);
    let folder = Folder::new(&json);
    check_refused(folder.open(), words);
    check_refused(folder.open(), &["tokenizer.json"]);
}

#[test]
fn a_folder_whose_vocabulary_cannot_be_is_refused_by_key() {
    check_folder(|json| json["model"]["type"] = "WordPiece".into(), &["model.type", "BPE"]);
    check_folder(|json| json["model"] = Json::Null, &["Hugging Face"]);
    check_folder(|json| json["model"]["vocab"] = json!({}), &["model.vocab", "empty"]);
    check_folder(|json| json["model"]["vocab"] = json!(["a"]), &["tokens with their ids"]);
    check_folder(|json| json["model"]["vocab"]["ea"] = (-1).into(), &["-1"]);
    check_folder(|json| json["model"]["vocab"]["ea"] = 256.into(), &["256", "ea", "Ġs"]);
    let huge = u32::MAX.into();
    let huge = move |json: &mut Json| json["model"]["vocab"]["12"] = Json::clone(&huge);
    check_folder(huge, &["model.vocab", "4294967295"]);
    check_folder(|json| json["model"]["merges"] = json!([["a", "q"]]), &["model.merges", "aq"]);
    check_folder(|json| json["model"]["merges"] = json!(["aq"]), &["model.merges", "pair"]);
    let prefix = |json: &mut Json| json["model"]["continuing_subword_prefix"] = "##".into();
    check_folder(prefix, &["continuing_subword_prefix", "##"]);
    let split = |step: Json| move |json: &mut Json| json["pre_tokenizer"] = step.clone();
    check_folder(split(json!({ "type": "BertPreTokenizer" })), &["pre_tokenizer", "ByteLevel"]);
    check_folder(split(Json::Null), &["pre_tokenizer"]);
    let regex = json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": "(" }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true } ] });
    check_folder(split(regex), &["Split"]);
    let nmt = |json: &mut Json| json["normalizer"] = json!({ "type": "Nmt" });
    check_folder(nmt, &["normalizer", "Nmt", "NFC"]);
    let added = |json: &mut Json| json["added_tokens"][0]["id"] = 3.into();
    check_folder(added, &["added_tokens", "<|im_start|>"]);

    // A key that occurs twice.
    let twice = byte_level_json().to_string().replacen("\"ea\":257", "\"ea\":257,\"ea\":300", 1);
    let folder = Folder::new(&json!({})).with("tokenizer.json", &twice);
    check_refused(folder.open(), &["model.vocab", "ea", "257 and 300"]);
    // Files that are none.
    for broken in ["", "{", "[]", "null", &"[".repeat(100_000)] {
        let folder = Folder::new(&json!({})).with("tokenizer.json", broken);
        check_refused(folder.open(), &["tokenizer.json"]);
    }
    let config = Folder::new(&byte_level_json()).with("tokenizer_config.json", "{");
    check_refused(config.open(), &["tokenizer_config.json"]);
    let ids = json!({ "eos_token_id": 99_999 }).to_string();
    let ids = Folder::new(&byte_level_json()).with("config.json", &ids);
    check_refused(ids.open(), &["eos_token_id", "99999"]);
}

#[test]
fn a_folder_without_tokenizer_says_what_is_missing() {
    let folder = Folder::new(&json!({}));
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    check_refused(folder.open(), &["no tokenizer.json", folder.path().to_str().unwrap()]);
}

/// One byte changed, some bytes cut out, or one stretch copied over another.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
    match random.below(3) {
        0 => bytes[from] ^= 1 << random.below(8),
        1 => drop(bytes.drain(from..(from + 1 + random.below(40)).min(bytes.len()))),
        _ => {
            let stretch = bytes[from..(from + 20).min(bytes.len())].to_vec();
            let end = (to + stretch.len()).min(bytes.len());
            bytes.splice(to..end, stretch);
        }
    }
    bytes
}

#[test]
fn damaged_files_are_refused_or_read_but_nothing_panics() {
    let mut random = Random(4711);
    let folder = ScratchFolder::new();
    let gguf_files = [byte_level_gguf().bytes(), sentence_piece_gguf().bytes()];
    let json_files = [byte_level_json().to_string(), sentence_piece_json().to_string()];
    let mut n_opened = 0;
    for round in 0..400 {
        let gguf = folder.file("made.gguf", &damaged(&gguf_files[round % 2], &mut random));
        folder.file("tokenizer.json", &damaged(json_files[round % 2].as_bytes(), &mut random));
        for path in [gguf.as_path(), folder.path()] {
            let Ok(tokenizer) = Tokenizer::open(path) else { continue };
            for text in TRICKY {
                let encoded = tokenizer.encode_document(text);
                tokenizer.decode(&encoded.ids);
            }
            n_opened += 1;
        }
    }
    assert!((100..700).contains(&n_opened), "{n_opened} of 800 were opened");
}
