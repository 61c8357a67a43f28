//! Does a session keep its text together, whatever interrupts it?

use std::ops::ControlFlow;

use mneme::engine::{
    Engine, EngineError, EngineOptions, GenerateOptions, Progress, Session, no_progress,
};
use mneme::ids::{LayerIdx, TokenId};
use mneme::memory::{MemoryConfig, beyond_neutral, pins};
use mneme::tokenizer::SpecialTokens;

use crate::fixtures::{ScratchFolder, TinyModel, greedy, letters, small_config};

fn engine() -> Engine {
    let scratch = ScratchFolder::new();
    let tiny = TinyModel { trained_tokens: 2048, seed: 33, ..TinyModel::default() };
    let path = tiny.write_gguf(&scratch.path().join("tiny.gguf"));
    Engine::load(&path, &EngineOptions { n_threads: 1, ..EngineOptions::default() }).unwrap()
}

/// What the session would say next: a question, an answer, a score.
fn fingerprint(session: &mut Session) -> (Vec<TokenId>, Vec<f32>) {
    session.prompt("quick").unwrap();
    let answer = greedy(session, 12);
    let ids = session.engine().tokenizer().encode("jumps over", SpecialTokens::AsText);
    (answer, session.score(&ids, &mut no_progress).unwrap().nll)
}

#[test]
fn reading_that_was_stopped_goes_on_where_it_stopped() {
    let engine = engine();
    let text = letters(9, 230);
    let mut whole = engine.session(&small_config()).unwrap();
    whole.read(&text, &mut no_progress).unwrap();
    let expected = fingerprint(&mut whole);
    for n_chunks in [1, 3, 5] {
        let mut session = engine.session(&small_config()).unwrap();
        let mut n_calls = 0;
        let stopped = session.read(&text, &mut |progress| {
            n_calls += 1;
            assert_eq!((progress.done_tokens, progress.total_tokens), (32 * n_calls, 230));
            if n_calls == n_chunks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let done = 32 * n_chunks;
        let Err(EngineError::Stopped { done_tokens, total_tokens }) = stopped else {
            panic!("it was to stop: {stopped:?}")
        };
        assert_eq!((done_tokens, total_tokens, session.n_tokens()), (done, 230, done));
        session.read(&text[done..], &mut no_progress).unwrap();
        assert_eq!(session.n_tokens(), 230);
        assert_eq!(fingerprint(&mut session), expected, "stopped after {n_chunks} chunks");
    }
}

/// The story: while a question was taken in, nobody asked whether to go on, and progress ended
/// before it.
#[test]
fn a_question_of_a_document_can_be_stopped_in_its_middle() {
    let engine = engine();
    let (document, question) = (letters(9, 70), letters(9, 9));
    // A few tokens at a time, as where units are looked up.
    let config = MemoryConfig { read_again_passages: 0, ..small_config() };
    let mut whole = engine.session(&config).unwrap();
    let mut last = None;
    let asked = whole.ask(&document, &question, &mut |step| {
        last = Some(step);
        ControlFlow::Continue(())
    });
    let asked = asked.unwrap();
    let end = Progress { done_tokens: asked.prompt_tokens, total_tokens: asked.prompt_tokens };
    assert_eq!(last, Some(end));
    let n_document = asked.prompt_tokens - asked.question_tokens;
    let mut session = engine.session(&config).unwrap();
    let stopped = session.ask(&document, &question, &mut |step| {
        if step.done_tokens > n_document {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    let Err(EngineError::Stopped { done_tokens, total_tokens }) = stopped else {
        panic!("it was to stop: {stopped:?}")
    };
    assert_eq!(total_tokens, asked.prompt_tokens);
    assert_eq!(session.n_tokens(), done_tokens);
    assert!((n_document + 1..asked.prompt_tokens).contains(&done_tokens), "{done_tokens}");
}

#[test]
fn a_score_that_was_stopped_leaves_a_session_that_goes_on() {
    let engine = engine();
    let ids = engine.tokenizer().encode(&letters(9, 100), SpecialTokens::AsText);
    let mut session = engine.session(&small_config()).unwrap();
    let stopped = session.score(&ids, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(EngineError::Stopped { done_tokens: 32, total_tokens: 100 })));
    session.score(&ids[32..], &mut no_progress).unwrap();
    let mut whole = engine.session(&small_config()).unwrap();
    whole.score(&ids, &mut no_progress).unwrap();
    assert_eq!(fingerprint(&mut session), fingerprint(&mut whole));
}

#[test]
fn a_session_with_nothing_read_says_so() {
    let mut session = engine().session(&small_config()).unwrap();
    let first = session.generate(GenerateOptions::default()).next();
    assert!(matches!(first, Some(Err(EngineError::NothingRead))));
    // Reading alone asks for no logits: there is nothing yet to continue from.
    session.read(&letters(9, 40), &mut no_progress).unwrap();
    assert!(session.generate(GenerateOptions::default()).next().unwrap().is_err());
    session.prompt("go").unwrap();
    assert_eq!(greedy(&mut session, 3).len(), 3);
}

/// The story: a token that was given out is run through the model only when the next one is asked
/// for; when an answer was dropped in between, its last token was forgotten.
#[test]
fn an_answer_cut_short_is_part_of_the_text_up_to_its_last_token() {
    let engine = engine();
    let start = |session: &mut Session| {
        session.read(&letters(9, 90), &mut no_progress).unwrap();
        session.prompt("quick").unwrap();
    };
    let mut whole = engine.session(&small_config()).unwrap();
    start(&mut whole);
    let answer = greedy(&mut whole, 12);
    assert_eq!(answer.len(), 12, "the tiny model rambles on");
    for n_taken in [1, 5, 11] {
        let mut session = engine.session(&small_config()).unwrap();
        start(&mut session);
        let options = GenerateOptions::default();
        let taken: Vec<_> =
            session.generate(options).take(n_taken).map(|piece| piece.unwrap().token).collect();
        assert_eq!(taken, answer[..n_taken]);
        assert_eq!(greedy(&mut session, 12 - n_taken), answer[n_taken..], "{n_taken} taken");
        assert_eq!(session.n_tokens(), whole.n_tokens());
        let mut again = engine.session(&small_config()).unwrap();
        start(&mut again);
        greedy(&mut again, 12);
        assert_eq!(fingerprint(&mut session), fingerprint(&mut again));
    }
}

/// The story: tokens that were scored had no place in the list of where tokens come from, so that
/// passages read after a score were named with the places of other tokens.
#[test]
fn evidence_names_the_bytes_that_were_read_also_after_a_score() {
    let engine = engine();
    let text = letters(9, 200);
    let scored = engine.tokenizer().encode(&letters(9, 48), SpecialTokens::AsText);
    for n_scored in [0, 2, 48] {
        let mut session = engine.session(&small_config()).unwrap();
        if n_scored > 0 {
            session.score(&scored[..n_scored], &mut no_progress).unwrap();
        }
        session.read(&text, &mut no_progress).unwrap();
        session.prompt("quick").unwrap();
        greedy(&mut session, 8);
        let passages = session.take_evidence(100).unwrap();
        assert!(!passages.is_empty());
        for passage in &passages {
            // A letter is a token; units begin after the sinks, each sixteen tokens long.
            let end = passage.span.end + n_scored;
            assert_eq!((end - 8) % 16, 0, "{n_scored} scored: {:?}", passage.span);
            assert!(passage.span.end - passage.span.start <= 16);
        }
        let total: f32 = passages.iter().map(|passage| passage.weight).sum();
        assert!(total <= 1.0 + 1e-5, "{total}");
    }
}

/// What a question attends to most in a first pass is what all layers retrieve in the second.
#[test]
fn a_first_pass_pins_what_the_question_attends_to() {
    let engine = engine();
    let ids = |text: &str| engine.tokenizer().encode(text, SpecialTokens::AsText);
    let alone = MemoryConfig {
        retrieved_units: 3,
        pinned_percent: 0,
        neighbour_units: 0,
        pin_neighbour_units: 0,
        ..small_config()
    };
    let pinning = MemoryConfig {
        pinned_percent: 67,
        pin_share_percent: 0,
        pin_words_percent: 0,
        pin_spread_percent: 0,
        pin_contrast: false,
        unpinned_units: 1,
        ..alone.clone()
    };
    let retrieved = |session: &Session| -> Vec<Vec<u32>> {
        let layers = 0..engine.config().n_layers;
        layers.map(|layer| session.memory().retrieved(LayerIdx(layer), 0).to_vec()).collect()
    };
    let mut n_changed = 0;
    for question in ["brown fox", "jumps", "the quick dog over"] {
        let mut session = engine.session(&pinning).unwrap();
        session.read(&letters(9, 400), &mut no_progress).unwrap();
        let mut without = session.fork(&alone).unwrap();
        session.make_way(ids(question).len()).unwrap();
        let probe = session.fork(&alone.for_first_pass()).unwrap();
        session.prompt_tokens(&ids(question)).unwrap();
        without.prompt_tokens(&ids(question)).unwrap();
        // The same by hand: what a fork attends to, pinned in another.
        let wanted = probe.first_pass(&ids(question)).unwrap();
        let pinned = [wanted[0].unit, wanted[1].unit];
        for units in retrieved(&session) {
            assert!(
                units.len() == 3 && pinned.iter().all(|unit| units.contains(unit)),
                "{units:?}"
            );
        }
        n_changed += usize::from(retrieved(&session) != retrieved(&without));
        greedy(&mut session, 3);
        let during_answer = retrieved(&session);
        assert!(during_answer.iter().flatten().filter(|unit| pinned.contains(unit)).count() >= 4);
        // More text ends it.
        session.read(&letters(9, 100), &mut no_progress).unwrap();
        session.prompt_tokens(&ids("lazy")).unwrap();
        assert_eq!(session.n_tokens(), 400 + 100 + 3 + ids(question).len() + ids("lazy").len());
    }
    assert!(n_changed > 0, "pinning made a difference");
}

/// A unit that has a word of the question, which no other has, is pinned whatever the attention; a word
/// that all have, or that every question has, says nothing.
#[test]
fn a_first_pass_pins_the_unit_that_has_the_questions_rare_word() {
    let engine = engine();
    let by_words =
        MemoryConfig { pin_words_percent: 1000, pin_spread_percent: 0, ..small_config() };
    let by_attention = MemoryConfig { pin_words_percent: 0, ..by_words.clone() };
    let (sinks, unit_tokens) = (by_words.sink_tokens, by_words.unit_tokens);
    let mut n_missed = 0;
    for (seed, unit) in [(9, 3), (10, 11), (11, 17)] {
        let mut text = letters(seed, 400).replace('z', "b");
        let at = sinks + unit * unit_tokens + 5;
        text.replace_range(at..at + 1, "z");
        let has_unit = |memory: &MemoryConfig, question: &str| {
            let mut session = engine.session(memory).unwrap();
            session.read(&text, &mut no_progress).unwrap();
            session.prompt(question).unwrap();
            let layers = 0..engine.config().n_layers;
            let retrieved = |layer| session.memory().retrieved(LayerIdx(layer), 0).to_vec();
            layers.map(retrieved).all(|units| units.contains(&(unit as u32)))
        };
        assert!(has_unit(&by_words, "bzb"), "of many that have a b, the one that has a z");
        assert!(has_unit(&by_words, "bZb"), "whatever its case");
        n_missed += usize::from(!has_unit(&by_attention, "bzb"));
    }
    assert!(n_missed > 0, "attention alone passes by some");
}

/// What a question about nothing attends to as well is not pinned; that question may be longer than
/// the window.
#[test]
fn a_first_pass_pins_what_stands_out_against_a_question_about_nothing() {
    let engine = engine();
    let neutral = engine.question_ids("N/A").unwrap();
    let memory = MemoryConfig {
        window_tokens: neutral.len(),
        retrieved_units: 4,
        pin_words_percent: 0,
        pin_spread_percent: 0,
        ..small_config()
    };
    let mut n_changed = 0;
    for question in ["brown fox", "jumps", "the quick dog over"] {
        let ids = engine.tokenizer().encode(question, SpecialTokens::AsText);
        let mut session = engine.session(&memory).unwrap();
        session.read(&letters(9, 400), &mut no_progress).unwrap();
        session.make_way(ids.len()).unwrap();
        let pass = |ids| session.fork(&memory.for_first_pass()).unwrap().first_pass(ids).unwrap();
        let (masses, of_neutral) = (pass(&ids), pass(&neutral));
        let share = ids.len() as f32 / neutral.len() as f32;
        let units = 0..session.memory().n_units() as u32;
        let mut expected =
            pins(&memory, &beyond_neutral(&masses, &of_neutral, share), (units.clone(), &[]));
        n_changed += usize::from(expected != pins(&memory, &masses, (units, &[])));
        session.prompt_tokens(&ids).unwrap();
        expected.sort_unstable();
        for layer in 0..engine.config().n_layers {
            assert_eq!(session.memory().retrieved(LayerIdx(layer), 0), expected);
        }
    }
    assert!(n_changed > 0, "the contrast made a difference");
    let narrow = MemoryConfig { window_tokens: neutral.len() - 1, ..memory };
    let mut session = engine.session(&narrow).unwrap();
    session.read(&letters(9, 400), &mut no_progress).unwrap();
    session.prompt("jumps").unwrap();
}
