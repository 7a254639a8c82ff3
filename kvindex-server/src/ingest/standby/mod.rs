//! One stream between its subscription and its sequencer: everything heard goes into a backlog first, and stays
//! there until the index is known to have it. While the stream is *led*, a sequencer reads the backlog; while it
//! is on *standby*, the backlog is all there is, so that whoever leads next loses nothing that was heard. Pure,
//! like the sequencer: no clock, no sockets.

mod backlog;
mod witness;

#[cfg(test)]
mod backlog_test;
#[cfg(test)]
mod simulated_test;
#[cfg(test)]
mod simulation_test;

use super::sequencer::{Action, Arrival, Input, Phase, Resume, Sequencer, SequencerConfig};
use super::status::Standing;
use backlog::{Backlog, Item, Mark};
use kvindex_core::BatchSeq;
use witness::Witness;

/// A stream that is led or on standby.
#[derive(Debug)]
pub struct Follower<B> {
    config: SequencerConfig,
    backlog: Backlog<B>,
    sequencer: Option<Sequencer<B>>,
    /// Whether the subscription is connected.
    connected: bool,
    /// A connection came about, and messages of an earlier one may still wait to be read; true when something was
    /// heard since.
    unread: Option<bool>,
    /// The engine was heard on this subscription.
    heard: bool,
    /// What else speaks for the engine on standby.
    witness: Witness,
    /// What the index was last said to hold.
    applied: Option<Resume>,
    /// Since when a batch waits on standby that should be applied by now.
    overdue_since_ms: Option<u64>,
    /// The latest time a sequencer was told: for it time never goes back, though what it reads was heard earlier.
    told_ms: u64,
}

impl<B: Clone> Follower<B> {
    /// A stream on standby of which nothing was heard.
    #[must_use]
    pub fn new(config: SequencerConfig) -> Self {
        Self {
            backlog: Backlog::new(config.max_buffered_batches, config.max_buffered_bytes),
            config,
            sequencer: None,
            connected: false,
            unread: None,
            heard: false,
            witness: Witness::default(),
            applied: None,
            overdue_since_ms: None,
            told_ms: 0,
        }
    }

    /// Whether a sequencer reads it.
    pub fn is_led(&self) -> bool {
        self.sequencer.is_some()
    }

    /// Seats a new sequencer, before which lies all that is in the backlog. `resume` is what the index holds.
    pub fn lead(&mut self, resume: Option<Resume>) {
        self.witness.dropped();
        self.backlog.rewind();
        let footing = resume.and_then(|resume| {
            self.backlog.trim(&resume);
            self.backlog.footing_for(&resume)
        });
        let mut sequencer = Sequencer::new(self.config, resume);
        if let (Some(footing), Some(resume)) = (footing, &resume) {
            sequencer = sequencer.proven_by(footing, resume);
            if !self.connected {
                self.backlog.mark(Mark::Disconnected, 0);
            }
        } else if self.config.has_replay {
            // The replay tells what the engine's present life has said, so only what came on this connection is
            // put beside it: of anything older nobody can tell whose it is.
            if self.backlog.keep_newest_connection() {
                sequencer = sequencer.gathering();
            }
            self.backlog.mark(if self.connected { Mark::Standing } else { Mark::Disconnected }, 0);
        } else if resume.is_some_and(|resume| self.backlog.is_of_another_generation(&resume)) {
            sequencer = sequencer.distrusting_numbers();
        }
        self.sequencer = Some(sequencer);
    }

    /// Takes the sequencer away. What the index was not seen to take is in the backlog.
    pub fn stand_by(&mut self) {
        // It goes on to stand for what it stood for while it led.
        if self.connected && self.sequencer.take().is_some_and(|led| led.phase() == Phase::Live) {
            self.witness.knows();
        }
        self.sequencer = None;
        self.backlog.rewind();
        self.overdue_since_ms = self.backlog.oldest_ms();
    }

    /// The same because what it decided on was not taken: its phase counts that, the index does not have it, so it stands
    /// for nothing until the engine is asked again.
    pub fn fall_back(&mut self) {
        self.sequencer = None;
        self.witness.connection_changed();
        self.stand_by();
    }

    /// A batch came; how many older ones had to make room for it that nobody has read.
    pub fn hear(&mut self, arrival: Arrival<B>, now_ms: u64) -> u64 {
        self.heard = true;
        self.unread = self.unread.map(|_| true);
        self.backlog.push(arrival, now_ms)
    }

    /// The connection changed; `newer` batches were read since the last look at it and may have come after that.
    pub fn link_changed(&mut self, connected: bool, newer: usize) {
        self.connected = connected;
        self.witness.connection_changed();
        let mark = match (connected, self.heard) {
            (false, _) => Mark::Disconnected,
            (true, false) => Mark::Connected,
            (true, true) => {
                self.unread = Some(newer > 0);
                Mark::Connecting
            }
        };
        self.backlog.mark(mark, newer);
    }

    /// Nothing of the subscription is left unread: where an earlier connection left something behind, it ends here.
    pub fn drained(&mut self) {
        // A sequencer was told of the new connection; it needs to hear again only of what may be the earlier one's.
        if let Some(heard) = self.unread.take()
            && (heard || !self.is_led())
        {
            self.backlog.mark(Mark::Connected, 0);
        }
    }

    /// Whether messages of an earlier connection may be waiting.
    pub fn must_drain(&self) -> bool {
        self.unread.is_some()
    }

    /// What the sequencer is to get next from the backlog, and when that was heard; `None` on standby.
    pub fn next_input(&mut self) -> Option<(Input<B>, u64)> {
        self.sequencer.as_ref()?;
        Some(match self.backlog.next()? {
            (Item::Heard(arrival), at_ms) => (Input::Live(arrival), at_ms),
            (Item::Link(Mark::Connecting | Mark::Connected | Mark::Standing), at_ms) => {
                (Input::Connected, at_ms)
            }
            (Item::Link(Mark::Disconnected), at_ms) => (Input::Disconnected, at_ms),
        })
    }

    /// Whether the sequencer has something to get.
    pub fn has_next(&self) -> bool {
        self.is_led() && self.backlog.has_next()
    }

    /// Puts an input into the sequencer; nothing happens on standby.
    pub fn step(&mut self, input: Input<B>, now_ms: u64, out: &mut Vec<Action<B>>) {
        if let Some(sequencer) = &mut self.sequencer {
            self.told_ms = self.told_ms.max(now_ms);
            sequencer.step(input, self.told_ms, out);
        }
    }

    /// Everything the sequencer decided on was taken.
    pub fn taken(&mut self) {
        if let Some(sequencer) = &self.sequencer
            && sequencer.is_empty_handed()
        {
            self.backlog.forget_read(sequencer.footing());
        }
    }

    /// Whether a standby's backlog should be held against the index before it overflows.
    pub(super) fn is_half_full(&self) -> bool {
        self.sequencer.is_none() && self.backlog.is_half_full()
    }

    /// Whether there is anything that the index may have by now.
    pub fn wants_trim(&self) -> bool {
        self.sequencer.is_none() && !self.backlog.is_empty()
    }

    /// Drops what the index has. For a stream on standby.
    pub fn trim(&mut self, applied: Option<Resume>) {
        self.applied = applied;
        if let (Some(applied), None) = (&applied, &self.sequencer) {
            self.backlog.trim(applied);
        }
    }

    /// Whether the engine is there, and nothing tells whether it lives the life that the index holds. For a stream on
    /// standby.
    pub(super) fn wants_witness(&self) -> bool {
        self.sequencer.is_none() && self.connected && !self.heard && !self.witness.speaks()
    }

    /// Looks at what the index holds by now, `fresh` if this node has all that was committed. Answers the number of
    /// the batch to ask the engine for, if that is worth it; the answer is told by [`Follower::testified`].
    pub(super) fn look_for_witness(
        &mut self,
        applied: Option<Resume>,
        fresh: bool,
        now_ms: u64,
    ) -> Option<BatchSeq> {
        self.applied = applied;
        self.witness.index_is_at(applied.as_ref(), fresh);
        let asks = fresh && self.config.has_replay;
        asks.then(|| self.witness.question(applied.as_ref(), now_ms)).flatten()
    }

    /// A batch of the engine's answer on standby; whether more of it is worth reading.
    pub(super) fn testified(&mut self, seq: u64, digest: u64) -> bool {
        self.witness.answered(seq, digest)
    }

    /// That answer is over, or there was none.
    pub(super) fn testimony_ended(&mut self, told_all: bool, now_ms: u64) {
        self.witness.ended(told_all, now_ms, self.config.idle_poll_ms);
    }

    /// Time passes on standby: what was heard longer ago than `grace_ms` should be applied by now.
    pub(super) fn note_lag(&mut self, now_ms: u64, grace_ms: u64) {
        let oldest = self.backlog.oldest_ms();
        self.overdue_since_ms = oldest.filter(|since| now_ms.saturating_sub(*since) > grace_ms);
    }

    /// How the stream stands, for its status.
    pub(super) fn standing(&self) -> Standing {
        if let Some(sequencer) = &self.sequencer {
            return Standing {
                led: true,
                phase: sequencer.phase(),
                behind_since_ms: sequencer.behind_since_ms(),
                generation: sequencer.generation(),
                next: sequencer.next_seq(),
            };
        }
        let phase = match (self.heard || self.witness.speaks(), self.overdue_since_ms) {
            (false, _) => Phase::Pending,
            (true, Some(_)) => Phase::CatchingUp,
            (true, None) => Phase::Live,
        };
        let next = self.applied.and_then(|applied| applied.applied).map_or(0, |seq| seq.0.saturating_add(1));
        Standing {
            led: false,
            phase,
            behind_since_ms: self.overdue_since_ms,
            generation: self.applied.map(|applied| applied.generation).unwrap_or_default(),
            next: BatchSeq(next),
        }
    }
}
