//! Do conversations of agents go on, in this process and on a server alike?

use std::ops::ControlFlow;

use mneme::agent::{Agent, AgentError, Heard, LocalAgent, RemoteAgent, Say};
use mneme::api::Keys;
use mneme::engine::Contexts;
use mneme::memory::store::{Store, StoreOptions};

use crate::api::World;
use crate::fixtures::small_config;

fn say(text: &str) -> Say {
    Say { max_tokens: 8, ..Say::new(text) }
}

/// The same for any agent; gives what was said, to compare.
fn converse(agent: &dyn Agent) -> Vec<String> {
    let listen = &mut |_: Heard<'_>| ControlFlow::Continue(());
    let mut talk = agent.open("captain", None).unwrap();
    let mut heard = String::new();
    let first = talk.say(&say("bcdf"), &mut |event| {
        if let Heard::Text(text) = event {
            heard += text;
        }
        ControlFlow::Continue(())
    });
    let first = first.unwrap();
    assert_eq!((first.text.as_str(), first.completion_tokens), (heard.as_str(), 8));
    assert_eq!(first.finish_reason, "length");

    let interrupted = talk.say(&say("gjk"), &mut |_| ControlFlow::Break(()));
    assert!(matches!(interrupted, Err(AgentError::Interrupted)), "{interrupted:?}");
    assert_eq!(talk.n_turns(), 1, "as if it had never been said");
    let second = talk.say(&say("gjk"), listen).unwrap().text;
    drop(talk);

    let mut again = agent.open("captain", None).unwrap();
    assert_eq!(again.n_turns(), 2);
    let mut fork = again.fork("mate").unwrap();
    let third = again.say(&say("lmp"), listen).unwrap().text;
    assert_eq!(fork.say(&say("lmp"), listen).unwrap().text, third, "the same was said so far");
    assert!(again.fork("mate").is_err(), "there is one of this name");
    vec![first.text, second, third]
}

#[test]
fn a_conversation_is_the_same_in_this_process_and_on_a_server() {
    let world = World::new();
    let store = Store::open(&world.store().join("mine"), StoreOptions::default()).unwrap();
    let contexts = Contexts::new(world.engine(), store, "local");
    let local = converse(&LocalAgent::new(contexts, small_config()));
    let server = world.serve(Keys::default(), |_| {});
    let url = format!("http://{}", server.address);
    let remote = converse(&RemoteAgent::new(&url, None));
    assert_eq!(local, remote);
}

#[test]
fn what_goes_wrong_on_a_server_is_told() {
    let world = World::new();
    let keys = Keys::default().with_local("k");
    let server = world.serve(keys, |_| {});
    let url = format!("http://{}", server.address);
    let refused = RemoteAgent::new(&url, Some("wrong")).open("x", None);
    assert!(matches!(refused, Err(AgentError::Refused { status: 401, .. })));
    assert!(RemoteAgent::new(&url, Some("k")).open("x", Some("bcd")).is_ok());
    drop(server);
    let gone = RemoteAgent::new(&url, Some("k")).open("x", None);
    assert!(matches!(gone, Err(AgentError::Server { .. })));
}
