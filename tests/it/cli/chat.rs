//! Can a conversation be held by script, without end?

use super::{SMALL, run_with};

fn chat(lines: &str) -> super::Ran {
    let mut words = vec!["chat", "--max-tokens", "6", "--system", "Answer in one word."];
    words.extend(SMALL);
    let ran = run_with(&words, lines.as_bytes());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran
}

#[test]
fn each_line_is_answered_and_the_memory_stays_bounded() {
    let said = "The fleet sails at dawn, and the pilot waits for the tide at the old pier.\n";
    let ran = chat(&(said.repeat(14) + "\n/stats\n"));
    assert!(ran.stdout.lines().count() >= 14, "{ran:?}");
    assert!(ran.stderr.contains("14 turns"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("(0 units)"), "it has outgrown the window: {}", ran.stderr);
}

#[test]
fn commands_are_obeyed_and_unknown_ones_named() {
    let ran = chat("/help\n/forgive\n/stats\n/quit\nNever read.\n");
    assert_eq!(ran.stdout, "");
    for words in ["/quit", "no command /forgive", "0 turns, 0 tokens in memory"] {
        assert!(ran.stderr.contains(words), "{:?} lacks {words:?}", ran.stderr);
    }
}

#[test]
fn what_does_not_fit_the_window_is_refused_and_the_conversation_goes_on() {
    let ran = chat(&format!("{}\nHello.\n/stats\n", "many words ".repeat(200)));
    assert!(ran.stderr.contains("the window holds 128"), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 turn,"), "{}", ran.stderr);
}
