//! Is a document's question answered from the right passage, and as if there were nothing else?

use std::ops::Range;

use mneme::engine::{AskPrompt, Engine, EngineOptions, ForcedToken, Session, no_progress};
use mneme::ids::{ByteSpan, TokenId};
use mneme::memory::{MemoryConfig, UnitCuts};

use crate::fixtures::{ScratchFolder, TinyModel, greedy, letters, small_config};

fn engine() -> Engine {
    let scratch = ScratchFolder::new();
    let tiny = TinyModel { trained_tokens: 2048, seed: 33, ..TinyModel::default() };
    let path = tiny.write_gguf(&scratch.path().join("tiny.gguf"));
    Engine::load(&path, &EngineOptions { n_threads: 1, ..EngineOptions::default() }).unwrap()
}

fn config() -> MemoryConfig {
    MemoryConfig {
        window_tokens: 96,
        passage_tokens: 48,
        pin_words_percent: 1000,
        pin_spread_percent: 0,
        read_again_passages: 1,
        ..small_config()
    }
}

/// Paragraphs of letters, a token each and two for what is between them.
struct Paragraphs(Vec<String>);

impl Paragraphs {
    /// Twenty, of which `rare` has the only letter z.
    fn with_rare(rare: usize) -> Self {
        let paragraph = |i: usize| {
            let mut text = letters(50 + i as u64, 22 + i % 3).replace('z', "b");
            if i == rare {
                text.replace_range(9..10, "z");
            }
            text
        };
        Self((0..20).map(paragraph).collect())
    }

    fn text(&self) -> String {
        self.0.join("\n\n")
    }

    fn span(&self, i: usize) -> ByteSpan {
        let start = self.0[..i].iter().map(|paragraph| paragraph.len() + 2).sum();
        ByteSpan { start, end: start + self.0[i].len() }
    }
}

const QUESTION: &str = "bzb";

fn asked(engine: &Engine, memory: &MemoryConfig, text: &str) -> (Session, AskPrompt) {
    let prompt = engine.ask_prompt(text, QUESTION, &[]).unwrap();
    let mut session = engine.session(memory).unwrap();
    session.ask_rest(&prompt, 0, &mut no_progress).unwrap();
    (session, prompt)
}

/// What a session that has read only these tokens, and then the question, gives.
fn alone(
    engine: &Engine,
    memory: &MemoryConfig,
    (read, question): (&[TokenId], &[TokenId]),
) -> Session {
    let memory = MemoryConfig { ask_chunk_tokens: memory.chunk_tokens, ..memory.clone() };
    let mut session = engine.session(&memory).unwrap();
    session.read_tokens(read, &mut no_progress).unwrap();
    session.prompt_tokens(question).unwrap();
    session
}

fn bits(forced: &[ForcedToken]) -> Vec<u32> {
    forced.iter().map(|token| token.log_probability.to_bits()).collect()
}

#[test]
fn an_answer_is_that_of_the_passage_alone_bit_by_bit() {
    let engine = engine();
    for (rare, memory) in [
        (4, config()),
        (11, MemoryConfig { pin_contrast: false, ..config() }),
        (7, MemoryConfig { unit_cuts: UnitCuts::Sentence, ..config() }),
        (19, config()), // in the window
        (0, config()),  // in the sinks and after them
    ] {
        let document = Paragraphs::with_rare(rare);
        let (mut session, prompt) = asked(&engine, &memory, &document.text());
        let tokens = prompt.tokens_of(document.span(rare));
        let passage = session.memory().excerpt_tokens().expect("a passage was read again");
        assert!(
            passage.start <= tokens.start && passage.end >= tokens.end,
            "{rare}: {passage:?} has {tokens:?}"
        );
        assert!(passage.len() <= memory.passage_tokens);
        let before = prompt.tokens_of(document.span(0)).start;
        let read: Vec<TokenId> =
            [&prompt.document_ids()[..before], &prompt.document_ids()[passage]].concat();
        let mut expected = alone(&engine, &memory, (&read, prompt.question_ids()));
        // Longer than the window, so that the passage itself becomes units.
        let answer: Vec<TokenId> =
            letters(3, 200).bytes().map(|byte| TokenId(u32::from(byte) % 200 + 20)).collect();
        let forced = session.force_answer(&answer).unwrap();
        assert_eq!(bits(&forced), bits(&expected.force_answer(&answer).unwrap()), "{rare}");
        let n = prompt.document_ids().len() + prompt.question_ids().len() + answer.len();
        assert_eq!(session.n_tokens(), n, "the text goes on with question and answer");
    }
}

#[test]
fn the_passage_is_told_as_evidence_once() {
    let engine = engine();
    let document = Paragraphs::with_rare(4);
    let (mut session, _) = asked(&engine, &config(), &document.text());
    greedy(&mut session, 5);
    let told = session.take_evidence(10).unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].weight, 1.0);
    let (span, rare) = (told[0].span, document.span(4));
    assert!(span.start <= rare.start && span.end >= rare.end, "{span:?}");
    assert!(session.take_evidence(10).unwrap().is_empty());
    greedy(&mut session, 5);
    assert_eq!(session.take_evidence(10).unwrap().len(), 1, "more was answered from it");
}

/// Of three that speak for themselves alike two are read: those in whose view the question is likeliest;
/// and of these the one after which it is.
#[test]
fn the_passage_is_that_after_which_the_question_is_likeliest() {
    let engine = engine();
    let memory = MemoryConfig { read_again_passages: 3, passage_share_percent: 10, ..config() };
    let mut kept_of = [0; 3];
    for seed in 0..12 {
        let rare = [2, 8, 14];
        let paragraph = |i: usize| {
            let text = letters(100 * seed + i as u64, 22).replace('z', "b");
            if rare.contains(&i) { format!("{}z{}", &text[..9], &text[10..]) } else { text }
        };
        let document = Paragraphs((0..20).map(paragraph).collect());
        let (session, prompt) = asked(&engine, &memory, &document.text());
        let kept = session.memory().excerpt_tokens().unwrap();
        let mut read = engine.session(&memory).unwrap();
        let all = 0..prompt.document_ids().len();
        read.read_document(prompt.document(), all, &mut no_progress).unwrap();
        read.make_way(prompt.question_ids().len()).unwrap();
        let passages = rare.map(|i| prompt.tokens_of(document.span(i)));
        let question = prompt.question_ids();
        let in_view = |passage: &Range<usize>| {
            read.log_probability_in_view(passage.clone(), question).unwrap()
        };
        let after = |passage: &Range<usize>| {
            let before = prompt.tokens_of(document.span(0)).start;
            let ids = prompt.document_ids();
            let ids = [&ids[..before], &ids[passage.clone()], question].concat();
            let nll = engine.session(&memory).unwrap().score(&ids, &mut no_progress).unwrap().nll;
            -nll[nll.len() + 1 - question.len()..].iter().sum::<f32>()
        };
        let mut finalists = [0, 1, 2];
        finalists.sort_by(|a, b| in_view(&passages[*b]).total_cmp(&in_view(&passages[*a])));
        let first_is_better = after(&passages[finalists[0]]) > after(&passages[finalists[1]]);
        let expected = if first_is_better { finalists[0] } else { finalists[1] };
        assert_eq!(kept, passages[expected], "{seed}: of {passages:?}");
        kept_of[expected] += 1;
    }
    assert!(kept_of.iter().filter(|n| **n > 0).count() > 1, "{kept_of:?}");
}

#[test]
fn forks_and_what_is_read_afterwards_go_on() {
    let engine = engine();
    let document = Paragraphs::with_rare(4);
    let (mut session, _) = asked(&engine, &config(), &document.text());
    let mut fork = session.fork(&config()).unwrap();
    assert_eq!(greedy(&mut fork, 20), greedy(&mut session, 20));
    assert!(session.memory().excerpt_tokens().is_some());
    let n = session.n_tokens();
    session.read(&letters(7, 40), &mut no_progress).unwrap();
    assert!(session.memory().excerpt_tokens().is_none(), "reading ends it");
    assert_eq!(session.n_tokens(), n + 40);
    fork.prompt("go on").unwrap();
    assert!(fork.memory().excerpt_tokens().is_none(), "so does what is said next");
}

#[test]
fn nothing_is_read_again_where_that_is_not_wanted_or_no_document_is_asked_about() {
    let engine = engine();
    let text = Paragraphs::with_rare(4).text();
    let off = MemoryConfig { read_again_passages: 0, ..config() };
    assert!(asked(&engine, &off, &text).0.memory().excerpt_tokens().is_none());
    let mut session = engine.session(&config()).unwrap();
    session.read(&text, &mut no_progress).unwrap();
    session.prompt(QUESTION).unwrap();
    assert!(session.memory().excerpt_tokens().is_none(), "that is a text which goes on");
    let mut session = engine.session(&config()).unwrap();
    session.read(&text, &mut no_progress).unwrap();
    session.ask_about(QUESTION, &mut no_progress).unwrap();
    assert!(session.memory().excerpt_tokens().is_some());
    session.ask_about(QUESTION, &mut no_progress).unwrap();
    assert!(session.memory().excerpt_tokens().is_none(), "something was said since");
}
