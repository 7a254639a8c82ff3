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
use crate::config::DialectsConfig;
use crate::dialects::{self, Call};
use crate::metrics::CallLabels;

const GRPC_PREFIX: &str = "/kvindex.v1.";

/// The name of whatever is no call.
const OTHER: &str = "other";

/// Notes when the request's head came, and counts the call when its answer's head is ready.
pub(super) async fn observe(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let arrived = Arrived(Instant::now());
    let method = Method::of(&request, &api.dialects);
    let is_grpc = method.is_grpc();
    request.extensions_mut().insert(arrived);
    let span = trace::span_of(method.name, is_grpc, request.headers());
    let mut response = next.run(request).instrument(span.clone()).await;
    let (transport, code) = if is_grpc {
        ("grpc", grpc_code(&mut response, method.dialect.is_none()))
    } else {
        ("http", word_of_http(response.status()))
    };
    span.record("code", code);
    let method = match response.extensions().get() {
        Some(CalledAs(name)) => {
            span.record("otel.name", name);
            name
        }
        None => method.name,
    };
    api.node.metrics().called(CallLabels { method, transport, code }, arrived.0.elapsed());
    response
}

/// Noted on an answer whose call was known by name only when its body was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CalledAs(pub(crate) &'static str);

/// The code of an answer that ends with its head; any other begins well. On the way the transport's own code for
/// a message over the limit, out of range, becomes the one of every other limit where the call is one of our own.
fn grpc_code(response: &mut Response, is_own: bool) -> &'static str {
    let code = response.headers().get("grpc-status").map(|value| tonic::Code::from_bytes(value.as_bytes()));
    if is_own && code == Some(tonic::Code::OutOfRange) {
        response
            .headers_mut()
            .insert("grpc-status", HeaderValue::from(tonic::Code::ResourceExhausted as i32));
        return word_of_grpc(tonic::Code::ResourceExhausted);
    }
    word_of_grpc(code.unwrap_or(tonic::Code::Ok))
}

/// Which call it is: a bounded set of names, whatever path the caller made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    name: &'static str,
    /// A dialect's call; `None` for one of our own.
    dialect: Option<Call>,
    is_grpc: bool,
}

impl Method {
    pub(super) fn of(request: &Request, dialects: &DialectsConfig) -> Self {
        let method = Self::own(request);
        if method.name != OTHER {
            return method;
        }
        let call = dialects::call_of(dialects, verb(request), request.uri().path());
        match call {
            Some(call) => Self { name: call.name, dialect: Some(call), is_grpc: call.is_grpc },
            None => method,
        }
    }

    /// One of our own calls, or none known.
    pub(super) fn own(request: &Request) -> Self {
        let path = request.uri().path();
        Self { name: name(verb(request), path), dialect: None, is_grpc: path.starts_with(GRPC_PREFIX) }
    }

    /// Whether its answer is to be gRPC's.
    pub(super) fn is_grpc(self) -> bool {
        self.is_grpc
    }

    pub(super) fn is_metrics(self) -> bool {
        self.name == "metrics"
    }

    /// Whether it brings many questions, which are counted when they are known.
    pub(super) fn is_batch(self) -> bool {
        self.name == "match_batch"
    }

    /// The right that it needs over some tenant at least: who lacks it is refused before a body is read.
    pub(super) fn right(self) -> Option<Right> {
        if let Some(call) = self.dialect {
            return call.right;
        }
        match self.name {
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
        self.name
    }

    /// Whether it asks about the node's health, which is answered to everyone and always.
    pub(super) fn is_health(self) -> bool {
        matches!(self.name, "healthz" | "readyz") || self.dialect.is_some_and(|call| call.is_health)
    }

    /// Whether it is a file of the status page, which is the same for everyone and says nothing of this node.
    pub(super) fn is_page(self) -> bool {
        self.name == "ui"
    }

    /// Whether it is one of those that are worked on for a while and may be refused for that.
    pub(super) fn is_question(self) -> bool {
        matches!(self.name, "match" | "match_batch" | "explain" | "list_workers" | "hot_prefixes")
            || self.dialect.is_some_and(|call| call.is_question)
    }

    /// Whether it goes on after its answer has begun.
    pub(super) fn is_stream(self) -> bool {
        matches!(self.name, "match_stream" | "watch")
    }
}

/// Routes answer to HEAD as they do to GET.
fn verb(request: &Request) -> &str {
    if request.method() == axum::http::Method::HEAD { "GET" } else { request.method().as_str() }
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
            _ => OTHER,
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
        _ => OTHER,
    }
}
