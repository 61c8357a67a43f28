//! How are cases run? A document is read once for all its questions, and once for all policies that
//! read alike. Each case is then asked of a fork.

use std::collections::HashSet;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::case::{Label, Measure, Scene, answer_tokens};
use super::error::EvalError;
use super::plan::Plan;
use super::reading::Reader;
use super::record::{Key, Record};
use super::words::{first_line, share_of_words};
use crate::engine::{
    AskPrompt, Engine, EngineError, GenerateOptions, Progress, ProgressFn, Session, no_progress,
};
use crate::ids::TokenId;
use crate::memory::MemoryConfig;

/// Tokens of a generated answer at most.
const ANSWER_TOKENS: usize = 48;

/// Settings under a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// As results have it.
    pub name: String,
    /// The settings.
    pub memory: MemoryConfig,
}

/// A plan to be carried out.
pub struct Evaluation<'a> {
    /// The model.
    pub engine: &'a Engine,
    /// What stands for the model in fingerprints.
    pub model: &'a str,
    /// Compared with one another.
    pub policies: &'a [Policy],
    /// What is asked.
    pub plan: &'a Plan,
    /// What need not be done again.
    pub done: &'a HashSet<Key>,
}

/// Is given each result as it comes.
pub type Sink<'a> = dyn FnMut(Record) -> std::io::Result<()> + 'a;

/// Policies that read alike, and how.
struct Group<'a> {
    reading: MemoryConfig,
    policies: Vec<&'a Policy>,
}

/// A scene, ready to be read and asked.
struct Ready {
    label: Label,
    scene: Scene,
    prompts: Vec<AskPrompt>,    // [case], with the answer's beginning
    answers: Vec<Vec<TokenId>>, // [case]
}

/// What was measured of a case.
struct Measured {
    answer_tokens: usize,
    right_tokens: usize,
    log_probability: f64,
    sought: Option<bool>,
    answer: Option<String>,
    attended_tokens_max: usize,
}

impl Policy {
    /// Stands for model and settings.
    pub fn fingerprint(&self, model: &str) -> String {
        let settings = serde_json::to_string(&self.memory).expect("because it is plain data");
        let hash = Sha256::digest(format!("{model}\n{settings}"));
        hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Evaluation<'_> {
    /// Runs what was not done yet; `progress` counts tokens read.
    ///
    /// # Errors
    /// When a scene cannot be made, the engine refuses, a result cannot be kept, or `progress` says
    /// to stop; results until then were given out.
    pub fn run(&self, sink: &mut Sink<'_>, progress: &mut ProgressFn<'_>) -> Result<(), EvalError> {
        let labels = self.plan.labels()?;
        let groups = groups(self.policies);
        let is_pending = |group: &Group<'_>, label: &&Label| {
            group.policies.iter().any(|policy| !self.is_done(policy, label))
        };
        let pending: Vec<(&Group<'_>, Vec<&Label>)> = groups
            .iter()
            .map(|group| (group, labels.iter().filter(|label| is_pending(group, label)).collect()))
            .collect();
        let total_tokens = pending.iter().flat_map(|(_, labels)| labels).map(|l| l.length).sum();
        let mut before = 0;
        for (group, labels) in pending {
            let mut reader = Reader::new(self.engine, &group.reading);
            let mut next = None;
            for (i, label) in labels.iter().enumerate() {
                let ready = next.take().map_or_else(|| self.ready(label), Ok)?;
                next = labels.get(i + 1).map(|label| self.ready(label)).transpose()?;
                let mut count = |step: Progress| {
                    let done_tokens = (before + step.done_tokens).min(total_tokens);
                    progress(Progress { done_tokens, total_tokens })
                };
                let scene = (&ready, next.as_ref(), &mut reader);
                self.run_scene(group, scene, sink, &mut count)?;
                before += label.length;
            }
        }
        Ok(())
    }

    fn is_done(&self, policy: &Policy, label: &Label) -> bool {
        (0..label.task.n_cases()).all(|case| self.is_case_done(policy, label, case))
    }

    fn is_case_done(&self, policy: &Policy, label: &Label, case: usize) -> bool {
        self.done.contains(&Key::new(&policy.fingerprint(self.model), label, case))
    }

    fn ready(&self, label: &Label) -> Result<Ready, EvalError> {
        let scene = self.plan.scene(label, self.engine.tokenizer())?;
        let (mut prompts, mut answers) = (Vec::new(), Vec::new());
        for case in &scene.cases {
            let (start, answer) = answer_tokens(self.engine.tokenizer(), case);
            prompts.push(self.engine.ask_prompt(&scene.document, &case.question, &start)?);
            answers.push(answer);
        }
        Ok(Ready { label: label.clone(), scene, prompts, answers })
    }

    fn run_scene(
        &self,
        group: &Group<'_>,
        (ready, next, reader): (&Ready, Option<&Ready>, &mut Reader<'_>),
        sink: &mut Sink<'_>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EvalError> {
        if ready.scene.cases.iter().any(|case| case.measure == Measure::Perplexity) {
            return self.run_perplexity(group, ready, sink, progress);
        }
        let next = next.and_then(|next| next.prompts.first());
        let (session, read) = reader.read(&ready.prompts[0], next, progress)?;
        let pending = group.policies.iter().filter(|policy| !self.is_done(policy, &ready.label));
        for policy in pending {
            let base = session.fork(&policy.memory)?;
            for (case, prompt) in ready.prompts.iter().enumerate() {
                if self.is_case_done(policy, &ready.label, case) {
                    continue;
                }
                let begun = Instant::now();
                let measured = self.ask(&base, policy, (ready, case))?;
                let seconds = (read.as_secs_f64(), begun.elapsed().as_secs_f64());
                sink(self.record(policy, (ready, case), measured, seconds))?;
                // A stop counts between cases too.
                let n = prompt.document_ids().len();
                stop_if_asked(progress, Progress { done_tokens: n, total_tokens: n })?;
            }
        }
        Ok(())
    }

    /// Asks one case of a fork of what was read.
    fn ask(
        &self,
        base: &Session,
        policy: &Policy,
        (ready, case_idx): (&Ready, usize),
    ) -> Result<Measured, EngineError> {
        let (case, prompt) = (&ready.scene.cases[case_idx], &ready.prompts[case_idx]);
        let mut session = base.fork(&policy.memory)?;
        session.take_question(prompt, &mut no_progress)?;
        let answer = match case.measure {
            Measure::Words => Some(generate(&mut session.fork(&policy.memory)?)?),
            Measure::Forced | Measure::Perplexity => None,
        };
        let forced = session.force_answer(&ready.answers[case_idx])?;
        let memory = session.memory();
        let tokens = case.evidence.iter().flat_map(|span| prompt.tokens_of(*span));
        // What is in part in sinks or window need not be retrieved.
        let units: Option<HashSet<usize>> = tokens.map(|token| memory.unit_of(token)).collect();
        let units = units.filter(|units| !units.is_empty());
        Ok(Measured {
            answer_tokens: forced.len(),
            right_tokens: forced.iter().filter(|token| token.is_likeliest).count(),
            log_probability: forced.iter().map(|token| f64::from(token.log_probability)).sum(),
            sought: units.map(|units| units.iter().any(|unit| memory.was_sought(*unit))),
            answer,
            attended_tokens_max: memory.max_attended_tokens(),
        })
    }

    fn run_perplexity(
        &self,
        group: &Group<'_>,
        ready: &Ready,
        sink: &mut Sink<'_>,
        progress: &mut ProgressFn<'_>,
    ) -> Result<(), EvalError> {
        let mut session = self.engine.session(&group.policies[0].memory)?;
        let ids = self.engine.tokenizer().encode_document(&ready.scene.document).ids;
        let begun = Instant::now();
        let score = session.score(&ids, progress)?;
        let second_half = &score.nll[score.nll.len() / 2..];
        let pending = group.policies.iter().filter(|policy| !self.is_done(policy, &ready.label));
        for policy in pending {
            let measured = Measured {
                answer_tokens: second_half.len(),
                right_tokens: 0,
                log_probability: -second_half.iter().map(|nll| f64::from(*nll)).sum::<f64>(),
                sought: None,
                answer: None,
                attended_tokens_max: session.memory().max_attended_tokens(),
            };
            let seconds = (begun.elapsed().as_secs_f64(), 0.0);
            sink(self.record(policy, (ready, 0), measured, seconds))?;
        }
        Ok(())
    }

    fn record(
        &self,
        policy: &Policy,
        (ready, case_idx): (&Ready, usize),
        measured: Measured,
        (read_seconds, answer_seconds): (f64, f64),
    ) -> Record {
        let case = &ready.scene.cases[case_idx];
        let prompt = &ready.prompts[case_idx];
        let Measured { answer_tokens, right_tokens, log_probability, sought, .. } = measured;
        let is_asked = case.measure != Measure::Perplexity;
        Record {
            policy: policy.name.clone(),
            fingerprint: policy.fingerprint(self.model),
            label: ready.label.clone(),
            case: case_idx,
            case_depth: case.depth,
            prompt_tokens: prompt.document_ids().len() + prompt.question_ids().len(),
            answer_tokens,
            right_tokens,
            found: is_asked && right_tokens == answer_tokens,
            log_probability,
            sought,
            f1: measured.answer.as_ref().map(|answer| share_of_words(answer, &case.answers)),
            answer: measured.answer,
            read_seconds,
            answer_seconds,
            attended_tokens_max: measured.attended_tokens_max,
        }
    }
}

/// What a greedy answer says, up to a closing quotation mark or the end of its line.
fn generate(session: &mut Session) -> Result<String, EngineError> {
    let options = GenerateOptions { max_tokens: ANSWER_TOKENS, ..Default::default() };
    let mut text = String::new();
    for piece in session.generate(options) {
        text += &piece?.text;
        if text.trim_start().contains(['\n', '"']) {
            break;
        }
    }
    let quoted = text.split('"').next().unwrap_or_default();
    Ok(first_line(quoted).to_owned())
}

fn stop_if_asked(progress: &mut ProgressFn<'_>, step: Progress) -> Result<(), EngineError> {
    if progress(step).is_break() {
        let Progress { done_tokens, total_tokens } = step;
        return Err(EngineError::Stopped { done_tokens, total_tokens });
    }
    Ok(())
}

/// Policies by how they read, in the order in which they first come.
fn groups(policies: &[Policy]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for policy in policies {
        let reading = policy.memory.for_reading();
        match groups.iter_mut().find(|group| group.reading == reading) {
            Some(group) => group.policies.push(policy),
            None => groups.push(Group { reading, policies: vec![policy] }),
        }
    }
    groups
}
