//! `GET /metrics`: what was counted, and what server and store say, in Prometheus' text format.

use std::sync::atomic::AtomicU64;

use axum::Extension;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::keys::Tenant;
use super::state::Service;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: String,
}

/// The tenant who sees what all tenants' requests count.
const OPERATOR: &str = "operator";

/// Gives the measures, in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "others",
    responses((
        status = 200, description = "The measures", body = String,
        content_type = "application/openmetrics-text",
    ))
)]
pub async fn metrics(
    State(service): State<Service>,
    Extension(tenant): Extension<Tenant>,
) -> Response {
    let mut registry = Registry::with_prefix("mneme");
    service.measures().register(&mut registry);
    of_server(&mut registry, &service);
    of_store(&mut registry, &service);
    let mut text = String::new();
    encode(&mut text, &registry).expect("because a string takes everything");
    let text = of_tenant(&text, &tenant);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], text).into_response()
}

/// Leaves out what counts other tenants' requests.
fn of_tenant(text: &str, tenant: &Tenant) -> String {
    if tenant.0 == OPERATOR {
        return text.to_owned();
    }
    // Names of tenants have no quotes and no backslashes.
    let own = format!("tenant=\"{}\"", tenant.0);
    let is_seen = |line: &&str| !line.contains("tenant=\"") || line.contains(&own);
    text.split_inclusive('\n').filter(is_seen).collect()
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
    let (name, help) =
        ("windows_set_aside", "Windows that left the device's memory for the host's");
    count(registry, (name, help), measures.set_aside);
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
