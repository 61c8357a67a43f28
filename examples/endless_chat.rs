//! A conversation of 200 turns: is what was said in the first remembered at the end, and do time and
//! memory stay as they are?
//!
//! ```text
//! cargo run --release --example endless_chat -- [TURNS] [http://127.0.0.1:8077]
//! ```

use std::ops::ControlFlow;
use std::time::Instant;

use mneme::agent::{Agent, LocalAgent, RemoteAgent, Say};
use mneme::engine::{AnswerForm, Contexts, Engine, EngineOptions};
use mneme::hub::{DEFAULT_MODEL, resolve};
use mneme::memory::MemoryConfig;
use mneme::memory::store::{Store, StoreOptions};

/// What the turns between are about.
const SUBJECTS: [&str; 10] = [
    "the sea",
    "a garden",
    "bread",
    "winter",
    "a railway",
    "music",
    "a market",
    "the moon",
    "horses",
    "rain",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let n_turns: usize = arguments.next().map_or(Ok(200), |n| n.parse())?;
    let folder = std::env::temp_dir().join(format!("mneme-endless-{}", std::process::id()));
    let agent: Box<dyn Agent> = match arguments.next() {
        Some(url) => Box::new(RemoteAgent::new(&url, None)),
        None => {
            let path = resolve(DEFAULT_MODEL, &mut |_| ControlFlow::Continue(()))?;
            let engine = Engine::load(&path, &EngineOptions::default())?;
            let store = Store::open(&folder, StoreOptions::default())?;
            let contexts = Contexts::new(engine, store, "local");
            Box::new(LocalAgent::new(contexts, MemoryConfig::default()))
        }
    };
    let name = format!("endless-{}", std::process::id());
    let mut talk = agent.open(&name, None)?;
    let mut say = |text: &str, max_tokens: usize, form: AnswerForm| {
        let say = Say { max_tokens, form, ..Say::new(text) };
        talk.say(&say, &mut |_| ControlFlow::Continue(()))
    };
    let fact = "Remember this: the pass key of the chart room is 71946. Say that you will.";
    say(fact, 40, AnswerForm::Text)?;
    println!("{:>6} {:>9} {:>12} {:>14}", "turn", "seconds", "tokens/s", "memory, MB");
    let (mut begun, mut n_tokens) = (Instant::now(), 0);
    for turn in 2..n_turns {
        let subject = SUBJECTS[turn % SUBJECTS.len()];
        let said = say(&format!("Turn {turn}. Tell me about {subject}."), 60, AnswerForm::Text)?;
        n_tokens += said.completion_tokens;
        if turn % 20 == 0 || turn + 1 == n_turns {
            let seconds = begun.elapsed().as_secs_f64();
            let memory = anonymous_memory().unwrap_or(0.0);
            println!("{turn:>6} {seconds:>9.1} {:>12.1} {memory:>14.0}", n_tokens as f64 / seconds);
            (begun, n_tokens) = (Instant::now(), 0);
        }
    }
    // Asked in words the default model explains what pass keys are, after some fifteen turns even where it
    // attends to all of them; asked for a number it looks for one.
    let schema = serde_json::json!({
        "type": "object",
        "properties": { "pass_key_of_the_chart_room": { "type": "integer" } },
        "required": ["pass_key_of_the_chart_room"],
        "additionalProperties": false,
    });
    let question = "What is the pass key of the chart room?";
    let said = say(question, 40, AnswerForm::JsonSchema(schema))?;
    println!("at turn {n_turns}: {}", said.text.trim());
    println!(
        "the fact of turn 1 is {}",
        if said.text.contains("71946") { "there" } else { "lost" }
    );
    drop(talk);
    drop(agent);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// Megabytes of this process's memory, the page cache not counted, where the system says.
fn anonymous_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    let kilobytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1000.0)
}
