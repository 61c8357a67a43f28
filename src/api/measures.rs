//! What does an operator see? Counts and times in Prometheus' text format.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::keys::Tenant;
use super::state::Service;

/// What is counted while requests are answered.
#[derive(Debug)]
pub struct Measures {
    requests: Family<RequestLabels, Counter>,
    refused: Counter,
    prompt_tokens: Family<TenantLabels, Counter>,
    cached_tokens: Family<TenantLabels, Counter>,
    answer_tokens: Family<TenantLabels, Counter>,
    first_token: Histogram,
    between_tokens: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: String,
}

impl Default for Measures {
    fn default() -> Self {
        let seconds = |from: f64| Histogram::new((0..14).map(move |i| from * f64::from(1u32 << i)));
        Self {
            requests: Family::default(),
            refused: Counter::default(),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            answer_tokens: Family::default(),
            first_token: seconds(0.02),
            between_tokens: seconds(0.002),
        }
    }
}

impl Measures {
    /// A request was replied to.
    pub fn count_request(&self, route: &str, status: u16, tenant: Option<&Tenant>) {
        let tenant = tenant.map_or(String::new(), |tenant| tenant.0.clone());
        let labels = RequestLabels { route: route.to_owned(), status, tenant };
        self.requests.get_or_create(&labels).inc();
    }

    /// A request found no place.
    pub fn count_refused(&self) {
        self.refused.inc();
    }

    /// A prompt was taken in, of which some tokens had been read before.
    pub fn count_prompt(&self, tenant: &Tenant, tokens: usize, cached_tokens: usize) {
        let labels = TenantLabels { tenant: tenant.0.clone() };
        self.prompt_tokens.get_or_create(&labels).inc_by(tokens as u64);
        self.cached_tokens.get_or_create(&labels).inc_by(cached_tokens as u64);
    }

    /// Tokens of an answer were given out.
    pub fn count_answer(&self, tenant: &Tenant, tokens: usize) {
        let labels = TenantLabels { tenant: tenant.0.clone() };
        self.answer_tokens.get_or_create(&labels).inc_by(tokens as u64);
    }

    /// The first token came so long after the request.
    pub fn time_first(&self, time: Duration) {
        self.first_token.observe(time.as_secs_f64());
    }

    /// A later token came so long after the one before it.
    pub fn time_between(&self, time: Duration) {
        self.between_tokens.observe(time.as_secs_f64());
    }

    /// All of it, with what the server, the store and the process say, as text.
    pub fn text(&self, service: &Service) -> String {
        let mut registry = Registry::with_prefix("mneme");
        registry.register("requests", "Requests replied to", self.requests.clone());
        registry.register("refused", "Requests that found no place", self.refused.clone());
        let tokens = [
            ("prompt_tokens", "Tokens of prompts, contexts' included", &self.prompt_tokens),
            ("cached_tokens", "Of these, tokens that had been read before", &self.cached_tokens),
            ("answer_tokens", "Tokens of answers", &self.answer_tokens),
        ];
        for (name, help, family) in tokens {
            registry.register(name, help, family.clone());
        }
        let times = [
            ("time_to_first_token", "From request to first token", &self.first_token),
            ("time_between_tokens", "From token to token", &self.between_tokens),
        ];
        for (name, help, histogram) in times {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        of_server(&mut registry, service);
        of_store(&mut registry, service);
        let mut text = String::new();
        encode(&mut text, &registry).expect("because a string takes everything");
        text
    }
}

fn count(registry: &mut Registry, (name, help): (&str, &str), value: u64) {
    let counter = Counter::<u64, AtomicU64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn level(registry: &mut Registry, (name, help): (&str, &str), value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value as i64);
    registry.register(name, help, gauge);
}

fn of_server(registry: &mut Registry, service: &Service) {
    let measures = service.server().measures();
    level(
        registry,
        ("running", "Requests and readings that have a place"),
        measures.n_tasks as u64,
    );
    count(registry, ("steps", "Passes of the model"), measures.n_steps);
    count(registry, ("read_tokens", "Tokens read as those of documents"), measures.tokens_read);
    count(registry, ("said_tokens", "Tokens of questions and answers"), measures.tokens_said);
    let of_steps = measures.sequences_of_steps;
    count(registry, ("step_sequences", "Sequences, summed over steps"), of_steps);
    let micros = measures.step_time.as_micros() as u64;
    count(registry, ("step_microseconds", "Time of all steps"), micros);
    count(registry, ("faults", "Steps that failed where nothing should"), measures.faults);
    let (n_recent, recent_bytes) = service.recent().size();
    level(registry, ("recent_sessions", "Sessions kept for what may follow"), n_recent as u64);
    level(registry, ("recent_bytes", "Bytes that these take"), recent_bytes as u64);
    level(registry, ("draining", "1 while the service ends"), u64::from(service.is_draining()));
}

fn of_store(registry: &mut Registry, service: &Service) {
    let events = service.store().events();
    let family = Family::<EventLabels, Counter>::default();
    for (event, n) in [
        ("checksum_mismatch", events.checksum_mismatches),
        ("fingerprint_miss", events.fingerprint_misses),
        ("expired", events.expirations),
        ("evicted", events.evictions),
        ("io_error", events.io_errors),
    ] {
        family.get_or_create(&EventLabels { event: event.to_owned() }).inc_by(n);
    }
    registry.register("store_events", "What happened in the store", family);
}
