//! The gRPC services.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use kvindex_proto::v1;
use kvindex_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use kvindex_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use kvindex_proto::v1::query_service_server::{QueryService, QueryServiceServer};
use tokio_stream::StreamExt;
use tonic::{Request, Response as Reply, Status, Streaming};

use super::Api;
use super::calls::Arrived;
use super::error::{ApiError, Kind};
use super::observe::Method;
use super::parts::Bounds;
use super::walker::Walked;
use crate::access::Caller;
use crate::config::ApiLimits;

type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The calls as gRPC sees them.
#[derive(Debug)]
struct Grpc {
    api: Arc<Api>,
}

/// Routes of both services, and the answer to whatever has no route.
pub(super) fn router(api: &Arc<Api>) -> Router {
    let limit = api.limits.body_bytes;
    let query = QueryServiceServer::new(Grpc { api: Arc::clone(api) })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX);
    let ingest = IngestServiceServer::new(Grpc { api: Arc::clone(api) }).max_decoding_message_size(limit);
    let cluster = ClusterServiceServer::new(Grpc { api: Arc::clone(api) }).max_decoding_message_size(limit);
    tonic::service::Routes::new(query)
        .add_service(ingest)
        .add_service(cluster)
        .into_axum_router()
        .layer(axum::middleware::map_request_with_state(api.limits, walk))
        .fallback(no_route)
}

/// Bounds what a message holds before it is decoded.
async fn walk(State(limits): State<ApiLimits>, request: axum::extract::Request) -> axum::extract::Request {
    let call = Method::own(&request).name();
    bounded(request, call, &limits)
}

/// The same for a call of this name.
pub(crate) fn bounded(
    request: axum::extract::Request,
    call: &str,
    limits: &ApiLimits,
) -> axum::extract::Request {
    let bounds = Bounds::of(call, limits);
    request.map(|body| Walked::around(body, bounds))
}

async fn no_route(headers: HeaderMap, uri: axum::http::Uri) -> Response {
    let content_type = headers.get("content-type").map(|value| value.as_bytes());
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return Status::unimplemented(format!("no method {}", uri.path())).into_http::<axum::body::Body>();
    }
    ApiError::new(Kind::NotFound, format!("no route {}; see /openapi.json", uri.path())).into_response()
}

/// Who calls, and since when. Without a caller, which the guard notes on every call, nothing is answered.
pub(crate) fn origin<T>(request: &Request<T>) -> Result<(Caller, Arrived), Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| Status::unauthenticated("nobody looked at who calls"))?;
    let arrived = request.extensions().get::<Arrived>().copied();
    Ok((caller, arrived.unwrap_or_else(Arrived::now)))
}

#[tonic::async_trait]
impl QueryService for Grpc {
    async fn r#match(&self, request: Request<v1::MatchRequest>) -> Result<Reply<v1::MatchResponse>, Status> {
        let (caller, arrived) = origin(&request)?;
        Ok(Reply::new(self.api.find(&caller, request.get_ref(), arrived).await?))
    }

    async fn match_batch(
        &self,
        request: Request<v1::MatchBatchRequest>,
    ) -> Result<Reply<v1::MatchBatchResponse>, Status> {
        let (caller, arrived) = origin(&request)?;
        Ok(Reply::new(self.api.find_batch(&caller, request.get_ref(), arrived).await?))
    }

    type MatchStreamStream = BoxStream<v1::MatchStreamResponse>;

    async fn match_stream(
        &self,
        request: Request<Streaming<v1::MatchStreamRequest>>,
    ) -> Result<Reply<Self::MatchStreamStream>, Status> {
        let (caller, _) = origin(&request)?;
        let answers = self.api.match_stream(caller, request.into_inner())?;
        Ok(Reply::new(Box::pin(answers)))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Reply<v1::ExplainResponse>, Status> {
        let (caller, arrived) = origin(&request)?;
        Ok(Reply::new(self.api.explain(&caller, request.get_ref(), arrived).await?))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Reply<v1::ListWorkersResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.list_workers(&caller, request.get_ref()).await?))
    }

    async fn hot_prefixes(
        &self,
        request: Request<v1::HotPrefixesRequest>,
    ) -> Result<Reply<v1::HotPrefixesResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.hot_prefixes(&caller, request.get_ref()).await?))
    }

    type WatchStream = BoxStream<v1::WatchEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Reply<Self::WatchStream>, Status> {
        let (caller, _) = origin(&request)?;
        let changes = self.api.watch(&caller, request.into_inner())?;
        Ok(Reply::new(Box::pin(changes.map(|change| change.map_err(Status::from)))))
    }
}

#[tonic::async_trait]
impl IngestService for Grpc {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Reply<v1::RegisterResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.register(&caller, request.into_inner()).await?))
    }

    async fn unregister(
        &self,
        request: Request<v1::UnregisterRequest>,
    ) -> Result<Reply<v1::UnregisterResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.unregister(&caller, request.into_inner()).await?))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Reply<v1::PublishResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.publish(&caller, request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl ClusterService for Grpc {
    async fn cluster_status(
        &self,
        request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Reply<v1::ClusterStatusResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.cluster_status(&caller, request.into_inner())?))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Reply<v1::ClusterChangeResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.remove_node(&caller, request.into_inner()).await?))
    }

    async fn set_voter(
        &self,
        request: Request<v1::SetVoterRequest>,
    ) -> Result<Reply<v1::ClusterChangeResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.set_voter(&caller, request.into_inner()).await?))
    }

    async fn hand_over(
        &self,
        request: Request<v1::HandOverRequest>,
    ) -> Result<Reply<v1::ClusterChangeResponse>, Status> {
        let (caller, _) = origin(&request)?;
        Ok(Reply::new(self.api.hand_over(&caller, request.into_inner()).await?))
    }
}
