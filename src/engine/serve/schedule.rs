//! Whose turn is it? Before each step it is decided anew which sequences take part in it, so that a
//! short question does not wait for a long document. Nothing here knows a model: this is a data
//! structure over names, sizes and times.
//!
//! `Feedback` is a multi-level feedback queue that long prompts join further down (FastServe, arXiv
//! 2305.05920). A queue's quantum is twice that of the one before it; who has used up its quantum goes
//! down a queue, who has waited for long goes up to the first. Tokens of questions and answers of all
//! queues take part in every step, since they cost little beside the weights read for them; a chunk of
//! a document takes part when nobody in a higher queue is held up by it.
//! `FirstCome` takes whoever came first, a chunk of a document in every step.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SchedulePolicy {
    /// Who has been served least, as a feedback queue knows it.
    #[default]
    Feedback,
    /// Who came first.
    FirstCome,
}

/// How turns are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleConfig {
    /// Who goes first.
    pub policy: SchedulePolicy,
    /// Tokens of a step at most.
    pub step_tokens: usize,
    /// Sequences in a step at most.
    pub step_sequences: usize,
    /// Bytes of windows that a step may need, unless it is of one sequence alone.
    pub step_bytes: usize,
    /// What a sequence may use in the first queue before it goes down: tokens read, of which each
    /// token of a question or an answer counts as several.
    pub first_quantum: u64,
    /// Queues.
    pub n_queues: u32,
    /// Who was not served for so long goes to the first queue.
    pub promote_after: Duration,
}

/// A token of a question or an answer takes about as long as so many read in a chunk.
pub const TOKEN_COST: u64 = 4;

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            policy: SchedulePolicy::Feedback,
            step_tokens: 512,
            step_sequences: 32,
            step_bytes: usize::MAX,
            first_quantum: 512,
            n_queues: 8,
            promote_after: Duration::from_secs(2),
        }
    }
}

/// Which sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// What a sequence would do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Read a chunk of so many tokens of a document.
    Read(usize),
    /// Take in so many tokens of a question or an answer.
    Say(usize),
    /// Nothing for now: whoever listens to it is slower than we are.
    Wait,
}

impl Demand {
    pub(super) fn n_tokens(self) -> usize {
        match self {
            Self::Read(n) | Self::Say(n) => n,
            Self::Wait => 0,
        }
    }

    fn cost(self) -> u64 {
        match self {
            Self::Read(n) => n as u64,
            Self::Say(n) => n as u64 * TOKEN_COST,
            Self::Wait => 0,
        }
    }
}

/// The sequences that want turns.
#[derive(Debug)]
pub struct Schedule {
    config: ScheduleConfig,
    entries: Vec<Entry>, // in the order in which they came
    n_joined: u64,
    candidates: Vec<(u32, usize)>, // scratch: queue, entry
}

#[derive(Debug)]
struct Entry {
    id: SequenceId,
    queue: u32,
    joined: u64, // the how manieth to join a queue, so that each is served in order
    used: u64,   // of the queue's quantum
    served_at: Duration,
}

impl Schedule {
    /// Nobody yet.
    ///
    /// # Panics
    /// When a size is 0.
    pub fn new(config: ScheduleConfig) -> Self {
        let sizes = [config.step_tokens, config.step_sequences, config.n_queues as usize];
        assert!(!sizes.contains(&0) && config.first_quantum > 0, "sizes from 1 on");
        Self { config, entries: Vec::new(), n_joined: 0, candidates: Vec::new() }
    }

    /// Sequences that there are.
    pub fn n_sequences(&self) -> usize {
        self.entries.len()
    }

    /// Adds a sequence that has `prompt_tokens` to take in before it answers: a long prompt joins the
    /// first queue in whose quantum it can be read.
    pub fn add(&mut self, id: SequenceId, prompt_tokens: usize, now: Duration) {
        let fits = |queue: &u32| self.quantum(*queue) >= prompt_tokens as u64;
        let last = self.config.n_queues - 1;
        let queue = (0..last).find(fits).unwrap_or(last);
        self.n_joined += 1;
        self.entries.push(Entry { id, queue, joined: self.n_joined, used: 0, served_at: now });
    }

    /// Forgets a sequence.
    pub fn remove(&mut self, id: SequenceId) {
        self.entries.retain(|entry| entry.id != id);
    }

    /// Decides who takes part in the step that begins now, and counts it as served. `demand` says
    /// what each would do, and the bytes that its window then takes; none is asked for more tokens
    /// than a step has.
    pub fn plan(
        &mut self,
        now: Duration,
        mut demand: impl FnMut(SequenceId) -> (Demand, usize),
    ) -> Vec<SequenceId> {
        self.promote(now);
        let mut candidates = std::mem::take(&mut self.candidates);
        self.in_order(&mut candidates);
        let demands: Vec<(Demand, usize)> =
            candidates.iter().map(|(_, i)| demand(self.entries[*i].id)).collect();
        let chosen = self.choose(&candidates, &demands);
        let mut ids = Vec::with_capacity(chosen.len());
        for at in chosen {
            let (_, i) = candidates[at];
            ids.push(self.entries[i].id);
            self.serve(i, demands[at].0.cost(), now);
        }
        self.candidates = candidates;
        ids
    }

    /// All sequences, who would be served last first.
    pub fn last_first(&mut self) -> Vec<SequenceId> {
        let mut candidates = std::mem::take(&mut self.candidates);
        self.in_order(&mut candidates);
        let ids = candidates.iter().rev().map(|(_, i)| self.entries[*i].id).collect();
        self.candidates = candidates;
        ids
    }

    /// Queue and number of each entry, in the order in which they go.
    fn in_order(&self, candidates: &mut Vec<(u32, usize)>) {
        candidates.clear();
        candidates.extend(self.entries.iter().enumerate().map(|(i, entry)| (entry.queue, i)));
        if self.config.policy == SchedulePolicy::Feedback {
            candidates.sort_by_key(|(queue, i)| (*queue, self.entries[*i].joined));
        }
    }

    /// Which candidates, given in the order in which they go, take part in a step.
    fn choose(&self, candidates: &[(u32, usize)], demands: &[(Demand, usize)]) -> Vec<usize> {
        let ScheduleConfig { policy, step_tokens, step_sequences, step_bytes, .. } = self.config;
        let first = |of: fn(&Demand) -> bool| demands.iter().position(|(demand, _)| of(demand));
        let speaker = first(|demand| matches!(demand, Demand::Say(n) if *n > 0));
        let reader = first(|demand| matches!(demand, Demand::Read(n) if *n > 0));
        // One chunk of a document makes a step long for those who wait for their next token.
        let reader = reader.filter(|reader| {
            speaker.is_none_or(|speaker| {
                let (first, other) = (candidates[speaker].0, candidates[*reader].0);
                let is_due = policy == SchedulePolicy::FirstCome || other <= first;
                let bytes = demands[speaker].1.saturating_add(demands[*reader].1);
                let both_fit = step_sequences > 1 && bytes <= step_bytes;
                is_due && (both_fit || *reader < speaker)
            })
        });
        let mut chosen: Vec<usize> = reader.into_iter().collect();
        let mut left = step_tokens - reader.map_or(0, |reader| demands[reader].0.n_tokens());
        let mut bytes = reader.map_or(0, |reader| demands[reader].1);
        for (at, (demand, its_bytes)) in demands.iter().enumerate() {
            let Demand::Say(n_tokens) = *demand else { continue };
            let with_it = bytes.saturating_add(*its_bytes);
            let fits = n_tokens <= left && (chosen.is_empty() || with_it <= step_bytes);
            if n_tokens > 0 && fits && chosen.len() < step_sequences {
                left -= n_tokens;
                bytes = with_it;
                chosen.push(at);
            }
        }
        chosen
    }

    fn promote(&mut self, now: Duration) {
        let after = self.config.promote_after;
        for entry in &mut self.entries {
            if entry.queue > 0 && now.saturating_sub(entry.served_at) >= after {
                self.n_joined += 1;
                (entry.queue, entry.joined, entry.used) = (0, self.n_joined, 0);
            }
        }
    }

    fn serve(&mut self, i: usize, cost: u64, now: Duration) {
        let quantum = self.quantum(self.entries[i].queue);
        let last = self.config.n_queues - 1;
        let entry = &mut self.entries[i];
        entry.served_at = now;
        entry.used += cost;
        if entry.used >= quantum && entry.queue < last {
            self.n_joined += 1;
            (entry.queue, entry.joined, entry.used) = (entry.queue + 1, self.n_joined, 0);
        }
    }

    fn quantum(&self, queue: u32) -> u64 {
        self.config.first_quantum.saturating_mul(1u64.checked_shl(queue).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence of the tests: what it reads, then what it says.
    #[derive(Clone, Debug)]
    struct Job {
        arrives_ms: u64,
        reads: usize,
        says: usize,
        ended_ms: Option<u64>,
        longest_wait_ms: u64,
        served_ms: u64,
    }

    fn job(arrives_ms: u64, reads: usize, says: usize) -> Job {
        let (ended_ms, longest_wait_ms) = (None, 0);
        Job { arrives_ms, reads, says, ended_ms, longest_wait_ms, served_ms: arrives_ms }
    }

    const CHUNK: usize = 256;

    /// Runs jobs to their end: a step takes 10 ms, and 1 ms for each token read.
    fn simulate(config: ScheduleConfig, jobs: &[Job]) -> Vec<Job> {
        let mut jobs = jobs.to_vec();
        let mut schedule = Schedule::new(config);
        let (mut now, mut arrived) = (0, 0);
        while jobs.iter().any(|job| job.ended_ms.is_none()) {
            while arrived < jobs.len() && jobs[arrived].arrives_ms <= now {
                let id = SequenceId(arrived as u64);
                schedule.add(id, jobs[arrived].reads, Duration::from_millis(now));
                arrived += 1;
            }
            let demand = |id: SequenceId| match &jobs[id.0 as usize] {
                Job { reads: 0, .. } => Demand::Say(1),
                Job { reads, .. } => Demand::Read(CHUNK.min(*reads)),
            };
            let bytes = |id: SequenceId| 10 + id.0 as usize % 7;
            let turns = schedule.plan(Duration::from_millis(now), |id| (demand(id), bytes(id)));
            let n_tokens: usize = turns.iter().map(|id| demand(*id).n_tokens()).sum();
            let n_bytes: usize = turns.iter().map(|id| bytes(*id)).sum();
            assert!(turns.len() == 1 || n_bytes <= config.step_bytes);
            assert!(n_tokens <= config.step_tokens && turns.len() <= config.step_sequences);
            assert!(!turns.is_empty() || schedule.n_sequences() == 0, "somebody is always served");
            let begun = now;
            let mut took = 10;
            for id in &turns {
                let job = &mut jobs[id.0 as usize];
                job.longest_wait_ms = job.longest_wait_ms.max(begun - job.served_ms);
                let reads = CHUNK.min(job.reads);
                job.reads -= reads;
                took += reads as u64;
                job.says -= usize::from(reads == 0);
            }
            now += took;
            for id in turns {
                let job = &mut jobs[id.0 as usize];
                job.served_ms = now;
                if job.reads == 0 && job.says == 0 {
                    job.ended_ms = Some(now);
                    schedule.remove(id);
                }
            }
        }
        jobs
    }

    fn config(policy: SchedulePolicy) -> ScheduleConfig {
        ScheduleConfig { policy, ..ScheduleConfig::default() }
    }

    fn random_jobs(random: &mut fastrand::Rng) -> Vec<Job> {
        let mut at = 0;
        let mut next = || {
            at += random.u64(0..400);
            let reads =
                if random.u8(0..3) == 0 { random.usize(0..20_000) } else { random.usize(0..600) };
            job(at, reads, random.usize(1..150))
        };
        (0..40).map(|_| next()).collect()
    }

    #[test]
    fn nobody_starves_whatever_comes() {
        for seed in 0..60 {
            let random = &mut fastrand::Rng::with_seed(seed);
            let jobs = random_jobs(random);
            let config = ScheduleConfig {
                step_sequences: random.usize(1..40),
                step_bytes: random.usize(1..200),
                n_queues: random.u32(1..10),
                first_quantum: random.u64(1..2000),
                ..config(SchedulePolicy::Feedback)
            };
            for job in simulate(config, &jobs) {
                // Promoted after two seconds, then behind those who were there before: a quantum each,
                // of tokens that each come with somebody else's chunk at worst.
                let turn_ms = (config.first_quantum / TOKEN_COST + 2) * (CHUNK as u64 + 20);
                assert!(job.longest_wait_ms <= 2_000 + 40 * turn_ms, "seed {seed}: {job:?}");
            }
        }
    }

    #[test]
    fn nobody_waits_for_long_where_a_step_has_room() {
        for seed in 0..20 {
            let jobs = random_jobs(&mut fastrand::Rng::with_seed(seed));
            for job in simulate(config(SchedulePolicy::Feedback), &jobs) {
                assert!(job.longest_wait_ms < 30_000, "seed {seed}: {job:?}");
            }
        }
    }

    #[test]
    fn a_short_question_does_not_wait_for_a_long_document() {
        let jobs = [job(0, 50_000, 10), job(1_000, 20, 30)];
        let ended = |policy| simulate(config(policy), &jobs)[1].ended_ms.unwrap() - 1_000;
        assert!(ended(SchedulePolicy::Feedback) < 1_500, "30 steps of its own, and promotions");
        assert!(ended(SchedulePolicy::FirstCome) > 30 * 200, "a chunk of the document in each");
    }

    #[test]
    fn a_document_is_read_on_while_others_talk_without_end() {
        let mut jobs = vec![job(0, 20_000, 1)];
        jobs.extend((0..4).map(|_| job(10, 0, 20_000)));
        let ended = simulate(config(SchedulePolicy::Feedback), &jobs);
        assert!(ended[0].ended_ms < ended[1].ended_ms);
    }

    #[test]
    fn equals_are_served_alike() {
        let jobs: Vec<Job> = (0..6).map(|_| job(0, 3_000, 40)).collect();
        for policy in [SchedulePolicy::Feedback, SchedulePolicy::FirstCome] {
            let ended = simulate(config(policy), &jobs);
            let at = |job: &Job| job.ended_ms.unwrap();
            let first = ended.iter().map(at).min().unwrap();
            let last = ended.iter().map(at).max().unwrap();
            assert!(last <= 6 * first, "{policy:?}: {first} to {last}");
        }
    }

    #[test]
    fn mean_completion_is_shorter_than_by_arrival_where_sizes_differ() {
        let mean = |jobs: &[Job], policy| {
            let done = simulate(config(policy), jobs);
            let took = done.iter().map(|job| job.ended_ms.unwrap() - job.arrives_ms);
            took.sum::<u64>() / done.len() as u64
        };
        for seed in 0..10 {
            let jobs = random_jobs(&mut fastrand::Rng::with_seed(seed));
            let by_feedback = mean(&jobs, SchedulePolicy::Feedback);
            let by_arrival = mean(&jobs, SchedulePolicy::FirstCome);
            assert!(by_feedback < by_arrival, "seed {seed}: {by_feedback} beside {by_arrival} ms");
        }
    }

    #[test]
    fn who_waits_for_a_listener_takes_no_place() {
        let mut schedule = Schedule::new(ScheduleConfig {
            step_sequences: 1,
            ..config(SchedulePolicy::FirstCome)
        });
        schedule.add(SequenceId(1), 0, Duration::ZERO);
        schedule.add(SequenceId(2), 0, Duration::ZERO);
        let demand = |id| match id == SequenceId(1) {
            true => (Demand::Wait, 0),
            false => (Demand::Say(1), 0),
        };
        assert_eq!(schedule.plan(Duration::ZERO, demand), [SequenceId(2)]);
    }

    #[test]
    fn long_prompts_join_further_down() {
        let mut schedule = Schedule::new(config(SchedulePolicy::Feedback));
        for (id, tokens) in [(0, 512), (1, 513), (2, 100_000_000)] {
            schedule.add(SequenceId(id), tokens, Duration::ZERO);
        }
        let queues: Vec<u32> = schedule.entries.iter().map(|entry| entry.queue).collect();
        assert_eq!(queues, [0, 1, 7]);
    }
}
