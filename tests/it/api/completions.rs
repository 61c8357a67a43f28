//! Completions: whole and as they come, and what is refused.

use mneme::api::Keys;
use mneme::engine::{GenerateOptions, no_progress};
use mneme::tokenizer::{Message, Role};
use serde_json::{Value, json};

use super::client::World;
use crate::fixtures::{letters, small_config};

fn ask(content: &str, more: Value) -> Value {
    let mut body = json!({
        "messages": [{ "role": "user", "content": content }], "temperature": 0, "max_tokens": 12,
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn an_answer_is_the_same_whole_and_in_chunks_and_that_of_a_session() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let text = letters(5, 300);
    let whole = client.post("/v1/chat/completions", &ask(&text, json!({}))).json();
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    let answer = whole["choices"][0]["message"]["content"].as_str().unwrap();

    let engine = world.engine();
    let said = [Message::new(Role::User, &text)];
    let prompt = engine.chat_prompt(&said, &small_config()).unwrap();
    let mut session = engine.session(&small_config()).unwrap();
    session.read_tokens(&prompt.ids[..prompt.question_at], &mut no_progress).unwrap();
    session.prompt_tokens(&prompt.ids[prompt.question_at..]).unwrap();
    let mut said =
        session.generate(GenerateOptions { max_tokens: 12, ..GenerateOptions::default() });
    let mut expected: String = said.by_ref().map(|piece| piece.unwrap().text).collect();
    expected += &said.rest();
    assert_eq!(answer, expected);

    let options = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let reply = client.post("/v1/chat/completions", &ask(&text, options));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let events = reply.events();
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
    assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk"));
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let content =
        |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    assert_eq!(chunks.iter().filter_map(content).collect::<String>(), expected);
    let usage = chunks.last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(12)));
    let reasons = chunks.iter().filter(|chunk| chunk["choices"][0]["finish_reason"] == "length");
    assert_eq!(reasons.count(), 1);
}

#[test]
fn a_request_goes_on_from_what_was_read_for_another() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let text = letters(6, 400);
    let question = |words: &str| ask(&format!("{text}\n\n{words}"), json!({}));
    let first = client.post("/v1/chat/completions", &question("bcd")).json();
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let again = client.post("/v1/chat/completions", &question("bcd")).json();
    assert_eq!(again["choices"][0]["message"], first["choices"][0]["message"]);
    let read = first["usage"]["prompt_tokens"].as_u64().unwrap();
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached >= 400 && cached < read, "{cached} of {read}: the question is taken in anew");
    let other = client.post("/v1/chat/completions", &question("xyz")).json();
    assert_eq!(other["usage"]["prompt_tokens_details"]["cached_tokens"], cached);
}

#[test]
fn several_answers_share_what_was_read_and_differ_by_their_seeds() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let more =
        json!({ "n": 3, "temperature": 1.5, "seed": 7, "logprobs": true, "top_logprobs": 2 });
    let body = ask(&letters(7, 100), more);
    let first = client.post("/v1/chat/completions", &body).json();
    let texts = |reply: &Value| -> Vec<String> {
        let choices = reply["choices"].as_array().unwrap();
        choices.iter().map(|it| it["message"]["content"].as_str().unwrap().to_owned()).collect()
    };
    let said = texts(&first);
    assert_eq!(said.len(), 3);
    assert!(said[0] != said[1] && said[1] != said[2], "{said:?}");
    assert_eq!(texts(&client.post("/v1/chat/completions", &body).json()), said, "the same seed");
    let logprobs = first["choices"][2]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(logprobs.len(), 12);
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert!(logprobs[0]["logprob"].as_f64().unwrap() <= 0.0);
}

#[test]
fn texts_are_gone_on_from_each_with_its_choices() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let body = |prompt: Value| json!({ "prompt": prompt, "max_tokens": 5, "temperature": 0 });
    let both = client.post("/v1/completions", &body(json!(["bcdf", "gjkl"]))).json();
    assert_eq!(both["object"], "text_completion");
    for (i, prompt) in ["bcdf", "gjkl"].iter().enumerate() {
        let alone = client.post("/v1/completions", &body(json!(prompt))).json();
        assert_eq!(alone["choices"][0]["text"], both["choices"][i]["text"]);
    }
    assert_eq!(both["usage"]["completion_tokens"], 10);
}

#[test]
fn an_answer_has_the_form_that_was_asked_for_and_ends_where_it_was_told_to() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["a"],
        "properties": { "a": { "enum": ["b", "c"] } },
    });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let more = json!({ "response_format": format, "max_tokens": 60 });
    let reply = client.post("/v1/chat/completions", &ask("bcd", more)).json();
    let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    assert!(value["a"] == "b" || value["a"] == "c", "{value}");

    let free = client.post("/v1/chat/completions", &ask("bcd", json!({}))).json();
    let free = free["choices"][0]["message"]["content"].as_str().unwrap();
    let stop: String = free.chars().skip(4).take(2).collect();
    let stopped =
        client.post("/v1/chat/completions", &ask("bcd", json!({ "stop": [stop] }))).json();
    let text = stopped["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(text, &free[..free.find(&stop).unwrap()]);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let world = World::new();
    let server = world.serve(Keys::default(), |config| config.max_body_bytes = 100_000);
    let client = server.client();
    let cases = [
        (json!({ "model": "other" }), 404, "model_not_found", "model"),
        (json!({ "context": "nobody" }), 404, "context_not_found", "context"),
        (json!({ "tools": [] }), 400, "unsupported_field", "tools"),
        (json!({ "temperature": 3 }), 400, "invalid_value", "temperature"),
        (json!({ "temperature": "hot" }), 400, "invalid_value", "temperature"),
        (json!({ "n": 0 }), 400, "invalid_value", "n"),
        (json!({ "n": -1 }), 400, "invalid_value", "n"),
        (json!({ "max_tokens": 1_000_000 }), 400, "invalid_value", "max_tokens"),
        (json!({ "top_logprobs": 3 }), 400, "invalid_value", "top_logprobs"),
        (json!({ "logit_bias": { "99999999": 1 } }), 400, "invalid_value", "logit_bias"),
        (json!({ "stop": ["a", "b", "c", "d", "e"] }), 400, "invalid_value", "stop"),
        (json!({ "stream_options": {} }), 400, "invalid_value", "stream_options"),
        (json!({ "messages": [] }), 400, "invalid_value", "messages"),
        (json!({ "context_mode": "append" }), 400, "invalid_value", "context_mode"),
        (
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": 3 } } } }),
            400,
            "invalid_value",
            "response_format",
        ),
    ];
    for (more, status, code, param) in cases {
        let error = client.post("/v1/chat/completions", &ask("x", more)).expect_error(status, code);
        assert_eq!(error["param"], param, "{error}");
    }
    let long = vec![b'x'; 200_000];
    client.raw("POST", "/v1/chat/completions", &long).expect_error(413, "body_too_large");
    client
        .raw("POST", "/v1/chat/completions", b"{\"messages\": [\xFF]}")
        .expect_error(400, "invalid_json");
    client.raw("POST", "/v1/chat/completions", b"").expect_error(400, "invalid_json");
    client.get("/v1/chat/completions").expect_error(405, "method_not_allowed");
    client.get("/v2/nothing").expect_error(404, "not_found");
}

#[test]
fn tokens_models_and_health_are_told() {
    let world = World::new();
    let server = world.serve(Keys::default(), |_| {});
    let client = server.client();
    let models = client.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], "tiny");
    assert_eq!(client.get("/v1/models/tiny").json()["id"], "tiny");
    client.get("/v1/models/other").expect_error(404, "model_not_found");
    let tokens = client.post("/tokenize", &json!({ "text": "bcd" })).json();
    assert_eq!(tokens["count"], 3);
    assert_eq!(tokens["pieces"], json!(["b", "c", "d"]));
    assert_eq!(client.get("/healthz").status, 200);
    assert_eq!(client.get("/readyz").status, 200);
    assert!(client.get("/openapi.json").json()["paths"]["/v1/contexts/{id}/fork"].is_object());
    assert_eq!(client.get("/docs").status, 200);
    let page = client.get("/");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'self'"));
    assert_eq!(
        client.get("/page/app.js").header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    client.get("/page/../secret").expect_error(404, "not_found");
    let id = client.with("x-request-id", "mine-1").get("/healthz");
    assert_eq!(id.header("x-request-id"), Some("mine-1"));
}
