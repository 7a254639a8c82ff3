//! Long-lived calls: match streams and watchers. Each is one task with a bounded queue to its client and a permit
//! that bounds how many there are.

use std::sync::Arc;
use std::time::Duration;

use kvindex_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Api;
use super::calls::Arrived;
use super::convert;
use super::error::{ApiError, Kind};
use crate::access::{Caller, OpenStream, Right};
use crate::metrics::Metrics;
use crate::node::FeedEvent;

/// Answers or changes on their way to one client. Small: what waits here is stale when it arrives.
const QUEUE: usize = 64;

/// How long the reason for which a stream ends waits for a client that does not read.
const LAST_WORD: Duration = Duration::from_secs(5);

/// One open stream: counts itself out when dropped.
#[derive(Debug)]
struct Open {
    _permit: OwnedSemaphorePermit,
    _of_tenants: OpenStream,
    metrics: Metrics,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.stream_closed();
    }
}

/// Who has a stream open, through changes of the access file.
struct Holder {
    api: Arc<Api>,
    caller: Caller,
    changes: watch::Receiver<u64>,
}

impl Holder {
    fn new(api: &Arc<Api>, caller: Caller) -> Self {
        let mut changes = api.access.changes();
        // The file may have changed since the guard looked at who calls.
        changes.mark_changed();
        Self { api: Arc::clone(api), caller, changes }
    }

    /// Resolves when the caller lost what it needs for the stream: its token, the right, or a tenant.
    async fn lost(&mut self) -> ApiError {
        loop {
            self.api.access.changed(&self.caller, &mut self.changes).await;
            let now = match self.api.access.again(&self.caller) {
                Ok(now) => now,
                Err(unknown) => return unknown.into(),
            };
            if let Err(denied) = now.may(Right::Read) {
                return denied.into();
            }
            let (mut before, sees_all) =
                (self.caller.tenants().into_iter().flatten(), self.caller.sees_all());
            if (sees_all && !now.sees_all()) || before.any(|tenant| !now.sees(tenant)) {
                return ApiError::new(
                    Kind::Denied,
                    "the token's tenants have changed; open the stream again",
                );
            }
            drop(before);
            self.caller = now;
        }
    }
}

impl Holder {
    /// Hands the client an answer, or the reason for which its stream ends; says whether the stream goes on. A client
    /// that does not read holds up its own stream, but neither its end nor the server's.
    async fn send<T>(
        &mut self,
        to: &mpsc::Sender<T>,
        answer: T,
        ends: bool,
        stopping: &mut watch::Receiver<bool>,
    ) -> bool {
        let over = async {
            if ends {
                tokio::time::sleep(LAST_WORD).await;
            } else {
                self.lost().await;
            }
        };
        tokio::select! {
            sent = to.send(answer) => sent.is_ok() && !ends,
            () = over => false,
            () = stopped(stopping) => false,
        }
    }
}

impl Api {
    fn open_stream(&self, caller: &Caller) -> Result<Open, ApiError> {
        let of_tenants = caller.open_stream().map_err(|(tenant, limit)| {
            let message =
                format!("tenant {tenant:?} has {limit} streams open, which is the limit (max_streams)");
            ApiError::new(Kind::Exhausted, message)
        })?;
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{0} streams are open, the limit is {0}", self.limits.streams);
            ApiError::new(Kind::Exhausted, message)
        })?;
        let metrics = self.node.metrics().clone();
        metrics.stream_opened();
        Ok(Open { _permit: permit, _of_tenants: of_tenants, metrics })
    }

    /// Answers questions in the order they come, until the client or the server ends.
    pub(super) fn match_stream(
        self: &Arc<Self>,
        caller: Caller,
        mut questions: Streaming<v1::MatchStreamRequest>,
    ) -> Result<ReceiverStream<Result<v1::MatchStreamResponse, Status>>, ApiError> {
        caller.may(Right::Read)?;
        let open = self.open_stream(&caller)?;
        let (answers, stream) = mpsc::channel(QUEUE);
        let mut holder = Holder::new(self, caller);
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let _open = open;
            loop {
                let question = tokio::select! {
                    // First, so that a client whose next question is always there is not served for ever.
                    biased;
                    lost = holder.lost() => Err(lost.into()),
                    question = questions.message() => question,
                    () = answers.closed() => return,
                    () = stopped(&mut stopping) => return,
                };
                let arrived = Arrived::now();
                let answer = match question {
                    Ok(Some(question)) => {
                        Ok(holder.api.find_streamed(&holder.caller, &question, arrived).await)
                    }
                    Ok(None) => return,
                    Err(status) => Err(as_exhausted(status)),
                };
                let ends = answer.is_err();
                if !holder.send(&answers, answer, ends, &mut stopping).await {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(stream))
    }

    /// Tells changes until the client or the server ends.
    pub(super) fn watch(
        self: &Arc<Self>,
        caller: &Caller,
        request: v1::WatchRequest,
    ) -> Result<ReceiverStream<Result<v1::WatchEvent, ApiError>>, ApiError> {
        caller.may(Right::Read)?;
        let (found, limit) = (request.worker_ids.len(), self.limits.candidates);
        if found > limit {
            return Err(ApiError::over_limit("worker_ids", "workers", found, limit));
        }
        let open = self.open_stream(caller)?;
        let (changes, stream) = mpsc::channel(QUEUE);
        // Subscribed before the call is answered: what happens after the answer is seen.
        let mut watcher = self.node.watch_tenants(caller.tenants());
        let mut holder = Holder::new(self, caller.clone());
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let open = open;
            loop {
                let next = tokio::select! {
                    biased;
                    lost = holder.lost() => Some(Err(lost)),
                    next = watcher.next() => next.map(Ok),
                    () = changes.closed() => return,
                    () = stopped(&mut stopping) => return,
                };
                let event = match next {
                    Some(Ok(Ok(event))) if is_wanted(&request, &event) => Ok(convert::watch_event(&event)),
                    Some(Ok(Ok(_))) => continue,
                    Some(Ok(Err(lost))) => {
                        open.metrics.watch_dropped(lost);
                        Ok(v1::WatchEvent {
                            kind: "dropped".into(),
                            count: lost,
                            ..v1::WatchEvent::default()
                        })
                    }
                    Some(Err(error)) => Err(error),
                    None => return,
                };
                let ends = event.is_err();
                if !holder.send(&changes, event, ends, &mut stopping).await {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(stream))
    }
}

fn is_wanted(request: &v1::WatchRequest, event: &FeedEvent) -> bool {
    let by_worker = request.worker_ids.is_empty()
        || request.worker_ids.iter().any(|worker| worker == event.worker.as_str());
    by_worker && request.model.as_deref().is_none_or(|model| event.model.as_deref() == Some(model))
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end too.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// The transport calls a message over the limit out of range; to callers it is the same as any other limit.
fn as_exhausted(status: Status) -> Status {
    if status.code() == tonic::Code::OutOfRange {
        return Status::resource_exhausted(status.message());
    }
    status
}
