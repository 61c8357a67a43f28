//! Clients that leave, too many of them, strangers' pages, and an end while there is work.

use std::io::{BufReader, Read};
use std::time::Duration;

use mneme::api::{Keys, ServeConfig, ServeError};
use serde_json::{Value, json};

use super::client::{World, read_chunk, read_reply};
use crate::fixtures::letters;

fn long_answer(seed: u64) -> Value {
    // Tokens 0 and 2 would end it before its time.
    json!({
        "prompt": letters(seed, 60), "max_tokens": 900_000, "temperature": 1, "stream": true,
        "logit_bias": { "0": -100, "2": -100 },
    })
}

#[test]
fn who_leaves_gives_the_place_back() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| {
        (config.max_requests, config.max_answer_tokens) = (2, 1_000_000);
    });
    let client = server.client();
    for seed in 0..4 {
        let body = long_answer(seed).to_string();
        let stream = client.send("POST", "/v1/completions", body.as_bytes());
        if seed % 2 == 0 {
            let mut reader = BufReader::new(stream); // in the middle of the answer
            while !std::io::BufRead::lines(&mut reader).next().unwrap().unwrap().is_empty() {}
            read_chunk(&mut reader).unwrap();
        } else {
            drop(stream); // before anything came
        }
        client.wait_idle();
    }
    let whole = json!({ "prompt": letters(9, 90_000), "max_tokens": 3000 }).to_string();
    drop(client.send("POST", "/v1/completions", whole.as_bytes())); // while it is read
    client.wait_idle();
}

#[test]
fn more_than_there_is_room_for_are_told_so_and_none_is_lost() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| {
        (config.max_requests, config.max_answer_tokens) = (3, 1_000_000);
    });
    let client = server.client();
    let held: Vec<_> = (0..3)
        .map(|seed| {
            let body = long_answer(seed).to_string();
            let stream = client.send("POST", "/v1/completions", body.as_bytes());
            let mut reader = BufReader::new(stream);
            while !std::io::BufRead::lines(&mut reader).next().unwrap().unwrap().is_empty() {}
            reader
        })
        .collect();
    let refused = client.post("/v1/completions", &json!({ "prompt": "bcd" }));
    refused.expect_error(429, "queue_full");
    assert!(refused.header("retry-after").is_some());
    drop(held);
    client.wait_idle();
    let burst: Vec<_> = (0..40)
        .map(|seed| {
            let body = json!({ "prompt": letters(seed, 20), "max_tokens": 3 }).to_string();
            client.send("POST", "/v1/completions", body.as_bytes())
        })
        .collect();
    let statuses: Vec<u16> = burst.into_iter().map(|stream| read_reply(stream).status).collect();
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200));
    client.wait_idle();
}

#[test]
fn a_reading_that_is_stopped_goes_on_where_it_was() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let body = json!({ "name": "long", "text": letters(1, 60_000) });
    assert_eq!(client.post("/v1/contexts", &body).status, 202);
    while client.get("/v1/contexts/long").json()["tokens"].as_u64().unwrap() < 640 {
        std::thread::sleep(Duration::from_millis(5));
    }
    client
        .post("/v1/contexts/long/fork", &json!({ "name": "long" }))
        .expect_error(409, "context_busy");
    server.stop();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let stopped = client.get("/v1/contexts/long").json();
    assert_eq!(stopped["status"], "stopped");
    let tokens = stopped["tokens"].as_u64().unwrap();
    assert!((640..60_000).contains(&tokens), "{stopped}");
    assert_eq!(client.post("/v1/contexts", &body).status, 202);
    while client.get("/v1/contexts/long").json()["tokens"].as_u64().unwrap() < tokens + 64 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let gone = client.raw("DELETE", "/v1/contexts/long", b"").json();
    assert_eq!(gone["deleted"], true);
    client.get("/v1/contexts/long").expect_error(404, "context_not_found");
    client.wait_idle();
}

/// A context that was deleted while it was read came back: whoever waited for the reading's end did not
/// wait for the server, which saved it once more.
#[test]
fn what_is_deleted_while_it_is_read_stays_so() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    for i in 0..20 {
        let name = format!("short-{i}");
        client.post("/v1/contexts", &json!({ "name": name, "text": letters(i, 20_000) }));
        std::thread::sleep(Duration::from_millis(i % 7 * 3));
        assert_eq!(client.raw("DELETE", &format!("/v1/contexts/{name}"), b"").status, 200);
    }
    client.wait_idle();
    assert_eq!(client.get("/v1/contexts").json()["data"], json!([]));
}

/// A place was given back after the reply: who asked one thing after another was refused.
#[test]
fn who_has_been_answered_may_ask_again_at_once() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| config.max_requests = 1);
    let client = server.client();
    for seed in 0..30 {
        let body = json!({ "prompt": letters(seed, 10), "max_tokens": 2 });
        assert_eq!(client.post("/v1/completions", &body).status, 200, "request {seed}");
        let made =
            client.post("/v1/contexts", &json!({ "text": letters(seed, 30), "stream": true }));
        assert_eq!(made.status, 200, "context {seed}");
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let world = World::new();
    let ask = json!({
        "context": "log", "messages": [{ "role": "user", "content": "bcd" }],
        "temperature": 0, "max_tokens": 8,
    });
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    client.post("/v1/contexts", &json!({ "name": "log", "text": letters(8, 500) }));
    client.wait_for("log", "ready");
    let before = client.post("/v1/chat/completions", &ask).json();
    server.stop();
    let server = world.serve(Keys::default(), |_| {});
    let after = server.client().post("/v1/chat/completions", &ask).json();
    assert_eq!(after["choices"], before["choices"]);
}

#[test]
fn requests_end_in_their_time_when_the_service_is_told_to() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let body =
        json!({ "prompt": letters(5, 50), "max_tokens": 400, "temperature": 1, "stream": true });
    let stream = client.send("POST", "/v1/completions", body.to_string().as_bytes());
    std::thread::sleep(Duration::from_millis(50));
    let reading = std::thread::spawn(move || read_reply(stream).events());
    server.stop();
    let events = reading.join().unwrap();
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "it came to its end");
}

#[test]
fn pages_of_strangers_are_kept_out() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| {
        config.cors_origins = vec!["https://friend.example".to_owned()];
    });
    let client = server.client();
    client.with("host", "evil.example").get("/v1/contexts").expect_error(403, "forbidden_origin");
    client
        .with("origin", "https://evil.example")
        .get("/v1/contexts")
        .expect_error(403, "forbidden_origin");
    let own = format!("http://{}", server.address);
    assert_eq!(client.with("origin", &own).get("/v1/contexts").status, 200);
    let friend = client.with("origin", "https://friend.example").get("/v1/contexts");
    assert_eq!(friend.status, 200);
    assert_eq!(friend.header("access-control-allow-origin"), Some("https://friend.example"));
}

#[test]
fn without_keys_nobody_but_this_machine_is_served() {
    let world = World::new();
    let service = mneme::api::Service::start(mneme::api::Parts {
        engine: world.engine(),
        model: "tiny".to_owned(),
        memory: crate::fixtures::small_config(),
        store: mneme::memory::store::Store::open(&world.store().join("store"), Default::default())
            .unwrap(),
        keys: Keys::default(),
        config: ServeConfig { listen: "0.0.0.0:0".parse().unwrap(), ..ServeConfig::default() },
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let served =
        runtime.block_on(mneme::api::serve(service.unwrap(), |_| {}, std::future::pending()));
    assert!(matches!(served, Err(ServeError::NoKeys { .. })));
}

#[test]
fn what_is_being_read_for_the_first_time_is_busy_and_not_unknown() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    client.post("/v1/contexts", &json!({ "name": "new", "text": letters(1, 100_000) }));
    for (method, path) in [
        ("GET", "/v1/contexts/new/export"),
        ("GET", "/v1/contexts/new/text"),
        ("POST", "/v1/contexts/new/fork"),
        ("POST", "/v1/contexts/new/rewind"),
    ] {
        let body: &[u8] = if path.ends_with("rewind") { b"{\"tokens\": 1}" } else { b"" };
        client.raw(method, path, body).expect_error(409, "context_busy");
    }
    client.raw("DELETE", "/v1/contexts/new", b"");
}

/// The connection was cut while the client wrote a body that is too long: it never heard why.
#[test]
fn whoever_writes_too_much_hears_it() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| config.max_body_bytes = 1000);
    let client = server.client();
    let body = vec![b' '; 20 << 20];
    for path in ["/v1/chat/completions", "/tokenize", "/v1/contexts"] {
        client.raw("POST", path, &body).expect_error(413, "body_too_large");
    }
    client
        .with("idempotency-key", "k")
        .raw("POST", "/v1/contexts", &body)
        .expect_error(413, "body_too_large");
}

#[test]
fn whoever_sends_half_of_a_request_is_not_waited_for() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| {
        (config.head_seconds, config.body_seconds) = (1, 1);
    });
    let half_a_head = server.client().connect("POST /v1/completions HTTP/1.1\r\nHost: local");
    let nothing = server.client().connect("");
    let half_a_body =
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";
    let half_a_body = server.client().connect(half_a_body);
    read_reply(half_a_body).expect_error(408, "request_timeout");
    let half_an_import =
        "POST /v1/contexts/import HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nab";
    let half_an_import = read_reply(server.client().connect(half_an_import));
    assert!((400..600).contains(&half_an_import.status), "{half_an_import:?}");
    for stream in [half_a_head, nothing] {
        let mut rest = Vec::new();
        // It is closed: nothing more comes, and nobody waits for it.
        let _ = BufReader::new(stream).read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{rest:?}");
    }
    server.client().wait_idle();
}

#[test]
fn whoever_finds_no_connection_free_waits_for_one() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| config.max_connections = 2);
    let idle = [server.client().connect(""), server.client().connect("")];
    let client = server.client();
    let waiting = std::thread::spawn(move || client.get("/healthz").status);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!waiting.is_finished(), "there are two already");
    drop(idle);
    assert_eq!(waiting.join().unwrap(), 200);
}
