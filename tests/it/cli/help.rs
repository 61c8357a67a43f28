//! Does `--help` explain each command, and does a wrong word end with what to do?

use super::{check_refused, run};

#[test]
fn every_command_explains_itself() {
    for command in ["ask", "chat", "score", "bench", "inspect", "pull"] {
        let help = run(&[command, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command}");
        assert!(help.stdout.contains("Usage: mneme"), "{}", help.stdout);
        let flags = ["Memory:", "--window-tokens", "[default: 832]"];
        if !matches!(command, "inspect" | "pull") {
            assert!(flags.iter().all(|words| help.stdout.contains(words)), "{}", help.stdout);
        }
    }
    assert!(run(&["--version"]).stdout.starts_with("mneme "));
}

#[test]
fn wrong_words_are_misuse() {
    check_refused(&[], 2, &["Usage: mneme"]);
    check_refused(&["scor"], 2, &["score"]);
    check_refused(&["ask", "--documnet", "x", "Who?"], 2, &["--document"]);
    check_refused(&["chat", "--temperature", "-1"], 2, &["--temperature"]);
    check_refused(&["chat", "--top-p", "1.5"], 2, &["at most 1"]);
    check_refused(&["chat", "--max-tokens", "0"], 2, &["from 1 on"]);
}
