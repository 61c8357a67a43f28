//! Does a reader that leaves early end the command quietly?

use std::process::Stdio;

use super::{Ran, VOYAGE, mneme, spawn};

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let short: [&[&str]; 4] = [
        &["inspect", "smollm2-135m"],
        &["pull", "smollm2-135m"],
        &["score", VOYAGE, "--to-token", "8", "--json"],
        &["ask", "--help"],
    ];
    for words in short {
        let mut child = spawn(&mut mneme(words));
        drop(child.stdout.take());
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{words:?}");
    }
}

#[test]
fn nobody_to_complain_to_is_no_reason_to_panic() {
    let mut child = mneme(&["inspect", "/nowhere"]).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}
