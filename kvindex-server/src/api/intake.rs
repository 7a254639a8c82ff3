//! Bodies on their way in and answers on their way out: bounded in bytes over all calls, and in time. A client that
//! sends a byte now and then, or never reads its answer, holds a bounded part of a node, and not for ever.

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::frames::Frames;
use crate::config::AccessConfig;

/// What all calls share.
#[derive(Debug)]
pub(super) struct Room {
    timeout: Duration,
    max_bytes: usize,
    bytes: AtomicUsize,
    max_calls: usize,
    calls: AtomicUsize,
}

impl Room {
    pub(super) fn new(config: &AccessConfig) -> Arc<Self> {
        Arc::new(Self {
            timeout: config.body_timeout,
            max_bytes: config.held_bytes,
            bytes: AtomicUsize::new(0),
            max_calls: config.open_calls,
            calls: AtomicUsize::new(0),
        })
    }
}

/// What one call holds of the room, until nobody needs it any more.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    bytes: AtomicUsize,
    open: Gauge,
}

impl Held {
    /// One more call, or the limit when there is no room for it.
    pub(super) fn new(open: Gauge, room: &Arc<Room>) -> Result<Arc<Self>, usize> {
        if room.calls.fetch_add(1, Ordering::Relaxed) >= room.max_calls {
            room.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(room.max_calls);
        }
        open.inc();
        Ok(Arc::new(Self { room: Arc::clone(room), bytes: AtomicUsize::new(0), open }))
    }

    fn take(&self, bytes: usize) -> Result<(), Status> {
        if self.room.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.room.max_bytes {
            self.room.bytes.fetch_sub(bytes, Ordering::Relaxed);
            let limit = self.room.max_bytes;
            let message = format!("requests of {limit} bytes are held, which is the limit (max_held_bytes)");
            return Err(Status::resource_exhausted(message));
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.room.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// An answer that holds the call's place until it is written, or its client is gone.
    pub(super) fn around(self: Arc<Self>, body: Body) -> Body {
        Body::new(Outgoing { body, _held: self })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.dec();
        self.room.calls.fetch_sub(1, Ordering::Relaxed);
        self.room.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

/// A body on its way in.
#[derive(Debug)]
pub(super) struct Intake {
    held: Arc<Held>,
    /// For a stream of messages, of which each has its own time; a body of one message has one for all.
    frames: Option<Frames>,
    timeout: Duration,
}

impl Intake {
    pub(super) fn new(held: Arc<Held>, is_stream: bool, room: &Room) -> Self {
        Self { held, frames: is_stream.then(Frames::default), timeout: room.timeout }
    }

    pub(super) fn around(self, body: Body) -> Body {
        let deadline = Box::pin(sleep(self.timeout));
        Body::new(Incoming { body, deadline, intake: self })
    }

    /// Counts what came in; says whether a message begins to be waited for, or ends.
    fn received(&mut self, chunk: &Bytes) -> Result<Wait, Status> {
        self.held.take(chunk.len())?;
        let Some(frames) = &mut self.frames else { return Ok(Wait::Same) };
        let was_within = frames.is_within();
        let done = frames.read(chunk);
        self.held.give_back(done);
        Ok(if done > 0 || !was_within { Wait::Anew } else { Wait::Same })
    }

    /// Whether the body may come as late as it wants: between two messages.
    fn may_rest(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| !frames.is_within())
    }
}

/// What a chunk means for the time the next one has.
enum Wait {
    Anew,
    Same,
}

struct Incoming {
    body: Body,
    deadline: Pin<Box<Sleep>>,
    intake: Intake,
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            if this.intake.may_rest() {
                return Poll::Pending;
            }
            ready!(this.deadline.as_mut().poll(cx));
            let message = format!(
                "the request did not arrive within {} ms (body_timeout_ms)",
                this.intake.timeout.as_millis()
            );
            return Poll::Ready(Some(Err(axum::Error::new(Status::deadline_exceeded(message)))));
        };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        if let Some(chunk) = frame.data_ref() {
            match this.intake.received(chunk) {
                Err(refused) => return Poll::Ready(Some(Err(axum::Error::new(refused)))),
                Ok(Wait::Anew) => {
                    let deadline = Instant::now() + this.intake.timeout;
                    this.deadline.as_mut().reset(deadline);
                }
                Ok(Wait::Same) => {}
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Outgoing {
    body: Body,
    _held: Arc<Held>,
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
