//! What a node on standby may say of an engine that it has not heard publish: that it lives the life which the index
//! holds. Either the engine says so itself, asked for the index's last batch; or the log brought something of it while
//! this node was connected, which the leader heard just then.

use kvindex_core::{BatchSeq, Generation};

use crate::ingest::sequencer::Resume;

/// An engine that does not answer is asked less and less often, up to this many idle periods apart.
const MAX_BACKOFF: u64 = 12;

/// For how long a node must have been connected to the engine, and heard its cluster, before what the log brings speaks
/// for the engine. The log may bring late what a leader heard of an earlier life: a turn is proposed for up to 5 s, and
/// a node counts as fresh that is up to 3 s behind (a test in `cluster/intake` compares).
pub(crate) const SETTLED_MS: u64 = 8_000;

/// Where the index stands.
type Stand = (Generation, Option<BatchSeq>);

/// What speaks for one stream's engine, on the connection that stands.
#[derive(Debug, Default)]
pub(super) struct Witness {
    vouched: bool,
    /// Since when this node has been fresh without a break, on this connection.
    fresh_since_ms: Option<u64>,
    /// Where the index stood when that had lasted long enough.
    stood: Option<Stand>,
    /// Number and digest of the batch that the engine was asked for.
    asked: Option<(u64, u64)>,
    /// The engine answered with that batch and, so far, with no other.
    same: bool,
    /// Since when it may be asked again, and how long after another failure.
    next_ask_ms: u64,
    failures: u64,
}

impl Witness {
    /// Whether something speaks for it.
    pub(super) fn speaks(&self) -> bool {
        self.vouched
    }

    /// The node itself knows, because it led the stream until now.
    pub(super) fn knows(&mut self) {
        self.vouched = true;
    }

    /// Whoever speaks on another connection may be another life.
    pub(super) fn connection_changed(&mut self) {
        *self = Self::default();
    }

    /// What the index holds by now. `fresh`: this node has all that was committed; what it applies of an old log says
    /// nothing about the engine as it is now.
    pub(super) fn index_is_at(&mut self, applied: Option<&Resume>, fresh: bool, now_ms: u64) {
        let stands = applied.map_or((Generation(0), None), |applied| (applied.generation, applied.applied));
        let since = if fresh { self.fresh_since_ms.or(Some(now_ms)) } else { None };
        let settled = since.is_some_and(|since| now_ms.saturating_sub(since) >= SETTLED_MS);
        self.vouched |= fresh && self.stood.is_some_and(|stood| stands > stood);
        self.fresh_since_ms = since;
        self.stood = settled.then_some(stands);
    }

    /// The number to ask the engine for, if it is time. The question is open until it is answered or has failed.
    pub(super) fn question(&mut self, applied: Option<&Resume>, now_ms: u64) -> Option<BatchSeq> {
        if self.vouched || self.asked.is_some() || now_ms < self.next_ask_ms {
            return None;
        }
        let (seq, digest) = applied?.last()?;
        (self.asked, self.same) = (Some((seq, digest)), false);
        Some(BatchSeq(seq))
    }

    /// A batch of the answer; whether more of it is worth reading.
    pub(super) fn answered(&mut self, seq: u64, digest: u64) -> bool {
        // A later batch is one that the index lacks: asked again when it has that.
        self.same = !self.same && self.asked == Some((seq, digest));
        self.same
    }

    /// The answer is over, or there was none. Answers whether it says that the index has all.
    pub(super) fn ended(&mut self, told_all: bool, now_ms: u64, idle_poll_ms: u64) -> bool {
        if self.asked.take().is_none() {
            return false;
        }
        let has_all = told_all && self.same;
        self.vouched |= has_all;
        self.failures = (self.failures + 1).min(MAX_BACKOFF);
        self.next_ask_ms = now_ms.saturating_add(idle_poll_ms.saturating_mul(self.failures));
        has_all
    }

    /// The question is dropped: the stream is led from now on.
    pub(super) fn dropped(&mut self) {
        self.asked = None;
    }
}
