//! Which scenes does an evaluation have? Every task at every length, depth and sample, in each
//! haystack; scenes that share a beginning follow one another.

use super::case::{Label, Scene};
use super::error::EvalError;
use super::haystack::Haystack;
use super::task::{N_FACTS, Task};
use super::tasks::kv::{self, KvCase};
use super::tasks::noise::{self, Secret};
use super::tasks::qa::{self, Paragraph};
use super::tasks::{needle, prose, tracking, words};
use crate::tokenizer::Tokenizer;

/// Tokens kept for question, answer, template and what is hidden.
const RESERVED: usize = 160;

/// The shortest prompt that makes sense.
const LEAST: usize = 2 * RESERVED;

/// What to ask.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Kinds of questions.
    pub tasks: Vec<Task>,
    /// Tokens of prompts, about.
    pub lengths: Vec<usize>,
    /// Where in the document the answer lies, from 0 to 1.
    pub depths: Vec<f32>,
    /// The first sample's number: another seed makes other scenes.
    pub seed: u64,
    /// Scenes that are alike in all else.
    pub n_samples: u64,
    /// Texts to hide things in.
    pub haystacks: Vec<Haystack>,
    /// Given cases of [`Task::Kv`], which are then asked instead of made ones.
    pub kv_cases: Vec<KvCase>,
    /// Paragraphs of [`Task::Qa`].
    pub paragraphs: Vec<Paragraph>,
}

impl Plan {
    /// The labels of all scenes.
    ///
    /// # Errors
    /// When a task lacks what it is made from, or a length is too short for it.
    pub fn labels(&self) -> Result<Vec<Label>, EvalError> {
        let mut labels = Vec::new();
        for task in &self.tasks {
            self.check(*task)?;
            let names = self.haystacks.iter().map(|haystack| Some(haystack.name().to_owned()));
            let haystacks = if task.takes_haystack() { names.collect() } else { vec![None] };
            for haystack in haystacks {
                for length in self.lengths_of(*task) {
                    for sample in self.seed..self.seed + self.n_samples {
                        for depth in self.depths_of(*task, length) {
                            let (task, haystack) = (*task, haystack.clone());
                            labels.push(Label { task, haystack, length, depth, sample });
                        }
                    }
                }
            }
        }
        Ok(labels)
    }

    fn check(&self, task: Task) -> Result<(), EvalError> {
        let missing = |needs| Err(EvalError::Missing { task, needs });
        if task.takes_haystack() && self.haystacks.is_empty() {
            return missing("a text to hide things in: --haystack FILE");
        }
        if task == Task::Qa && self.paragraphs.iter().all(|each| each.questions.is_empty()) {
            return missing("questions with their paragraphs, in SQuAD's form: --qa-file FILE");
        }
        let is_alone = |length| task == Task::Qa && length == 0;
        let mut short = self.lengths_of(task).into_iter().filter(|n| *n < LEAST && !is_alone(*n));
        match short.next() {
            Some(length) => Err(EvalError::ShortLength { task, length, least: LEAST }),
            None => Ok(()),
        }
    }

    fn lengths_of(&self, task: Task) -> Vec<usize> {
        match task {
            // Given cases have the lengths that they have.
            Task::Kv if !self.kv_cases.is_empty() => self.lengths.iter().take(1).copied().collect(),
            _ => self.lengths.clone(),
        }
    }

    fn depths_of(&self, task: Task, length: usize) -> Vec<Option<f32>> {
        let is_given = task == Task::Kv && !self.kv_cases.is_empty();
        if !task.takes_depth() || is_given || length == 0 {
            return vec![None];
        }
        self.depths.iter().copied().map(Some).collect()
    }

    /// The scene of a label.
    ///
    /// # Errors
    /// When its haystack is shorter than its length.
    pub fn scene(&self, label: &Label, tokenizer: &Tokenizer) -> Result<Scene, EvalError> {
        let count = |text: &str| tokenizer.encode_document(text).ids.len();
        let place = (label.length.saturating_sub(RESERVED), label.depth.unwrap_or(0.5));
        let mut rng = label.own_rng();
        let stretch = || {
            let named = |each: &&Haystack| Some(each.name()) == label.haystack.as_deref();
            let haystack = self.haystacks.iter().find(named).ok_or(EvalError::Missing {
                task: label.task,
                needs: "the text that the label names",
            })?;
            // What scenes of other depths share is drawn alike.
            haystack.stretch(place.0, &mut label.shared_rng())
        };
        Ok(match label.task {
            Task::Passkey => noise::scene(Secret::Passkey, place, &mut rng, &count),
            Task::Number => noise::scene(Secret::Number, place, &mut rng, &count),
            Task::Kv if self.kv_cases.is_empty() => kv::scene(place, &mut rng, &count),
            Task::Kv => kv::of_file(&self.kv_cases[label.sample as usize % self.kv_cases.len()]),
            Task::Needle => needle::scene(stretch()?, &[place.1], &mut rng),
            Task::MultiNeedle => {
                let depths = needle::spread(N_FACTS, &mut rng);
                needle::scene(stretch()?, &depths, &mut rng)
            }
            Task::VariableTracking => tracking::scene(place.0, &mut rng, &count),
            Task::CommonWords => words::scene(place.0, &mut rng, &count),
            Task::Qa => {
                // What is asked is the same at each length and depth, the paragraph alone included.
                let rngs = (&mut label.topic_rng(), &mut label.shared_rng());
                qa::scene(&self.paragraphs, place, rngs, &count)
            }
            Task::Perplexity => prose::scene(stretch()?),
        })
    }
}
