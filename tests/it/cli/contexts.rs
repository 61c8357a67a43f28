//! Is a document read once remembered by the command line, whatever happens to the process?

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::{Ran, SMALL, mneme, spawn, voyage};
use crate::fixtures::{Random, ScratchFolder, TinyDisk, TinyModel};

/// A store of its own.
struct Shelf {
    scratch: ScratchFolder,
}

impl Shelf {
    fn new() -> Self {
        Self { scratch: ScratchFolder::new() }
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = mneme(words);
        command.env("MNEME_STORE", self.path("store"));
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        self.command(words).output().unwrap().into()
    }

    fn run_small(&self, words: &[&str]) -> Ran {
        let words: Vec<&str> = words.iter().chain(&SMALL).copied().collect();
        self.run(&words)
    }

    fn json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        self.run(&words).json()
    }

    fn check_refused(&self, words: &[&str], code: i32, expected: &[&str]) {
        let ran = self.run(words);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{words:?}: {ran:?}");
        for word in expected {
            assert!(ran.stderr.contains(word), "{:?} does not say {word:?}", ran.stderr);
        }
    }
}

const QUESTION: &str = "What is the pass key of the chart room?";

#[test]
fn a_document_is_read_once_and_asked_by_name() {
    let shelf = Shelf::new();
    let (text, longer) = (voyage(9000), voyage(14_000));
    let document = shelf.scratch.file("log.txt", text.as_bytes()).display().to_string();
    let ran = shelf.run_small(&["ingest", "--context", "log", &document, "--json"]).json();
    assert_eq!((ran["cached_tokens"].as_u64(), ran["text_bytes"].as_u64()), (Some(0), Some(9000)));
    let n_tokens = ran["tokens"].as_u64().unwrap();

    // Another process asks; it needs no sizes, which the context knows.
    let asked = shelf.json(&["ask", "--context", "log", QUESTION]);
    assert_eq!(asked["cached_tokens"], n_tokens);
    for passage in asked["evidence"].as_array().unwrap() {
        let at = |key: &str| passage[key].as_u64().unwrap() as usize;
        assert_eq!(passage["text"].as_str(), text.get(at("start")..at("end")), "{passage}");
    }
    let plain: Vec<&str> =
        ["ask", "--document", &document, "--json", QUESTION].into_iter().chain(SMALL).collect();
    let plain = mneme(&plain).output().unwrap();
    let plain = Ran::from(plain).json();
    assert_eq!(plain["answer"], asked["answer"], "as if it had been read just now");
    assert_eq!(plain["cached_tokens"], 0);

    // A document that begins with it is read from there, without being asked.
    let longer = shelf.scratch.file("longer.txt", longer.as_bytes()).display().to_string();
    let asked = shelf.run_small(&["ask", "--document", &longer, "--json", QUESTION]).json();
    assert_eq!(asked["cached_tokens"], n_tokens, "{asked}");

    // The same again reads nothing; more of it is read on.
    let again = shelf.run_small(&["ingest", "--context", "log", &document, "--json"]).json();
    assert_eq!(again["cached_tokens"], n_tokens);
    let more = shelf.run_small(&["ingest", "--context", "more", &longer, "--json"]).json();
    assert_eq!(more["cached_tokens"], n_tokens);
    assert!(more["tokens"].as_u64().unwrap() > n_tokens);
    let source = shelf.json(&["contexts", "show", "more"])["source"].clone();
    assert_eq!(source.as_str(), Some(longer.as_str()), "its own, not that of what it began with");
    let other = shelf.scratch.file("other.txt", b"Something else.").display().to_string();
    shelf.check_refused(
        &["ingest", "--context", "log", &other],
        1,
        &["another text", "another name"],
    );
    let appended = shelf.run(&["ingest", "--context", "log", "--append", &other, "--json"]).json();
    assert_eq!(appended["text_bytes"], 9015);
    assert_eq!(shelf.json(&["contexts", "verify"])["clean"], true);
}

#[test]
fn contexts_are_listed_shown_forked_moved_and_removed() {
    let shelf = Shelf::new();
    let document = shelf.scratch.file("log.txt", voyage(3000).as_bytes()).display().to_string();
    shelf.run_small(&["ingest", "--context", "log", &document, "--json"]).json();
    shelf.json(&["contexts", "fork", "log", "copy"]);
    let listed = shelf.json(&["contexts", "list"]);
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["copy", "log"]);
    let copy = shelf.json(&["contexts", "show", "copy"]);
    assert_eq!((&copy["forked_from"], &copy["own_bytes"]), (&"log".into(), &0.into()), "{copy}");
    assert_eq!(copy["settings"]["unit-tokens"], 32);
    let table = shelf.run(&["contexts", "list"]);
    assert!(table.stdout.contains("document"), "{table:?}");

    shelf.json(&["contexts", "pin", "log"]);
    assert_eq!(shelf.json(&["contexts", "show", "log"])["pinned"], true);
    shelf.json(&["contexts", "pin", "log", "--off"]);
    assert_eq!(shelf.json(&["contexts", "show", "log"])["pinned"], false);
    shelf.json(&["contexts", "expire", "copy", "--in", "2h"]);
    assert!(shelf.json(&["contexts", "show", "copy"])["expires"].as_u64().is_some());
    shelf.json(&["contexts", "expire", "copy", "--in", "never"]);
    assert!(shelf.json(&["contexts", "show", "copy"])["expires"].is_null());
    shelf.json(&["contexts", "expire", "copy", "--in", "0s"]);
    shelf.check_refused(&["contexts", "show", "copy"], 1, &["no context \"copy\""]);

    let file = shelf.path("log.mneme");
    shelf.json(&["contexts", "export", "log", &file]);
    shelf.check_refused(&["contexts", "export", "log", &file], 1, &["is there already"]);
    let expected = shelf.json(&["ask", "--context", "log", QUESTION])["answer"].clone();
    let elsewhere = Shelf::new();
    elsewhere.json(&["contexts", "import", &file, "--name", "moved"]);
    elsewhere.check_refused(&["contexts", "import", &file, "--name", "moved"], 1, &["moved"]);
    assert_eq!(elsewhere.json(&["ask", "--context", "moved", QUESTION])["answer"], expected);
    let mut damaged = std::fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let damaged = shelf.scratch.file("damaged.mneme", &damaged).display().to_string();
    elsewhere.check_refused(&["contexts", "import", &damaged], 1, &[]);

    let rewound = shelf.json(&["contexts", "rewind", "log", "--tokens", "256"]);
    assert_eq!(rewound["tokens"], 256);
    shelf.check_refused(&["contexts", "rewind", "log", "--turn", "3"], 1, &["no turn 3"]);
    shelf.json(&["contexts", "compact"]);
    assert_eq!(shelf.json(&["contexts", "verify"])["clean"], true);
    shelf.json(&["contexts", "delete", "log"]);
    shelf.check_refused(&["ask", "--context", "log", QUESTION], 1, &["no context \"log\""]);
    assert_eq!(shelf.json(&["contexts", "list"]), serde_json::json!([]));
}

#[test]
fn a_conversation_goes_on_in_another_process() {
    let shelf = Shelf::new();
    let said = |lines: &str| {
        let mut words = vec!["chat", "--context", "talk", "--max-tokens", "6"];
        words.extend(SMALL);
        let input = shelf.scratch.file("said.txt", lines.as_bytes());
        let mut command = shelf.command(&words);
        let ran = Ran::from(command.stdin(std::fs::File::open(input).unwrap()).output().unwrap());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran
    };
    said("Hello there.\nThe key is 5.\n");
    let ran = said("/stats\nWhat is the key?\n/stats\n");
    assert!(ran.stderr.contains("2 turns,") && ran.stderr.contains("3 turns,"), "{ran:?}");
    let shown = shelf.json(&["contexts", "show", "talk"]);
    assert_eq!((&shown["kind"], &shown["turns"]), (&"conversation".into(), &3.into()));
    shelf.json(&["contexts", "rewind", "talk", "--turn", "1"]);
    assert_eq!(shelf.json(&["contexts", "show", "talk"])["turns"], 1);
    shelf.check_refused(&["ask", "--context", "talk", "What?"], 1, &["is a conversation"]);
    shelf.check_refused(&["ingest", "--context", "talk", "--append", "-"], 1, &["is empty"]);
    shelf.check_refused(
        &["chat", "--context", "talk", "--system", "Be brief."],
        2,
        &["has begun without this --system"],
    );
}

#[test]
fn misuse_is_refused_with_what_to_do() {
    let shelf = Shelf::new();
    shelf.check_refused(&["ask", "Where?"], 2, &["--document"]);
    shelf.check_refused(&["ingest", "x.txt"], 2, &["--context"]);
    shelf.check_refused(&["ingest", "--context", "", "x.txt"], 2, &["1 to 200 bytes"]);
    shelf.check_refused(&["contexts", "expire", "a", "--in", "soon"], 2, &["12h"]);
    shelf.check_refused(&["contexts", "fork", "a", "b"], 1, &["\"a\""]);
    shelf.check_refused(&["contexts", "rewind", "a"], 2, &["--turn"]);
    shelf.check_refused(&["contexts", "import", "/no/such"], 1, &["/no/such"]);
}

/// Two processes on one store: the second is told, and changes nothing.
#[test]
fn a_store_in_use_is_not_opened_twice() {
    let shelf = Shelf::new();
    let mut chat = shelf.command(&["chat", "--context", "talk"]);
    let mut child = spawn(chat.stdin(std::process::Stdio::piped()));
    let lock = shelf.scratch.path().join("store/LOCK");
    let begun = std::time::Instant::now();
    while std::fs::read(&lock).map_or(0, |pid| pid.len()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    shelf.check_refused(&["contexts", "list"], 1, &["is in use by process", &pid]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(shelf.run(&["contexts", "list"]).code, Some(0));
}

/// A context that is damaged does not keep a document from being read as if there were none.
#[test]
fn a_damaged_context_is_not_used_and_a_document_is_read_all_the_same() {
    let shelf = Shelf::new();
    let (model, document) = letters_of(&shelf, 3000);
    let run = |words: &[&str]| {
        shelf.run(&words.iter().copied().chain(["--model", &model]).collect::<Vec<_>>())
    };
    let ask = ["ask", "--document", &document, "--max-tokens", "8", "--json", "quick"];
    let expected = run(&ask).json()["answer"].clone();
    assert_eq!(run(&["ingest", "--context", "letters", &document]).code, Some(0));
    assert!(run(&ask).json()["cached_tokens"].as_u64().unwrap() > 2900);
    let segments = shelf.scratch.path().join("store/segments");
    for entry in std::fs::read_dir(segments).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "seg") {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().skip(64).step_by(5).for_each(|byte| *byte ^= 0x40);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let ran = run(&ask);
    assert!(ran.stderr.contains("contexts read before are not used"), "{}", ran.stderr);
    let report = ran.json();
    assert_eq!((&report["answer"], &report["cached_tokens"]), (&expected, &0.into()));
}

/// A model so small that it reads a text in no time, and a text for it.
fn letters_of(shelf: &Shelf, n_letters: usize) -> (String, String) {
    let tiny = TinyModel { trained_tokens: 2048, seed: 33, ..TinyModel::default() };
    let model = tiny.write_gguf(&shelf.scratch.path().join("tiny.gguf")).display().to_string();
    let mut random = Random(7);
    let letters: Vec<u8> = (0..n_letters).map(|_| b"bcdfgjklmpqvwxyz"[random.below(16)]).collect();
    (model, shelf.scratch.file("letters.txt", &letters).display().to_string())
}

/// Rule R4: a disk that fills while a document is read is named, what was saved before is sound, and the
/// same command goes on once there is room.
#[test]
fn a_disk_that_fills_is_named_and_nothing_saved_before_is_lost() {
    let shelf = Shelf::new();
    let (model, document) = letters_of(&shelf, 40_000);
    let store = shelf.path("store");
    let Some(disk) = TinyDisk::mount(Path::new(&store), 5 << 20) else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let ingest = ["ingest", "--context", "letters", "--model", &model, &document];
    shelf.check_refused(&ingest, 1, &["could not", "space"]);
    assert_eq!(shelf.json(&["contexts", "verify"])["clean"], true);
    let listed = shelf.json(&["contexts", "list"]);
    let n_tokens = listed[0]["tokens"].as_u64().unwrap_or(0);
    assert!(n_tokens > 0 && n_tokens < 40_000, "{listed}");
    // A larger disk, with what was on this one.
    let larger = Shelf::new();
    let copied = Command::new("cp").args(["-r", &store, &larger.path("store")]).status().unwrap();
    assert!(copied.success());
    drop(disk);
    let words: Vec<&str> = ingest.into_iter().chain(["--json"]).collect();
    let ran = larger.run(&words).json();
    assert_eq!(ran["cached_tokens"], n_tokens);
    assert_eq!(ran["text_bytes"], 40_000);
}

/// Rule R10: the context that was used longest ago makes room, a pinned one never.
#[test]
fn a_limit_of_the_store_is_kept_to() {
    let shelf = Shelf::new();
    let (model, document) = letters_of(&shelf, 2000);
    let ingest = |name: &str, limit: &str| {
        let words = ["ingest", "--context", name, "--model", &model, "--store-max-bytes", limit];
        shelf.run(&words.into_iter().chain([document.as_str()]).collect::<Vec<_>>())
    };
    // Settings that differ, so that nothing is shared.
    assert_eq!(ingest("a", "0").code, Some(0));
    let bytes = shelf.json(&["contexts", "show", "a"])["disk_bytes"].as_u64().unwrap();
    std::thread::sleep(Duration::from_millis(1100)); // `used` is in seconds
    let other = ["--window-tokens", "512"];
    let limit = (bytes * 3 / 2).to_string();
    let reading = |name: &str| {
        let words = ["ingest", "--context", name, "--model", &model, "--store-max-bytes", &limit];
        let words: Vec<&str> = words.into_iter().chain(other).chain([document.as_str()]).collect();
        shelf.run(&words)
    };
    shelf.json(&["contexts", "pin", "a"]);
    let full = reading("b");
    assert_eq!(full.code, Some(1), "{full:?}");
    shelf.json(&["contexts", "pin", "a", "--off"]);
    assert_eq!(reading("b").code, Some(0));
    let listed = shelf.json(&["contexts", "list"]);
    let names: Vec<&str> =
        listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b"], "{listed}");
}

/// Rule R2: what a process has said is kept is kept, though it is killed at any moment.
#[test]
fn two_hundred_processes_killed_while_they_read_lose_nothing() {
    let shelf = Shelf::new();
    let (model, document) = letters_of(&shelf, 20_000);
    let mut random = Random(8);
    let ingest = |shelf: &Shelf, text: usize| {
        // Settings of its own, so that no text is read from what another has read.
        let (name, window) = (format!("text-{text}"), (128 + 16 * text).to_string());
        let words = ["ingest", "--model", &model, "--threads", "1", "--save-every", "256"];
        let words = words.into_iter().chain(["--window-tokens", &window, "--context", &name]);
        shelf.command(&words.chain([document.as_str()]).collect::<Vec<_>>())
    };
    let tokens = |shelf: &Shelf| -> Vec<u64> {
        let listed = shelf.json(&["contexts", "list"]);
        let mut tokens: Vec<u64> =
            listed.as_array().unwrap().iter().map(|it| it["tokens"].as_u64().unwrap()).collect();
        tokens.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
        tokens
    };
    let (mut text, mut n_killed, mut n_grown, mut n_read) = (0, 0, 0, Vec::new());
    while n_killed < 200 {
        let mut child = spawn(&mut ingest(&shelf, text));
        std::thread::sleep(Duration::from_millis(30 + random.below(220) as u64));
        let _ = child.kill(); // it may have ended
        match child.wait().unwrap().success() {
            true => text += 1,
            false => n_killed += 1,
        }
        if n_killed % 20 == 0 {
            let now = tokens(&shelf);
            let is_kept = now.len() >= n_read.len() && now.iter().zip(&n_read).all(|(a, b)| a >= b);
            assert!(is_kept, "{now:?} tokens, and there were {n_read:?}");
            n_grown += usize::from(now != n_read);
            n_read = now;
        }
    }
    let report = shelf.json(&["contexts", "verify"]);
    assert_eq!(report["clean"], true, "{report}");
    // The rest is read at once, and all of it is as if nobody had been killed.
    let ran = Ran::from(ingest(&shelf, text).output().unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ask = |shelf: &Shelf| {
        let name = format!("text-{text}");
        let words = ["ask", "--context", &name, "quick", "--model", &model, "--max-tokens", "20"];
        shelf.json(&words)["answer"].clone()
    };
    let undisturbed = Shelf::new();
    assert_eq!(ingest(&undisturbed, text).status().unwrap().code(), Some(0));
    assert_eq!(ask(&shelf), ask(&undisturbed));
    println!("{n_killed} killed, {text} texts read whole meanwhile; {n_read:?} tokens");
    assert!(n_grown > 3, "{n_grown}");
    let leftovers = |path: &Path| {
        let files = std::fs::read_dir(path.join("segments")).unwrap();
        files
            .filter(|it| it.as_ref().unwrap().path().extension().is_some_and(|e| e == "tmp"))
            .count()
    };
    assert_eq!(leftovers(Path::new(&shelf.path("store"))), 0);
}
