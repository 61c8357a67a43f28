//! How many units does an answer find where they were left, and which should make room for others? A text is
//! read, its continuation is drawn, and rules of eviction are tried on what each layer retrieved.
//!
//! ```text
//! cargo run --release --example unit_residency -- FILE [TOKENS] [ANSWER TOKENS]
//! ```

use std::collections::HashMap;
use std::ops::ControlFlow;

use mneme::engine::{Engine, EngineOptions, GenerateOptions, Sampling};
use mneme::hub::{DEFAULT_MODEL, resolve};
use mneme::ids::LayerIdx;
use mneme::memory::MemoryConfig;
use mneme::tokenizer::SpecialTokens;

/// A layer's part of a unit.
type Part = (usize, u32);

/// Which part makes room: the one that is worth least.
#[derive(Clone, Copy)]
enum Rule {
    /// Used longest ago.
    LeastRecent,
    /// Used least, each use worth so much of the next at each lookup of its layer (InfLLM).
    Decayed(f32),
    /// Needed again last: what no rule can surpass.
    Clairvoyant,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("which file? see the head of this example")?;
    let n_tokens: usize = arguments.next().map_or(Ok(32_768), |n| n.parse())?;
    let n_answer: usize = arguments.next().map_or(Ok(512), |n| n.parse())?;
    let path = resolve(DEFAULT_MODEL, &mut |_| ControlFlow::Continue(()))?;
    let engine = Engine::load(&path, &EngineOptions::default())?;
    // Each answer token looks up anew. By default what a question pins is all that its answer reads.
    let config =
        MemoryConfig { answer_chunk_tokens: 1, pinned_percent: 0, ..MemoryConfig::default() };
    let text = std::fs::read_to_string(&file)?;
    let ids = engine.tokenizer().encode(&text, SpecialTokens::AsText);
    let ids = ids.get(..n_tokens).ok_or_else(|| format!("{file} has {} tokens", ids.len()))?;
    let mut session = engine.session(&config)?;
    session.read_tokens(&ids[..n_tokens - 1], &mut |step| {
        eprint!("\rread {} of {} tokens", step.done_tokens, step.total_tokens);
        ControlFlow::Continue(())
    })?;
    eprintln!();
    session.prompt_tokens(&ids[n_tokens - 1..])?;
    let n_layers = engine.config().n_layers;
    let mut steps: Vec<Vec<Vec<u32>>> = Vec::new(); // [answer token][layer]: units
    for seed in 0..n_answer as u64 {
        let sampling = Sampling { temperature: 1.0, top_p: 0.9, seed, ..Sampling::default() };
        let options = GenerateOptions { max_tokens: 1, sampling, ..GenerateOptions::default() };
        session.generate(options).try_for_each(|piece| piece.map(|_| ()))?;
        let of_layer = |layer| session.memory().retrieved(LayerIdx(layer), 0).to_vec();
        steps.push((0..n_layers).map(of_layer).collect());
    }
    let n_units = session.memory().n_units();
    println!("{n_tokens} tokens, {n_units} units, {n_answer} answer tokens, {n_layers} layers");
    let by_step = steps.windows(2).flat_map(|pair| pair[0].iter().zip(&pair[1]));
    println!("retrieved for the token before as well: {:.1} %", 100.0 * shared(by_step));
    let by_layer = steps.iter().flat_map(|layers| layers.iter().zip(&layers[1..]));
    println!("retrieved by the layer before as well: {:.1} %", 100.0 * shared(by_layer));
    println!("\nunits a layer   least recent   decayed 0.9   decayed 0.99   clairvoyant");
    for units_a_layer in [8, 16, 32, 64, 128] {
        let slots = units_a_layer * n_layers;
        let rules = [Rule::LeastRecent, Rule::Decayed(0.9), Rule::Decayed(0.99), Rule::Clairvoyant];
        let hits = rules.map(|rule| format!("{:.1} %", 100.0 * hit_rate(&steps, slots, rule)));
        let [lru, fast, slow, best] = hits;
        println!("{units_a_layer:>13}   {lru:>12}   {fast:>11}   {slow:>12}   {best:>11}");
    }
    Ok(())
}

/// The share of the later's units that the earlier has as well.
fn shared<'a>(pairs: impl Iterator<Item = (&'a Vec<u32>, &'a Vec<u32>)>) -> f64 {
    let (mut n_shared, mut n) = (0, 0);
    for (earlier, later) in pairs {
        n += later.len();
        n_shared += later.iter().filter(|unit| earlier.contains(unit)).count();
    }
    n_shared as f64 / n.max(1) as f64
}

/// The share of parts that are in one of `slots` slots when they are needed, all layers together.
fn hit_rate(steps: &[Vec<Vec<u32>>], slots: usize, rule: Rule) -> f64 {
    let mut next_uses: HashMap<Part, Vec<usize>> = HashMap::new(); // latest first
    for (step, layers) in steps.iter().enumerate().rev() {
        for (layer, units) in layers.iter().enumerate() {
            units.iter().for_each(|unit| next_uses.entry((layer, *unit)).or_default().push(step));
        }
    }
    let mut there: HashMap<Part, (f32, usize)> = HashMap::new(); // uses that count, the last one
    let (mut hits, mut n) = (0, 0);
    for (step, layers) in steps.iter().enumerate() {
        for (layer, units) in layers.iter().enumerate() {
            n += units.len();
            for unit in units {
                let part = (layer, *unit);
                next_uses.get_mut(&part).and_then(Vec::pop);
                let before = there.get(&part).copied();
                hits += usize::from(before.is_some());
                if before.is_none() && there.len() == slots {
                    let worth = |part: &Part, (uses, last): (f32, usize)| match rule {
                        Rule::LeastRecent => last as f32,
                        Rule::Decayed(decay) => uses * decay.powi((step - last) as i32),
                        Rule::Clairvoyant => -(next_uses[part].last().map_or(1e9, |at| *at as f32)),
                    };
                    let is_free = |part: &Part| part.0 != layer || !units.contains(&part.1);
                    let others = there.iter().filter(|(part, _)| is_free(part));
                    let worths = others.map(|(part, state)| (worth(part, *state), *part));
                    let least = worths.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    there.remove(&least.expect("because other layers have slots").1);
                }
                let decay = if let Rule::Decayed(decay) = rule { decay } else { 1.0 };
                let uses =
                    before.map_or(0.0, |(uses, last)| uses * decay.powi((step - last) as i32));
                there.insert(part, (uses + 1.0, step));
            }
        }
    }
    hits as f64 / n.max(1) as f64
}
