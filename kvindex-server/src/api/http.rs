//! The HTTP/JSON routes: the same calls and the same messages as gRPC.

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Extension, Json, Router};
use std::convert::Infallible;
use std::sync::Arc;

use kvindex_proto::v1;
use serde::Deserialize;
use tokio_stream::{Stream, StreamExt};

use super::Api;
use super::body::{JsonBody, JsonEvents, JsonQuestion};
use super::calls::Arrived;
use super::error::{ApiError, ErrorBody, Kind};
use super::openapi;
use crate::access::{Caller, Right};

type Answer<T> = Result<Json<T>, ApiError>;

/// All HTTP routes. A new one belongs into `openapi.rs` too; a test compares.
pub(super) fn router(api: &Arc<Api>) -> Router {
    Router::new()
        .route("/v1/match", post(find))
        .route("/v1/match_batch", post(find_batch))
        .route("/v1/explain", post(explain))
        .route("/v1/workers", get(list_workers).post(register))
        // Ids may hold slashes.
        .route("/v1/workers/{*worker_id}", delete(unregister))
        .route("/v1/hot", get(hot_prefixes))
        .route("/v1/publish", post(publish))
        .route("/v1/watch", get(watch))
        .route("/v1/cluster", get(cluster_status))
        .route("/v1/cluster/remove_node", post(remove_node))
        .route("/v1/cluster/set_voter", post(set_voter))
        .route("/v1/cluster/hand_over", post(hand_over))
        .route("/openapi.json", get(openapi_json))
        .with_state(Arc::clone(api))
        .merge(probes_router(api))
        .method_not_allowed_fallback(method_not_allowed)
}

/// Whether the node lives, and is ready.
pub(super) fn probes_router(api: &Arc<Api>) -> Router {
    let routes = Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz));
    routes.method_not_allowed_fallback(method_not_allowed).with_state(Arc::clone(api))
}

/// Metrics, which may have a port of their own.
pub(super) fn metrics_router(api: &Arc<Api>) -> Router {
    let routes = Router::new().route("/metrics", get(metrics));
    routes.method_not_allowed_fallback(method_not_allowed).with_state(Arc::clone(api))
}

/// The status page.
pub(super) fn page_router() -> Router {
    crate::ui::router().method_not_allowed_fallback(method_not_allowed)
}

async fn method_not_allowed(method: axum::http::Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, format!("{} does not take {method}; see /openapi.json", uri.path()))
}

/// Which workers hold how long a prefix of a prompt.
#[utoipa::path(post, path = "/v1/match", request_body = v1::MatchRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 429, description = "Too many questions; see the retry-after header", body = ErrorBody),
    (status = 200, description = "Best first", body = v1::MatchResponse),
    (status = 400, description = "Malformed question", body = ErrorBody),
    (status = 413, description = "Over a limit", body = ErrorBody)))]
pub(super) async fn find(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    JsonQuestion(request): JsonQuestion<v1::MatchRequest>,
) -> Answer<v1::MatchResponse> {
    api.find(&caller, &request, arrived).await.map(Json)
}

/// Many prompts in one call.
#[utoipa::path(post, path = "/v1/match_batch", request_body = v1::MatchBatchRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 429, description = "Too many questions; see the retry-after header", body = ErrorBody),
    (status = 200, description = "In the order of the questions", body = v1::MatchBatchResponse),
    (status = 400, description = "Malformed request", body = ErrorBody),
    (status = 413, description = "Over a limit", body = ErrorBody)))]
pub(super) async fn find_batch(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    JsonQuestion(request): JsonQuestion<v1::MatchBatchRequest>,
) -> Answer<v1::MatchBatchResponse> {
    api.find_batch(&caller, &request, arrived).await.map(Json)
}

/// Where each worker's match ends, and why.
#[utoipa::path(post, path = "/v1/explain", request_body = v1::ExplainRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 429, description = "Too many questions; see the retry-after header", body = ErrorBody),
    (status = 200, description = "Best match first", body = v1::ExplainResponse),
    (status = 400, description = "Malformed question", body = ErrorBody),
    (status = 413, description = "Over a limit", body = ErrorBody)))]
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Extension(arrived): Extension<Arrived>,
    JsonQuestion(request): JsonQuestion<v1::ExplainRequest>,
) -> Answer<v1::ExplainResponse> {
    api.explain(&caller, &request, arrived).await.map(Json)
}

/// Every registered worker, with its streams.
#[utoipa::path(get, path = "/v1/workers", params(
    ("model" = Option<String>, Query, description = "Only workers of this model"),
    ("tenant" = Option<String>, Query, description = "Only workers of this tenant")),
    responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 429, description = "Too many questions; see the retry-after header", body = ErrorBody),
    (status = 200, description = "By worker id", body = v1::ListWorkersResponse)))]
pub(super) async fn list_workers(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Result<Query<v1::ListWorkersRequest>, axum::extract::rejection::QueryRejection>,
) -> Answer<v1::ListWorkersResponse> {
    let Query(request) = request.map_err(|error| ApiError::new(Kind::Invalid, error.body_text()))?;
    api.list_workers(&caller, &request).await.map(Json)
}

/// Which prefixes are asked for most.
#[utoipa::path(get, path = "/v1/hot", params(
    ("model" = Option<String>, Query, description = "Only prefixes of this model"),
    ("tenant" = Option<String>, Query, description = "Only prefixes of this tenant"),
    ("limit" = Option<u32>, Query, description = "At most so many, up to 256; 20 when left out")),
    responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 429, description = "Too many questions; see the retry-after header", body = ErrorBody),
    (status = 200, description = "Most questions first", body = v1::HotPrefixesResponse),
    (status = 413, description = "Over a limit", body = ErrorBody)))]
pub(super) async fn hot_prefixes(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Result<Query<v1::HotPrefixesRequest>, axum::extract::rejection::QueryRejection>,
) -> Answer<v1::HotPrefixesResponse> {
    let Query(request) = request.map_err(|error| ApiError::new(Kind::Invalid, error.body_text()))?;
    api.hot_prefixes(&caller, &request).await.map(Json)
}

/// Makes a worker known and subscribes to its event streams.
#[utoipa::path(post, path = "/v1/workers", request_body = v1::RegisterRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Registered", body = v1::RegisterResponse),
    (status = 400, description = "Malformed definition", body = ErrorBody),
    (status = 409, description = "Registered differently", body = ErrorBody),
    (status = 429, description = "Too many workers", body = ErrorBody)))]
pub(super) async fn register(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<v1::RegisterRequest>,
) -> Answer<v1::RegisterResponse> {
    api.register(&caller, request).await.map(Json)
}

/// Forgets a worker and all its blocks.
#[utoipa::path(delete, path = "/v1/workers/{worker_id}",
    params(("worker_id" = String, Path, description = "The worker")),
    responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Forgotten, or never known", body = v1::UnregisterResponse)))]
pub(super) async fn unregister(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(worker_id): Path<String>,
) -> Answer<v1::UnregisterResponse> {
    api.unregister(&caller, v1::UnregisterRequest { worker_id }).await.map(Json)
}

/// Hands in one event batch of a stream that has no ZeroMQ publisher.
#[utoipa::path(post, path = "/v1/publish", request_body = v1::PublishRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Applied, now or before", body = v1::PublishResponse),
    (status = 400, description = "Malformed batch", body = ErrorBody),
    (status = 404, description = "Unknown worker", body = ErrorBody),
    (status = 412, description = "Not the batch that must come next", body = ErrorBody)))]
pub(super) async fn publish(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    JsonEvents(request): JsonEvents<v1::PublishRequest>,
) -> Answer<v1::PublishResponse> {
    api.publish(&caller, request).await.map(Json)
}

/// Which changes to watch, in a query string.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WatchParams {
    worker_ids: String,
    model: Option<String>,
}

/// Changes of the index as server-sent events, each a `WatchEvent` as JSON, named by its kind.
#[utoipa::path(get, path = "/v1/watch", params(
    ("worker_ids" = Option<String>, Query, description = "Only these workers, separated by commas"),
    ("model" = Option<String>, Query, description = "Only workers of this model")),
    responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Endless", body = v1::WatchEvent, content_type = "text/event-stream"),
    (status = 429, description = "Too many streams", body = ErrorBody)))]
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    params: Result<Query<WatchParams>, axum::extract::rejection::QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let Query(params) = params.map_err(|error| ApiError::new(Kind::Invalid, error.body_text()))?;
    let worker_ids = params.worker_ids.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
    let changes = api.watch(&caller, v1::WatchRequest { worker_ids, model: params.model })?;
    let events = changes.map(|change| {
        // Plain structs cannot fail.
        Ok(match change {
            Ok(change) => {
                let data = serde_json::to_string(&change).unwrap_or_default();
                Event::default().event(change.kind).data(data)
            }
            Err(error) => {
                let data = serde_json::to_string(&error.to_message()).unwrap_or_default();
                Event::default().event("error").data(data)
            }
        })
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// The cluster as this node sees it: nodes and shards.
#[utoipa::path(get, path = "/v1/cluster", params(
    ("digests" = Option<bool>, Query, description = "Also compute a digest of every shard's part of the index")),
    responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Nodes and shards", body = v1::ClusterStatusResponse),
    (status = 412, description = "This node is alone", body = ErrorBody)))]
pub(super) async fn cluster_status(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    request: Result<Query<v1::ClusterStatusRequest>, axum::extract::rejection::QueryRejection>,
) -> Answer<v1::ClusterStatusResponse> {
    let Query(request) = request.map_err(|error| ApiError::new(Kind::Invalid, error.body_text()))?;
    api.cluster_status(&caller, request).map(Json)
}

/// Removes a node for good.
#[utoipa::path(post, path = "/v1/cluster/remove_node", request_body = v1::RemoveNodeRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Accepted", body = v1::ClusterChangeResponse),
    (status = 404, description = "No such node", body = ErrorBody),
    (status = 412, description = "The others could not go on without it", body = ErrorBody)))]
pub(super) async fn remove_node(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<v1::RemoveNodeRequest>,
) -> Answer<v1::ClusterChangeResponse> {
    api.remove_node(&caller, request).await.map(Json)
}

/// Gives a node a vote, or takes it away.
#[utoipa::path(post, path = "/v1/cluster/set_voter", request_body = v1::SetVoterRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Accepted", body = v1::ClusterChangeResponse),
    (status = 404, description = "No such node", body = ErrorBody),
    (status = 412, description = "It is the last voter", body = ErrorBody)))]
pub(super) async fn set_voter(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<v1::SetVoterRequest>,
) -> Answer<v1::ClusterChangeResponse> {
    api.set_voter(&caller, request).await.map(Json)
}

/// Lets another node lead a shard.
#[utoipa::path(post, path = "/v1/cluster/hand_over", request_body = v1::HandOverRequest, responses(
    (status = 401, description = "No known token", body = ErrorBody),
    (status = 403, description = "The token lacks a right or a tenant", body = ErrorBody),
    (status = 200, description = "Accepted", body = v1::ClusterChangeResponse),
    (status = 412, description = "It has no vote", body = ErrorBody)))]
pub(super) async fn hand_over(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    JsonBody(request): JsonBody<v1::HandOverRequest>,
) -> Answer<v1::ClusterChangeResponse> {
    api.hand_over(&caller, request).await.map(Json)
}

async fn openapi_json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::document()).into_response()
}

/// Metrics in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "Prometheus text", body = String)))]
pub(super) async fn metrics(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    caller.may_everywhere(Right::Admin, "/metrics")?;
    let text = api.render_metrics().await;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", responses((status = 200, description = "It does", body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it takes calls: from when the snapshot is loaded, and in a cluster everything committed before is applied,
/// until it stops. Engines that still load do not count.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "It does", body = String),
    (status = 503, description = "It does not", body = String)))]
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> (StatusCode, String) {
    let waits_for = api.waits_for();
    if api.is_ready() && waits_for.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let colon = if waits_for.is_empty() { "" } else { ": " };
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready{colon}{waits_for}\n"))
}
