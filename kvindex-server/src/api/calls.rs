//! What each call does, whichever way it came in: convert in, ask the node, convert out.

use std::sync::Arc;
use std::time::Instant;

use kvindex_core::WorkerId;
use kvindex_proto::v1;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::Api;
use super::convert::{self, Question};
use super::error::{ApiError, Kind};
use crate::node::{Origin, Registered};

/// Request bytes from which a question is long enough to move other tasks off its thread: hashing them takes
/// about as long as moving.
const LONG_BYTES: usize = 256 << 10;

/// When a request's head arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived(pub(super) Instant);

impl Arrived {
    /// Microseconds since.
    pub(super) fn micros(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Api {
    pub(super) fn find(
        &self,
        request: &v1::MatchRequest,
        decode_us: u64,
    ) -> Result<v1::MatchResponse, ApiError> {
        let question = Question::of_match(request, &self.limits)?;
        let long = request.prompt.as_ref().is_some_and(is_long);
        // Before the index is asked: the answer is at least as fresh.
        let freshness = self.freshness(request.report_applied);
        let found = run(long, || self.node.find(&question.query(), question.group_rollup))?;
        Ok(v1::MatchResponse { freshness, ..convert::match_response(found, decode_us) })
    }

    pub(super) fn find_batch(
        &self,
        request: &v1::MatchBatchRequest,
        decode_us: u64,
    ) -> Result<v1::MatchBatchResponse, ApiError> {
        let (found, limit) = (request.requests.len(), self.limits.batch);
        if found > limit {
            return Err(ApiError::over_limit("requests", "questions", found, limit));
        }
        let answer = |request| match self.find(request, decode_us) {
            Ok(response) => v1::MatchResult { response: Some(response), error: None },
            Err(error) => v1::MatchResult { response: None, error: Some(error.to_message()) },
        };
        Ok(v1::MatchBatchResponse { results: request.requests.iter().map(answer).collect() })
    }

    pub(super) fn find_streamed(
        &self,
        request: &v1::MatchStreamRequest,
        decode_us: u64,
    ) -> v1::MatchStreamResponse {
        let missing = || ApiError::invalid("request", "is required");
        let answer = request.request.as_ref().ok_or_else(missing).and_then(|request| {
            super::cluster::only_local(&request.consistency)?;
            self.find(request, decode_us)
        });
        let id = request.id;
        match answer {
            Ok(response) => v1::MatchStreamResponse { id, response: Some(response), error: None },
            Err(error) => v1::MatchStreamResponse { id, response: None, error: Some(error.to_message()) },
        }
    }

    pub(super) fn explain(
        &self,
        request: &v1::ExplainRequest,
        decode_us: u64,
    ) -> Result<v1::ExplainResponse, ApiError> {
        let question = Question::of_explain(request, &self.limits)?;
        let long = request.prompt.as_ref().is_some_and(is_long);
        let explained = run(long, || self.node.explain(&question.query()))?;
        Ok(convert::explain_response(explained, decode_us))
    }

    pub(super) fn list_workers(&self, request: &v1::ListWorkersRequest) -> v1::ListWorkersResponse {
        let wanted = |filter: &Option<String>, value: &str| filter.as_deref().is_none_or(|f| f == value);
        let workers = self.node.list_workers().into_iter();
        let workers = workers.filter(|listed| {
            let spec = &listed.definition.spec;
            wanted(&request.model, &spec.model) && wanted(&request.tenant, &spec.tenant)
        });
        v1::ListWorkersResponse { workers: workers.map(convert::worker).collect() }
    }

    /// Waits for the engine's sockets, so it runs where blocking is allowed.
    pub(super) async fn register(
        self: &Arc<Self>,
        request: v1::RegisterRequest,
    ) -> Result<v1::RegisterResponse, ApiError> {
        let replace = request.replace;
        let definition = convert::raw_worker(request).check(self.gap_policy)?;
        let registered = match &self.cluster {
            Some(cluster) => cluster.register(definition, Origin::Registered, replace).await?,
            None => {
                let api = Arc::clone(self);
                blocking(move || api.node.register(&definition, Origin::Registered, replace)).await??
            }
        };
        let outcome = match registered {
            Registered::Created => "created",
            Registered::Unchanged => "unchanged",
            Registered::Replaced => "replaced",
        };
        Ok(v1::RegisterResponse { outcome: outcome.into() })
    }

    pub(super) async fn unregister(
        self: &Arc<Self>,
        request: v1::UnregisterRequest,
    ) -> Result<v1::UnregisterResponse, ApiError> {
        let worker = WorkerId::new(request.worker_id)
            .map_err(|error| ApiError::invalid("worker_id", error.to_string()))?;
        let removed = match &self.cluster {
            Some(cluster) => cluster.unregister(worker).await?,
            None => {
                let api = Arc::clone(self);
                blocking(move || api.node.unregister(&worker)).await?
            }
        };
        Ok(v1::UnregisterResponse { removed })
    }

    pub(super) async fn publish(&self, request: v1::PublishRequest) -> Result<v1::PublishResponse, ApiError> {
        let long = request.payload.len() > LONG_BYTES;
        let publication = convert::publication(request)?;
        let published = match &self.cluster {
            Some(cluster) => {
                let worker = &publication.stream.worker;
                if !self.node.knows(worker) {
                    // It may have been registered through another node a moment ago.
                    self.catch_up_on(cluster, worker).await?;
                }
                let events = run(long, || self.node.seal(publication))?;
                cluster.publish(events).await?
            }
            None => run(long, || self.node.publish(publication))?,
        };
        Ok(v1::PublishResponse { applied_seq: published.applied.0, duplicate: published.duplicate })
    }
}

fn is_long(prompt: &v1::Prompt) -> bool {
    prompt.token_ids_le.len() > LONG_BYTES || prompt.token_ids.len() > LONG_BYTES / 4
}

/// Runs a call; a long one after handing this thread's other tasks to another, where the runtime can.
fn run<T>(long: bool, call: impl FnOnce() -> T) -> T {
    let can_move = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if long && can_move { tokio::task::block_in_place(call) } else { call() }
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|error| ApiError::new(Kind::Internal, format!("the call did not finish: {error}")))
}
