//! What does an operator see? Counts and times in Prometheus' text format.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::keys::Tenant;

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

    /// Has a registry know them.
    pub fn register(&self, registry: &mut Registry) {
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
    }
}
