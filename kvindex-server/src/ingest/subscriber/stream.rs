//! One stream in its thread: feeds what the sockets say into the sequencer, and does what that decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kvindex_core::{Batch, BatchSeq, BlockHasher, DpRank, EventBatch, GapPolicy, Generation};
use xxhash_rust::xxh3::xxh3_64;

use super::link::{Link, LinkEvent, Publication};
use crate::ingest::batcher::Batcher;
use crate::ingest::counters::IngestCounters;
use crate::ingest::decode::{blocks_of, decode};
use crate::ingest::limits::MESSAGES_PER_TURN;
use crate::ingest::profile_check::{HashCheck, ProfileCheck};
use crate::ingest::replay::{Answer, ReplayRequest};
use crate::ingest::sequencer::{Action, Arrival, Input, Phase, Sequencer};
use crate::ingest::service::Subscription;
use crate::ingest::status::SharedStatus;

/// What all streams of a thread share during one turn.
pub(super) struct Turn<'a> {
    pub(super) now_ms: u64,
    pub(super) unix_ms: u64,
    pub(super) counters: &'a IngestCounters,
    pub(super) batcher: &'a mut Batcher,
    pub(super) hasher: &'a mut BlockHasher,
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
    sequencer: Sequencer<zmq::Message>,
    replay: Option<ReplayRequest>,
    replay_timeout: Duration,
    phase: Phase,
    check: Option<ProfileCheck>,
}

impl Stream {
    pub(in crate::ingest) fn new(
        source: Subscription,
        status: Arc<SharedStatus>,
        context: zmq::Context,
        link: Link,
        sequencer: Sequencer<zmq::Message>,
        replay_timeout: Duration,
    ) -> Self {
        let phase = sequencer.phase();
        let release_known = source.profile.version.is_some();
        let check = source.hash_profile.map(|profile| ProfileCheck::new(profile, release_known));
        Self { source, status, context, link, sequencer, replay: None, replay_timeout, phase, check }
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
            self.read_monitor(turn);
        }
        let drained = !ready.subscription || self.read_subscription(turn);
        if drained {
            if ready.replay {
                self.read_replay(turn);
            }
            let dead = self.deadline_ms().is_some_and(|deadline| turn.now_ms >= deadline);
            if dead {
                self.replay_failed("no answer in time", turn);
            }
        }
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, turn: &mut Turn<'_>) {
        self.step(Input::Tick, turn);
    }

    /// Publishes the sequencer's view, once what it decided was applied.
    pub(super) fn publish_status(&mut self) {
        self.status.publish(&self.sequencer);
        let phase = self.sequencer.phase();
        if phase != std::mem::replace(&mut self.phase, phase) {
            tracing::info!(stream = %self.source.stream, ?phase, next = %self.sequencer.next_seq(), "stream phase");
        }
    }

    fn read_monitor(&mut self, turn: &mut Turn<'_>) {
        loop {
            match self.link.event() {
                Ok(None) => return,
                Ok(Some(event)) => self.link_changed(event, turn),
                Err(error) => return self.socket_error("monitor", error, turn),
            }
        }
    }

    fn link_changed(&mut self, event: LinkEvent, turn: &mut Turn<'_>) {
        let (LinkEvent::Joined { publishers } | LinkEvent::Left { publishers }) = event;
        self.status.set_publishers(publishers);
        let (stream, endpoint) = (&self.source.stream, &self.source.endpoint);
        tracing::info!(%stream, endpoint, publishers, "engine link");
        if publishers > 1 && matches!(event, LinkEvent::Joined { .. }) {
            turn.counters.extra_publishers.add(1);
            tracing::warn!(%stream, endpoint, publishers, "several engines connect to one stream's endpoint");
        }
        // Where one of several left, what they said in turn is to be sorted out with the one that stays.
        self.step(if publishers > 0 { Input::Connected } else { Input::Disconnected }, turn);
    }

    /// Whether nothing is left to read.
    fn read_subscription(&mut self, turn: &mut Turn<'_>) -> bool {
        for _ in 0..MESSAGES_PER_TURN {
            match self.link.publication() {
                Ok(Publication::Nothing) => return true,
                Ok(Publication::Malformed) => turn.counters.bad_frames.add(1),
                Ok(Publication::Batch { seq, payload }) => {
                    turn.counters.received.add(1);
                    let arrival = self.arrival(seq, payload, turn);
                    self.step(Input::Live(arrival), turn);
                }
                Err(error) => {
                    self.socket_error("subscription", error, turn);
                    return true;
                }
            }
        }
        false
    }

    fn read_replay(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(replay) = self.replay.as_mut() else {
                return;
            };
            match replay.next(turn.now_ms) {
                Ok(Answer::Nothing) => return,
                Ok(Answer::Batch { seq, payload }) => {
                    turn.counters.replayed.add(1);
                    let arrival = self.arrival(seq, payload, turn);
                    if self.step(Input::Replayed(arrival), turn) {
                        return; // another request took this one's place
                    }
                }
                Ok(Answer::End) => {
                    self.replay = None;
                    self.step(Input::ReplayEnd, turn);
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

    fn arrival(&self, seq: u64, payload: zmq::Message, turn: &Turn<'_>) -> Arrival<zmq::Message> {
        self.status.count_received();
        turn.counters.bytes.add(payload.len() as u64);
        Arrival { seq, digest: xxh3_64(&payload), bytes: payload.len(), batch: payload }
    }

    fn socket_error(&self, socket: &'static str, error: zmq::Error, turn: &Turn<'_>) {
        turn.counters.socket_errors.add(1);
        tracing::warn!(stream = %self.source.stream, socket, %error, "cannot read");
    }

    fn replay_failed(&mut self, why: &str, turn: &mut Turn<'_>) {
        self.note_failed_replay(why, turn.counters);
        self.step(Input::ReplayFailed, turn);
    }

    fn note_failed_replay(&mut self, why: &str, counters: &IngestCounters) {
        self.replay = None;
        counters.replays_failed.add(1);
        let endpoint = self.source.replay_endpoint.as_deref().unwrap_or_default();
        tracing::debug!(stream = %self.source.stream, endpoint, why, "replay failed");
    }

    /// Puts one input into the sequencer and does what it says; whether that asked for a new replay.
    fn step(&mut self, input: Input<zmq::Message>, turn: &mut Turn<'_>) -> bool {
        let mut inputs = VecDeque::from([input]);
        let mut asked = false;
        let mut actions = Vec::new();
        while let Some(input) = inputs.pop_front() {
            self.sequencer.step(input, turn.now_ms, &mut actions);
            for action in actions.drain(..) {
                match action {
                    Action::Apply { generation, seq, batch } => self.apply(generation, seq, &batch, turn),
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

    fn request_replay(&mut self, from: BatchSeq, turn: &mut Turn<'_>) -> bool {
        self.replay = None;
        turn.counters.replays_requested.add(1);
        let Some(endpoint) = &self.source.replay_endpoint else {
            return false;
        };
        match ReplayRequest::send(&self.context, endpoint, from, self.replay_timeout, turn.now_ms) {
            Ok(request) => self.replay = Some(request),
            Err(error) => {
                self.socket_error("replay", error, turn);
                self.note_failed_replay("cannot ask", turn.counters);
            }
        }
        self.replay.is_some()
    }

    fn apply(&mut self, generation: Generation, seq: BatchSeq, payload: &[u8], turn: &mut Turn<'_>) {
        let decoded = match decode(payload) {
            Ok(decoded) => decoded,
            Err(error) => {
                turn.counters.count_decode_error(&error);
                tracing::warn!(stream = %self.source.stream, %seq, %error, "undecodable event batch");
                // Its number is used up, and what it said is lost.
                return self.gap(generation, (seq, seq), turn);
            }
        };
        turn.counters.count_decoded(&decoded);
        turn.counters.applied.add(1);
        self.check_rank(decoded.batch.dp_rank, turn.counters);
        self.check_hashes(&decoded.batch);
        let changes = decoded.seal(&self.source.profile, turn.hasher);
        let blocks = blocks_of(&decoded.batch);
        turn.batcher.batch(&self.source.stream, generation, Batch { seq, changes }, blocks, turn.unix_ms);
    }

    /// A batch of another rank shows that the stream's endpoint is that rank's: a wrong port, most often.
    fn check_rank(&self, named: Option<DpRank>, counters: &IngestCounters) {
        let Some(named) = named.filter(|rank| *rank != self.source.stream.dp_rank) else {
            return;
        };
        counters.another_rank.add(1);
        if self.status.note_another_rank() {
            let (stream, endpoint) = (&self.source.stream, &self.source.endpoint);
            tracing::warn!(%stream, endpoint, rank = named.0, "the engine's batches name another dp rank");
        }
    }

    /// Before the tokens are gone.
    fn check_hashes(&mut self, batch: &EventBatch) {
        if let Some(verdict) = self.check.as_mut().and_then(|check| check.look(batch)) {
            self.status.set_hash_check(verdict.state);
            verdict.tell(&self.source.stream);
        }
    }

    fn new_generation(&mut self, generation: Generation, turn: &mut Turn<'_>) {
        if let Some(check) = &mut self.check {
            check.restart();
            self.status.set_hash_check(HashCheck::Unchecked);
        }
        turn.counters.new_generations.add(1);
        tracing::info!(stream = %self.source.stream, %generation, "new generation");
        turn.batcher.new_generation(&self.source.stream, generation, turn.unix_ms);
    }

    fn gap(&mut self, generation: Generation, (first, last): (BatchSeq, BatchSeq), turn: &mut Turn<'_>) {
        turn.counters.gaps.add(1);
        turn.counters.gap_batches.add((last.0 - first.0).saturating_add(1));
        self.status.count_gap();
        tracing::warn!(stream = %self.source.stream, %generation, %first, %last, "event batches are lost");
        // A life joined late has nothing yet that could be kept.
        let policy = if first == BatchSeq(0) { GapPolicy::Purge } else { self.source.gap_policy };
        turn.batcher.gap(&self.source.stream, generation, (first, last), policy, turn.unix_ms);
    }
}
