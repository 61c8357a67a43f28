//! Are the questions of an evaluation what they say they are: the same for a seed, with their answer
//! where they say it lies, and answered the same whatever else is asked in the run?

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::OnceLock;

use mneme::engine::{Engine, EngineOptions};
use mneme::eval::{
    EvalError, Evaluation, Haystack, Key, Label, Paragraph, Plan, Policy, Record, Task, summarize,
};
use mneme::memory::{LookupPolicy, MemoryConfig};
use sha2::{Digest, Sha256};

use crate::fixtures::default_model;

fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let load = || Engine::load(&default_model(), &EngineOptions::default()).unwrap();
    ENGINE.get_or_init(load)
}

/// Sentences that are all different.
fn prose() -> String {
    (0..900).map(|i| format!("On day {i} the ship made {} miles. ", i * 37 % 101)).collect()
}

fn plan(tasks: &[Task]) -> Plan {
    let paragraph = |i: usize| Paragraph {
        context: format!("The town of Alba {i} has {} towers and a gate of stone.", 3 * i + 1),
        questions: vec![(format!("How many towers has Alba {i}?"), vec![format!("{}", 3 * i + 1)])],
    };
    Plan {
        tasks: tasks.to_vec(),
        lengths: vec![1500],
        depths: vec![0.2, 0.8],
        seed: 7,
        n_samples: 1,
        haystacks: vec![Haystack::new("voyage", prose(), engine().tokenizer())],
        kv_cases: Vec::new(),
        paragraphs: (0..60).map(paragraph).collect(),
    }
}

/// Small sizes, so that a short text has units too.
fn small() -> MemoryConfig {
    MemoryConfig {
        sink_tokens: 16,
        window_tokens: 128,
        unit_tokens: 32,
        chunk_tokens: 128,
        retrieved_units: 4,
        unpinned_units: 2,
        read_query_tokens: 0,
        ..MemoryConfig::default()
    }
}

fn policy(name: &str, change: impl FnOnce(&mut MemoryConfig)) -> Policy {
    let mut memory = small();
    change(&mut memory);
    Policy { name: name.to_owned(), memory }
}

fn run(plan: &Plan, policies: &[Policy], done: &HashSet<Key>) -> Vec<Record> {
    let evaluation = Evaluation { engine: engine(), model: "default", policies, plan, done };
    let mut records = Vec::new();
    let mut sink = |record| {
        records.push(record);
        Ok(())
    };
    evaluation.run(&mut sink, &mut |_| ControlFlow::Continue(())).unwrap();
    records
}

#[test]
fn scenes_are_the_same_for_a_seed_for_ever() {
    let plan = plan(&Task::ALL);
    let mut hash = Sha256::new();
    for label in plan.labels().unwrap() {
        let scene = plan.scene(&label, engine().tokenizer()).unwrap();
        hash.update(&scene.document);
        for case in &scene.cases {
            hash.update(format!("{}{}{:?}", case.question, case.answer_start, case.answers));
        }
    }
    let found: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(found, "127d6f3ef1a82ae0", "results of other versions no longer compare");
}

#[test]
fn answers_lie_where_scenes_say() {
    let plan = plan(&Task::ALL);
    let labels = plan.labels().unwrap();
    assert_eq!(labels.len(), 5 * 2 + 4, "two depths where there is one place");
    for label in labels {
        let scene = plan.scene(&label, engine().tokenizer()).unwrap();
        let n_tokens = engine().tokenizer().encode_document(&scene.document).ids.len();
        assert!((1000..1500).contains(&n_tokens), "{label:?}: {n_tokens} tokens");
        assert_eq!(scene.cases.len(), label.task.n_cases());
        for case in &scene.cases {
            for span in &case.evidence {
                let text = &scene.document[span.start..span.end];
                let is_chain = label.task == Task::VariableTracking;
                assert!(is_chain || text.contains(&case.answers[0]), "{label:?}: {text}");
            }
            let Some(depth) = case.depth else { continue };
            let place = case.evidence[0].start as f32 / scene.document.len() as f32;
            assert!((place - depth).abs() < 0.1, "{label:?}: at {place}, not {depth}");
        }
    }
}

#[test]
fn what_a_plan_lacks_is_said() {
    let lacks = |change: fn(&mut Plan), task: Task| {
        let mut plan = plan(&[task]);
        change(&mut plan);
        let made = plan.labels().and_then(|labels| {
            labels.iter().try_for_each(|label| plan.scene(label, engine().tokenizer()).map(drop))
        });
        made.unwrap_err()
    };
    let message = lacks(|plan| plan.haystacks.clear(), Task::Needle).to_string();
    assert!(message.contains("--haystack"), "{message}");
    let message = lacks(|plan| plan.paragraphs.clear(), Task::Qa).to_string();
    assert!(message.contains("--qa-file"), "{message}");
    let error = lacks(|plan| plan.lengths = vec![200_000], Task::Needle);
    assert!(matches!(&error, EvalError::ShortHaystack { name, .. } if name == "voyage"));
    assert!(error.to_string().contains("--repeat"), "{error}");
    let error = lacks(|plan| plan.lengths = vec![100], Task::Passkey);
    assert!(matches!(error, EvalError::ShortLength { length: 100, .. }));
    let repeated = plan(&[]).haystacks[0].repeated(50_000);
    assert!(repeated.n_tokens() >= 50_000);
    assert!(repeated.stretch(50_000, &mut fastrand::Rng::with_seed(1)).is_ok());
}

/// What a result says of the answer, without its times.
fn outcome(record: &Record) -> (Label, String, f64, Option<bool>) {
    (record.label.clone(), record.policy.clone(), record.log_probability, record.sought)
}

#[test]
fn a_case_goes_the_same_whatever_else_is_asked() {
    let policies = [
        policy("two-stage", |_| {}),
        policy("bound", |memory| memory.lookup = LookupPolicy::Bound),
        policy("reading", |memory| memory.read_query_tokens = 16),
    ];
    let all = Plan { lengths: vec![700], ..plan(&[Task::Needle]) };
    let together = run(&all, &policies, &HashSet::new());
    assert_eq!(together.len(), 2 * policies.len());
    let alone = policies.iter().flat_map(|policy| {
        all.depths.iter().map(|depth| {
            let one = Plan { depths: vec![*depth], ..all.clone() };
            run(&one, std::slice::from_ref(policy), &HashSet::new()).remove(0)
        })
    });
    let alone: Vec<Record> = alone.collect();
    for record in &alone {
        let same = |other: &&Record| other.key() == record.key();
        let shared = together.iter().find(same).expect("the case was asked");
        assert_eq!(outcome(shared), outcome(record), "a shared reading changes nothing");
    }
    let lines = summarize(&together);
    assert_eq!(lines.len(), policies.len());
    assert!(lines.iter().all(|line| line.n_cases == 2 && line.log_probability < 0.0));
}

#[test]
fn what_was_done_is_not_done_again() {
    let policies = [policy("two-stage", |_| {})];
    let plan = plan(&[Task::Needle, Task::CommonWords]);
    let first = run(&plan, &policies, &HashSet::new());
    assert_eq!(first.len(), 3);
    let done: HashSet<Key> = first[..2].iter().map(Record::key).collect();
    let rest = run(&plan, &policies, &done);
    assert_eq!(rest.len(), 1);
    assert_eq!(outcome(&rest[0]), outcome(&first[2]));
    // Nor is it where only one of two policies that share a reading has something left to do.
    let both = [policies[0].clone(), policy("exact", |memory| memory.lookup = LookupPolicy::Exact)];
    let all_of_first: HashSet<Key> = first.iter().map(Record::key).collect();
    let added = run(&plan, &both, &all_of_first);
    assert_eq!(added.len(), 3);
    assert!(added.iter().all(|record| record.policy == "exact"));
    let other = [policy("two-stage", |memory| memory.retrieved_units = 3)];
    assert_eq!(run(&plan, &other, &done).len(), 3, "other settings are another evaluation");
}

#[test]
fn a_memory_that_retrieves_nothing_finds_nothing_and_says_so() {
    // Of seed 7 the model gives one digit wrong, whose units are retrieved.
    let plan = Plan { seed: 8, ..plan(&[Task::Passkey]) };
    let policies =
        [policy("two-stage", |_| {}), policy("none", |memory| memory.lookup = LookupPolicy::None)];
    let records = run(&plan, &policies, &HashSet::new());
    for record in &records {
        let retrieves = record.policy == "two-stage";
        assert_eq!((record.found, record.sought), (retrieves, Some(retrieves)), "{record:?}");
    }
}
