//! The server's thread below the API: what goes through the model together says what each says alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use mneme::engine::serve::{
    About, Answers, Event, RecentSessions, Saving, ScheduleConfig, SchedulePolicy, Server,
    ServerLimits, ServerMeasures, Stage, Task, Work,
};
use mneme::engine::{DocumentPrompt, Engine, GenerateOptions, Sampling, Session, no_progress};
use mneme::ids::TokenId;
use mneme::memory::MemoryConfig;
use tokio::sync::mpsc::channel;
use tracing::Span;

use super::client::World;
use crate::cuda::{self, emulated};
use crate::fixtures::{greedy, letters, small_config};

/// What each of several sequences reads and is asked, and what it says alone.
struct Jobs {
    engine: Engine,
    config: MemoryConfig,
    jobs: Vec<Job>,
    alone: Vec<Vec<TokenId>>,
}

/// A text and what is asked: of every second one as of a document.
struct Job {
    document: Arc<DocumentPrompt>,
    question: String,
    is_document: bool,
}

impl Job {
    fn new(engine: &Engine, i: u64) -> Self {
        let document = engine.document_prompt(&letters(i, 20 + 70 * i as usize)).unwrap();
        let question = letters(i + 50, 3 + i as usize);
        Self { document: Arc::new(document), question, is_document: i % 2 == 1 }
    }

    fn alone(&self, session: &mut Session) {
        let n = self.document.ids().len();
        if self.is_document {
            session.read_document(&self.document, 0..n, &mut no_progress).unwrap();
            session.ask_about(&self.question, &mut no_progress).unwrap();
        } else {
            session.read_tokens(self.document.ids(), &mut no_progress).unwrap();
            session.prompt(&self.question).unwrap();
        }
    }

    fn stages(&self, engine: &Engine) -> Vec<Stage> {
        let ids = self.document.ids();
        if self.is_document {
            let (document, tokens) = (self.document.clone(), 0..ids.len());
            let question = engine.question_ids(&self.question).unwrap();
            vec![
                Stage::Document { document, tokens, saving: Saving::Whole },
                Stage::Question { ids: question, about: About::Document },
            ]
        } else {
            let question = engine.tokenizer().encode_document(&self.question).ids;
            vec![
                Stage::Tokens(ids.to_vec()),
                Stage::Question { ids: question, about: About::Conversation },
            ]
        }
    }
}

impl Jobs {
    fn new(engine: Engine, config: MemoryConfig, n: u64) -> Self {
        let jobs: Vec<Job> = (0..n).map(|i| Job::new(&engine, i)).collect();
        let alone = jobs.iter().zip(0..).map(|(job, seed)| {
            let mut session = engine.session(&config).unwrap();
            job.alone(&mut session);
            session.generate(Self::options(seed)).map(|piece| piece.unwrap().token).collect()
        });
        let alone = alone.collect();
        Self { engine, config, jobs, alone }
    }

    fn options(seed: u64) -> GenerateOptions {
        GenerateOptions {
            max_tokens: 20,
            sampling: Sampling { temperature: 0.7, seed, ..Sampling::default() },
            ..GenerateOptions::default()
        }
    }

    /// All of them at once say what each says alone.
    #[track_caller]
    fn check(&self, policy: SchedulePolicy, window_bytes: usize) -> ServerMeasures {
        // A few tokens, then others go first.
        let schedule = ScheduleConfig { policy, first_quantum: 24, ..ScheduleConfig::default() };
        let limits = ServerLimits { max_tasks: 16, window_bytes };
        let server = Server::start(&self.engine, &self.config, (schedule, limits)).unwrap();
        let mut listeners = Vec::new();
        for (job, seed) in self.jobs.iter().zip(0..) {
            let (events, received) = channel(1000);
            let session: Session = self.engine.session(&self.config).unwrap();
            let task = Task {
                work: Work::Session(Box::new(session)),
                stages: job.stages(&self.engine),
                answers: Some(Answers { options: Self::options(seed), n: 1 }),
                events,
                held: None,
                span: Span::none(),
            };
            server.submit(task, server.reserve().unwrap());
            listeners.push(received);
        }
        for (mut received, alone) in listeners.into_iter().zip(&self.alone) {
            let mut said = Vec::new();
            loop {
                match received.blocking_recv().expect("an end") {
                    Event::Progress { .. } => {}
                    Event::Piece(_, piece) => said.push(piece.token),
                    Event::Ended(_, ended) => break assert_eq!(ended.n_tokens, said.len()),
                    Event::Failed(error) => panic!("{error}"),
                }
            }
            assert_eq!(said, *alone, "{policy:?}, {window_bytes} bytes");
        }
        server.measures()
    }

    /// Bytes of the longest text's sinks and window.
    fn window_bytes(&self) -> usize {
        let mut session = self.engine.session(&self.config).unwrap();
        let ids = self.jobs.last().unwrap().document.ids();
        session.read_tokens(ids, &mut no_progress).unwrap();
        session.memory().near_bytes()
    }
}

#[test]
fn what_is_said_together_is_what_each_would_say_alone() {
    let world = World::new();
    let jobs = Jobs::new(world.engine(), small_config(), 9);
    for policy in [SchedulePolicy::Feedback, SchedulePolicy::FirstCome] {
        let measures = jobs.check(policy, 0);
        assert!(measures.sequences_of_steps > measures.n_steps, "they went together");
        assert_eq!(measures.set_aside, 0, "where the processor's memory is all there is");
    }
}

#[test]
fn windows_leave_the_devices_memory_and_come_back() {
    let world = World::new();
    let jobs = Jobs::new(world.engine(), small_config(), 9);
    // One has room at a time, then some of them.
    for window_bytes in [1, 3 * jobs.window_bytes()] {
        let measures = jobs.check(SchedulePolicy::Feedback, window_bytes);
        assert!(measures.set_aside > 0, "{measures:?}");
        jobs.check(SchedulePolicy::FirstCome, window_bytes);
    }
}

#[test]
fn windows_leave_a_gpu_and_come_back() {
    let world = World::new();
    let engine = emulated(&world.store().join("tiny.gguf"));
    let config = cuda::config();
    let jobs = Jobs::new(engine.clone(), config.clone(), 3);
    let measures = jobs.check(SchedulePolicy::Feedback, jobs.window_bytes());
    assert!(measures.set_aside > 0, "{measures:?}");

    // What is kept for what may follow is not in the GPU's memory either.
    let ids = engine.tokenizer().encode_document(&letters(70, 200)).ids;
    let mut session = engine.session(&config).unwrap();
    session.read_tokens(&ids[..150], &mut no_progress).unwrap();
    let mut expected = session.fork(&config).unwrap();
    session.read_tokens(&ids[150..], &mut no_progress).unwrap();
    let recent = RecentSessions::new(1 << 30, true);
    recent.keep("a", ids.clone(), session);
    let (mut found, n) = recent.longest_prefix("a", &ids[..150], &config).unwrap().unwrap();
    assert_eq!((n, found.memory().near_bytes() > 0), (150, true), "it went back for it");
    let [found, expected] = [&mut found, &mut expected].map(|session| {
        session.prompt_tokens(&ids[..5]).unwrap();
        greedy(session, 5)
    });
    assert_eq!(found, expected);
    let (whole, n) = recent.longest_prefix("a", &ids, &config).unwrap().unwrap();
    assert_eq!((n, whole.memory().near_bytes()), (ids.len(), 0));
}

#[test]
fn several_answers_are_those_of_their_seeds() {
    let world = World::new();
    let engine = world.engine();
    let config = small_config();
    let read = engine.tokenizer().encode_document(&letters(1, 200)).ids;
    let options = |seed| GenerateOptions {
        max_tokens: 10,
        sampling: Sampling { temperature: 1.0, seed, ..Sampling::default() },
        ..GenerateOptions::default()
    };
    let limits = ServerLimits { max_tasks: 1, window_bytes: 0 };
    let server = Server::start(&engine, &config, (ScheduleConfig::default(), limits)).unwrap();
    let (events, mut received) = channel(1); // so that it is not over before we listen
    let task = Task {
        work: Work::Session(Box::new(engine.session(&config).unwrap())),
        stages: vec![Stage::Question { ids: read[..20].to_vec(), about: About::Conversation }],
        answers: Some(Answers { options: options(5), n: 4 }),
        events,
        held: None,
        span: Span::none(),
    };
    server.submit(task, server.reserve().unwrap());
    assert!(server.reserve().is_none(), "one place, which all four share");
    let mut said: BTreeMap<usize, Vec<TokenId>> = BTreeMap::new();
    while let Some(event) = received.blocking_recv() {
        match event {
            Event::Piece(choice, piece) => said.entry(choice).or_default().push(piece.token),
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    for (choice, said) in said {
        let mut session = engine.session(&config).unwrap();
        session.prompt_tokens(&read[..20]).unwrap();
        let pieces = session.generate(options(5 + choice as u64));
        let alone: Vec<TokenId> = pieces.map(|piece| piece.unwrap().token).collect();
        assert_eq!(said, alone, "answer {choice}");
    }
}
