//! What is counted of callers: by token where that is bounded by the file, and why calls were refused.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    token: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// Counters of access. Clones share the numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessMetrics {
    calls: Family<TokenLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    reloads: Family<ResultLabels, Counter>,
    in_flight: Gauge,
    /// Names that have series.
    names: Arc<Mutex<BTreeSet<String>>>,
}

/// How a token's call ended: its rows in the metric.
const OUTCOMES: [&str; 3] = ["answered", "denied", "limited"];

impl AccessMetrics {
    /// A token's call.
    pub(crate) fn called(&self, token: &str, outcome: &'static str) {
        self.names.lock().insert(token.to_owned());
        self.calls.get_or_create(&TokenLabels { token: token.to_owned(), outcome }).inc();
    }

    /// A call, or a question of a stream, that was refused.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(super) fn reloaded(&self, taken: bool) {
        let result = if taken { "taken" } else { "refused" };
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// Calls being worked on, streams not counted.
    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// A token that left the file leaves no series behind.
    pub(super) fn keep_only(&self, tokens: &BTreeSet<&str>) {
        let mut names = self.names.lock();
        for token in names.iter().filter(|name| !tokens.contains(name.as_str())) {
            for outcome in OUTCOMES {
                self.calls.remove(&TokenLabels { token: token.clone(), outcome });
            }
        }
        names.retain(|name| tokens.contains(name.as_str()));
    }

    /// Adds them to a registry.
    pub(crate) fn describe(&self, registry: &mut Registry) {
        registry.register("access_calls", "Calls by token and outcome", self.calls.clone());
        registry.register(
            "api_refused",
            "Calls and questions that were not worked on: overload, a rate, no known token, no right, slow bodies",
            self.refused.clone(),
        );
        registry.register("access_reloads", "Changed access files, taken or refused", self.reloads.clone());
        registry.register("api_in_flight", "Calls being worked on", self.in_flight.clone());
    }
}
