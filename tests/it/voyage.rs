//! Is the example's document what its generator writes, and long enough to need a memory?

use crate::fixtures::default_model;

#[allow(dead_code)]
#[path = "../../examples/voyage.rs"]
mod generator;

const COMMITTED: &str = include_str!("../../examples/voyage.txt");

#[test]
fn the_committed_text_is_what_the_generator_writes() {
    assert!(generator::log() == COMMITTED, "run `cargo run --example voyage` and commit its text");
}

#[test]
fn the_fact_is_in_it_once_and_nothing_else_looks_like_it() {
    assert_eq!(COMMITTED.matches("pass key").count(), 1);
    assert_eq!(COMMITTED.matches("chart room").count(), 1);
    let at = COMMITTED.find("pass key").unwrap() as f64 / COMMITTED.len() as f64;
    assert!((0.2..0.6).contains(&at), "in neither the first nor the last that is read: {at}");
}

#[test]
fn it_is_longer_than_the_default_model_was_trained_to_read() {
    let tokenizer = mneme::tokenizer::Tokenizer::open(&default_model()).unwrap();
    let n_tokens = tokenizer.encode_document(COMMITTED).ids.len();
    assert!((10_000..12_000).contains(&n_tokens), "{n_tokens} tokens");
}
