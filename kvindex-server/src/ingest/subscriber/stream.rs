//! One stream in its thread: feeds what the sockets say into the backlog, that into the sequencer while the
//! stream is led, and does what that decides.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kvindex_core::{BatchSeq, BlockHasher};
use xxhash_rust::xxh3::xxh3_64;

use super::link::{Link, LinkEvent, Publication};
use crate::ingest::batcher::Batcher;
use crate::ingest::counters::IngestCounters;
use crate::ingest::limits::MESSAGES_PER_TURN;
use crate::ingest::profile_check::ProfileCheck;
use crate::ingest::replay::{Answer, ReplayRequest};
use crate::ingest::sequencer::{Action, Arrival, Input, Phase, Resume};
use crate::ingest::service::{Applied, Fresh, NotTaken, Subscription};
use crate::ingest::standby::Follower;
use crate::ingest::status::SharedStatus;
use crate::net::HostPort;

/// A payload, which the backlog keeps while the sequencer and the decoder read it.
pub(in crate::ingest) type Payload = Arc<zmq::Message>;

/// What all streams of a thread share during one turn.
pub(super) struct Turn<'a> {
    pub(super) now_ms: u64,
    pub(super) unix_ms: u64,
    pub(super) counters: &'a IngestCounters,
    pub(super) batcher: &'a mut Batcher,
    pub(super) hasher: &'a mut BlockHasher,
    pub(super) applied: &'a Applied,
    pub(super) fresh: &'a Fresh,
}

/// Which of a stream's sockets have something to read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ready {
    pub(super) monitor: bool,
    pub(super) subscription: bool,
    pub(super) replay: bool,
}

/// A followed stream.
pub(in crate::ingest) struct Stream {
    pub(super) source: Subscription,
    pub(super) status: Arc<SharedStatus>,
    context: zmq::Context,
    link: Link,
    pub(super) follower: Follower<Payload>,
    pub(super) replay: Option<ReplayRequest>,
    replay_timeout: Duration,
    phase: Phase,
    pub(super) check: Option<ProfileCheck>,
    /// Commands of it were made in this turn.
    pub(super) deciding: bool,
}

impl Stream {
    pub(in crate::ingest) fn new(
        source: Subscription,
        status: Arc<SharedStatus>,
        context: zmq::Context,
        link: Link,
        follower: Follower<Payload>,
        replay_timeout: Duration,
    ) -> Self {
        let phase = follower.standing().phase;
        let release_known = source.profile.version.is_some();
        let check = source.hash_profile.map(|profile| ProfileCheck::new(profile, release_known));
        let (replay, deciding) = (None, false);
        Self { source, status, context, link, follower, replay, replay_timeout, phase, check, deciding }
    }

    /// Lets the stream's batches go to the index from now on, beginning with those that were kept.
    pub(super) fn lead(&mut self, resume: Option<Resume>) {
        self.replay = None;
        self.follower.lead(resume);
    }

    /// Only keeps what comes from now on.
    pub(super) fn stand_by(&mut self) {
        self.replay = None;
        self.follower.stand_by();
    }

    /// Whether there is something to do without waiting for a socket.
    pub(super) fn is_busy(&self) -> bool {
        self.follower.has_next() || self.follower.must_drain()
    }

    /// Learns what became of the turn's commands; whether the stream fell back to standby because its own were
    /// not taken.
    pub(super) fn settle(&mut self, refused: Option<&NotTaken>) -> bool {
        let decided = std::mem::take(&mut self.deciding);
        let falls_back = decided && refused.is_some_and(|refused| refused.concerns(&self.source.stream));
        if falls_back {
            self.replay = None;
            self.follower.fall_back();
        } else {
            self.follower.taken();
        }
        falls_back
    }

    /// The named engine to search for now, if there is one.
    pub(super) fn question(&mut self, now_ms: u64) -> Option<HostPort> {
        self.link.question(now_ms)
    }

    /// Learns where its engine is.
    pub(super) fn found(&mut self, address: Option<SocketAddr>, counters: &IngestCounters) {
        // What the former connection brought would go with it; the search is made again.
        let address = address.filter(|_| !self.follower.must_drain());
        if let Err(error) = self.link.found(address) {
            counters.socket_errors.add(1);
            tracing::warn!(stream = %self.source.stream, %error, "cannot connect to where the engine was found");
        }
    }

    /// Sockets to wait for: monitor, subscription, and the replay's if one runs.
    pub(super) fn poll_items<'a>(&'a self, items: &mut Vec<zmq::PollItem<'a>>) {
        items.extend(self.link.poll_items());
        items.extend(self.replay.iter().map(|replay| replay.socket().as_poll_item(zmq::POLLIN)));
    }

    pub(super) fn has_replay_socket(&self) -> bool {
        self.replay.is_some()
    }

    /// When the running replay counts as dead.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.replay.as_ref().map(ReplayRequest::deadline_ms)
    }

    /// Reads what is ready. The replay is read only once the subscription is drained: what waits there was sent
    /// earlier, and may be an earlier life's.
    pub(super) fn turn(&mut self, ready: Ready, turn: &mut Turn<'_>) {
        if ready.monitor {
            self.read_monitor(0, turn);
        }
        // Batches that were kept go first.
        let mut drained = !self.follower.has_next();
        if drained && (ready.subscription || self.follower.must_drain()) {
            drained = self.read_subscription(turn);
            if self.follower.is_half_full() {
                self.trim(turn);
            }
        }
        self.feed(turn);
        if drained && !self.follower.has_next() {
            if ready.replay {
                self.read_replay(turn);
            }
            let dead = self.deadline_ms().is_some_and(|deadline| turn.now_ms >= deadline);
            if dead {
                self.replay_failed("no answer in time", turn);
            }
        }
    }

    /// Lets time pass. On standby, what came longer than `grace_ms` ago should be applied by now.
    pub(super) fn tick(&mut self, grace_ms: u64, turn: &mut Turn<'_>) {
        if self.follower.is_led() {
            self.step(Input::Tick, turn.now_ms, turn);
            return;
        }
        if self.follower.wants_trim() {
            self.trim(turn);
        }
        self.follower.note_lag(turn.now_ms, grace_ms);
        self.look_for_witness(turn);
    }

    fn trim(&mut self, turn: &Turn<'_>) {
        self.follower.trim((turn.applied)(&self.source.stream));
    }

    /// Publishes how the stream stands, once what was decided was applied.
    pub(super) fn publish_status(&mut self) {
        let standing = self.follower.standing();
        self.status.publish(&standing);
        if standing.phase != std::mem::replace(&mut self.phase, standing.phase) {
            let (stream, phase, next) = (&self.source.stream, standing.phase, standing.next);
            tracing::info!(%stream, ?phase, %next, led = standing.led, "stream phase");
        }
    }

    /// `newer` batches were read since the monitor was last looked at.
    fn read_monitor(&mut self, newer: usize, turn: &mut Turn<'_>) {
        loop {
            match self.link.event() {
                Ok(None) => return,
                Ok(Some(event)) => self.link_changed(event, newer, turn),
                Err(error) => return self.socket_error("monitor", error, turn),
            }
        }
    }

    fn link_changed(&mut self, event: LinkEvent, newer: usize, turn: &mut Turn<'_>) {
        let (LinkEvent::Joined { publishers } | LinkEvent::Left { publishers }) = event;
        self.status.set_publishers(publishers);
        let (stream, endpoint) = (&self.source.stream, &self.source.endpoint);
        tracing::info!(%stream, endpoint, publishers, "engine link");
        if publishers > 1 && matches!(event, LinkEvent::Joined { .. }) {
            turn.counters.extra_publishers.add(1);
            tracing::warn!(%stream, endpoint, publishers, "several engines connect to one stream's endpoint");
        }
        // Where one of several left, what they said in turn is to be sorted out with the one that stays.
        self.follower.link_changed(publishers > 0, newer);
    }

    /// Whether nothing is left to read.
    fn read_subscription(&mut self, turn: &mut Turn<'_>) -> bool {
        let was_unread = self.follower.must_drain();
        let (heard, drained) = self.hear(turn);
        if heard > 0 {
            // A connection that came about meanwhile may have brought some of these already.
            self.read_monitor(heard, turn);
        }
        if drained && was_unread {
            self.follower.drained();
        }
        drained
    }

    /// Puts what is waiting into the backlog: how much that was, and whether it was all.
    fn hear(&mut self, turn: &mut Turn<'_>) -> (usize, bool) {
        let mut heard = 0;
        for _ in 0..MESSAGES_PER_TURN {
            match self.link.publication() {
                Ok(Publication::Nothing) => return (heard, true),
                Ok(Publication::Malformed) => turn.counters.bad_frames.add(1),
                Ok(Publication::Batch { seq, payload }) => {
                    heard += 1;
                    turn.counters.received.add(1);
                    let arrival = self.arrival(seq, payload, turn);
                    turn.counters.backlog_dropped.add(self.follower.hear(arrival, turn.now_ms));
                }
                Err(error) => {
                    self.socket_error("subscription", error, turn);
                    return (heard, true);
                }
            }
        }
        (heard, false)
    }

    /// Gives the sequencer what is in the backlog, if the stream is led.
    fn feed(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some((input, heard_ms)) = self.follower.next_input() else {
                return;
            };
            self.step(input, heard_ms, turn);
        }
    }

    fn read_replay(&mut self, turn: &mut Turn<'_>) {
        if !self.follower.is_led() {
            return self.read_testimony(turn);
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Some(replay) = self.replay.as_mut() else {
                return;
            };
            match replay.next(turn.now_ms) {
                Ok(Answer::Nothing) => return,
                Ok(Answer::Batch { seq, payload }) => {
                    turn.counters.replayed.add(1);
                    let arrival = self.arrival(seq, payload, turn);
                    if self.step(Input::Replayed(arrival), turn.now_ms, turn) {
                        return; // another request took this one's place
                    }
                }
                Ok(Answer::End) => {
                    self.replay = None;
                    self.step(Input::ReplayEnd, turn.now_ms, turn);
                    return;
                }
                Ok(Answer::Garbage) => return self.replay_failed("an answer is no replay message", turn),
                Err(error) => {
                    self.socket_error("replay", error, turn);
                    return self.replay_failed("the socket failed", turn);
                }
            }
        }
    }

    fn arrival(&self, seq: u64, payload: zmq::Message, turn: &Turn<'_>) -> Arrival<Payload> {
        self.status.count_received();
        turn.counters.bytes.add(payload.len() as u64);
        Arrival { seq, digest: xxh3_64(&payload), bytes: payload.len(), batch: Arc::new(payload) }
    }

    pub(super) fn socket_error(&self, socket: &'static str, error: zmq::Error, turn: &Turn<'_>) {
        turn.counters.socket_errors.add(1);
        tracing::warn!(stream = %self.source.stream, socket, %error, "cannot read");
    }

    pub(super) fn replay_failed(&mut self, why: &str, turn: &mut Turn<'_>) {
        self.note_failed_replay(why, turn.counters);
        self.follower.testimony_ended(false, turn.now_ms);
        self.step(Input::ReplayFailed, turn.now_ms, turn);
    }

    fn note_failed_replay(&mut self, why: &str, counters: &IngestCounters) {
        self.replay = None;
        counters.replays_failed.add(1);
        let endpoint = self.source.replay_endpoint.as_deref().unwrap_or_default();
        tracing::debug!(stream = %self.source.stream, endpoint, why, "replay failed");
    }

    /// Puts one input into the sequencer, as of `at_ms`, and does what it says; whether that asked for a new replay.
    fn step(&mut self, input: Input<Payload>, at_ms: u64, turn: &mut Turn<'_>) -> bool {
        let mut inputs = VecDeque::from([input]);
        let mut asked = false;
        let mut actions = Vec::new();
        while let Some(input) = inputs.pop_front() {
            self.follower.step(input, at_ms, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Apply { generation, seq, digest, batch } => {
                        self.apply(generation, (seq, digest), &batch, turn);
                    }
                    Action::NewGeneration(generation) => self.new_generation(generation, turn),
                    Action::Gap { generation, first, last } => self.gap(generation, (first, last), turn),
                    Action::Duplicate => turn.counters.duplicates.add(1),
                    Action::RequestReplay { from } => {
                        asked = true;
                        if !self.request_replay(from, turn) {
                            inputs.push_back(Input::ReplayFailed);
                        }
                    }
                }
            }
        }
        asked
    }

    pub(super) fn request_replay(&mut self, from: BatchSeq, turn: &mut Turn<'_>) -> bool {
        self.replay = None;
        turn.counters.replays_requested.add(1);
        let Some(endpoint) = &self.source.replay_endpoint else {
            return false;
        };
        let endpoint = self.link.replay_address(endpoint);
        match ReplayRequest::send(&self.context, &endpoint, from, self.replay_timeout, turn.now_ms) {
            Ok(request) => self.replay = Some(request),
            Err(error) => {
                self.socket_error("replay", error, turn);
                self.note_failed_replay("cannot ask", turn.counters);
            }
        }
        self.replay.is_some()
    }
}
