//! What does a text without end look like to a program? It reads standard input for ever, in
//! constant time and attention a line, and after every hundred lines says in a sentence what
//! goes on.
//!
//! `tail -f some.log | cargo run --release --example stream`

use std::error::Error;
use std::io::{BufRead, Write};

use mneme::engine::{Engine, EngineOptions, GenerateOptions, no_progress};
use mneme::hub::{self, DEFAULT_MODEL};
use mneme::memory::MemoryConfig;

/// Lines between two sentences.
const LINES: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let model = hub::resolve(DEFAULT_MODEL, &mut hub::no_progress)?;
    let engine = Engine::load(&model, &EngineOptions::default())?;
    let mut session = engine.session(&MemoryConfig::default())?;
    let options = GenerateOptions { max_tokens: 40, ..Default::default() };
    let mut out = std::io::stdout().lock();
    let mut passage = String::new();
    for (i, line) in std::io::stdin().lock().lines().enumerate() {
        passage += &line?;
        passage.push('\n');
        if (i + 1) % LINES > 0 {
            continue;
        }
        session.read(&passage, &mut no_progress)?;
        passage.clear();
        session.prompt("\nIn one sentence, what happened:")?;
        for piece in session.generate(options.clone()) {
            write!(out, "{}", piece?.text)?;
            out.flush()?;
        }
        let units = session.memory().n_units();
        writeln!(out, "\n-- {} tokens so far, {units} units in memory", session.n_tokens())?;
    }
    Ok(())
}
