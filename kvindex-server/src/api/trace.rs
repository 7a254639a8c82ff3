//! A span for each call, as part of the caller's trace where it sent one (W3C Trace Context). Nothing that a prompt
//! says is in it.

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Spans have a target of their own: whoever writes logs leaves them out, and then they cost nothing.
pub const CALL_TARGET: &str = "kvindex::call";

/// The span of a call; disabled where nobody takes traces.
pub(super) fn span_of(method: &'static str, is_grpc: bool, headers: &HeaderMap) -> Span {
    let transport = if is_grpc { "grpc" } else { "http" };
    let span = tracing::info_span!(
        target: CALL_TARGET,
        "call",
        otel.name = method,
        otel.kind = "server",
        transport,
        code = tracing::field::Empty,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // It fails only where no layer takes traces.
        let _ = span.set_parent(parent);
    }
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}
