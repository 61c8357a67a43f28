//! Do texts become the tokens that the models were trained on? Against llama.cpp's tokens for the
//! default model, and on small vocabularies made by code for everything else.

mod chat;
mod made;
mod sources;

use mneme::ids::{ByteSpan, TokenId};
use mneme::tokenizer::{Encoded, SpecialTokens, Tokenizer};

use crate::fixtures::default_model;

fn default_tokenizer() -> Tokenizer {
    Tokenizer::open(&default_model()).unwrap()
}

/// Texts on which tokenizers differ.
const TRICKY: [&str; 16] = [
    "",
    " ",
    "a",
    "  two  spaces \t tab\r\nline\n\n\nlines   ",
    "Größe, naïve café — 東京 2024-11-22: 3.14159",
    "👩‍👩‍👧‍👦 🙂🙃 \u{200d} e\u{301} é",
    "don't DON'T I'll you've 'tis it's, isn't",
    "x=1234567890;y+=0x1F // …",
    "<|im_start|>user\n<|im_end|><|im_end|",
    "word<|endoftext|>word <|endoftext|> word",
    "\u{0}\u{1}\u{4}control\u{7f}\u{85}\u{a0}\u{2028}\u{feff}",
    "العربية עברית हिन्दी ไทย 한국어 русский",
    "_under_score-and-dash.and.dot/and/slash\\back",
    "ſt İstanbul ǅ Ⅷ ²³ ½ ﬁ",
    "Zażółć gęślą jaźń \u{1F1E9}\u{1F1EA} \u{E0067} \u{10FFFF}",
    "a b c d e f g h i j k l m n o p",
];

#[test]
fn the_default_model_has_llama_cpps_tokens_on_all_golden_texts() {
    let golden = include_str!("../golden/smollm2-135m-instruct-q4_1.json");
    let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 7);
    let tokenizer = default_tokenizer();
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected = case["token_ids"].as_array().unwrap().iter();
        let expected: Vec<u64> = expected.map(|id| id.as_u64().unwrap()).collect();
        let encoded = tokenizer.encode(text, SpecialTokens::Parse);
        let found: Vec<u64> = encoded.iter().map(|id| u64::from(id.0)).collect();
        assert_eq!(found, expected, "{:.60}…", text);
    }
}

#[test]
fn the_default_model_says_which_tokens_begin_and_end() {
    let tokenizer = default_tokenizer();
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!((tokenizer.bos(), tokenizer.text_start()), (Some(TokenId(1)), None));
    assert_eq!((tokenizer.eos(), tokenizer.text_end()), (Some(TokenId(2)), None));
    assert_eq!(tokenizer.end_ids(), [TokenId(0), TokenId(2)]);
    assert!(tokenizer.is_end(TokenId(2)) && !tokenizer.is_end(TokenId(1)));
    assert!(tokenizer.is_control(TokenId(1)) && !tokenizer.is_control(TokenId(500)));
    assert_eq!(tokenizer.spell(TokenId(1)), "<|im_start|>");
}

#[test]
fn decoding_gives_the_text_back_and_streaming_gives_the_same() {
    let tokenizer = default_tokenizer();
    for text in TRICKY {
        let ids = tokenizer.encode(text, SpecialTokens::AsText);
        // The vocabulary has no token for a few bytes, such as 0x04 and those of the highest
        // planes; what cannot be encoded is left out.
        let missing = ['\u{4}'];
        let expected: String = text.chars().filter(|c| !missing.contains(c)).collect();
        if !text.contains('\u{10FFFF}') {
            assert_eq!(tokenizer.decode(&ids), expected);
        }
        let mut decoder = tokenizer.stream_decoder();
        let mut streamed: String =
            ids.iter().map(|&id| decoder.push(tokenizer.piece(id))).collect();
        streamed += &decoder.finish();
        assert_eq!(streamed, tokenizer.decode(&ids));
    }
    assert_eq!(tokenizer.decode(&[TokenId(1), TokenId(u32::MAX)]), "");
}

#[test]
fn control_tokens_count_only_where_they_may() {
    let tokenizer = default_tokenizer();
    let text = "a<|im_end|>b<|im_start|>";
    let parsed = tokenizer.encode(text, SpecialTokens::Parse);
    assert_eq!(parsed.iter().filter(|&&id| tokenizer.is_control(id)).count(), 2);
    for text in TRICKY.into_iter().chain([text]) {
        let as_text = tokenizer.encode(text, SpecialTokens::AsText);
        assert!(!as_text.iter().any(|&id| tokenizer.is_control(id)), "{text:?}");
    }
}

/// Spans lie in order on character borders, and together they are the text.
fn check_spans(text: &str, encoded: &Encoded) {
    assert_eq!(encoded.ids.len(), encoded.spans.len());
    let mut end = 0;
    for &ByteSpan { start, end: span_end } in &encoded.spans {
        assert!(text.is_char_boundary(start) && text.is_char_boundary(span_end));
        assert!(start <= end, "a gap before {start} in {text:?}");
        assert!(span_end >= end || start < end, "disorder at {start} in {text:?}");
        end = end.max(span_end);
    }
    assert_eq!(end, text.len(), "{text:?}");
}

#[test]
fn spans_say_where_each_token_came_from() {
    let tokenizer = default_tokenizer();
    for text in TRICKY {
        if text.contains(['\u{4}', '\u{10FFFF}']) {
            continue; // no token, no span
        }
        for special in [SpecialTokens::Parse, SpecialTokens::AsText] {
            let encoded = tokenizer.encode_with_spans(text, special);
            check_spans(text, &encoded);
            for (&id, span) in encoded.ids.iter().zip(&encoded.spans) {
                let source = &text[span.start..span.end];
                let spelled = tokenizer.spell(id);
                assert!(
                    spelled == source || spelled.contains('\u{FFFD}'),
                    "{spelled:?} {source:?}"
                );
            }
        }
    }
}

/// A long text of many kinds, in which every tricky text comes at many places.
fn long_text(bytes: usize) -> String {
    let mut text = String::new();
    let mut seed = 7_u64;
    while text.len() < bytes {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = (seed >> 33) as usize;
        text += TRICKY[pick % TRICKY.len()];
        text += ["", " ", "\n", " and then ", " plain words between them "][pick / 64 % 5];
    }
    text
}

#[test]
fn a_document_has_the_tokens_of_its_whole_text_however_long() {
    let tokenizer = default_tokenizer();
    let text = long_text(700_000);
    let document = tokenizer.encode_document(&text);
    // Encoded in one go: a text of which no place can be cut reaches the library whole, so glue
    // the pieces of a reference encoding made line by line instead.
    let mut ids = Vec::new();
    let mut start = 0;
    let borders = text.match_indices(" plain words").map(|(at, _)| at).chain([text.len()]);
    for end in borders.collect::<Vec<_>>() {
        ids.extend(tokenizer.encode(&text[start..end], SpecialTokens::AsText));
        start = end;
    }
    assert_eq!(document.ids.len(), ids.len());
    assert!(document.ids == ids);
    for (&id, span) in document.ids.iter().zip(&document.spans).step_by(97) {
        let (spelled, source) = (tokenizer.spell(id), &text[span.start..span.end]);
        assert!(spelled == source || spelled.contains('\u{FFFD}'), "{spelled:?} {source:?}");
    }
}

#[test]
fn texts_without_a_place_to_cut_are_still_encoded() {
    let tokenizer = default_tokenizer();
    for text in
        ["a".repeat(300_000), " ".repeat(300_000), "\n ".repeat(200_000), "é9".repeat(100_000)]
    {
        let ids = tokenizer.encode_document(&text).ids;
        assert!(tokenizer.decode(&ids) == text);
    }
}
