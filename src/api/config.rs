//! How is the service set up? What the table `[serve]` of a configuration file says.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::serve::{ScheduleConfig, SchedulePolicy};

/// How the service is set up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServeConfig {
    /// Address and port. Without keys only a loopback address is served.
    pub listen: SocketAddr,
    /// The file of keys; empty for none.
    pub keys: PathBuf,
    /// Requests that read or answer at once, and contexts being read; more are refused with 429.
    pub max_requests: usize,
    /// Connections at once; more wait until one closes.
    pub max_connections: usize,
    /// Bytes of a request's body at most.
    pub max_body_bytes: usize,
    /// Tokens of an answer at most, whatever the client asks for.
    pub max_answer_tokens: usize,
    /// Answers to one request at most.
    pub max_choices: usize,
    /// Seconds that the head of a request may take to arrive, and that a connection may be idle.
    pub head_seconds: u64,
    /// Seconds that the next piece of a request's body may take.
    pub body_seconds: u64,
    /// Seconds that a request may take.
    pub request_seconds: u64,
    /// Seconds that requests have to end when the service is told to.
    pub drain_seconds: u64,
    /// Bytes for what was said in requests, so that what follows goes on from there.
    pub recent_bytes: usize,
    /// Bytes of a GPU's memory for sinks and windows; 0 for a quarter of what is free.
    pub window_bytes: usize,
    /// Bytes on the disk that each tenant may use; 0 for no limit.
    pub tenant_max_bytes: u64,
    /// Origins that browsers may call from, "*" for all; none for pages of the service itself alone.
    pub cors_origins: Vec<String>,
    /// Who goes first.
    pub schedule: SchedulePolicy,
    /// Sequences in a step at most.
    pub step_sequences: usize,
    /// Tokens that a sequence may use before others go first.
    pub first_quantum: u64,
    /// Milliseconds after which who was not served goes first.
    pub promote_ms: u64,
    /// How the log is written.
    pub log_format: LogFormat,
    /// What is logged: this and what is graver.
    pub log_level: LogLevel,
}

/// How the log is written, a line an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// How grave something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// It failed, and should not have.
    Error,
    /// Somebody should know.
    Warn,
    /// It happened.
    #[default]
    Info,
    /// Each step of it.
    Debug,
}

impl Default for ServeConfig {
    fn default() -> Self {
        let schedule = ScheduleConfig::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8077)),
            keys: PathBuf::new(),
            max_requests: 64,
            max_connections: 1024,
            max_body_bytes: 16 << 20,
            max_answer_tokens: 4096,
            max_choices: 8,
            head_seconds: 60,
            body_seconds: 60,
            request_seconds: 3600,
            drain_seconds: 30,
            recent_bytes: 1 << 30,
            window_bytes: 0,
            tenant_max_bytes: 0,
            cors_origins: Vec::new(),
            schedule: schedule.policy,
            step_sequences: schedule.step_sequences,
            first_quantum: schedule.first_quantum,
            promote_ms: schedule.promote_after.as_millis() as u64,
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
        }
    }
}

impl ServeConfig {
    /// How turns are given.
    pub fn schedule(&self) -> ScheduleConfig {
        ScheduleConfig {
            policy: self.schedule,
            step_sequences: self.step_sequences,
            first_quantum: self.first_quantum,
            promote_after: Duration::from_millis(self.promote_ms),
            ..ScheduleConfig::default()
        }
    }

    /// What cannot work, as `(key, what is wrong)`.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let sizes = [
            ("max-requests", self.max_requests as u64),
            ("max-connections", self.max_connections as u64),
            ("max-body-bytes", self.max_body_bytes as u64),
            ("max-answer-tokens", self.max_answer_tokens as u64),
            ("max-choices", self.max_choices as u64),
            ("head-seconds", self.head_seconds),
            ("body-seconds", self.body_seconds),
            ("request-seconds", self.request_seconds),
            ("step-sequences", self.step_sequences as u64),
            ("first-quantum", self.first_quantum),
        ];
        let zero = sizes.into_iter().filter(|(_, size)| *size == 0);
        let mut faults: Vec<_> =
            zero.map(|(key, _)| (key, "must be at least 1".to_owned())).collect();
        if self.max_choices > self.step_sequences {
            let what = format!("must not exceed step-sequences ({})", self.step_sequences);
            faults.push(("max-choices", what));
        }
        for origin in &self.cors_origins {
            let is_origin =
                origin == "*" || origin.starts_with("http://") || origin.starts_with("https://");
            if !is_origin {
                faults
                    .push(("cors-origins", format!("{origin:?} must be \"*\" or begin with http")));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_and_what_does_not_is_named() {
        assert_eq!(ServeConfig::default().faults(), []);
        let wrong = ServeConfig {
            max_requests: 0,
            max_choices: 40,
            cors_origins: vec!["example.org".to_owned()],
            ..ServeConfig::default()
        };
        let keys: Vec<_> = wrong.faults().iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, ["max-requests", "max-choices", "cors-origins"]);
    }
}
