//! What did a request's time go to? Spans for whoever traces: waiting in the queue, taking in what was
//! sent, and answering; each says how many tokens it was and how long units were looked up, and lookups
//! are spans within them, at the finest level. They are `tracing`'s, so that a program with an
//! OpenTelemetry layer exports them.

use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

/// Where the time of one sequence goes.
pub(super) struct Trace {
    request: Span,
    phase: Phase,
    span: Span,
    before: Duration, // lookups of the phases before
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Queue,
    Prefill,
    Decode,
}

impl Trace {
    /// A sequence of `request`'s waits.
    pub fn begin(request: Span) -> Self {
        let span = tracing::debug_span!(parent: &request, "queue");
        Self { request, phase: Phase::Queue, span, before: Duration::ZERO }
    }

    /// Whose it is.
    pub fn request(&self) -> Span {
        self.request.clone()
    }

    /// It takes in `tokens` from now on, unless it is past that; gives the span if it is new.
    pub fn prefill(&mut self, tokens: usize) -> Option<Span> {
        if self.phase != Phase::Queue {
            return None;
        }
        let span = tracing::debug_span!(
            parent: &self.request, "prefill", tokens, retrieval_ms = Empty
        );
        Some(self.change(Phase::Prefill, span))
    }

    /// It answers from now on; its lookups took `retrieval` until now.
    pub fn decode(&mut self, retrieval: Duration) -> Span {
        self.end(None, retrieval);
        let span = tracing::debug_span!(
            parent: &self.request, "decode", tokens = Empty, retrieval_ms = Empty
        );
        self.change(Phase::Decode, span)
    }

    /// It is over, after an answer of `tokens`; its lookups took `retrieval` in all.
    pub fn end(&mut self, tokens: Option<usize>, retrieval: Duration) {
        let of_phase = retrieval.saturating_sub(std::mem::replace(&mut self.before, retrieval));
        if let (Some(tokens), Phase::Decode) = (tokens, self.phase) {
            self.span.record("tokens", tokens);
        }
        self.span.record("retrieval_ms", of_phase.as_secs_f64() * 1e3);
        self.span = Span::none();
    }

    fn change(&mut self, phase: Phase, span: Span) -> Span {
        (self.phase, self.span) = (phase, span.clone());
        span
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::Level;
    use tracing_subscriber::fmt::format::FmtSpan;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn phases_are_spans_of_their_request_one_after_another() {
        let log = Log::default();
        let into = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || into.clone())
            .with_max_level(Level::DEBUG)
            .with_span_events(FmtSpan::CLOSE)
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut trace = Trace::begin(tracing::info_span!("request", id = 7));
            assert!(trace.prefill(100).is_some());
            assert!(trace.prefill(100).is_none(), "it is past the queue");
            drop(trace.decode(Duration::from_millis(20)));
            trace.end(Some(5), Duration::from_millis(25));
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let spans: Vec<_> = log.lines().map(|line| line.split(": close").next().unwrap()).collect();
        let of_request = [
            "DEBUG request{id=7}:queue",
            "DEBUG request{id=7}:prefill{tokens=100 retrieval_ms=20.0}",
            "DEBUG request{id=7}:decode{tokens=5 retrieval_ms=5.0}",
            " INFO request{id=7}",
        ];
        assert_eq!(spans, of_request, "{log}");
    }
}
