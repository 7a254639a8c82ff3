//! What a replay's answer means: the same life's missing batches, another life, or a loss.

use kvindex_core::BatchSeq;

use super::{Action, Arrival, Cause, Replay, Sequencer};

/// A failing replay socket is asked less and less often, up to this many idle periods apart.
const MAX_IDLE_BACKOFF: u64 = 12;

impl<B> Sequencer<B> {
    /// Asks from the last applied batch on, so that the first answer proves whose life this is; from 0 when
    /// nothing was applied.
    pub(super) fn request(&mut self, cause: Cause, out: &mut Vec<Action<B>>) {
        let last = self.applied.last().map(|(seq, _)| seq);
        let from = last.unwrap_or(0);
        let verified = last.is_none();
        self.replay = Some(Replay { from, next_before: self.next, verified, answered: false, cause });
        self.held.mark_older();
        self.gathering = false;
        out.push(Action::RequestReplay { from: BatchSeq(from) });
    }

    /// One batch of the replay that is running.
    pub(super) fn replayed(&mut self, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        let Some(replay) = self.replay.as_mut() else {
            return;
        };
        if arrival.seq < replay.from || arrival.seq == u64::MAX {
            return; // not asked for, or no batch's number
        }
        replay.answered = true;
        let replay = *replay;
        self.heard = true;
        self.renew_if_due(out);
        self.newest = self.newest.max(Some(arrival.seq));
        if !replay.verified {
            self.verify(replay, arrival, out);
        } else if arrival.seq < self.next {
            match self.applied.get(arrival.seq) == Some(arrival.digest) {
                true => out.push(Action::Duplicate),
                false => self.another_life(Some(arrival.seq), out),
            }
        } else {
            self.replay_forward(replay, arrival, out);
        }
    }

    /// The first answer of a replay asked from the last applied batch.
    fn verify(&mut self, replay: Replay, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        if arrival.seq == replay.from {
            if self.applied.get(arrival.seq) == Some(arrival.digest) {
                self.replay = Some(Replay { verified: true, ..replay });
                self.sure();
                self.proven();
            } else {
                self.another_life(Some(arrival.seq), out);
            }
            return;
        }
        if arrival.seq == self.next || self.reconnected || self.doubt.is_some() {
            // The engine no longer buffers our last batch, so this one may be ours or another life's. After
            // a reconnect that is likely, and without a gap nothing would mark it: start over.
            self.another_life(Some(arrival.seq), out);
            return;
        }
        let replay = Replay { verified: true, ..replay };
        self.replay = Some(replay);
        self.replay_forward(replay, arrival, out);
    }

    /// A batch at or after `next`.
    fn replay_forward(&mut self, replay: Replay, arrival: Arrival<B>, out: &mut Vec<Action<B>>) {
        self.fill_from_held(arrival.seq, out);
        if arrival.seq > self.next {
            // A ROUTER that runs into its high-water mark drops batches in the middle: ask for the rest as
            // long as asking brings something; what then is missing was never sent.
            if self.next > replay.next_before {
                self.request(replay.cause, out);
                return;
            }
            self.fill_around_gaps(arrival.seq, out);
        }
        self.apply(arrival, out);
        self.drop_held_duplicates(out);
    }

    /// Drops held-back batches that were applied meanwhile, while their digests are still remembered.
    fn drop_held_duplicates(&mut self, out: &mut Vec<Action<B>>) {
        while let Some(held) = self.held.front()
            && held.seq < self.next
            && self.applied.get(held.seq) == Some(held.digest)
        {
            self.held.pop();
            out.push(Action::Duplicate);
        }
    }

    /// The first held-back number, unless it may be an earlier life's: one that came before a replay which is the
    /// first word of a connection.
    fn trusted_front(&self) -> Option<u64> {
        let first_word = self.replay.is_some_and(|replay| replay.cause == Cause::Contact);
        let held = self.held.front().filter(|_| !(first_word && self.held.front_is_older()));
        held.map(|held| held.seq)
    }

    /// Applies held-back batches that fill a hole of the replay before `seq`.
    fn fill_from_held(&mut self, seq: u64, out: &mut Vec<Action<B>>) {
        while self.next < seq && self.trusted_front().is_some_and(|first| first == self.next) {
            if let Some(arrival) = self.held.pop() {
                self.apply(arrival, out);
                self.drop_held_duplicates(out);
            }
        }
    }

    /// Applies what is held back before `seq` and declares the rest up to there lost.
    fn fill_around_gaps(&mut self, seq: u64, out: &mut Vec<Action<B>>) {
        while let Some(first) = self.trusted_front()
            && (self.next..seq).contains(&first)
        {
            self.gap_to(first, out);
            self.fill_from_held(seq, out);
        }
        self.gap_to(seq, out);
    }

    /// The engine's life is not the one we followed. What is held back is either the old life's or, being
    /// older than the replay from 0 that is asked for now, part of its answer.
    fn another_life(&mut self, seen: Option<u64>, out: &mut Vec<Action<B>>) {
        self.new_generation(out);
        self.held.clear();
        self.newest = seen;
        self.request(Cause::Contact, out);
    }

    /// The replay's end marker.
    pub(super) fn replay_end(&mut self, out: &mut Vec<Action<B>>) {
        let Some(replay) = self.replay.map(|replay| Replay { answered: true, ..replay }) else {
            return;
        };
        self.heard = true;
        self.renew_if_due(out);
        if !replay.verified {
            // It does not know a batch that we applied: the engine started again.
            self.another_life(None, out);
            return;
        }
        if self.held.is_empty() {
            // It has told all it knows; a higher number seen before was the last life's or is lost.
            self.newest = self.newest.filter(|newest| *newest < self.next);
        }
        self.finish(replay, true, out);
    }

    /// The replay never answered, died midway or sent garbage.
    pub(super) fn replay_failed(&mut self, out: &mut Vec<Action<B>>) {
        let Some(replay) = self.replay else {
            return;
        };
        if self.next > replay.next_before {
            self.request(replay.cause, out);
            return;
        }
        // While the life is in doubt, a first answer that is lost does not put the next question off: until then
        // nobody can rely on what the index holds.
        if self.doubt.is_none() || self.unproven {
            self.idle_backoff = (self.idle_backoff * 2).min(MAX_IDLE_BACKOFF);
        }
        if let Some(doubt) = self.doubt {
            return self.replay_failed_in_doubt(doubt, out);
        }
        self.unproven = self.reconnected && replay.cause == Cause::Contact;
        self.reconnected = self.unproven;
        self.finish(replay, false, out);
    }

    /// Goes back to live batches: first those held back, which may show the next gap. `ended`: the replay told all.
    fn finish(&mut self, replay: Replay, ended: bool, out: &mut Vec<Action<B>>) {
        self.replay = None;
        let fruitless = self.next == replay.next_before;
        if replay.cause == Cause::Gap
            && fruitless
            && let Some(seq) = self.held.front().map(|held| held.seq)
        {
            self.gap_to(seq, out);
        }
        while self.replay.is_none() {
            let older = self.held.front_is_older() && replay.answered;
            let Some(arrival) = self.held.pop() else {
                break;
            };
            if older && (arrival.seq < self.next || replay.cause == Cause::Contact) {
                // The replay is the engine's later word on this number. Where that was the first word of a connection,
                // what it did not tell may be an earlier life's; if it is not, it is found missing.
                out.push(Action::Duplicate);
            } else {
                self.settle(arrival, out);
            }
        }
        // Batches that did not fit into the hold-back queue are worth asking for as long as that helps.
        let unfinished = self.missing() && !fruitless;
        if self.replay.is_none() && unfinished {
            self.request(Cause::Contact, out);
        } else if self.replay.is_none() && ended && self.held.is_empty() {
            self.newest = self.newest.filter(|newest| *newest < self.next);
        }
    }
}
