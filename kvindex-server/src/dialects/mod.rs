//! Other indexers' calls on the public port, so that a router written for one of them only changes an address. Each
//! dialect is a thin adapter: it reads its request, asks the same question as a native call would, with the same caller,
//! limits and turn, and writes the answer in its own form. There is no second index here and no second matching.
//!
//! A dialect is one module with a table of its routes, a switch in `config/dialects.rs`, and a line in [`call_of`] and
//! [`router`]. The guard and the metrics know its calls by that table.

mod asker;
mod dynamo;
mod fields;
mod fold;
mod hitrate;
mod indexer;
mod instances;
mod llmd;
mod lmcache;
mod mooncake;
mod named;
mod ordered;
mod reader;
mod refusal;
mod sglang;
mod texts;
mod values;
mod wire;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use kvindex_proto::v1;
use std::sync::Arc;

use crate::access::Right;
use crate::api::{Api, ApiError, Kind};
use crate::config::{ApiLimits, DialectsConfig};
use indexer::Asked;
pub(crate) use texts::Tokenizers;
pub(crate) use wire::Wire;

/// A call of a dialect, as the guard and the metrics know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its name in metrics and traces: the dialect's, and what it does.
    pub(crate) name: &'static str,
    /// The right that it needs over some tenant at least.
    pub(crate) right: Option<Right>,
    /// Whether it is worked on for a while, and may be refused for that.
    pub(crate) is_question: bool,
    /// Whether it is answered as gRPC is.
    pub(crate) is_grpc: bool,
    /// Whether it asks about the node's health, which everyone hears always.
    pub(crate) is_health: bool,
}

impl Call {
    /// Asks about prompts or workers.
    const fn question(name: &'static str) -> Self {
        Self { name, right: Some(Right::Read), is_question: true, is_grpc: false, is_health: false }
    }

    /// Asks, by gRPC.
    const fn grpc(name: &'static str) -> Self {
        Self { is_grpc: true, ..Self::question(name) }
    }

    /// Makes workers known, or forgets them.
    const fn change(name: &'static str) -> Self {
        Self { right: Some(Right::Admin), is_question: false, ..Self::question(name) }
    }

    /// Asks whether the node lives.
    const fn health(name: &'static str) -> Self {
        Self { right: None, is_question: false, is_health: true, ..Self::question(name) }
    }
}

/// A method, a path, and the call that they mean.
type Route = (&'static str, &'static str, Call);

/// The call of a dialect that is served, by method and path; `None` where there is none.
pub(crate) fn call_of(config: &DialectsConfig, method: &str, path: &str) -> Option<Call> {
    let served: [(bool, &[Route]); 5] = [
        (config.mooncake.is_some(), &mooncake::ROUTES),
        (config.dynamo, &dynamo::ROUTES),
        (config.sglang, &sglang::ROUTES),
        (config.llmd, &llmd::ROUTES),
        (config.lmcache, &lmcache::ROUTES),
    ];
    if !config.hitrate.path.is_empty() && (method, path) == ("POST", config.hitrate.path.as_str()) {
        return Some(hitrate::CALL);
    }
    let routes = served.iter().filter(|(is_served, _)| *is_served).flat_map(|(_, routes)| *routes);
    // gRPC's library answers whatever the method is: it is the same call, and the guard refuses all but POST.
    let mut called = routes.filter(|(verb, place, call)| (*verb == method || call.is_grpc) && *place == path);
    called.next().map(|(_, _, call)| *call)
}

/// The routes of every dialect that is served. The native guard stands around them.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    let config = api.dialects();
    let mut routes = Router::new();
    if config.mooncake.is_some() || config.dynamo {
        routes = routes.merge(indexer::router(api));
    }
    if config.sglang {
        routes = routes.merge(sglang::router(api));
    }
    if config.llmd {
        routes = routes.merge(llmd::router(api));
    }
    if config.lmcache {
        routes = routes.merge(lmcache::router(api));
    }
    if !config.hitrate.path.is_empty() {
        routes = routes.merge(hitrate::router(api));
    }
    routes.method_not_allowed_fallback(method_not_allowed)
}

/// The prompt that a body asks about, by token ids or by hashes.
///
/// # Errors
/// The status with which it is refused.
pub(crate) fn prompt_of(
    wire: Wire,
    by_hash: bool,
    body: &[u8],
    limits: &ApiLimits,
) -> Result<v1::Prompt, StatusCode> {
    let asked =
        wire.read(body, limits).and_then(|mut fields| Asked::read(wire, &mut fields, by_hash, limits));
    asked.map(Asked::into_prompt).map_err(|refusal| refusal.status)
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
