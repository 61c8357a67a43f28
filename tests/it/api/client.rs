//! A client of the service, and the service itself, in this process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mneme::api::{Keys, Parts, ServeConfig, Service, serve};
use mneme::engine::{Engine, EngineOptions};
use mneme::memory::store::{Store, StoreOptions};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::fixtures::{ScratchFolder, TinyModel, small_config};

/// A model and a store in a folder of their own.
pub struct World {
    scratch: ScratchFolder,
}

impl World {
    pub fn new() -> Self {
        let world = Self { scratch: ScratchFolder::new() };
        let tiny = TinyModel { trained_tokens: 2048, seed: 33, ..TinyModel::default() };
        tiny.write_gguf(&world.scratch.path().join("tiny.gguf"));
        world
    }

    pub fn engine(&self) -> Engine {
        let options = EngineOptions { n_threads: 1, ..EngineOptions::default() };
        Engine::load(&self.scratch.path().join("tiny.gguf"), &options).unwrap()
    }

    pub fn store(&self) -> &Path {
        self.scratch.path()
    }

    /// A running service, as set up by `change`.
    pub fn serve(&self, keys: Keys, change: impl FnOnce(&mut ServeConfig)) -> Running {
        let mut config = ServeConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            drain_seconds: 20,
            ..ServeConfig::default()
        };
        change(&mut config);
        let store = self.store().join("store");
        let service = Service::start(Parts {
            engine: self.engine(),
            model: "tiny".to_owned(),
            memory: small_config(),
            store: Store::open(&store, StoreOptions::default()).unwrap(),
            keys,
            config,
        });
        Running::start(service.unwrap())
    }
}

/// A service that runs until this is dropped.
pub struct Running {
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(service: Service) -> Self {
        let (end, told) = oneshot::channel::<()>();
        let (ready, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            let told = async {
                let _ = told.await;
            };
            let ready = move |address| ready.send(address).unwrap();
            runtime.block_on(async { serve(service, ready, told).await }).unwrap();
        });
        let address = address.recv().unwrap();
        Self { address, end: Some(end), thread: Some(thread) }
    }

    /// Tells it to end, and waits until it has.
    pub fn stop(mut self) {
        self.end_now();
    }

    fn end_now(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub fn client(&self) -> Client {
        Client { address: self.address, headers: Vec::new() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end_now();
        }
    }
}

/// Sends requests, one a connection.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

/// What came.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The events of a stream: data alone.
    pub fn events(&self) -> Vec<String> {
        let text = String::from_utf8(self.body.clone()).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// Asserts that it is an error of this status and code, with all four keys.
    pub fn expect_error(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["error"]["code"].as_str()), (status, Some(code)), "{body}");
        for key in ["message", "type", "param", "code"] {
            assert!(body["error"].get(key).is_some(), "{key} is missing: {body}");
        }
        body["error"].clone()
    }
}

impl Client {
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// Opens a connection and sends the beginning of a request, or nothing.
    pub fn connect(&self, beginning: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(beginning.as_bytes()).unwrap();
        stream
    }

    /// Opens a connection and sends a request; nothing is read yet.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !self.headers.iter().any(|(name, _)| name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        let _ = stream.write_all(body); // it may be refused before it was read
        stream
    }

    pub fn raw(&self, method: &str, path: &str, body: &[u8]) -> Reply {
        read_reply(self.send(method, path, body))
    }

    pub fn get(&self, path: &str) -> Reply {
        self.raw("GET", path, b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.raw("POST", path, body.to_string().as_bytes())
    }

    /// Waits until a context is in the state that is wanted.
    pub fn wait_for(&self, id: &str, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            let context = self.get(&format!("/v1/contexts/{id}")).json();
            if context["status"] == status {
                return context;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{context}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A number of the metrics.
    pub fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.get("/metrics").body).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|n| n.parse().ok()).unwrap()
    }

    /// Waits until nothing runs any more.
    pub fn wait_idle(&self) {
        let begun = Instant::now();
        while self.metric("mneme_running") > 0.0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "a place is never given back");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Reads a whole reply.
pub fn read_reply(stream: TcpStream) -> Reply {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status: {line:?}"));
    let status = status.parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let mut reply = Reply { status, headers, body: Vec::new() };
    if reply.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(&mut reader) {
            reply.body.extend(chunk);
        }
    } else {
        reader.read_to_end(&mut reply.body).unwrap();
    }
    reply
}

/// A chunk of a body; none at the end, or where the stream breaks off.
pub fn read_chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut size = String::new();
    reader.read_line(&mut size).ok()?;
    let size = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0)?;
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk).ok()?;
    chunk.truncate(size);
    Some(chunk)
}
