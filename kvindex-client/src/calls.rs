//! How a call is made: at which endpoint, when at another one too, and what its end says about the endpoint.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kvindex_proto::v1::query_service_client::QueryServiceClient;
use tokio::time::{Instant, sleep_until};
use tonic::{Response, Status};

use crate::config::Hedge;
use crate::error::{self, CallError, Verdict};
use crate::pool::{Attempt, Endpoint, Rank, Tokened};
use crate::routing::Client;

/// What questions are asked through.
pub(crate) type Query = QueryServiceClient<Tokened>;

pub(crate) fn query(channel: Tokened, max_answer_bytes: usize) -> Query {
    QueryServiceClient::new(channel).max_decoding_message_size(max_answer_bytes)
}

/// How often a routing call is made at most, the second one of a hedge included.
const ATTEMPTS: usize = 3;

/// Whether an admin call may be made again after it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the second time is no other than the first.
    Always,
    /// Only if it was never sent: the second time would be answered otherwise.
    IfUnsent,
}

/// An answer and how old it says that it is.
struct Aged<T> {
    answer: T,
    is_stale: bool,
}

impl Client {
    /// A routing call: at one endpoint, at another one if that fails or takes long, and never longer than the routing
    /// timeout.
    pub(crate) async fn ask<T, F>(
        &self,
        call: impl Fn(Query) -> F,
        age: impl Fn(&T) -> Option<Duration>,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let pool = self.pool();
        pool.counts.routing_calls.fetch_add(1, Ordering::Relaxed);
        pool.retries.earn();
        pool.hedges.earn();
        let answered = self.attempts(call, age).await;
        if answered.is_err() {
            pool.counts.unknown.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }

    async fn attempts<T, F>(
        &self,
        call: impl Fn(Query) -> F,
        age: impl Fn(&T) -> Option<Duration>,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let pool = self.pool();
        let began = Instant::now();
        let deadline = began + self.config.routing_timeout;
        let first = pool.first().ok_or_else(|| pool.nobody())?;
        let mut tried = vec![Arc::clone(&first)];
        let mut under_way = FuturesUnordered::new();
        under_way.push(self.attempt(first, &call, &age, deadline));
        let mut hedge = pin!(sleep_until(self.hedge_at(began, deadline)));
        let mut may_hedge = self.config.hedge != Hedge::Off;
        let mut hedged: Option<Arc<Endpoint>> = None;
        let mut stale = None;
        loop {
            let (endpoint, ended) = tokio::select! {
                Some(ended) = under_way.next() => ended,
                () = &mut hedge, if may_hedge => {
                    may_hedge = false;
                    let may_call = tried.len() < ATTEMPTS;
                    let other = pool.pick(Rank::Good, &tried).filter(|_| may_call && pool.hedges.spend());
                    if let Some(other) = other {
                        hedged = Some(Arc::clone(&other));
                        tried.push(Arc::clone(&other));
                        under_way.push(self.attempt(other, &call, &age, deadline));
                    }
                    continue;
                }
                // One is always under way.
                else => return Err(pool.nobody()),
            };
            let failed = match ended {
                Ok(Aged { answer, is_stale: false }) => {
                    let won = hedged.is_some_and(|hedged| Arc::ptr_eq(&hedged, &endpoint));
                    pool.counts.hedges_won.fetch_add(u64::from(won), Ordering::Relaxed);
                    if won && !under_way.is_empty() {
                        // The one that is given up would have taken longer than this. Without it the slowest would be
                        // missing among the times, and second calls would be made sooner and sooner.
                        pool.answered_in(began.elapsed());
                    }
                    return Ok(answer);
                }
                Ok(Aged { answer, is_stale: true }) => {
                    stale = Some(answer);
                    None
                }
                // An old answer is better than none: the node that refuses is not the one that gave it.
                Err((error, verdict)) if !verdict.is_the_endpoints() => return stale.ok_or(error),
                Err((error, _)) => Some(error),
            };
            if !under_way.is_empty() {
                continue;
            }
            // Another one that is behind has no more than this one.
            let worst = if stale.is_some() { Rank::Good } else { Rank::Behind };
            let may_retry = tried.len() < ATTEMPTS && Instant::now() < deadline;
            let other = pool.pick(worst, &tried).filter(|_| may_retry && pool.retries.spend());
            let Some(other) = other else {
                return stale.ok_or_else(|| failed.unwrap_or_else(|| pool.nobody()));
            };
            tried.push(Arc::clone(&other));
            under_way.push(self.attempt(other, &call, &age, deadline));
        }
    }

    /// One call at one endpoint.
    async fn attempt<T, F>(
        &self,
        endpoint: Arc<Endpoint>,
        call: impl Fn(Query) -> F,
        age: impl Fn(&T) -> Option<Duration>,
        deadline: Instant,
    ) -> (Arc<Endpoint>, Result<Aged<T>, (CallError, Verdict)>)
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let attempt = endpoint.begin(true);
        let query = query(endpoint.tokened(), self.config.max_answer_bytes);
        let left = deadline.saturating_duration_since(Instant::now());
        let ended = match error::within(left, call(query)).await {
            Ok(answer) => {
                let is_stale =
                    self.config.max_age.is_some_and(|most| age(&answer).is_none_or(|age| age > most));
                let verdict = if is_stale { Verdict::stale() } else { Verdict::answered() };
                self.pool().answered_in(attempt.end(&verdict));
                Ok(Aged { answer, is_stale })
            }
            Err((error, verdict)) => {
                attempt.end(&verdict);
                // The caller knows the timeout, not what was left of it.
                let error = match error {
                    CallError::TimedOut { .. } => CallError::TimedOut { after: self.config.routing_timeout },
                    other => other,
                };
                Err((error, verdict))
            }
        };
        (endpoint, ended)
    }

    fn hedge_at(&self, began: Instant, deadline: Instant) -> Instant {
        match self.config.hedge {
            Hedge::Usual => began + self.pool().usual(self.config.routing_timeout / 2),
            Hedge::After(after) => began + after,
            Hedge::Off => deadline,
        }
    }

    /// An admin call: at one endpoint, and at others if that one cannot be reached, or fails and the call may be repeated.
    pub(crate) async fn admin<T, F>(
        &self,
        repeat: Repeat,
        call: impl Fn(Tokened) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.admin_at(repeat, call).await.map(|(answer, _)| answer)
    }

    /// The same, and which endpoint answered.
    pub(crate) async fn admin_at<T, F>(
        &self,
        repeat: Repeat,
        call: impl Fn(Tokened) -> F,
    ) -> Result<(T, Arc<Endpoint>), CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let pool = self.pool();
        let deadline = Instant::now() + self.config.admin_timeout;
        let mut tried: Vec<Arc<Endpoint>> = Vec::new();
        let mut last = None;
        while let Some(endpoint) = pool.pick(Rank::Open, &tried) {
            tried.push(Arc::clone(&endpoint));
            let left = deadline.saturating_duration_since(Instant::now());
            // Half of what is left, so that a node that says nothing leaves time for another.
            let is_last = repeat == Repeat::IfUnsent || tried.len() == pool.endpoints().len();
            let attempt: Attempt = endpoint.begin(false);
            match error::within(if is_last { left } else { left / 2 }, call(endpoint.tokened())).await {
                Ok(answer) => {
                    attempt.end(&Verdict::answered());
                    return Ok((answer, endpoint));
                }
                Err((error, verdict)) => {
                    attempt.end(&verdict);
                    let again = verdict.unsent || (repeat == Repeat::Always && error.is_retryable());
                    last = Some(error);
                    if !again || Instant::now() >= deadline {
                        break;
                    }
                }
            }
        }
        Err(match last {
            Some(CallError::TimedOut { .. }) => CallError::TimedOut { after: self.config.admin_timeout },
            Some(error) => error,
            None => pool.nobody(),
        })
    }
}

#[cfg(test)]
#[path = "calls_test.rs"]
mod tests;
