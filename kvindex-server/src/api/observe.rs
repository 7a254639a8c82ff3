//! What happens around every call: its arrival is noted, its outcome counted.

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

use tracing::Instrument;

use super::Api;
use super::calls::Arrived;
use super::error::{word_of_grpc, word_of_http};
use super::trace;
use crate::access::Right;
use crate::metrics::CallLabels;

const GRPC_PREFIX: &str = "/kvindex.v1.";

/// Notes when the request's head came, and counts the call when its answer's head is ready.
pub(super) async fn observe(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let arrived = Arrived(Instant::now());
    let is_grpc = is_grpc(&request);
    let Method(method) = Method::of(&request);
    request.extensions_mut().insert(arrived);
    let span = trace::span_of(method, is_grpc, request.headers());
    let mut response = next.run(request).instrument(span.clone()).await;
    let (transport, code) =
        if is_grpc { ("grpc", grpc_code(&mut response)) } else { ("http", word_of_http(response.status())) };
    span.record("code", code);
    api.node.metrics().called(CallLabels { method, transport, code }, arrived.0.elapsed());
    response
}

/// Whether an answer is to be gRPC's.
pub(super) fn is_grpc(request: &Request) -> bool {
    request.uri().path().starts_with(GRPC_PREFIX)
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

/// Which call it is: a bounded set of names, whatever path the caller made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method(&'static str);

impl Method {
    pub(super) const METRICS: Self = Self("metrics");
    pub(super) const MATCH_BATCH: Self = Self("match_batch");

    pub(super) fn of(request: &Request) -> Self {
        // Routes answer to HEAD as they do to GET.
        let method =
            if request.method() == axum::http::Method::HEAD { "GET" } else { request.method().as_str() };
        Self(name(method, request.uri().path()))
    }

    /// The right that it needs over some tenant at least: who lacks it is refused before a body is read.
    pub(super) fn right(self) -> Option<Right> {
        match self.0 {
            "match" | "match_batch" | "match_stream" | "explain" | "list_workers" | "hot_prefixes"
            | "watch" => Some(Right::Read),
            "publish" => Some(Right::Publish),
            "register" | "unregister" | "cluster_status" | "remove_node" | "set_voter" | "hand_over" => {
                Some(Right::Admin)
            }
            _ => None,
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        self.0
    }

    /// Whether it asks about the node's health, which is answered to everyone and always.
    pub(super) fn is_health(self) -> bool {
        matches!(self.0, "healthz" | "readyz")
    }

    /// Whether it is a file of the status page, which is the same for everyone and says nothing of this node.
    pub(super) fn is_page(self) -> bool {
        self.0 == "ui"
    }

    /// Whether it is one of those that are worked on for a while and may be refused for that.
    pub(super) fn is_question(self) -> bool {
        matches!(self.0, "match" | "match_batch" | "explain" | "list_workers" | "hot_prefixes")
    }

    /// Whether it goes on after its answer has begun.
    pub(super) fn is_stream(self) -> bool {
        matches!(self.0, "match_stream" | "watch")
    }
}

fn name(method: &str, path: &str) -> &'static str {
    if method == "POST"
        && let Some(rest) = path.strip_prefix(GRPC_PREFIX)
    {
        return match rest {
            "QueryService/Match" => "match",
            "QueryService/MatchBatch" => "match_batch",
            "QueryService/MatchStream" => "match_stream",
            "QueryService/Explain" => "explain",
            "QueryService/ListWorkers" => "list_workers",
            "QueryService/HotPrefixes" => "hot_prefixes",
            "QueryService/Watch" => "watch",
            "IngestService/Register" => "register",
            "IngestService/Unregister" => "unregister",
            "IngestService/Publish" => "publish",
            "ClusterService/ClusterStatus" => "cluster_status",
            "ClusterService/RemoveNode" => "remove_node",
            "ClusterService/SetVoter" => "set_voter",
            "ClusterService/HandOver" => "hand_over",
            _ => "other",
        };
    }
    match (method, path) {
        ("POST", "/v1/match") => "match",
        ("POST", "/v1/match_batch") => "match_batch",
        ("POST", "/v1/explain") => "explain",
        ("GET", "/v1/workers") => "list_workers",
        ("GET", "/v1/hot") => "hot_prefixes",
        ("GET", "/v1/watch") => "watch",
        ("POST", "/v1/workers") => "register",
        ("POST", "/v1/publish") => "publish",
        ("GET", "/v1/cluster") => "cluster_status",
        ("POST", "/v1/cluster/remove_node") => "remove_node",
        ("POST", "/v1/cluster/set_voter") => "set_voter",
        ("POST", "/v1/cluster/hand_over") => "hand_over",
        ("GET", "/metrics") => "metrics",
        ("GET", "/healthz") => "healthz",
        ("GET", "/readyz") => "readyz",
        ("GET", "/openapi.json") => "openapi",
        ("DELETE", path) if path.starts_with("/v1/workers/") => "unregister",
        ("GET", path) if path == "/ui" || path.starts_with("/ui/") => "ui",
        _ => "other",
    }
}
