//! Bodies on their way in and answers on their way out: bounded in bytes over all calls, and in time. A client that
//! sends a byte now and then, or never reads its answer, holds a bounded part of a node, and not for ever.

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::error::{ApiError, Kind};
use super::frames::Frames;
use crate::access::Overloaded;
use crate::config::AccessConfig;
use crate::net::and_before;

/// What part of the open calls one token may have: the others' callers find room whatever it does.
const SHARE: usize = 4;

/// What all calls share.
#[derive(Debug)]
pub(super) struct Room {
    timeout: Duration,
    max_bytes: usize,
    bytes: AtomicUsize,
    /// Of answers that are made and not taken yet.
    answer_bytes: AtomicUsize,
    max_calls: usize,
    calls: AtomicUsize,
    /// Open calls of each token that has any.
    tokens: Mutex<HashMap<String, usize>>,
}

impl Room {
    pub(super) fn new(config: &AccessConfig) -> Arc<Self> {
        Arc::new(Self {
            timeout: config.body_timeout,
            max_bytes: config.held_bytes,
            bytes: AtomicUsize::new(0),
            answer_bytes: AtomicUsize::new(0),
            max_calls: config.open_calls,
            calls: AtomicUsize::new(0),
            tokens: Mutex::default(),
        })
    }

    fn max_of_token(&self) -> usize {
        self.max_calls.div_ceil(SHARE)
    }

    fn open(&self, token: Option<&str>) -> Result<(), ApiError> {
        if let Some(token) = token {
            let (mut tokens, most) = (self.tokens.lock(), self.max_of_token());
            match tokens.get_mut(token) {
                Some(count) if *count >= most => {
                    let what = "calls of this token are open, which is its share of max_open_calls";
                    return Err(full(format!("{most} {what}")));
                }
                Some(count) => *count += 1,
                None => drop(tokens.insert(token.to_owned(), 1)),
            }
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) >= self.max_calls {
            self.close(token);
            let limit = self.max_calls;
            return Err(full(format!("{limit} calls are open, which is the limit (max_open_calls)")));
        }
        Ok(())
    }

    fn close(&self, token: Option<&str>) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        let Some(token) = token else { return };
        let mut tokens = self.tokens.lock();
        if let Some(count) = tokens.get_mut(token) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                tokens.remove(token);
            }
        }
    }
}

fn full(message: String) -> ApiError {
    ApiError::new(Kind::Exhausted, message).retry_after(Some(Overloaded::RETRY_AFTER))
}

/// What one call holds of the room, until nobody needs it any more.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    token: Option<String>,
    bytes: AtomicUsize,
    answer_bytes: AtomicUsize,
    open: Gauge,
}

impl Held {
    /// One more call of a token, if callers have any; or why there is no room for it.
    pub(super) fn new(open: Gauge, room: &Arc<Room>, token: Option<&str>) -> Result<Arc<Self>, ApiError> {
        room.open(token)?;
        open.inc();
        let (bytes, answer_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Arc::new(Self {
            room: Arc::clone(room),
            token: token.map(str::to_owned),
            bytes,
            answer_bytes,
            open,
        }))
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

    fn take_answer(&self, bytes: usize) -> Result<(), ApiError> {
        let (held, limit) = (&self.room.answer_bytes, self.room.max_bytes);
        if held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > limit {
            held.fetch_sub(bytes, Ordering::Relaxed);
            let message =
                format!("answers of {limit} bytes wait to be read, which is the limit (max_held_bytes)");
            return Err(full(message));
        }
        self.answer_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// An answer that holds the call's place until it is taken, or its client is gone; or why there is no room for it.
    pub(super) fn around(self: Arc<Self>, response: Response) -> Result<Response, ApiError> {
        let (head, body) = response.into_parts();
        let outgoing = Outgoing::begun(body, self);
        outgoing.held.take_answer(outgoing.first_bytes())?;
        Ok(Response::from_parts(head, Body::new(outgoing)))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.dec();
        self.room.close(self.token.as_deref());
        self.room.bytes.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
        self.room.answer_bytes.fetch_sub(*self.answer_bytes.get_mut(), Ordering::Relaxed);
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

/// What a body says when it is asked for its next frame.
type Said = Option<Result<Frame<Bytes>, axum::Error>>;

struct Outgoing {
    body: Body,
    /// What it said first; an answer of one message is all in it.
    first: Option<Said>,
    ended: bool,
    held: Arc<Held>,
}

impl Outgoing {
    /// A message becomes bytes when it is asked for. It is now, so that it can be counted: who never takes it would
    /// never have it made.
    fn begun(mut body: Body, held: Arc<Held>) -> Self {
        let first = if body.is_end_stream() {
            None
        } else {
            // One that is not there yet is asked again by whoever sends it.
            match Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(said) => Some(said),
                Poll::Pending => None,
            }
        };
        Self { body, first, ended: false, held }
    }

    fn first_bytes(&self) -> usize {
        match &self.first {
            Some(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        }
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let said = match self.first.take() {
            Some(said) => said,
            None if self.ended => None,
            None => ready!(Pin::new(&mut self.body).poll_frame(cx)),
        };
        self.ended = said.is_none();
        Poll::Ready(said)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        and_before(&self.body.size_hint(), self.first_bytes())
    }
}
