//! Tokens are drawn where their logits are, and are those that the host would draw.

use mneme::engine::{FinishReason, GenerateOptions, Sampling, Session, no_progress};
use mneme::ids::TokenId;
use mneme::tensor::DType;

use super::{config, emulated, tiny};
use crate::fixtures::{ScratchFolder, letters};

/// Tokens of an answer, and why it ended.
fn answer(session: &mut Session, sampling: &Sampling, by_host: bool) -> (Vec<u32>, FinishReason) {
    let options = GenerateOptions {
        max_tokens: 12,
        sampling: sampling.clone(),
        // Log-probabilities need all logits, which then come to the host.
        logprobs: by_host.then_some(0),
        ..GenerateOptions::default()
    };
    let mut answer = session.generate(options);
    let tokens = answer.by_ref().map(|piece| piece.unwrap().token.0).collect();
    (tokens, answer.finish_reason().unwrap())
}

#[test]
fn tokens_drawn_by_the_device_are_those_of_the_host() {
    let scratch = ScratchFolder::new();
    let engine = emulated(&tiny(DType::Q8_0).write_gguf(&scratch.path().join("tiny.gguf")));
    let mut asked = engine.session(&config()).unwrap();
    let document = engine.document_prompt(&letters(9, 200)).unwrap();
    asked.read_document(&document, 0..document.ids().len(), &mut no_progress).unwrap();
    asked.ask_about("qk", &mut no_progress).unwrap();
    let n_tokens = engine.tokenizer().vocab_size() as u32;
    let end = (0..n_tokens).map(TokenId).find(|token| engine.tokenizer().is_end(*token)).unwrap();
    let warm = |seed| Sampling { temperature: 1.0, seed, ..Sampling::default() };
    let penalties = |of| Sampling { frequency_penalty: 0.7, presence_penalty: 2.0, ..of };
    let samplings = [
        Sampling::default(),
        penalties(Sampling::default()),
        warm(1),
        Sampling { temperature: 0.6, top_p: 0.8, ..warm(2) },
        Sampling { top_k: 9, min_p: 0.05, ..penalties(warm(3)) },
        Sampling { logit_bias: vec![(end, 5.0), (TokenId(7), 2.0), (TokenId(3), -9.0)], ..warm(4) },
        Sampling { logit_bias: vec![(end, 6.0)], top_p: 0.9, ..penalties(warm(5)) },
    ];
    let (mut n_ended, mut all) = (0, Vec::new());
    for sampling in &samplings {
        let of = |by_host| {
            let mut session = asked.fork(&config()).unwrap();
            // After an end another answer begins from what the last token left.
            [0, 1].map(|_| answer(&mut session, sampling, by_host))
        };
        let drawn = of(false);
        assert_eq!(drawn, of(true), "{sampling:?}");
        let is_end = |(tokens, why): &(Vec<u32>, FinishReason)| {
            usize::from(*why == FinishReason::Stop && tokens.len() > 1)
        };
        n_ended += drawn.iter().map(is_end).sum::<usize>();
        all.extend(drawn);
    }
    assert!(n_ended > 0, "no answer ended by itself: {all:?}");
    all.dedup();
    assert!(all.len() > samplings.len(), "settings change what is drawn: {all:?}");
}
