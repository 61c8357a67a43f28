//! What do many results come to? A line for each task, length and policy.

use std::collections::{BTreeMap, HashSet};

use super::record::Record;
use super::task::Task;

/// What the results of a task at a length under a policy come to.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The task.
    pub task: Task,
    /// Tokens of prompts, about.
    pub length: usize,
    /// The policy's name.
    pub policy: String,
    /// Cases.
    pub n_cases: usize,
    /// Share of cases that were found.
    pub found: f64,
    /// Mean log-probability of the right answer, in nats; of a token for perplexity.
    pub log_probability: f64,
    /// Share of cases, of those whose answer was not in view, in which a layer retrieved it.
    pub sought: Option<f64>,
    /// Mean F1, where words were measured.
    pub f1: Option<f64>,
    /// Mean seconds for question and answer.
    pub answer_seconds: f64,
}

/// A line for each task, length and policy, policies in the order in which they first come.
pub fn summarize(records: &[Record]) -> Vec<Line> {
    let policies = policies(records);
    let mut groups: BTreeMap<(Task, usize, Option<usize>), Vec<&Record>> = BTreeMap::new();
    for record in records {
        let policy = policies.iter().position(|policy| *policy == record.policy);
        groups.entry((record.label.task, record.label.length, policy)).or_default().push(record);
    }
    groups.values().map(|group| line(group)).collect()
}

/// The policies' names, in the order in which they first come.
pub fn policies(records: &[Record]) -> Vec<&str> {
    let mut seen = HashSet::new();
    records.iter().map(|record| record.policy.as_str()).filter(|name| seen.insert(*name)).collect()
}

fn line(group: &[&Record]) -> Line {
    let first = group[0];
    let is_perplexity = first.label.task == Task::Perplexity;
    let log_probability = |record: &&Record| match is_perplexity {
        true => Some(record.log_probability / record.answer_tokens.max(1) as f64),
        false => Some(record.log_probability),
    };
    let share = |holds: bool| if holds { 1.0 } else { 0.0 };
    Line {
        task: first.label.task,
        length: first.label.length,
        policy: first.policy.clone(),
        n_cases: group.len(),
        found: mean(group.iter().map(|record| Some(share(record.found)))).unwrap_or(0.0),
        log_probability: mean(group.iter().map(log_probability)).unwrap_or(0.0),
        sought: mean(group.iter().map(|record| record.sought.map(share))),
        f1: mean(group.iter().map(|record| record.f1)),
        answer_seconds: mean(group.iter().map(|record| Some(record.answer_seconds))).unwrap_or(0.0),
    }
}

/// The mean of those that there are.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
