//! The server's thread below the API: what goes through the model together says what each says alone.

use std::collections::BTreeMap;

use mneme::engine::serve::{
    Answers, Event, ScheduleConfig, SchedulePolicy, Server, Stage, Task, Work,
};
use mneme::engine::{GenerateOptions, Sampling, Session, no_progress};
use mneme::ids::TokenId;
use tokio::sync::mpsc::channel;
use tracing::Span;

use super::client::World;
use crate::fixtures::{letters, small_config};

#[test]
fn what_is_said_together_is_what_each_would_say_alone() {
    let world = World::new();
    let engine = world.engine();
    let config = small_config();
    let ids = |seed: u64, n: usize| engine.tokenizer().encode_document(&letters(seed, n)).ids;
    let jobs: Vec<(Vec<TokenId>, Vec<TokenId>)> =
        (0..9).map(|i| (ids(i, 20 + 70 * i as usize), ids(i + 50, 3 + i as usize))).collect();
    let options = |seed| GenerateOptions {
        max_tokens: 20,
        sampling: Sampling { temperature: 0.7, seed, ..Sampling::default() },
        ..GenerateOptions::default()
    };
    let alone: Vec<Vec<TokenId>> = jobs
        .iter()
        .zip(0..)
        .map(|((read, question), seed)| {
            let mut session = engine.session(&config).unwrap();
            session.read_tokens(read, &mut no_progress).unwrap();
            session.prompt_tokens(question).unwrap();
            session.generate(options(seed)).map(|piece| piece.unwrap().token).collect()
        })
        .collect();
    for policy in [SchedulePolicy::Feedback, SchedulePolicy::FirstCome] {
        let schedule = ScheduleConfig { policy, ..ScheduleConfig::default() };
        let server = Server::start(&engine, &config, (schedule, 16)).unwrap();
        let mut listeners = Vec::new();
        for ((read, question), seed) in jobs.iter().zip(0..) {
            let (events, received) = channel(1000);
            let session: Session = engine.session(&config).unwrap();
            let task = Task {
                work: Work::Session(Box::new(session)),
                stages: vec![Stage::Tokens(read.clone()), Stage::Question(question.clone())],
                answers: Some(Answers { options: options(seed), n: 1 }),
                events,
                held: None,
                span: Span::none(),
            };
            server.submit(task, server.reserve().unwrap());
            listeners.push(received);
        }
        for (mut received, alone) in listeners.into_iter().zip(&alone) {
            let mut said = Vec::new();
            loop {
                match received.blocking_recv().expect("an end") {
                    Event::Progress { .. } => {}
                    Event::Piece(_, piece) => said.push(piece.token),
                    Event::Ended(_, ended) => break assert_eq!(ended.n_tokens, said.len()),
                    Event::Failed(error) => panic!("{error}"),
                }
            }
            assert_eq!(said, *alone, "{policy:?}");
        }
        let measures = server.measures();
        assert!(measures.sequences_of_steps > measures.n_steps, "they went together");
    }
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
    let server = Server::start(&engine, &config, (ScheduleConfig::default(), 1)).unwrap();
    let (events, mut received) = channel(1000);
    let task = Task {
        work: Work::Session(Box::new(engine.session(&config).unwrap())),
        stages: vec![Stage::Question(read[..20].to_vec())],
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
