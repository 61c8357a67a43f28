//! A store that the first version wrote.

use super::*;

/// A store that the first version wrote, with the model that read it: it must open for ever.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");

/// What the golden store has read.
fn golden_text() -> String {
    letters(5, 700)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copy = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_folder(&path, &copy),
            false => drop(std::fs::copy(&path, &copy).unwrap()),
        }
    }
}

/// Writes the golden store. To be run once a format: `cargo test --test it -- --ignored golden`.
#[test]
#[ignore = "writes tests/golden/v1, which must stay as it is"]
fn write_the_golden_store() {
    let folder = Path::new(GOLDEN);
    std::fs::create_dir_all(folder).unwrap();
    let model = tiny(33).write_gguf(&folder.join("tiny.gguf"));
    let contexts = contexts(&model, &folder.join("store"));
    drop(ingest(&contexts, "book", &golden_text(), &config()));
    contexts.store().fork("tests", "book", "talk").unwrap();
    let mut talk = contexts.open("talk").unwrap();
    let mut conversation = talk.conversation(None);
    conversation.say(talk.session_mut(), "quick").unwrap();
    greedy(talk.session_mut(), 5);
    talk.end_turn(&conversation).unwrap();
}

#[test]
fn a_store_of_the_first_version_opens_for_ever() {
    let scratch = ScratchFolder::new();
    copy_folder(Path::new(GOLDEN), scratch.path());
    let contexts = contexts(&scratch.path().join("tiny.gguf"), &scratch.path().join("store"));
    let report = contexts.store().verify(&mut |_| {}).unwrap();
    assert!(report.is_clean(), "{report:?}");
    let everything = mneme::ids::ByteSpan { start: 0, end: usize::MAX };
    let mut talk = contexts.open("talk").unwrap();
    assert_eq!(talk.notes().turns.len(), 2);
    talk.rewind_to_turn(0).unwrap();
    let book = contexts.open("book").unwrap();
    // It keeps the settings that it was read with; those that came later have their defaults.
    let as_it_was = MemoryConfig { pin_share_percent: 50, ..config() };
    assert!(book.notes().is_whole && book.notes().config().unwrap() == as_it_was);
    for context in [&talk, &book] {
        assert_eq!(context.session().text(everything).unwrap().1, golden_text());
    }
    let document = contexts.engine().document_prompt(&golden_text()).unwrap();
    assert_eq!(book.session().token_ids().unwrap(), document.ids());
    assert_eq!(fingerprint(talk.session()), fingerprint(book.session()));
    drop((talk, book));
    let again = ingest(&contexts, "book", &(golden_text() + "bcd"), &config());
    assert_eq!(again.session().text_bytes(), 703, "and it goes on");
}
