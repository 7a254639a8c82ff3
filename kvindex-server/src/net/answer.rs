//! Answers on their way to a client, and whether it takes them. HTTP/2 lets a client acknowledge all bytes and accept
//! none, by a window that it keeps closed: no timeout of TCP's notices that, and each answer would wait for ever.
//!
//! So an answer is handed over in small pieces, of which the last one of HTTP/2 is a single byte: whoever sends them
//! asks for the next one only once the client has room, and so an answer is here until the client has taken it. Only
//! what is small goes whole. An
//! answer whose next piece nobody asks for is waiting, and a connection on which one waits too long is ended.

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Largest piece: a frame of HTTP/2 as clients usually take them.
const PIECE: usize = 16 << 10;

/// What is left of a chunk goes whole from this size down. On HTTP/2 it may then wait where it is not seen, behind a window of a
/// byte; a connection's streams are bounded, and so is what they keep there. Frames of a byte cost clients more: some
/// end a connection on which many small ones wait.
const SMALL: usize = 4 << 10;

/// How many rounds the answers are told apart by that began to wait in them.
const ROUNDS: usize = 4;

/// In how many rounds a client's time is cut: an answer waits for that time, and at most half of it more.
const CUT: u32 = 2;

/// How many answers of a connection wait for their client, by the round in which they began to.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    round: AtomicUsize,
    since: [AtomicUsize; ROUNDS],
}

impl Waiting {
    fn count(&self, round: usize) -> Option<&AtomicUsize> {
        self.since.get(round % ROUNDS)
    }

    fn begin(&self) -> usize {
        let round = self.round.load(Ordering::Relaxed);
        if let Some(count) = self.count(round) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        round
    }

    fn end(&self, round: usize) {
        if let Some(count) = self.count(round) {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Ends when an answer has waited for longer than `patience`.
    pub(super) async fn too_long(&self, patience: Duration) {
        let mut rounds = interval(patience / CUT);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is now.
        rounds.tick().await;
        loop {
            rounds.tick().await;
            let round = self.round.fetch_add(1, Ordering::Relaxed) + 1;
            // Those that began before the last `CUT` whole rounds; their count is used again in the next one.
            let old = round.wrapping_sub(CUT as usize + 1);
            if self.count(old).is_some_and(|count| count.load(Ordering::Relaxed) > 0) {
                return;
            }
        }
    }
}

/// An answer's body.
pub(super) struct Answer {
    body: Body,
    /// What is not handed over of the last chunk.
    rest: Bytes,
    /// Whether the chunk is one that must not be kept for its last piece.
    large: bool,
    http2: bool,
    waiting: Arc<Waiting>,
    since: Option<usize>,
}

impl Answer {
    pub(super) fn new(body: Body, http2: bool, waiting: Arc<Waiting>) -> Self {
        Self { body, rest: Bytes::new(), large: false, http2, waiting, since: None }
    }

    fn rests(&mut self) {
        if let Some(round) = self.since.take() {
            self.waiting.end(round);
        }
    }

    fn piece(&mut self) -> Bytes {
        let length = match self.rest.len() {
            more if more > PIECE => PIECE,
            some if self.http2 && some > SMALL => some - 1,
            all => all,
        };
        let piece = self.rest.split_to(length);
        self.since = Some(self.waiting.begin());
        // A piece keeps the memory of the whole chunk, wherever it waits.
        if self.large && self.rest.len() <= 1 { Bytes::copy_from_slice(&piece) } else { piece }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        this.rests();
        if this.rest.is_empty() {
            let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
            let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
            let chunk = match frame.into_data() {
                Ok(chunk) => chunk,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            this.large = chunk.len() > PIECE;
            this.rest = chunk;
        }
        Poll::Ready(Some(Ok(Frame::data(this.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        and_before(&self.body.size_hint(), self.rest.len())
    }
}

/// How long a body is of which so many bytes were taken and are not handed over.
pub(crate) fn and_before(body: &SizeHint, taken: usize) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(body.lower().saturating_add(taken as u64));
    if let Some(upper) = body.upper() {
        hint.set_upper(upper.saturating_add(taken as u64));
    }
    hint
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.rests();
    }
}
