//! Is a text that was read once remembered for ever? Contexts of a tiny model in real folders:
//! taken up by another engine and another store, they go on as if nothing had happened.

mod golden;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use mneme::backend::KvType;
use mneme::engine::{
    Context, ContextError, Contexts, Engine, EngineError, EngineOptions, GenerateOptions, Session,
    no_progress,
};
use mneme::ids::TokenId;
use mneme::memory::store::{Store, StoreOptions};
use mneme::memory::{LookupPolicy, MemoryConfig, MemoryError, UnitCuts};
use mneme::tokenizer::SpecialTokens;

use crate::fixtures::{ScratchFolder, TinyModel, greedy, letters, small_config as config};

/// A folder with a model and a store.
struct World {
    scratch: ScratchFolder,
}

impl World {
    fn new() -> Self {
        let world = Self { scratch: ScratchFolder::new() };
        tiny(33).write_gguf(&world.model());
        world
    }

    fn model(&self) -> PathBuf {
        self.scratch.path().join("tiny.gguf")
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    /// As another process would see it.
    fn contexts(&self) -> Contexts {
        contexts(&self.model(), &self.store())
    }
}

fn tiny(seed: u64) -> TinyModel {
    TinyModel { trained_tokens: 2048, seed, ..TinyModel::default() }
}

fn engine(model: &Path) -> Engine {
    Engine::load(model, &EngineOptions { n_threads: 1, ..EngineOptions::default() }).unwrap()
}

fn contexts(model: &Path, store: &Path) -> Contexts {
    let store = Store::open(store, StoreOptions::default()).unwrap();
    Contexts::new(engine(model), store, "tests")
}

/// What the session would say next: a question, an answer, a score, and what it rests on.
fn fingerprint(session: &Session) -> (Vec<TokenId>, Vec<f32>, String) {
    let mut session = session.fork(session.memory().config()).unwrap();
    session.ask_about("quick", &mut no_progress).unwrap();
    let answer = greedy(&mut session, 12);
    let passages = session.take_evidence(3).unwrap();
    let evidence = passages.iter().map(|p| (session.text(p.span).unwrap(), p.weight));
    let evidence = format!("{:?}", evidence.collect::<Vec<_>>());
    let ids = session.engine().tokenizer().encode("jumps over", SpecialTokens::AsText);
    (answer, session.score(&ids, &mut no_progress).unwrap().nll, evidence)
}

fn ingest(contexts: &Contexts, name: &str, text: &str, config: &MemoryConfig) -> Context {
    let document = contexts.engine().document_prompt(text).unwrap();
    let mut context = match contexts.notes(name) {
        Ok(_) => contexts.open(name).unwrap(),
        Err(_) => contexts.create(name, config, "a test").unwrap(),
    };
    context.read_document(&document, &mut no_progress).unwrap();
    context
}

/// What the same text gives without any store.
fn expected(world: &World, text: &str, config: &MemoryConfig) -> (Vec<TokenId>, Vec<f32>, String) {
    let engine = engine(&world.model());
    let document = engine.document_prompt(text).unwrap();
    let mut session = engine.session(config).unwrap();
    let n = document.ids().len();
    session.read_document(&document, 0..n, &mut no_progress).unwrap();
    fingerprint(&session)
}

/// Rule R8 of DESIGN.md, for all that shapes what is kept.
#[test]
fn after_a_restart_the_answer_is_what_it_would_have_been() {
    let text = letters(9, 900);
    for config in [
        config(),
        MemoryConfig { kv_type: KvType::F16, ..config() },
        MemoryConfig { kv_type: KvType::Int4, ..config() },
        MemoryConfig { unit_cuts: UnitCuts::Sentence, ..config() },
        MemoryConfig { unit_cuts: UnitCuts::Surprise, ..config() },
        MemoryConfig { lookup: LookupPolicy::Bound, ..config() },
        MemoryConfig { lookup: LookupPolicy::AttentionMass, pinned_percent: 0, ..config() },
        MemoryConfig { pinned_percent: 0, read_query_tokens: 4, ..config() },
    ] {
        let world = World::new();
        let expected = expected(&world, &text, &config);
        for n_bytes in [0, 20, 60, 300, 899] {
            let name = format!("after {n_bytes}");
            let contexts = world.contexts();
            drop(ingest(&contexts, &name, &text[..n_bytes], &config));
            drop(contexts);
            // Another process reads the rest, and a third one asks.
            let contexts = world.contexts();
            let whole = ingest(&contexts, &name, &text, &config);
            assert_eq!(whole.session().text_bytes(), 900);
            drop((whole, contexts));
            let context = world.contexts().open(&name).unwrap();
            let found = fingerprint(context.session());
            // What was read in two parts was looked up in other chunks, but for whole ones.
            if n_bytes == 0 {
                assert_eq!(found, expected, "{config:?}");
            }
            assert_eq!(fingerprint(context.session()), found, "asking changes nothing");
        }
    }
}

/// Reading that is stopped is saved as far as it came, and goes on to the very same state.
#[test]
fn reading_that_was_stopped_goes_on_in_another_process() {
    let world = World::new();
    let text = letters(5, 1100);
    let expected = expected(&world, &text, &config());
    let mut n_read = Vec::new();
    for n_chunks in [3, 5, 1000] {
        let contexts = world.contexts();
        let document = contexts.engine().document_prompt(&text).unwrap();
        let mut context = match contexts.notes("book") {
            Ok(notes) => {
                assert!(!notes.is_whole);
                contexts.open("book").unwrap()
            }
            Err(_) => contexts.create("book", &config(), "a test").unwrap(),
        };
        n_read.push(context.session().n_tokens());
        let mut n_calls = 0;
        let read = context.read_document(&document, &mut |_| {
            n_calls += 1;
            if n_calls == n_chunks { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(matches!(read, Err(EngineError::Stopped { .. })), n_chunks < 1000);
    }
    assert_eq!(n_read, [0, 3 * 32, 8 * 32]);
    let context = world.contexts().open("book").unwrap();
    assert!(context.notes().is_whole);
    assert_eq!(fingerprint(context.session()), expected);
    let everything = mneme::ids::ByteSpan { start: 0, end: usize::MAX };
    assert_eq!(context.session().text(everything).unwrap().1, text);
}

#[test]
fn another_text_under_the_same_name_is_refused() {
    let world = World::new();
    let contexts = world.contexts();
    let text = letters(5, 400);
    drop(ingest(&contexts, "book", &text, &config()));
    for (other, at) in [(letters(6, 400), None), (text[..300].to_owned(), Some(300))] {
        let document = contexts.engine().document_prompt(&other).unwrap();
        let mut context = contexts.open("book").unwrap();
        let refused = context.read_document(&document, &mut no_progress).unwrap_err();
        let EngineError::Context(ContextError::OtherText { at: found, n_tokens, .. }) = refused
        else {
            panic!("{refused}")
        };
        let n_head = n_tokens - 400;
        assert!(at.is_none_or(|at| found == n_head + at), "{found}");
    }
}

#[test]
fn what_another_model_has_read_is_never_served() {
    let world = World::new();
    let text = letters(5, 400);
    drop(ingest(&world.contexts(), "book", &text, &config()));
    let other = tiny(34).write_gguf(&world.scratch.path().join("other.gguf"));
    let contexts = contexts(&other, &world.store());
    let refused = contexts.open("book").err().unwrap();
    assert!(matches!(refused, EngineError::Context(ContextError::OtherModel { .. })), "{refused}");
    let ids = contexts.engine().document_prompt(&text).unwrap().ids().to_vec();
    assert!(contexts.longest_prefix(&config(), &ids).unwrap().is_none());
    assert_eq!(contexts.store().events().fingerprint_misses, 1);
    // The same model under another name is the same model; computed otherwise it is not.
    drop(contexts);
    let renamed = world.scratch.path().join("renamed.gguf");
    std::fs::copy(world.model(), &renamed).unwrap();
    let contexts = self::contexts(&renamed, &world.store());
    assert!(contexts.open("book").is_ok());
    drop(contexts);
    let options = EngineOptions {
        n_threads: 1,
        precision: mneme::backend::Precision::F32,
        ..EngineOptions::default()
    };
    let engine = Engine::load(&renamed, &options).unwrap();
    let store = Store::open(&world.store(), StoreOptions::default()).unwrap();
    let contexts = Contexts::new(engine, store, "tests");
    assert!(matches!(contexts.open("book"), Err(EngineError::Context(_))));
}

#[test]
fn a_tenant_sees_no_other_tenants_contexts() {
    let world = World::new();
    let text = letters(5, 400);
    let contexts = world.contexts();
    drop(ingest(&contexts, "book", &text, &config()));
    let others = Contexts::new(contexts.engine().clone(), contexts.store().clone(), "others");
    let refused = others.open("book").err().unwrap();
    assert!(matches!(refused, EngineError::Context(ContextError::NoSuch { .. })), "{refused}");
    let ids = contexts.engine().document_prompt(&text).unwrap().ids().to_vec();
    assert!(others.longest_prefix(&config(), &ids).unwrap().is_none());
    assert!(contexts.longest_prefix(&config(), &ids).unwrap().is_some());
    assert!(others.store().list("others").unwrap().is_empty());
}

#[test]
fn the_longest_context_that_a_text_begins_with_is_found() {
    let world = World::new();
    let contexts = world.contexts();
    let text = letters(5, 600);
    for n_bytes in [100, 320, 250] {
        drop(ingest(&contexts, &format!("{n_bytes}"), &text[..n_bytes], &config()));
    }
    drop(ingest(&contexts, "another", &letters(8, 300), &config()));
    let ids = |text: &str| contexts.engine().document_prompt(text).unwrap().ids().to_vec();
    let found = |text: &str, config: &MemoryConfig| {
        let context = contexts.longest_prefix(config, &ids(text)).unwrap();
        context.map(|context| context.name().to_owned())
    };
    assert_eq!(found(&text, &config()).as_deref(), Some("320"));
    assert_eq!(found(&text[..320], &config()).as_deref(), Some("320"));
    assert_eq!(found(&text[..319], &config()).as_deref(), Some("250"));
    assert_eq!(found(&text[..90], &config()), None);
    assert_eq!(found(&letters(6, 600), &config()), None);
    // What only decides about answers does not matter; what decides about reading does.
    let answering = MemoryConfig { retrieved_units: 3, read_query_tokens: 0, ..config() };
    assert_eq!(found(&text, &answering), None);
    let reading = MemoryConfig { window_tokens: 48, ..config() };
    assert_eq!(found(&text, &reading), None);
    let asking = MemoryConfig { ask_chunk_tokens: 2, pin_contrast: false, ..config() };
    assert_eq!(found(&text, &asking).as_deref(), Some("320"));
}

#[test]
fn a_fork_shares_all_and_goes_its_own_way() {
    let world = World::new();
    let contexts = world.contexts();
    let (text, more) = (letters(5, 600), letters(7, 200));
    let book = ingest(&contexts, "book", &text, &config());
    let before = fingerprint(book.session());
    drop(book);
    let fork = contexts.store().fork("tests", "book", "draft").unwrap();
    assert_eq!(fork.own_bytes, 0, "nothing is copied");
    contexts.open("draft").unwrap().append(&more, &mut no_progress).unwrap();
    drop(contexts);
    let contexts = world.contexts();
    assert_eq!(fingerprint(contexts.open("book").unwrap().session()), before);
    let draft = contexts.open("draft").unwrap();
    assert_eq!(draft.session().text_bytes(), 800);
    assert_ne!(fingerprint(draft.session()), before);
    let after = fingerprint(draft.session());
    drop(draft);
    contexts.store().delete("tests", "book").unwrap();
    drop(contexts);
    let draft = world.contexts().open("draft").unwrap();
    assert_eq!(fingerprint(draft.session()), after, "it needs the other no more");
}

/// Rule R8 in the middle of an answer that nobody draws to its end: the token said last was not
/// taken in yet, and is not lost.
#[test]
fn an_answer_that_was_interrupted_goes_on_in_another_process() {
    let world = World::new();
    let config = || MemoryConfig { window_tokens: 64, ..config() };
    let say = |context: &mut Context, said: &str| {
        let mut conversation = context.conversation(None);
        conversation.say(context.session_mut(), said).unwrap();
    };
    let mut whole = world.contexts().create("whole", &config(), "talk").unwrap();
    say(&mut whole, "The quick brown fox");
    let expected = greedy(whole.session_mut(), 12);
    assert!(expected.len() > 8, "it does not end by itself: {expected:?}");
    let all_ids = whole.session().token_ids().unwrap();
    drop(whole);
    for n in [0, 1, 5, 8] {
        let name = format!("after {n}");
        let mut context = world.contexts().create(&name, &config(), "talk").unwrap();
        say(&mut context, "The quick brown fox");
        let options = GenerateOptions { max_tokens: 12, ..GenerateOptions::default() };
        let drawn = context.session_mut().generate(options).take(n);
        let mut said: Vec<TokenId> = drawn.map(|piece| piece.unwrap().token).collect();
        context.save().unwrap();
        context.sync().unwrap();
        drop(context);
        let mut context = world.contexts().open(&name).unwrap();
        said.extend(greedy(context.session_mut(), expected.len() - n));
        assert_eq!(said, expected, "interrupted after {n} tokens");
        // Of an answer that repeats itself only what was taken in shows whether all of it was.
        assert_eq!(context.session().token_ids().unwrap(), all_ids, "after {n} tokens");
    }
}

/// The same of an answer that comes from a passage which was read again: the passage is kept as well.
#[test]
fn an_answer_from_a_passage_goes_on_in_another_process() {
    let world = World::new();
    for kv_type in KvType::ALL {
        let config = MemoryConfig { window_tokens: 64, kv_type, ..config() };
        let ask = |name: &str| {
            let mut context = ingest(&world.contexts(), name, &letters(5, 600), &config);
            let mut conversation = context.conversation(None);
            conversation.say(context.session_mut(), "quick").unwrap();
            context
        };
        let mut whole = ask(&format!("whole {kv_type:?}"));
        let passage = whole.session().memory().excerpt_tokens();
        assert!(passage.is_some(), "a passage was read again");
        let expected = greedy(whole.session_mut(), 12);
        drop(whole);
        for n in [0, 5] {
            let name = format!("after {n} {kv_type:?}");
            let mut context = ask(&name);
            let mut said = greedy(context.session_mut(), n);
            context.save().unwrap();
            context.sync().unwrap();
            drop(context);
            let mut context = world.contexts().open(&name).unwrap();
            assert_eq!(context.session().memory().excerpt_tokens(), passage);
            said.extend(greedy(context.session_mut(), expected.len() - n));
            assert_eq!(said, expected, "interrupted after {n} tokens, {kv_type:?}");
        }
    }
}

/// Two turns, the second of which is taken back: the third is said as if it were the second.
#[test]
fn a_conversation_is_taken_up_and_taken_back() {
    let world = World::new();
    let config = || MemoryConfig { window_tokens: 64, ..config() };
    let text = letters(5, 600);
    let turn = |context: &mut Context, said: &str| {
        let mut conversation = context.conversation(None);
        conversation.say(context.session_mut(), said).unwrap();
        let reply = greedy(context.session_mut(), 9);
        context.end_turn(&conversation).unwrap();
        reply
    };
    for is_about_document in [false, true] {
        let name = format!("{is_about_document}");
        let open = || {
            let contexts = world.contexts();
            contexts.open(&name).unwrap()
        };
        if is_about_document {
            drop(ingest(&world.contexts(), &name, &text, &config()));
        } else {
            world.contexts().create(&name, &config(), "talk").unwrap().save().unwrap();
        }
        let first = turn(&mut open(), "The quick brown fox");
        let after_first = open().session().n_tokens();
        let second = turn(&mut open(), "jumps over");
        assert_eq!(open().notes().turns.len(), 3);
        let mut context = open();
        context.rewind_to_turn(1).unwrap();
        assert_eq!(context.session().n_tokens(), after_first);
        assert_eq!(turn(&mut context, "jumps over"), second, "the same again");
        drop(context);
        let mut context = open();
        let refused = context.rewind_to_turn(3).unwrap_err();
        let no_turn =
            EngineError::Context(ContextError::NoTurn { name: name.clone(), turn: 3, n_turns: 2 });
        assert_eq!(refused.to_string(), no_turn.to_string());
        context.rewind_to_turn(0).unwrap();
        assert!(
            context.notes().conversation.is_none() && context.notes().is_whole == is_about_document
        );
        context.save().unwrap();
        context.sync().unwrap();
        drop(context);
        assert_eq!(turn(&mut open(), "The quick brown fox"), first);
    }
}

#[test]
fn a_document_goes_on_only_as_a_document() {
    let world = World::new();
    let contexts = world.contexts();
    let mut book = ingest(&contexts, "book", &letters(5, 300), &config());
    let mut conversation = book.conversation(None);
    conversation.say(book.session_mut(), "quick").unwrap();
    book.end_turn(&conversation).unwrap();
    let refused = book.append("more", &mut no_progress).unwrap_err();
    assert!(matches!(refused, EngineError::Context(ContextError::Conversation { .. })));
}

#[test]
fn settings_that_have_shaped_a_context_cannot_be_others() {
    let world = World::new();
    let contexts = world.contexts();
    drop(ingest(&contexts, "book", &letters(5, 300), &config()));
    for (other, name) in [
        (MemoryConfig { kv_type: KvType::F16, ..config() }, "kv-type"),
        (MemoryConfig { unit_tokens: 32, ..config() }, "unit-tokens"),
        (MemoryConfig { segment_tokens: 4, ..config() }, "segment-tokens"),
        (MemoryConfig { lookup: LookupPolicy::Bound, ..config() }, "lookup"),
    ] {
        let refused = contexts.open_as("book", &other).err().unwrap();
        let differs = MemoryError::Differs { name };
        assert_eq!(refused.to_string(), EngineError::Memory(differs).to_string());
    }
    let other = MemoryConfig { retrieved_units: 3, ..config() };
    assert!(contexts.open_as("book", &other).is_ok());
}

/// Whatever file is damaged wherever: what is served is right, and what is not can be repaired,
/// after which the same text is read on to the same state.
#[test]
fn damage_is_never_served_and_can_be_repaired() {
    let text = letters(5, 1500);
    let world = World::new();
    // Few units are looked at, so that most of what is damaged is not noticed by an answer.
    let config = || MemoryConfig { candidates_per_unit: 1, pin_candidates: 2, ..config() };
    drop(ingest(&world.contexts(), "book", &text, &config()));
    let expected = expected(&world, &text, &config());
    let files: Vec<PathBuf> = std::fs::read_dir(world.store().join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .collect();
    let (mut n_right, mut n_refused, mut n_kept) = (0, 0, 0);
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        for at in (0..bytes.len()).step_by(bytes.len() / 23) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            // What an open store has mapped is never written to: another file takes its place.
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, &damaged).unwrap();
            let contexts = world.contexts();
            let asked = contexts.open("book").and_then(|context| {
                let mut session = context.session().fork(&config())?;
                session.ask_about("quick", &mut no_progress)?;
                Ok(greedy_or_error(&mut session, 12))
            });
            match asked {
                Ok(Ok(answer)) => {
                    assert_eq!(answer, expected.0, "byte {at} of {}", file.display());
                    n_right += 1;
                }
                Ok(Err(_)) | Err(_) => n_refused += 1,
            }
            n_kept += usize::from(mended(&contexts, &text, &config()) == expected);
            drop(contexts);
            // As before, for the next byte.
            std::fs::remove_dir_all(world.store()).unwrap();
            drop(ingest(&world.contexts(), "book", &text, &config()));
        }
    }
    assert!(
        n_refused > 4 && n_right > 5 && n_kept == n_right + n_refused,
        "{n_right} {n_refused} {n_kept}"
    );
}

fn greedy_or_error(session: &mut Session, max_tokens: usize) -> Result<Vec<TokenId>, EngineError> {
    let options = GenerateOptions { max_tokens, ..GenerateOptions::default() };
    session.generate(options).map(|piece| piece.map(|piece| piece.token)).collect()
}

/// Pages of four bits, units cut at borders and tallies of attention do not come back.
#[test]
fn what_cannot_be_put_together_again_is_read_again() {
    let text = letters(9, 900);
    for config in [
        MemoryConfig { kv_type: KvType::Int4, ..config() },
        MemoryConfig { unit_cuts: UnitCuts::Sentence, ..config() },
        MemoryConfig { lookup: LookupPolicy::AttentionMass, pinned_percent: 0, ..config() },
    ] {
        let world = World::new();
        let contexts = world.contexts();
        let mut context = ingest(&contexts, "book", &text, &config);
        let n_tokens = context.session().n_tokens() / 2 / config.chunk_tokens * config.chunk_tokens;
        assert!(n_tokens > config.window_tokens, "beyond the window");
        assert!(context.rewind(n_tokens).is_err(), "not at once");
        context.rewind_or_read_again(n_tokens, &mut no_progress).unwrap();
        context.save().unwrap();
        context.sync().unwrap();
        drop((context, contexts));
        let contexts = world.contexts();
        assert!(contexts.store().verify(&mut |_| {}).unwrap().is_clean());
        let document = contexts.engine().document_prompt(&text).unwrap();
        let mut alone = contexts.engine().session(&config).unwrap();
        alone.read_document(&document, 0..n_tokens, &mut no_progress).unwrap();
        let context = contexts.open("book").unwrap();
        assert_eq!(fingerprint(context.session()), fingerprint(&alone), "{config:?}");
        drop(context);
        let whole = ingest(&contexts, "book", &text, &config);
        assert_eq!(
            fingerprint(whole.session()),
            expected(&world, &text, &config),
            "and it goes on"
        );
    }
}

/// What the context says after it was repaired, and the text was read again where it had to be.
fn mended(
    contexts: &Contexts,
    text: &str,
    config: &MemoryConfig,
) -> (Vec<TokenId>, Vec<f32>, String) {
    let found = contexts.store().verify(&mut |_| {}).unwrap();
    for (_, name) in found.damaged_contexts {
        contexts.repair(&name, &mut no_progress).unwrap();
    }
    let is_damaged = |summary| contexts.store().damaged("tests", summary).map(|it| !it.is_empty());
    assert!(
        contexts.store().list("tests").unwrap().iter().all(|it| !is_damaged(&it.name).unwrap())
    );
    fingerprint(ingest(contexts, "book", text, config).session())
}
