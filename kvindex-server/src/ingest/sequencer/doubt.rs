//! A stream that the index has heard of, taken up again: is the engine that is heard now still in the life that
//! the index knows? Until that is clear nothing is applied.
//!
//! ```text
//!   It is the same life when
//!     the last applied batch is heard with its digest (before the stream was taken up, live, or by replay)
//!     an earlier one of that generation was heard before, on a connection that has stood since
//!     there is no replay to ask, and the first number heard on this connection is the one that follows
//!   It is another life when
//!     the last applied number is heard with another digest
//!     a replay does not begin with that batch
//!     there is no replay to ask, and the numbers jump, or stay below the last applied one for too long
//! ```

use std::cmp::Ordering;

use super::{Action, Arrival, Cause, Resume, Sequencer};
use crate::ingest::limits::MAX_DOUBT_MS;
use kvindex_core::Generation;

/// What is known while the life is not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Doubt {
    /// A number below the last applied one was heard, so the connection is older than that batch, or is another
    /// life's: a number that follows the last applied one proves nothing any more.
    lower: bool,
    /// What is held back came on an earlier connection.
    reconnected: bool,
    /// The replay socket failed twice: numbers must do, as without one.
    by_numbers: bool,
}

/// The index is ahead of this subscription, in the same life: what comes below the last applied number is on its
/// way still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trail {
    /// Number of the index's last batch.
    until: u64,
    /// The last one below it that was heard, with its digest.
    heard: Option<(u64, u64)>,
}

/// Up to where a subscription is known to have heard the life of a generation: number and digest of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footing {
    /// The generation.
    pub generation: Generation,
    /// The batch's number.
    pub seq: u64,
    /// XXH3-64 of its payload.
    pub digest: u64,
}

impl<B> Sequencer<B> {
    /// The same, for a subscription that has heard `footing` on the connection that stands: whatever comes on it
    /// is the life that `resume` speaks of.
    #[must_use]
    pub fn proven_by(mut self, footing: Footing, resume: &Resume) -> Self {
        let last = resume.applied.map_or(footing.seq, |seq| seq.0);
        (self.doubt, self.renew) = (None, false);
        self.generation = resume.generation;
        (self.heard, self.connected) = (true, true);
        self.next = last.saturating_add(1);
        self.applied = super::Digests::default();
        if footing.seq < last {
            self.applied.insert(footing.seq, footing.digest);
            self.trail = Some(Trail { until: last, heard: Some((footing.seq, footing.digest)) });
        }
        if let Some(digest) = resume.payload_digest.or((footing.seq == last).then_some(footing.digest)) {
            self.applied.insert(last, digest);
        }
        self
    }

    /// The same, for a stream with a replay socket that has heard something already: batches are held back until
    /// the connection is told of, and then asked about, so that the replay's answer is newer than all of them.
    #[must_use]
    pub fn gathering(mut self) -> Self {
        self.gathering = true;
        self
    }

    /// The same, for a connection that was heard in another generation: that a number follows proves nothing.
    #[must_use]
    pub fn distrusting_numbers(mut self) -> Self {
        self.doubt.iter_mut().for_each(|doubt| doubt.lower = true);
        self
    }

    /// Whether it is known that the engine lives the life that is followed.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !(self.doubt.is_some() || self.renew || self.reconnected || self.unproven)
    }

    /// Up to where this subscription has heard the life it follows; `None` while that is not certain.
    #[must_use]
    pub fn footing(&self) -> Option<Footing> {
        let heard = self.trail.map_or(self.applied.last(), |trail| trail.heard);
        let (seq, digest) = heard.filter(|_| self.is_certain())?;
        Some(Footing { generation: self.generation, seq, digest })
    }

    /// Whether nothing is held back: what was put in was applied, or is of no use.
    #[must_use]
    pub fn is_empty_handed(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether a live batch has to wait until a replay has told whose life it is, though none runs.
    pub(super) fn must_ask(&self) -> bool {
        self.gathering || self.config.has_replay && self.doubt.is_some_and(|doubt| !doubt.by_numbers)
    }

    /// Says whether what is heard may be of an earlier connection, and so of an earlier life, until the next
    /// [`Input::Connected`](super::Input::Connected).
    pub fn set_unclear(&mut self, unclear: bool) {
        self.unclear = unclear;
    }

    /// Holds a batch back, and asks whose life it is.
    pub(super) fn hold_and_ask(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        self.newest = self.newest.max(Some(arrival.seq));
        self.hold(arrival);
        if !self.gathering {
            self.request(Cause::Contact, out);
        }
    }

    /// The batch is in a life that is known to be the index's; of earlier ones on the way nothing is known.
    pub(super) fn sure(&mut self) {
        if self.doubt.take().is_some() {
            let until = self.next.saturating_sub(1);
            self.trail = Some(Trail { until, heard: None });
        }
    }

    /// Whether a batch is one that the index took from another subscription before this one brought it.
    pub(super) fn trails(&mut self, arrival: &Arrival<B>) -> bool {
        let Some(trail) = &mut self.trail else {
            return false;
        };
        if arrival.seq >= trail.until {
            self.trail = None;
            return false;
        }
        let told = (arrival.seq, arrival.digest);
        let new = trail.heard.is_none_or(|heard| told.0 > heard.0 || told == heard);
        if new {
            trail.heard = Some(told);
        }
        new
    }

    /// A batch while in doubt, where only numbers and digests can tell.
    pub(super) fn judge(&mut self, mut doubt: Doubt, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        let Some((last, digest)) = self.applied.last() else {
            return self.other_life_by_numbers(Some(arrival), out); // not in doubt without a last batch
        };
        if std::mem::take(&mut doubt.reconnected) && !self.held.is_followed_by(&arrival) {
            self.held.clear();
        }
        self.doubt = Some(doubt);
        match arrival.seq.cmp(&last) {
            Ordering::Less => {
                self.doubt = Some(Doubt { lower: true, ..doubt });
                self.hold(arrival);
            }
            Ordering::Equal if arrival.digest == digest => {
                self.proven();
                out.extend(self.held.take_all().iter().map(|_| Action::Duplicate));
                out.push(Action::Duplicate);
            }
            Ordering::Greater if arrival.seq == self.next && !doubt.lower => {
                self.proven();
                self.apply(arrival, out);
            }
            Ordering::Equal | Ordering::Greater => self.other_life_by_numbers(Some(arrival), out),
        }
    }

    /// What is held back is of this connection, and so of the new life; `arrival` came after it.
    fn other_life_by_numbers(&mut self, arrival: Option<Arrival<B>>, out: &mut Vec<Action<B>>) {
        let mut all = self.held.take_all();
        all.extend(arrival);
        self.new_generation(out);
        all.into_iter().for_each(|arrival| self.take_in(arrival, out));
    }

    /// Another connection: nothing that came on the last one says anything about this one, unless numbers go on.
    pub(super) fn connection_changed(&mut self) {
        self.trail = None;
        self.doubt = self.doubt.map(|doubt| Doubt { reconnected: true, by_numbers: false, ..doubt });
    }

    /// A replay failed while in doubt. The first time what is held back waits for one more try, and so it does while it
    /// may be an earlier connection's: its numbers say nothing of this engine, and what ends that asks again.
    pub(super) fn replay_failed_in_doubt(&mut self, doubt: Doubt, out: &mut Vec<Action<B>>) {
        self.replay = None;
        let again = std::mem::replace(&mut self.unproven, true);
        if again && !self.unclear {
            self.doubt = Some(Doubt { by_numbers: true, ..doubt });
            let held = self.held.take_all();
            held.into_iter().for_each(|arrival| self.take_in(arrival, out));
        }
    }

    /// Time passes while in doubt.
    pub(super) fn doubt_in_time(&mut self, now_ms: u64, out: &mut Vec<Action<B>>) {
        if self.replay.is_some() || self.held.is_empty() {
            return;
        }
        if self.must_ask() {
            if self.connected && self.gathering {
                self.request(Cause::Contact, out);
            }
            return;
        }
        let waits = self.behind_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        if self.doubt.is_some() && waits >= MAX_DOUBT_MS {
            self.other_life_by_numbers(None, out);
        }
    }
}
