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
    /// Tokens of the file in effect: only they have series.
    names: Arc<Mutex<BTreeSet<String>>>,
}

/// How a token's call ended: its rows in the metric.
const OUTCOMES: [&str; 3] = ["answered", "denied", "limited"];

impl AccessMetrics {
    /// A token's call, if the file still has it.
    pub(crate) fn called(&self, token: &str, outcome: &'static str) {
        // Held until it is counted: a call that ends after its token is gone must not make the series again.
        let names = self.names.lock();
        if !names.contains(token) {
            return;
        }
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

    /// The file in effect has these tokens; one that left it leaves no series behind.
    pub(super) fn set_tokens(&self, tokens: &BTreeSet<&str>) {
        let mut names = self.names.lock();
        for token in names.iter().filter(|name| !tokens.contains(name.as_str())) {
            for outcome in OUTCOMES {
                self.calls.remove(&TokenLabels { token: token.clone(), outcome });
            }
        }
        *names = tokens.iter().map(|&token| token.to_owned()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by a review: a call that ended after its token was gone made the series again, for good.
    #[test]
    fn a_gone_tokens_series_do_not_come_back() {
        let metrics = AccessMetrics::default();
        let mut registry = Registry::default();
        metrics.describe(&mut registry);
        let series = |token: &str| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).is_ok()
                && text.contains(&format!("token=\"{token}\""))
        };
        metrics.set_tokens(&BTreeSet::from(["router", "operator"]));
        for token in ["router", "operator"] {
            metrics.called(token, "answered");
            assert!(series(token), "{token}");
        }
        metrics.set_tokens(&BTreeSet::from(["operator"]));
        metrics.called("router", "answered");
        assert!(series("operator") && !series("router"));
    }
}
