//! Which flags does `mneme serve` have? One for each setting of the table `[serve]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::memory_flags::put;
use super::settings::Settings;
use crate::api::{LogFormat, LogLevel};
use crate::engine::serve::SchedulePolicy;

/// How the service is set up.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Service")]
pub(super) struct ServeFlags {
    /// Address and port; without keys only addresses of this machine
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The file of keys [default: none; everybody on this machine is served]
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Requests that read or answer at once, and contexts being read; more are refused
    #[arg(long, value_name = "N")]
    max_requests: Option<usize>,
    /// Connections at once; more wait until one closes
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Bytes of a request's body at most
    #[arg(long, value_name = "N")]
    max_body_bytes: Option<usize>,
    /// Tokens of an answer at most, whatever the client asks for
    #[arg(long, value_name = "N")]
    max_answer_tokens: Option<usize>,
    /// Answers to one request at most
    #[arg(long, value_name = "N")]
    max_choices: Option<usize>,
    /// Seconds that the head of a request may take to arrive, and that a connection may be idle
    #[arg(long, value_name = "N")]
    head_seconds: Option<u64>,
    /// Seconds that the next piece of a request's body may take
    #[arg(long, value_name = "N")]
    body_seconds: Option<u64>,
    /// Seconds that a request may take
    #[arg(long, value_name = "N")]
    request_seconds: Option<u64>,
    /// Seconds that requests have to end when the service is told to
    #[arg(long, value_name = "N")]
    drain_seconds: Option<u64>,
    /// Bytes for what was said in requests, so that what follows goes on from there
    #[arg(long, value_name = "N")]
    recent_bytes: Option<usize>,
    /// Bytes of a GPU's memory for sinks and windows; 0 is a quarter of what is free
    #[arg(long, value_name = "N")]
    window_bytes: Option<usize>,
    /// Bytes on the disk that each tenant may use; 0 has no limit
    #[arg(long, value_name = "N")]
    tenant_max_bytes: Option<u64>,
    /// An origin that browsers may call from, * for all; may be given several times
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    cors_origins: Option<Vec<String>>,
    /// Who goes first
    #[arg(long, value_name = "POLICY", value_enum)]
    schedule: Option<SchedulePolicy>,
    /// Sequences in a step at most
    #[arg(long, value_name = "N")]
    step_sequences: Option<usize>,
    /// Tokens that a sequence may use before others go first
    #[arg(long, value_name = "N")]
    first_quantum: Option<u64>,
    /// Milliseconds after which who was not served goes first
    #[arg(long, value_name = "N")]
    promote_ms: Option<u64>,
    /// How the log is written, to standard error
    #[arg(long, value_name = "FORMAT", value_enum)]
    log_format: Option<LogFormat>,
    /// What is logged: this and what is graver
    #[arg(long, value_name = "LEVEL", value_enum)]
    log_level: Option<LogLevel>,
}

impl ServeFlags {
    /// Changes settings that a file gave.
    pub fn change(&self, settings: &mut Settings) {
        let serve = &mut settings.serve;
        put(&mut serve.listen, &self.listen);
        put(&mut serve.keys, &self.keys);
        put(&mut serve.max_requests, &self.max_requests);
        put(&mut serve.max_connections, &self.max_connections);
        put(&mut serve.max_body_bytes, &self.max_body_bytes);
        put(&mut serve.max_answer_tokens, &self.max_answer_tokens);
        put(&mut serve.max_choices, &self.max_choices);
        put(&mut serve.head_seconds, &self.head_seconds);
        put(&mut serve.body_seconds, &self.body_seconds);
        put(&mut serve.request_seconds, &self.request_seconds);
        put(&mut serve.drain_seconds, &self.drain_seconds);
        put(&mut serve.recent_bytes, &self.recent_bytes);
        put(&mut serve.window_bytes, &self.window_bytes);
        put(&mut serve.tenant_max_bytes, &self.tenant_max_bytes);
        put(&mut serve.cors_origins, &self.cors_origins);
        put(&mut serve.schedule, &self.schedule);
        put(&mut serve.step_sequences, &self.step_sequences);
        put(&mut serve.first_quantum, &self.first_quantum);
        put(&mut serve.promote_ms, &self.promote_ms);
        put(&mut serve.log_format, &self.log_format);
        put(&mut serve.log_level, &self.log_level);
    }
}
