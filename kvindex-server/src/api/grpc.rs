//! The gRPC services.

use axum::Router;
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
        .fallback(no_route)
}

async fn no_route(headers: HeaderMap, uri: axum::http::Uri) -> Response {
    let content_type = headers.get("content-type").map(|value| value.as_bytes());
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return Status::unimplemented(format!("no method {}", uri.path())).into_http::<axum::body::Body>();
    }
    ApiError::new(Kind::NotFound, format!("no route {}; see /openapi.json", uri.path())).into_response()
}

fn decode_us<T>(request: &Request<T>) -> u64 {
    request.extensions().get::<Arrived>().map_or(0, |arrived| arrived.micros())
}

#[tonic::async_trait]
impl QueryService for Grpc {
    async fn r#match(&self, request: Request<v1::MatchRequest>) -> Result<Reply<v1::MatchResponse>, Status> {
        let decode_us = decode_us(&request);
        self.api.wait_fresh(&request.get_ref().consistency).await?;
        Ok(Reply::new(self.api.find(request.get_ref(), decode_us)?))
    }

    async fn match_batch(
        &self,
        request: Request<v1::MatchBatchRequest>,
    ) -> Result<Reply<v1::MatchBatchResponse>, Status> {
        let decode_us = decode_us(&request);
        self.api.wait_fresh_batch(request.get_ref()).await?;
        Ok(Reply::new(self.api.find_batch(request.get_ref(), decode_us)?))
    }

    type MatchStreamStream = BoxStream<v1::MatchStreamResponse>;

    async fn match_stream(
        &self,
        request: Request<Streaming<v1::MatchStreamRequest>>,
    ) -> Result<Reply<Self::MatchStreamStream>, Status> {
        let answers = self.api.match_stream(request.into_inner())?;
        Ok(Reply::new(Box::pin(answers)))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Reply<v1::ExplainResponse>, Status> {
        let decode_us = decode_us(&request);
        self.api.wait_fresh(&request.get_ref().consistency).await?;
        Ok(Reply::new(self.api.explain(request.get_ref(), decode_us)?))
    }

    async fn list_workers(
        &self,
        request: Request<v1::ListWorkersRequest>,
    ) -> Result<Reply<v1::ListWorkersResponse>, Status> {
        Ok(Reply::new(self.api.list_workers(request.get_ref())))
    }

    type WatchStream = BoxStream<v1::WatchEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Reply<Self::WatchStream>, Status> {
        let changes = self.api.watch(request.into_inner())?;
        Ok(Reply::new(Box::pin(changes.map(Ok))))
    }
}

#[tonic::async_trait]
impl IngestService for Grpc {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Reply<v1::RegisterResponse>, Status> {
        Ok(Reply::new(self.api.register(request.into_inner()).await?))
    }

    async fn unregister(
        &self,
        request: Request<v1::UnregisterRequest>,
    ) -> Result<Reply<v1::UnregisterResponse>, Status> {
        Ok(Reply::new(self.api.unregister(request.into_inner()).await?))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Reply<v1::PublishResponse>, Status> {
        Ok(Reply::new(self.api.publish(request.into_inner()).await?))
    }
}

#[tonic::async_trait]
impl ClusterService for Grpc {
    async fn cluster_status(
        &self,
        request: Request<v1::ClusterStatusRequest>,
    ) -> Result<Reply<v1::ClusterStatusResponse>, Status> {
        Ok(Reply::new(self.api.cluster_status(request.into_inner())?))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Reply<v1::ClusterChangeResponse>, Status> {
        Ok(Reply::new(self.api.remove_node(request.into_inner()).await?))
    }

    async fn set_voter(
        &self,
        request: Request<v1::SetVoterRequest>,
    ) -> Result<Reply<v1::ClusterChangeResponse>, Status> {
        Ok(Reply::new(self.api.set_voter(request.into_inner()).await?))
    }

    async fn hand_over(
        &self,
        request: Request<v1::HandOverRequest>,
    ) -> Result<Reply<v1::ClusterChangeResponse>, Status> {
        Ok(Reply::new(self.api.hand_over(request.into_inner()).await?))
    }
}
