//! Puts one stream's batches into order, exactly once, across losses, duplicates and engine restarts. A pure
//! state machine: no clock, no sockets; batches and time come in as data and what to do goes out as
//! [`Action`]s, so every rule here is tested without a network.
//!
//! Numbers alone cannot tell two lives of an engine apart, because every life counts from 0 and nothing
//! announces a restart. So whenever numbers are in doubt (a gap, a reconnect, silence) the *last applied*
//! batch is asked for again, and its digest compared:
//!
//! ```text
//!   seq == next ──────────────▶ Apply
//!   seq <  next, same digest ─▶ Duplicate
//!   seq <  next, other digest ▶ another life: NewGeneration, replay from 0
//!   seq >  next ──────────────▶ replay from the last applied one
//!                                 first answer has the same digest  ▶ fill and go on
//!                                 another digest, or none at all    ▶ another life
//!                                 it starts later, ends early, dies ▶ Gap for what is still missing
//! ```
//!
//! A stream that the index has heard of before begins in doubt: see `doubt`.

mod contract;
mod digests;
mod doubt;
mod holdback;
mod replaying;

#[cfg(test)]
mod doubt_test;
#[cfg(test)]
mod rules_test;
#[cfg(test)]
mod simulation_test;

use kvindex_core::{BatchSeq, Generation};

pub use contract::{Action, Arrival, Input, Phase, Resume, SequencerConfig};
use digests::Digests;
pub use doubt::Footing;
use doubt::{Doubt, Trail};
use holdback::Holdback;

/// The state machine of one stream.
#[derive(Debug)]
pub struct Sequencer<B> {
    config: SequencerConfig,
    generation: Generation,
    /// The index holds an earlier view, which nothing can verify: the first contact starts a new generation.
    renew: bool,
    /// Whether the engine still is in the life that the index knows is not clear yet.
    doubt: Option<Doubt>,
    /// It is, and batches that the index has may still be on their way here.
    trail: Option<Trail>,
    /// What was heard before is being put in: it is held back until the connection is told of.
    gathering: bool,
    /// Number of the next batch to apply.
    next: u64,
    applied: Digests,
    replay: Option<Replay>,
    /// Live batches that wait for the replay to end.
    held: Holdback<B>,
    /// The engine was heard in some form.
    heard: bool,
    /// A reconnect happened and no replay has shown since that this still is the life we followed.
    reconnected: bool,
    /// The replay that was to show it failed: the next batch asks once more. If that fails too, numbers are
    /// trusted, as without a replay socket.
    unproven: bool,
    /// What is heard may be of an earlier connection.
    unclear: bool,
    /// Highest number known to exist in this life.
    newest: Option<u64>,
    behind_since_ms: Option<u64>,
    /// The publisher can be reached: only then is silence worth asking about.
    connected: bool,
    last_activity_ms: u64,
    idle_backoff: u64,
}

/// A replay that was asked for.
#[derive(Debug, Clone, Copy)]
struct Replay {
    from: u64,
    /// `next` when it was asked for: tells whether it brought anything.
    next_before: u64,
    /// Whether the engine's life is known to be ours.
    verified: bool,
    /// Whether anything came of it yet.
    answered: bool,
    cause: Cause,
}

impl Replay {
    fn is_known(&self) -> bool {
        self.verified && self.answered
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A live batch proved that some are missing.
    Gap,
    /// First contact, reconnect or new life: something may be missing.
    Contact,
    /// Silence: most likely nothing is missing.
    Idle,
}

impl<B> Sequencer<B> {
    /// A sequencer for a stream nothing is known of, or, with `resume`, one whose blocks the index already
    /// holds.
    #[must_use]
    pub fn new(config: SequencerConfig, resume: Option<Resume>) -> Self {
        let last = resume.and_then(|resume| resume.last());
        let mut applied = Digests::default();
        last.iter().for_each(|(seq, digest)| applied.insert(*seq, *digest));
        Self {
            config,
            generation: resume.map_or(Generation(0), |resume| resume.generation),
            // A generation in which nothing was applied has nothing that could be another life's.
            renew: resume.is_some_and(|resume| resume.applied.is_some()) && last.is_none(),
            doubt: last.map(|_| Doubt::default()),
            trail: None,
            gathering: false,
            next: last.map_or(0, |(seq, _)| seq.saturating_add(1)),
            applied,
            replay: None,
            held: Holdback::default(),
            heard: false,
            reconnected: false,
            unproven: false,
            unclear: false,
            newest: None,
            behind_since_ms: None,
            connected: false,
            last_activity_ms: 0,
            idle_backoff: 1,
        }
    }

    /// Takes one input and appends what to do to `out`. `now_ms` is any clock that never goes back.
    pub fn step(&mut self, input: Input<B>, now_ms: u64, out: &mut Vec<Action<B>>) {
        match input {
            Input::Live(arrival) => {
                self.touch(now_ms);
                self.live(arrival, out);
            }
            Input::Replayed(arrival) => {
                self.touch(now_ms);
                self.replayed(arrival, out);
            }
            Input::ReplayEnd => {
                self.touch(now_ms);
                self.replay_end(out);
            }
            Input::ReplayFailed => self.replay_failed(out),
            Input::Connected => {
                self.touch(now_ms);
                self.connect(out);
            }
            Input::Disconnected => self.connected = false,
            Input::Tick => self.tick(now_ms, out),
        }
        self.note_lag(now_ms);
    }

    /// How far the stream is to be trusted.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let replaying = self.unproven || self.replay.is_some_and(|replay| replay.cause != Cause::Idle);
        match (self.heard && self.doubt.is_none(), replaying || self.missing()) {
            (false, _) => Phase::Pending,
            (true, true) => Phase::CatchingUp,
            (true, false) => Phase::Live,
        }
    }

    /// When the oldest batch became known that exists and is not yet applied; `None` when there is none.
    #[must_use]
    pub fn behind_since_ms(&self) -> Option<u64> {
        self.behind_since_ms
    }

    /// The stream's generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Number of the next batch to apply.
    #[must_use]
    pub fn next_seq(&self) -> BatchSeq {
        BatchSeq(self.next)
    }

    fn touch(&mut self, now_ms: u64) {
        self.last_activity_ms = now_ms;
        self.idle_backoff = 1;
    }

    fn missing(&self) -> bool {
        !self.held.is_empty() || self.newest.is_some_and(|newest| newest >= self.next)
    }

    fn note_lag(&mut self, now_ms: u64) {
        self.behind_since_ms = match self.missing() {
            true => self.behind_since_ms.or(Some(now_ms)),
            false => None,
        };
    }

    fn live(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        if arrival.seq == u64::MAX {
            return; // the end marker's number: no batch has it
        }
        (self.heard, self.connected) = (true, true);
        self.take_in(arrival, out);
    }

    /// A batch of the publisher's, whenever it came.
    fn take_in(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        match &mut self.replay {
            None => match self.must_ask() {
                true => self.hold_and_ask(arrival, out),
                false => self.settle(arrival, out),
            },
            // The life is known and nothing is missing before it: no need to wait for the replay's end. The answer has
            // begun, so nothing of an earlier connection is left to come.
            Some(replay) if replay.is_known() && arrival.seq == self.next && self.held.is_empty() => {
                replay.next_before += 1;
                self.settle(arrival, out);
            }
            Some(_) => {
                self.newest = self.newest.max(Some(arrival.seq));
                self.hold(arrival);
            }
        }
    }

    /// Holds a batch back. One that does not fit is dropped: the gap that leaves is found and replayed like
    /// any other.
    fn hold(&mut self, arrival: Arrival<B>) {
        self.held.push(arrival, self.config.max_buffered_batches, self.config.max_buffered_bytes);
    }

    /// Puts a batch before all that are held back, and asks for what is missing before it.
    fn fetch_before(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        self.newest = self.newest.max(Some(arrival.seq));
        self.held.push_front(arrival);
        self.request(Cause::Gap, out);
    }

    /// Applies the rules of the module's head to a live batch that need not wait for a replay.
    pub(super) fn settle(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        self.renew_if_due(out);
        if let Some(doubt) = self.doubt {
            return self.judge(doubt, arrival, out);
        }
        if !self.config.has_replay {
            self.reconnected = false; // there is nothing to ask: numbers are trusted
        }
        let seq = arrival.seq;
        if self.trails(&arrival) {
            out.push(Action::Duplicate);
        } else if seq < self.next {
            if self.applied.get(seq) == Some(arrival.digest) {
                out.push(Action::Duplicate);
            } else {
                self.live_of_another_life(arrival, out);
            }
        } else if seq == self.next && !self.unproven {
            self.apply(arrival, out);
        } else if self.config.has_replay {
            self.fetch_before(arrival, out);
        } else {
            self.gap_to(seq, out);
            self.apply(arrival, out);
        }
    }

    fn live_of_another_life(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        // What is held back arrived after this batch, so it is the new life's and stays.
        self.new_generation(out);
        self.settle(arrival, out);
    }

    fn renew_if_due(&mut self, out: &mut Vec<Action<B>>) {
        if std::mem::take(&mut self.renew) {
            self.new_generation(out);
        }
    }

    /// Everything known of the old life is void.
    fn new_generation(&mut self, out: &mut Vec<Action<B>>) {
        self.generation = Generation(self.generation.0.saturating_add(1));
        self.renew = false;
        self.proven();
        self.trail = None;
        self.next = 0;
        self.applied = Digests::default();
        self.newest = None;
        out.push(Action::NewGeneration(self.generation));
    }

    fn apply(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        self.applied.insert(arrival.seq, arrival.digest);
        // A publisher cannot reach 2^64; a frame that claims to is simply the last one.
        self.next = arrival.seq.saturating_add(1);
        let (generation, seq) = (self.generation, BatchSeq(arrival.seq));
        out.push(Action::Apply { generation, seq, digest: arrival.digest, batch: arrival.batch });
    }

    /// Declares everything before `seq` lost.
    fn gap_to(&mut self, seq: u64, out: &mut Vec<Action<B>>) {
        if seq > self.next {
            let (first, last) = (BatchSeq(self.next), BatchSeq(seq - 1));
            out.push(Action::Gap { generation: self.generation, first, last });
            self.next = seq;
        }
    }

    fn proven(&mut self) {
        (self.doubt, self.reconnected, self.unproven) = (None, false, false);
    }

    fn connect(&mut self, out: &mut Vec<Action<B>>) {
        self.connected = true;
        self.connection_changed();
        if !self.config.has_replay {
            self.reconnected = self.applied.last().is_some();
            return;
        }
        self.reconnected = self.applied.last().is_some() || !self.held.is_empty();
        // Also while a replay runs: who answers that one is not certain any more, and what is held back came on an
        // earlier connection.
        self.request(Cause::Contact, out);
    }

    fn tick(&mut self, now_ms: u64, out: &mut Vec<Action<B>>) {
        self.doubt_in_time(now_ms, out);
        let silence = now_ms.saturating_sub(self.last_activity_ms);
        let due = silence >= self.config.idle_poll_ms.saturating_mul(self.idle_backoff);
        if self.config.has_replay && self.connected && self.replay.is_none() && due {
            self.last_activity_ms = now_ms;
            self.request(Cause::Idle, out);
        }
    }
}
