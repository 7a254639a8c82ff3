//! Long-lived calls: match streams and watchers. Each is one task with a bounded queue to its client and a permit
//! that bounds how many there are.

use std::sync::Arc;
use std::time::Instant;

use kvindex_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Api;
use super::calls::Arrived;
use super::convert;
use super::error::{ApiError, Kind};
use crate::metrics::Metrics;
use crate::node::FeedEvent;

/// Answers or changes on their way to one client. Small: what waits here is stale when it arrives.
const QUEUE: usize = 64;

/// One open stream: counts itself out when dropped.
#[derive(Debug)]
struct Open {
    _permit: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.stream_closed();
    }
}

impl Api {
    fn open_stream(&self) -> Result<Open, ApiError> {
        let permit = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let message = format!("{0} streams are open, the limit is {0}", self.limits.streams);
            ApiError::new(Kind::Exhausted, message)
        })?;
        let metrics = self.node.metrics().clone();
        metrics.stream_opened();
        Ok(Open { _permit: permit, metrics })
    }

    /// Answers questions in the order they come, until the client or the server ends.
    pub(super) fn match_stream(
        self: &Arc<Self>,
        mut questions: Streaming<v1::MatchStreamRequest>,
    ) -> Result<ReceiverStream<Result<v1::MatchStreamResponse, Status>>, ApiError> {
        let open = self.open_stream()?;
        let (answers, stream) = mpsc::channel(QUEUE);
        let api = Arc::clone(self);
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let _open = open;
            loop {
                let question = tokio::select! {
                    question = questions.message() => question,
                    () = stopped(&mut stopping) => return,
                };
                let arrived = Arrived(Instant::now());
                let answer = match question {
                    Ok(Some(question)) => Ok(api.find_streamed(&question, arrived.micros())),
                    Ok(None) => return,
                    Err(status) => Err(as_exhausted(status)),
                };
                let ends = answer.is_err();
                if answers.send(answer).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(ReceiverStream::new(stream))
    }

    /// Tells changes until the client or the server ends.
    pub(super) fn watch(
        self: &Arc<Self>,
        request: v1::WatchRequest,
    ) -> Result<ReceiverStream<v1::WatchEvent>, ApiError> {
        let (found, limit) = (request.worker_ids.len(), self.limits.candidates);
        if found > limit {
            return Err(ApiError::over_limit("worker_ids", "workers", found, limit));
        }
        let open = self.open_stream()?;
        let (changes, stream) = mpsc::channel(QUEUE);
        // Subscribed before the call is answered: what happens after the answer is seen.
        let mut watcher = self.node.watch();
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            let open = open;
            loop {
                let next = tokio::select! {
                    next = watcher.next() => next,
                    () = changes.closed() => return,
                    () = stopped(&mut stopping) => return,
                };
                let event = match next {
                    Some(Ok(event)) if is_wanted(&request, &event) => convert::watch_event(&event),
                    Some(Ok(_)) => continue,
                    Some(Err(lost)) => {
                        open.metrics.watch_dropped(lost);
                        v1::WatchEvent { kind: "dropped".into(), count: lost, ..v1::WatchEvent::default() }
                    }
                    None => return,
                };
                if changes.send(event).await.is_err() {
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
