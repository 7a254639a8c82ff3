//! What each call does, whichever way it came in: convert in, ask the node, convert out.

use std::sync::Arc;
use std::time::Instant;

use kvindex_core::WorkerId;
use kvindex_proto::v1;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::Api;
use super::convert::{self, Question};
use super::error::{ApiError, Kind};
use crate::access::{Caller, Right, Running, units};
use crate::endpoints::Endpoint;
use crate::node::{Origin, PublishError, Registered};
use crate::workers::WorkerDefinition;

/// Request bytes from which reading JSON, taking events, many questions, or looking engines' hashes up is long enough
/// to move other tasks off its thread.
pub(super) const LONG_BYTES: usize = 256 << 10;

/// The same of a decoded question that is hashed. Moving wakes another thread, which may take as long as hashing so many: of a
/// prompt of 100,000 tokens, hashed in 60 µs, it was a third of the p99 (docs/benchmarks/questions.md).
const LONG_QUESTION: usize = 1 << 20;

/// Hot prefixes that are listed where the caller names no number.
const HOT_USUAL: usize = 20;

/// Most that are listed: as many as are counted of one tenant.
const HOT_MOST: usize = 256;

/// When a request's head arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived(pub(super) Instant);

impl Arrived {
    pub(super) fn now() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since.
    pub(crate) fn micros(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Api {
    /// One question, with everything that may refuse it.
    pub(crate) async fn find(
        &self,
        caller: &Caller,
        request: &v1::MatchRequest,
        arrived: Arrived,
    ) -> Result<v1::MatchResponse, ApiError> {
        let decode_us = arrived.micros();
        self.wait_fresh(&request.consistency).await?;
        let _turn = self.turn(1, bytes_of(request.prompt.as_ref(), &request.candidates)).await?;
        self.find_now(caller, request, decode_us)
    }

    /// Many questions in one turn: they are one caller's, who waits for all of them.
    pub(super) async fn find_batch(
        &self,
        caller: &Caller,
        request: &v1::MatchBatchRequest,
        arrived: Arrived,
    ) -> Result<v1::MatchBatchResponse, ApiError> {
        let decode_us = arrived.micros();
        let (found, limit) = (request.requests.len(), self.limits.batch);
        if found > limit {
            return Err(ApiError::over_limit("requests", "questions", found, limit));
        }
        caller.may(Right::Read)?;
        self.charge(caller, found)?;
        self.wait_fresh_batch(request).await?;
        let bytes = request.requests.iter().map(|r| bytes_of(r.prompt.as_ref(), &r.candidates)).sum();
        let _turn = self.turn(found, bytes).await?;
        let answer = |request| match self.find_now(caller, request, decode_us) {
            Ok(response) => v1::MatchResult { response: Some(response), error: None },
            Err(error) => v1::MatchResult { response: None, error: Some(error.to_message()) },
        };
        // Long together; each by itself looks after itself.
        let results = run(bytes > LONG_BYTES, || request.requests.iter().map(answer).collect());
        Ok(v1::MatchBatchResponse { results })
    }

    /// A stream's question, which was not counted when its call came.
    pub(super) async fn find_streamed(
        &self,
        caller: &Caller,
        request: &v1::MatchStreamRequest,
        arrived: Arrived,
    ) -> v1::MatchStreamResponse {
        let answer = async {
            // Before anything else: it was received and decoded.
            self.charge(caller, 1)?;
            let question = request.request.as_ref();
            let question = question.ok_or_else(|| ApiError::invalid("request", "is required"))?;
            super::cluster::only_local(&question.consistency)?;
            self.find(caller, question, arrived).await
        };
        let id = request.id;
        match answer.await {
            Ok(response) => v1::MatchStreamResponse { id, response: Some(response), error: None },
            Err(error) => v1::MatchStreamResponse { id, response: None, error: Some(error.to_message()) },
        }
    }

    /// The question itself, whose turn it is.
    fn find_now(
        &self,
        caller: &Caller,
        request: &v1::MatchRequest,
        decode_us: u64,
    ) -> Result<v1::MatchResponse, ApiError> {
        let question = Question::of_match(request, &self.limits, caller)?;
        self.charge_tenant(caller, question.tenant, 1)?;
        if request.report_applied {
            caller.may_everywhere(Right::Read, "report_applied")?;
        }
        let long = is_long(request.prompt.as_ref(), &request.candidates);
        // Before the index is asked: the answer is at least as fresh.
        let freshness = self.freshness(caller, request.report_applied);
        let found = run(long, || self.node.find(&question.query(), question.group_rollup))?;
        Ok(v1::MatchResponse { freshness, ..convert::match_response(found, decode_us) })
    }

    pub(super) async fn explain(
        &self,
        caller: &Caller,
        request: &v1::ExplainRequest,
        arrived: Arrived,
    ) -> Result<v1::ExplainResponse, ApiError> {
        let decode_us = arrived.micros();
        self.wait_fresh(&request.consistency).await?;
        let _turn = self.turn(1, bytes_of(request.prompt.as_ref(), &request.candidates)).await?;
        let question = Question::of_explain(request, &self.limits, caller)?;
        self.charge_tenant(caller, question.tenant, 1)?;
        let long = is_long(request.prompt.as_ref(), &request.candidates);
        let explained = run(long, || self.node.explain(&question.query()))?;
        Ok(convert::explain_response(explained, decode_us))
    }

    pub(crate) async fn list_workers(
        &self,
        caller: &Caller,
        request: &v1::ListWorkersRequest,
    ) -> Result<v1::ListWorkersResponse, ApiError> {
        caller.may(Right::Read)?;
        let tenant =
            request.tenant.as_deref().map(|tenant| caller.tenant(Right::Read, tenant)).transpose()?;
        let _turn = self.turn(1, 0).await?;
        let workers = self.node.list_workers().into_iter();
        let workers = workers.filter(|listed| {
            let spec = &listed.definition.spec;
            request.model.as_ref().is_none_or(|model| *model == spec.model)
                && tenant.is_none_or(|tenant| tenant == spec.tenant)
                && caller.sees(&spec.tenant)
        });
        Ok(v1::ListWorkersResponse { workers: workers.map(convert::worker).collect() })
    }

    pub(super) async fn hot_prefixes(
        &self,
        caller: &Caller,
        request: &v1::HotPrefixesRequest,
    ) -> Result<v1::HotPrefixesResponse, ApiError> {
        caller.may(Right::Read)?;
        let named = request.tenant.as_deref().map(|tenant| caller.tenant(Right::Read, tenant)).transpose()?;
        let limit = match request.limit {
            None | Some(0) => HOT_USUAL,
            Some(limit) if limit as usize <= HOT_MOST => limit as usize,
            Some(limit) => return Err(ApiError::over_limit("limit", "prefixes", limit as usize, HOT_MOST)),
        };
        let _turn = self.turn(1, 0).await?;
        let tenants =
            self.node.hot(|tenant| named.is_none_or(|named| named == tenant) && caller.sees(tenant));
        Ok(convert::hot_response(&tenants, request.model.as_deref(), limit))
    }

    /// Waits for a question's turn.
    pub(crate) async fn turn(&self, questions: usize, bytes: usize) -> Result<Running<'_>, ApiError> {
        let entered = self.gate.enter(units(questions, bytes)).await;
        entered.map_err(|overloaded| {
            self.access.metrics().refused("overload");
            overloaded.into()
        })
    }

    /// Waits for the engine's sockets, so it runs where blocking is allowed.
    pub(crate) async fn register(
        self: &Arc<Self>,
        caller: &Caller,
        mut request: v1::RegisterRequest,
    ) -> Result<v1::RegisterResponse, ApiError> {
        let replace = request.replace;
        request.tenant = caller.tenant(Right::Admin, &request.tenant)?.to_owned();
        caller.may_name(&request.worker_id, &request.tenant)?;
        let definition = convert::raw_worker(request).check(self.gap_policy)?;
        let _turn = caller.turn_to_register(&definition.spec.tenant).await;
        self.check_registration(caller, &definition)?;
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

    /// What a caller bound to tenants may not do by registering a worker, and no tenant beyond its limit.
    fn check_registration(&self, caller: &Caller, definition: &WorkerDefinition) -> Result<(), ApiError> {
        let spec = &definition.spec;
        let known = self.node.tenant_of(&spec.id);
        if known.as_ref().is_some_and(|tenant| !caller.sees(tenant)) {
            // Only where an operator gave a worker of one tenant an id that is another's to give.
            return Err(ApiError::of_field(Kind::Exists, "worker_id", "is in use"));
        }
        let endpoints =
            definition.streams.iter().flat_map(|s| [Some(&s.endpoint), s.replay_endpoint.as_ref()]);
        for endpoint in endpoints.flatten().filter(|_| !caller.sees_all()) {
            match Endpoint::host_of(endpoint) {
                Some(host) => caller.may_connect(&spec.tenant, &host)?,
                // A port or a path of this machine: who takes it would learn who has it, or have it alone.
                None => caller.may_everywhere(
                    Right::Admin,
                    "an endpoint that is no host and port of another machine",
                )?,
            }
        }
        let Some(limit) = caller.max_workers(&spec.tenant).filter(|_| known.is_none()) else { return Ok(()) };
        let found = self.node.workers_of(&spec.tenant);
        if found >= limit {
            let message =
                format!("tenant {:?} has {found} workers, the limit is {limit} (max_workers)", spec.tenant);
            return Err(ApiError::of_field(Kind::Exhausted, "worker_id", message));
        }
        Ok(())
    }

    pub(crate) async fn unregister(
        self: &Arc<Self>,
        caller: &Caller,
        request: v1::UnregisterRequest,
    ) -> Result<v1::UnregisterResponse, ApiError> {
        caller.may(Right::Admin)?;
        let worker = WorkerId::new(request.worker_id)
            .map_err(|error| ApiError::invalid("worker_id", error.to_string()))?;
        if !self.is_callers(caller, &worker).await? {
            // As of one that nobody knows.
            return Ok(v1::UnregisterResponse { removed: false });
        }
        let removed = match &self.cluster {
            Some(cluster) => cluster.unregister(worker).await?,
            None => {
                let api = Arc::clone(self);
                blocking(move || api.node.unregister(&worker)).await?
            }
        };
        Ok(v1::UnregisterResponse { removed })
    }

    /// Whether a caller may know of a worker that it names. One of another tenant takes as long as one that nobody
    /// knows.
    async fn is_callers(&self, caller: &Caller, worker: &WorkerId) -> Result<bool, ApiError> {
        let sees = || self.node.tenant_of(worker).is_some_and(|tenant| caller.sees(&tenant));
        if caller.sees_all() || sees() {
            return Ok(true);
        }
        if let Some(cluster) = &self.cluster {
            // It may have been registered through another node a moment ago.
            self.catch_up_on(cluster, worker).await?;
        }
        Ok(sees())
    }

    pub(super) async fn publish(
        &self,
        caller: &Caller,
        request: v1::PublishRequest,
    ) -> Result<v1::PublishResponse, ApiError> {
        caller.may(Right::Publish)?;
        let long = events_bytes(&request) > LONG_BYTES;
        let publication = run(long, || convert::publication(request))?;
        let worker = &publication.stream.worker;
        if !self.is_callers(caller, worker).await? {
            return Err(PublishError::UnknownWorker(worker.clone()).into());
        }
        let published = match &self.cluster {
            Some(cluster) => {
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

/// How much of a question there is to hash.
fn bytes_of(prompt: Option<&v1::Prompt>, candidates: &[String]) -> usize {
    let tokens = |p: &v1::Prompt| p.token_ids_le.len() + p.token_ids.len().saturating_mul(4);
    let hashes = |p: &v1::Prompt| (p.sequence_hashes.len() + p.engine_block_hashes.len()).saturating_mul(8);
    let items = |p: &v1::Prompt| p.items.iter().map(|item| item.identifier.len() + 16).sum::<usize>();
    let prompt = prompt.map_or(0, |prompt| tokens(prompt) + hashes(prompt) + items(prompt));
    // A short name takes about as long as so many bytes of a long one.
    prompt + candidates.iter().map(|name| name.len().max(16)).sum::<usize>()
}

/// Whether other tasks should not wait for a question.
fn is_long(prompt: Option<&v1::Prompt>, candidates: &[String]) -> bool {
    // Those are looked up one by one at each owner.
    let is_looked_up = prompt.is_some_and(|prompt| !prompt.engine_block_hashes.is_empty());
    bytes_of(prompt, candidates) > if is_looked_up { LONG_BYTES } else { LONG_QUESTION }
}

/// How much of a batch there is to read and to hash.
fn events_bytes(request: &v1::PublishRequest) -> usize {
    let tokens = |event: &v1::PublishEvent| event.token_ids_le.len() + event.token_ids.len() * 4;
    let rest = |event: &v1::PublishEvent| (event.block_hashes.len() + event.extra_keys.len()) * 8;
    request.payload.len() + request.events.iter().map(|event| tokens(event) + rest(event)).sum::<usize>()
}

/// Runs a call; a long one after handing this thread's other tasks to another, where the runtime can.
pub(super) fn run<T>(long: bool, call: impl FnOnce() -> T) -> T {
    let can_move = Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if long && can_move { tokio::task::block_in_place(call) } else { call() }
}

/// Runs a call on a thread that may block, to its end whoever still waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|error| ApiError::new(Kind::Internal, format!("the call did not finish: {error}")))
}
