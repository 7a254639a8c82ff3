//! What happens around every call: its arrival is noted, its outcome counted.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

use tracing::Instrument;

use super::Api;
use super::calls::Arrived;
use super::error::{word_of_grpc, word_of_http};
use super::trace;
use crate::metrics::CallLabels;

const GRPC_PREFIX: &str = "/kvindex.v1.";

/// Notes when the request's head came, and counts the call when its answer's head is ready.
pub(super) async fn observe(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let arrived = Arrived(Instant::now());
    let is_grpc = request.uri().path().starts_with(GRPC_PREFIX);
    let method = method_name(request.method(), request.uri().path());
    request.extensions_mut().insert(arrived);
    let span = trace::span_of(method, is_grpc, request.headers());
    let mut response = next.run(request).instrument(span.clone()).await;
    let (transport, code) =
        if is_grpc { ("grpc", grpc_code(&mut response)) } else { ("http", word_of_http(response.status())) };
    span.record("code", code);
    api.node.metrics().called(CallLabels { method, transport, code }, arrived.0.elapsed());
    response
}

/// The code of an answer that ends with its head; any other begins well. On the way the transport's own code for
/// a message over the limit, out of range, becomes the one of every other limit.
fn grpc_code(response: &mut Response) -> &'static str {
    let code = response.headers().get("grpc-status").map(|value| tonic::Code::from_bytes(value.as_bytes()));
    if code == Some(tonic::Code::OutOfRange) {
        response
            .headers_mut()
            .insert("grpc-status", HeaderValue::from(tonic::Code::ResourceExhausted as i32));
        return word_of_grpc(tonic::Code::ResourceExhausted);
    }
    word_of_grpc(code.unwrap_or(tonic::Code::Ok))
}

/// A bounded name for a call, whatever path the caller made up.
fn method_name(method: &Method, path: &str) -> &'static str {
    match (method.as_str(), path) {
        ("POST", "/v1/match" | "/kvindex.v1.QueryService/Match") => "match",
        ("POST", "/v1/match_batch" | "/kvindex.v1.QueryService/MatchBatch") => "match_batch",
        ("POST", "/kvindex.v1.QueryService/MatchStream") => "match_stream",
        ("POST", "/v1/explain" | "/kvindex.v1.QueryService/Explain") => "explain",
        ("GET", "/v1/workers") | ("POST", "/kvindex.v1.QueryService/ListWorkers") => "list_workers",
        ("GET", "/v1/watch") | ("POST", "/kvindex.v1.QueryService/Watch") => "watch",
        ("POST", "/v1/workers" | "/kvindex.v1.IngestService/Register") => "register",
        ("POST", "/kvindex.v1.IngestService/Unregister") => "unregister",
        ("POST", "/v1/publish" | "/kvindex.v1.IngestService/Publish") => "publish",
        ("GET", "/metrics") => "metrics",
        ("GET", "/healthz") => "healthz",
        ("GET", "/readyz") => "readyz",
        ("GET", "/openapi.json") => "openapi",
        ("DELETE", path) if path.starts_with("/v1/workers/") => "unregister",
        _ => "other",
    }
}
