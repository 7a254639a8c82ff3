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
use kvindex_core::{BatchSeq, Generation};
use witness::Witness;

#[cfg(test)]
pub(crate) use witness::SETTLED_MS;

/// How far an index is: its generation, and the next batch.
type Reach = (Generation, BatchSeq);

/// More was known to the leader than the index holds, until that has come as far, or anywhere: then somebody leads who
/// asks the engine.
#[derive(Debug, Clone, Copy)]
struct Owed {
    decided: Reach,
    /// Where the index was when it was first looked at.
    from: Option<Reach>,
}

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
    /// It was heard on the connection that stands, of which alone can be said who speaks there.
    spoke: bool,
    /// A connection came about before.
    was_connected: bool,
    /// What was decided on and not taken.
    owed: Option<Owed>,
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
            spoke: false,
            was_connected: false,
            owed: None,
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
        self.owed = None;
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
        // It goes on to stand for what it stood for while it led, if it was sure whose life it follows: without a replay
        // socket numbers are trusted on a new connection, and that is no knowledge of it.
        let knew = |led: Sequencer<B>| led.phase() == Phase::Live && led.is_certain();
        if self.connected && self.sequencer.take().is_some_and(knew) {
            self.witness.knows();
        }
        self.sequencer = None;
        self.backlog.rewind();
        self.overdue_since_ms = self.backlog.oldest_ms();
    }

    /// The same because what it decided on was not taken: its phase counts that, the index does not have it, and what was
    /// replayed is in no backlog. So it stands for nothing, and is behind until the index has come as far.
    pub fn fall_back(&mut self) {
        let owed = |led: Sequencer<B>| Owed { decided: (led.generation(), led.next_seq()), from: None };
        self.owed = self.sequencer.take().map(owed);
        self.witness.connection_changed();
        self.stand_by();
    }

    /// A batch came; how many older ones had to make room for it that nobody has read.
    pub fn hear(&mut self, arrival: Arrival<B>, now_ms: u64) -> u64 {
        self.heard = true;
        // What is read while an earlier connection may have left something may be that one's.
        self.spoke |= self.unread.is_none();
        self.unread = self.unread.map(|_| true);
        self.backlog.push(arrival, now_ms)
    }

    /// The connection changed; `newer` batches were read since the last look at it and may have come after that.
    pub fn link_changed(&mut self, connected: bool, newer: usize) {
        self.connected = connected;
        // Of the first connection something may be read before it is told of.
        self.spoke &= connected && !self.was_connected;
        self.was_connected |= connected;
        self.owed = None;
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
            sequencer.set_unclear(self.unread.is_some());
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
        self.index_is_at(applied);
        if let (Some(applied), None) = (&applied, &self.sequencer) {
            self.backlog.trim(applied);
        }
    }

    fn index_is_at(&mut self, applied: Option<Resume>) {
        self.applied = applied;
        let next = |at: Resume| BatchSeq(at.applied.map_or(0, |seq| seq.0.saturating_add(1)));
        let at = applied.map_or((Generation(0), BatchSeq(0)), |at| (at.generation, next(at)));
        self.owed = (self.owed.as_mut()).and_then(|owed| {
            let from = *owed.from.get_or_insert(at);
            (at == from && at < owed.decided).then_some(*owed)
        });
    }

    /// Whether the engine is there, and nothing tells whether it lives the life that the index holds, or that this is all
    /// it said. For a stream on standby.
    pub(super) fn wants_witness(&self) -> bool {
        let known = self.owed.is_none() && (self.spoke || self.witness.speaks());
        self.sequencer.is_none() && self.connected && !known
    }

    /// Looks at what the index holds by now, `fresh` if this node has all that was committed. Answers the number of
    /// the batch to ask the engine for, if that is worth it; the answer is told by [`Follower::testified`].
    pub(super) fn look_for_witness(
        &mut self,
        applied: Option<Resume>,
        fresh: bool,
        now_ms: u64,
    ) -> Option<BatchSeq> {
        self.index_is_at(applied);
        self.witness.index_is_at(applied.as_ref(), fresh, now_ms);
        let asks = fresh && self.config.has_replay;
        asks.then(|| self.witness.question(applied.as_ref(), now_ms)).flatten()
    }

    /// A batch of the engine's answer on standby; whether more of it is worth reading.
    pub(super) fn testified(&mut self, seq: u64, digest: u64) -> bool {
        self.witness.answered(seq, digest)
    }

    /// That answer is over, or there was none.
    pub(super) fn testimony_ended(&mut self, told_all: bool, now_ms: u64) {
        if self.witness.ended(told_all, now_ms, self.config.idle_poll_ms) {
            self.owed = None; // what the index lacked is not the engine's any more
        }
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
        let is_behind = self.overdue_since_ms.is_some() || self.owed.is_some();
        let phase = match (self.spoke || self.witness.speaks(), is_behind) {
            (false, _) => Phase::Pending,
            (true, true) => Phase::CatchingUp,
            (true, false) => Phase::Live,
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
