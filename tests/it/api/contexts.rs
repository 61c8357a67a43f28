//! Contexts as a resource.

use mneme::api::{Keys, hash_in_hex};
use serde_json::{Value, json};

use super::client::{Client, World};
use crate::fixtures::letters;

/// Tokens of the tiny model's template before a document.
const TEMPLATE: u64 = 5;

/// A document of `n` letters, read under `name`.
fn read(client: &Client, name: &str, n: usize) -> Value {
    let body = json!({ "name": name, "text": letters(9, n), "metadata": { "file": "a.txt" } });
    let reply = client.post("/v1/contexts", &body);
    assert_eq!(reply.status, 202, "{}", reply.json());
    client.wait_for(name, "ready")
}

fn say(client: &Client, context: &str, mode: &str, words: &str) -> Value {
    let reply = client.post(
        "/v1/chat/completions",
        &json!({
            "context": context, "context_mode": mode, "include_evidence": true,
            "messages": [{ "role": "user", "content": words }], "temperature": 0, "max_tokens": 6,
        }),
    );
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

fn text(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn a_document_is_read_once_asked_forked_taken_back_and_deleted() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let context = read(&client, "log", 400);
    assert_eq!(context["kind"], "document");
    let tokens = 400 + TEMPLATE;
    assert_eq!((&context["tokens"], &context["total_tokens"]), (&json!(tokens), &json!(tokens)));
    assert_eq!(
        (&context["text_bytes"], &context["metadata"]["file"]),
        (&json!(400), &json!("a.txt"))
    );

    let first = say(&client, "log", "ask", "bcd");
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 400 + TEMPLATE);
    let evidence = &first["choices"][0]["evidence"][0];
    let (start, end) = (evidence["start"].as_u64().unwrap(), evidence["end"].as_u64().unwrap());
    let part = client.get(&format!("/v1/contexts/log/text?start={start}&end={end}")).json();
    assert_eq!(part["text"], evidence["text"]);
    assert_eq!(part["text_bytes"], 400);
    assert_eq!(text(&say(&client, "log", "ask", "bcd")), text(&first), "it stays as it is");

    let fork = client.post("/v1/contexts/log/fork", &json!({ "name": "part", "at": 192 }));
    assert_eq!((fork.status, &fork.json()["tokens"]), (201, &json!(192)));
    assert_eq!(fork.json()["forked_from"], "log");
    client
        .post("/v1/contexts/log/fork", &json!({ "name": "part" }))
        .expect_error(409, "context_exists");
    let back = client.post("/v1/contexts/part/rewind", &json!({ "tokens": 100 })).json();
    assert_eq!(back["tokens"], 100);
    client
        .post("/v1/contexts/part/rewind", &json!({ "tokens": 101 }))
        .expect_error(400, "invalid_value");

    let more = client.post("/v1/contexts/part/append", &json!({ "text": letters(3, 60) }));
    assert_eq!(more.status, 202, "{}", more.json());
    assert_eq!(client.wait_for("part", "ready")["tokens"], 160);

    let changed = client.raw(
        "PATCH",
        "/v1/contexts/part",
        br#"{"pinned": true, "ttl": 100, "metadata": {"x": 1}}"#,
    );
    let changed = changed.json();
    assert_eq!((&changed["pinned"], &changed["metadata"]), (&json!(true), &json!({ "x": 1 })));
    assert!(changed["expires_at"].as_u64().is_some());
    let kept = client.raw("PATCH", "/v1/contexts/part", br#"{"ttl": null}"#).json();
    assert_eq!(kept["expires_at"], Value::Null);

    let gone = client.raw("DELETE", "/v1/contexts/part", b"").json();
    assert_eq!(gone, json!({ "id": "part", "object": "context.deleted", "deleted": true }));
    client.get("/v1/contexts/part").expect_error(404, "context_not_found");
    client.raw("DELETE", "/v1/contexts/part", b"").expect_error(404, "context_not_found");
}

#[test]
fn a_conversation_keeps_what_is_said_and_goes_back() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let made = client.post("/v1/contexts", &json!({ "name": "talk", "messages": [] }));
    assert_eq!(made.status, 202, "{}", made.json());
    client.wait_for("talk", "ready");
    let first = text(&say(&client, "talk", "append", "bcdfg")).to_owned();
    let second = text(&say(&client, "talk", "append", "jklm")).to_owned();
    let context = client.get("/v1/contexts/talk").json();
    assert_eq!((&context["kind"], &context["turns"]), (&json!("conversation"), &json!(2)));
    client.post("/v1/contexts/talk/rewind", &json!({ "turn": 1 }));
    assert_eq!(text(&say(&client, "talk", "append", "jklm")), second);
    client.post("/v1/contexts/talk/rewind", &json!({ "turn": 0 }));
    assert_eq!(text(&say(&client, "talk", "append", "bcdfg")), first);
}

#[test]
fn a_reading_tells_how_far_it_is() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let body = json!({ "name": "log", "text": letters(4, 600), "stream": true });
    let events = client.post("/v1/contexts", &body).events();
    let objects: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    assert_eq!(events.last().unwrap(), "[DONE]");
    assert_eq!((&objects[0]["object"], &objects[0]["id"]), (&json!("context"), &json!("log")));
    assert_eq!(objects.last().unwrap()["status"], "ready");
    assert!(objects.iter().any(|object| object["object"] == "context.progress"), "{objects:?}");
    client.post("/v1/contexts", &body).expect_error(409, "context_exists");
}

#[test]
fn a_document_comes_as_a_file_too() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let form = |name: &str, text: &[u8]| {
        let head = format!(
            "--xx\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\n{name}\r\n--xx\r\n\
             content-disposition: form-data; name=\"file\"; filename=\"b.txt\"\r\n\r\n"
        );
        [head.as_bytes(), text, b"\r\n--xx--\r\n"].concat()
    };
    let client = client.with("content-type", "multipart/form-data; boundary=xx");
    let reply = client.raw("POST", "/v1/contexts", &form("up", letters(2, 90).as_bytes()));
    assert_eq!(reply.status, 202, "{}", reply.json());
    let context = client.wait_for("up", "ready");
    assert_eq!(context["tokens"], 90 + TEMPLATE);
    assert_eq!(context["metadata"]["file"], "b.txt");
    let error = client
        .raw("POST", "/v1/contexts", &form("bad", b"ab\xFF"))
        .expect_error(400, "invalid_value");
    assert!(error["message"].as_str().unwrap().contains("byte 2"), "{error}");
}

#[test]
fn lists_go_on_where_they_ended() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    for name in ["b", "a", "c"] {
        read(&client, name, 40);
    }
    let page = client.get("/v1/contexts?limit=2").json();
    let ids = |page: &Value| -> Vec<String> {
        let contexts = page["data"].as_array().unwrap();
        contexts.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((ids(&page), &page["has_more"]), (vec!["a".into(), "b".into()], &json!(true)));
    let rest = client.get("/v1/contexts?limit=2&after=b").json();
    assert_eq!((ids(&rest), &rest["has_more"]), (vec!["c".into()], &json!(false)));
    client.get("/v1/contexts?limit=0").expect_error(400, "invalid_value");
    client.get("/v1/contexts?limit=many").expect_error(400, "invalid_value");
}

#[test]
fn what_is_exported_is_imported_and_what_was_changed_on_the_way_is_not() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    read(&client, "log", 300);
    let said = say(&client, "log", "ask", "bcd");
    let file = client.get("/v1/contexts/log/export");
    assert_eq!(file.header("content-type"), Some("application/octet-stream"));
    let imported = client.raw("POST", "/v1/contexts/import?name=copy", &file.body);
    assert_eq!((imported.status, &imported.json()["tokens"]), (201, &json!(300 + TEMPLATE)));
    assert_eq!(text(&say(&client, "copy", "ask", "bcd")), text(&said));
    client
        .raw("POST", "/v1/contexts/import?name=copy", &file.body)
        .expect_error(409, "context_exists");
    let mut damaged = file.body.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    client.raw("POST", "/v1/contexts/import?name=bad", &damaged).expect_error(400, "invalid_file");
    client
        .raw("POST", "/v1/contexts/import?name=bad", &file.body[..middle])
        .expect_error(400, "invalid_file");
    client.get("/v1/contexts/bad").expect_error(404, "context_not_found");
}

#[test]
fn a_request_that_is_sent_again_is_carried_out_once() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    read(&client, "log", 60);
    let keyed = client.with("idempotency-key", "k1");
    let first = keyed.post("/v1/contexts/log/fork", &json!({}));
    let again = keyed.post("/v1/contexts/log/fork", &json!({}));
    assert_eq!((first.status, first.json()), (again.status, again.json()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(client.get("/v1/contexts").json()["data"].as_array().unwrap().len(), 2);
    keyed
        .post("/v1/contexts/log/fork", &json!({ "at": 3 }))
        .expect_error(409, "idempotency_key_reused");
    let refused = client.with("idempotency-key", "k2");
    refused.post("/v1/contexts/none/fork", &json!({})).expect_error(404, "context_not_found");
    refused.post("/v1/contexts/none/fork", &json!({})).expect_error(404, "context_not_found");
}

#[test]
fn a_tenant_sees_nothing_of_another() {
    let world = World::new();
    let keys = format!(
        "[[key]]\ntenant = \"a\"\nsha256 = \"{}\"\n[[key]]\ntenant = \"b\"\nsha256 = \"{}\"\n",
        hash_in_hex("key-a"),
        hash_in_hex("key-b")
    );
    let server = world.serve(Keys::parse(&keys).unwrap(), |_| {});
    let client = server.client();
    let (a, b) = (
        client.with("authorization", "Bearer key-a"),
        client.with("authorization", "Bearer key-b"),
    );
    read(&a, "log", 200);
    for (method, path) in [
        ("GET", "/v1/contexts/log"),
        ("GET", "/v1/contexts/log/text"),
        ("GET", "/v1/contexts/log/export"),
        ("DELETE", "/v1/contexts/log"),
        ("POST", "/v1/contexts/log/fork"),
    ] {
        let foreign = b.raw(method, path, b"").expect_error(404, "context_not_found");
        let nobodys =
            b.raw(method, &path.replace("log", "lag"), b"").expect_error(404, "context_not_found");
        assert_eq!(foreign["message"].as_str().unwrap().replace("log", "lag"), nobodys["message"]);
    }
    assert_eq!(b.get("/v1/contexts").json()["data"], json!([]));
    read(&b, "log", 100); // the same name, a context of its own
    assert_eq!(a.get("/v1/contexts/log").json()["tokens"], 200 + TEMPLATE);
    let prompt = letters(9, 200) + "\n\nbcd"; // what a has read
    let ask = json!({ "messages": [{ "role": "user", "content": prompt }], "max_tokens": 2 });
    let cached = |client: &Client| {
        let usage = client.post("/v1/chat/completions", &ask).json()["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached(&a), 200 + TEMPLATE);
    assert_eq!(cached(&b), 100 + TEMPLATE, "of what b has read itself");
    for wrong in [
        client.clone(),
        client.with("authorization", "Bearer key-c"),
        client.with("authorization", "key-a"),
    ] {
        wrong.get("/v1/contexts").expect_error(401, "invalid_api_key");
        wrong.get("/metrics").expect_error(401, "invalid_api_key");
        assert_eq!(wrong.get("/healthz").status, 200);
        assert_eq!(wrong.get("/").status, 200);
    }
}

#[test]
fn a_tenant_takes_no_more_of_the_disk_than_it_may() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| config.tenant_max_bytes = 400_000);
    let client = server.client();
    read(&client, "log", 300);
    let more = letters(9, 300) + &letters(1, 20_000); // begins as the first, so it would be a fork
    client.post("/v1/contexts", &json!({ "name": "long", "text": more }));
    let failed = client.wait_for("long", "failed");
    assert_eq!(failed["error"]["code"], "store_full", "{failed}");
    assert_eq!((&failed["error"]["type"], &failed["tokens"]), (&json!("server_error"), &json!(0)));
    client.raw("DELETE", "/v1/contexts/long", b"");
    assert_eq!(client.get("/v1/contexts").json()["data"].as_array().unwrap().len(), 1);
    let file = client.get("/v1/contexts/log/export").body;
    let files = (0..20)
        .map(|i| client.raw("POST", &format!("/v1/contexts/import?name=copy-{i}"), &file).status);
    let statuses: Vec<u16> = files.collect();
    assert_eq!(statuses.last(), Some(&507), "{statuses:?}");
    server.stop();
    // Who has no room at all is told so at once.
    let server = world.serve(Keys::default(), |config| config.tenant_max_bytes = 1_000);
    let client = server.client();
    let full = json!({ "name": "more", "text": letters(2, 300) });
    client.post("/v1/contexts", &full).expect_error(507, "store_full");
    let more = json!({ "text": letters(2, 300) });
    client.post("/v1/contexts/log/append", &more).expect_error(507, "store_full");
}
