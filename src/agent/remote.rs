//! Conversations on a server, over HTTP.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent as Http, Body};

use super::{Agent, AgentError, AnswerForm, Heard, Listen, Said, Say, Talk};

/// Converses on a server.
#[derive(Clone, Debug)]
pub struct RemoteAgent {
    http: Http,
    url: String,
    key: Option<String>,
}

struct RemoteTalk {
    agent: RemoteAgent,
    name: String,
    n_turns: usize,
}

impl RemoteAgent {
    /// An agent of the server at `url`, such as `http://127.0.0.1:8077`, with a key where it needs one.
    pub fn new(url: &str, key: Option<&str>) -> Self {
        let config = Http::config_builder().http_status_as_error(false).build();
        let url = url.trim_end_matches('/').to_owned();
        Self { http: config.new_agent(), url, key: key.map(str::to_owned) }
    }

    fn unusable(&self, what: impl std::fmt::Display) -> AgentError {
        AgentError::Server { url: self.url.clone(), what: what.to_string() }
    }

    fn get(&self, path: &str) -> Result<Response<Body>, AgentError> {
        let mut request = self.http.get(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        request.call().map_err(|error| self.unusable(error))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Response<Body>, AgentError> {
        let mut request = self.http.post(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request.header("content-type", "application/json");
        request.send(body.to_string()).map_err(|error| self.unusable(error))
    }

    fn json(&self, response: Response<Body>) -> Result<Value, AgentError> {
        let status = response.status().as_u16();
        let text = response.into_body().read_to_string().map_err(|error| self.unusable(error))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| self.unusable(error))?;
        match status {
            200..300 => Ok(value),
            _ => Err(refused(status, &value)),
        }
    }

    /// The conversation of this name, if there is one.
    fn find(&self, name: &str) -> Result<Option<Value>, AgentError> {
        match self.get(&format!("/v1/contexts/{name}")).and_then(|it| self.json(it)) {
            Ok(context) => Ok(Some(context)),
            Err(AgentError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str, system: Option<&str>) -> Result<Value, AgentError> {
        let messages: Vec<Value> =
            system.iter().map(|text| json!({ "role": "system", "content": text })).collect();
        let body = json!({ "name": name, "messages": messages, "stream": true });
        let response = self.post("/v1/contexts", &body)?;
        if response.status().as_u16() != 200 {
            return self.json(response);
        }
        let mut last = Value::Null;
        self.events(response, &mut |event| {
            last = event;
            Ok(())
        })?;
        Ok(last)
    }

    /// Gives each event of a stream to `take`, until the last.
    fn events(
        &self,
        response: Response<Body>,
        take: &mut dyn FnMut(Value) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.map_err(|error| self.unusable(error))?;
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                return Ok(());
            }
            let event: Value = serde_json::from_str(data).map_err(|error| self.unusable(error))?;
            if event["error"].is_object() && event["object"].is_null() {
                return Err(refused(200, &event));
            }
            take(event)?;
        }
        Err(self.unusable("the stream broke off"))
    }
}

fn refused(status: u16, body: &Value) -> AgentError {
    let word = |key: &str| body["error"][key].as_str().unwrap_or_default().to_owned();
    AgentError::Refused { status, code: word("code"), message: word("message") }
}

impl Agent for RemoteAgent {
    fn open(&self, name: &str, system: Option<&str>) -> Result<Box<dyn Talk>, AgentError> {
        let context = match self.find(name)? {
            Some(context) => context,
            None => self.create(name, system)?,
        };
        let n_turns = context["turns"].as_u64().unwrap_or(0) as usize;
        Ok(Box::new(RemoteTalk { agent: self.clone(), name: name.to_owned(), n_turns }))
    }
}

impl Talk for RemoteTalk {
    fn say(&mut self, say: &Say, listen: &mut Listen<'_>) -> Result<Said, AgentError> {
        let mut body = json!({
            "context": self.name, "context_mode": "append", "include_evidence": true,
            "messages": [{ "role": "user", "content": say.text }],
            "max_tokens": say.max_tokens, "temperature": say.temperature, "seed": say.seed as i64,
            "stream": true, "stream_options": { "include_usage": true },
        });
        match &say.form {
            AnswerForm::Text => {}
            AnswerForm::JsonObject => body["response_format"] = json!({ "type": "json_object" }),
            AnswerForm::JsonSchema(schema) => {
                let schema = json!({ "name": "reply", "schema": schema });
                body["response_format"] = json!({ "type": "json_schema", "json_schema": schema });
            }
        }
        let response = self.agent.post("/v1/chat/completions", &body)?;
        if response.status().as_u16() != 200 {
            self.agent.json(response)?;
            return Err(self.agent.unusable("it answered what is neither a stream nor an error"));
        }
        let mut said =
            Said { text: String::new(), finish_reason: String::new(), completion_tokens: 0 };
        let heard = self.agent.events(response, &mut |event| hear(&event, &mut said, listen));
        if matches!(heard, Err(AgentError::Interrupted)) {
            self.take_back()?;
        }
        heard?;
        self.n_turns += 1;
        Ok(said)
    }

    fn fork(&mut self, name: &str) -> Result<Box<dyn Talk>, AgentError> {
        let path = format!("/v1/contexts/{}/fork", self.name);
        self.agent.json(self.agent.post(&path, &json!({ "name": name }))?)?;
        self.agent.open(name, None)
    }

    fn n_turns(&self) -> usize {
        self.n_turns
    }
}

impl RemoteTalk {
    /// Has the server forget a turn that was interrupted, which may have ended there before it was heard
    /// of.
    fn take_back(&self) -> Result<(), AgentError> {
        const PATIENCE: Duration = Duration::from_secs(30);
        const PAUSE: Duration = Duration::from_millis(5);
        let (path, begun) = (format!("/v1/contexts/{}/rewind", self.name), Instant::now());
        loop {
            let back = self.agent.post(&path, &json!({ "turn": self.n_turns }));
            match back.and_then(|response| self.agent.json(response)) {
                // The server lets go of the turn within a chunk.
                Err(AgentError::Refused { code, .. })
                    if code == "context_busy" && begun.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(PAUSE);
                }
                // There is none to go back from.
                Err(AgentError::Refused { status: 400, .. }) if self.n_turns == 0 => return Ok(()),
                done => return done.map(drop),
            }
        }
    }
}

/// Takes in one chunk of a reply.
fn hear(event: &Value, said: &mut Said, listen: &mut Listen<'_>) -> Result<(), AgentError> {
    let choice = &event["choices"][0];
    if let Some(text) = choice["delta"]["content"].as_str().filter(|text| !text.is_empty()) {
        said.text += text;
        if listen(Heard::Text(text)).is_break() {
            return Err(AgentError::Interrupted);
        }
    }
    if let Some(reason) = choice["finish_reason"].as_str() {
        reason.clone_into(&mut said.finish_reason);
    }
    for passage in choice["evidence"].as_array().into_iter().flatten() {
        let byte = |key: &str| passage[key].as_u64().unwrap_or(0) as usize;
        let weight = passage["weight"].as_f64().unwrap_or(0.0) as f32;
        let (start, end) = (byte("start"), byte("end"));
        let _ = listen(Heard::Evidence { start, end, weight }); // the reply is over
    }
    if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
        said.completion_tokens = tokens as usize;
    }
    Ok(())
}
