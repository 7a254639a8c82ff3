//! The keys of traces: where spans of calls go, and how many.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::check::Checker;
use super::{Config, ConfigError, Shown, text};

/// Traces of calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawTelemetry {
    /// Collector that takes traces by OTLP over gRPC, such as http://otel-collector:4317 [default: no traces].
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Share of calls that are traced, from 0 to 1; a caller's own decision goes before it [default: 0.01].
    #[arg(long, value_name = "SHARE")]
    pub trace_share: Option<f64>,
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// The collector.
    pub endpoint: String,
    /// Share of calls that begin a trace.
    pub share: f64,
}

/// A router asks for each of its requests: all of them would be more spans than answers are worth.
const DEFAULT_SHARE: f64 = 0.01;

impl Checker<'_> {
    pub(super) fn trace(&self, raw: &RawTelemetry) -> Result<Option<TraceConfig>, ConfigError> {
        let share = raw.trace_share.unwrap_or(DEFAULT_SHARE);
        if !(0.0..=1.0).contains(&share) {
            return Err(self.invalid("trace_share", &share.to_string(), "must be from 0 to 1"));
        }
        let Some(endpoint) = raw.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty()) else {
            return Ok(None);
        };
        let uri: Result<axum::http::Uri, _> = endpoint.parse();
        if !uri.is_ok_and(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some()) {
            let reason = "must look like http://otel-collector:4317; a collector behind TLS needs an agent beside \
                          the node";
            return Err(self.invalid("otlp_endpoint", &endpoint, reason));
        }
        Ok(Some(TraceConfig { endpoint, share }))
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let trace = config.trace.as_ref();
    vec![
        ("otlp_endpoint", text(trace.map_or("", |trace| &trace.endpoint))),
        ("trace_share", trace.map_or(DEFAULT_SHARE, |trace| trace.share).to_string()),
    ]
}
