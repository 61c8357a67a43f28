//! Does `pull` say where a model lies, and what to do when it cannot be fetched?

use std::process::Command;

use super::{Ran, check_refused, run};
use crate::fixtures::{ScratchFolder, default_model};

/// A machine without the model, on which pip runs `script`.
pub fn bare_machine(folder: &ScratchFolder, script: &str) -> Command {
    let python = folder.file("python3", format!("#!/bin/sh\n{script}\n").as_bytes());
    let status = Command::new("chmod").arg("+x").arg(&python).status().unwrap();
    assert!(status.success());
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = super::mneme(&["pull", "smollm2-135m"]);
    command.env("MNEME_CACHE", folder.path().join("cache")).env("PATH", path);
    command
}

#[test]
fn a_model_that_is_there_is_named_by_its_path() {
    let model = default_model().display().to_string();
    for name in ["smollm2-135m", &model] {
        let ran = run(&["pull", name]);
        assert_eq!((ran.code, ran.stdout.trim_end(), ran.stderr.as_str()), (Some(0), &*model, ""));
    }
}

#[test]
fn a_pull_that_cannot_work_says_what_to_do() {
    check_refused(&["pull", "smollm9"], 2, &["smollm2-135m", "hf:OWNER/NAME"]);
    check_refused(&["pull", "hf:alone"], 2, &["hf:OWNER/NAME"]);
    let folder = ScratchFolder::new();
    let mut machine =
        bare_machine(&folder, "sleep 0.3; echo 'Name or service not known' >&2; exit 1");
    let ran = Ran::from(machine.output().unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    for words in ["Fetching smollm2-135m, once", "check the network", "Name or service not known"] {
        assert!(ran.stderr.contains(words), "{} lacks {words:?}", ran.stderr);
    }
}
