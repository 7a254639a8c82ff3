//! Trust stamps: how far an answer about one stream can be relied on, from what the index knows (which batches
//! it applied) and what ingest knows (whether the engine is there and whether batches are outstanding).

use kvindex_core::{BatchSeq, Coverage, Generation, StreamStamp};
use kvindex_proto::v1;

use crate::ingest::HashCheck;

/// Verdict of a trust stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustState {
    /// Every batch of this generation is applied and the engine is connected.
    Live,
    /// May be wrong either way.
    Suspect,
    /// May be too low, never too high.
    Rebuilding,
    /// Nothing was heard yet.
    Pending,
}

impl TrustState {
    /// All states, for metrics.
    pub const ALL: [Self; 4] = [Self::Live, Self::Suspect, Self::Rebuilding, Self::Pending];

    /// The state's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        v1::TrustState::from(self).word()
    }
}

impl From<TrustState> for v1::TrustState {
    fn from(state: TrustState) -> Self {
        match state {
            TrustState::Live => Self::Live,
            TrustState::Suspect => Self::Suspect,
            TrustState::Rebuilding => Self::Rebuilding,
            TrustState::Pending => Self::Pending,
        }
    }
}

/// How far an answer about one stream can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The verdict.
    pub state: TrustState,
    /// Which life of the engine's cache.
    pub generation: Generation,
    /// Last batch applied.
    pub applied: Option<BatchSeq>,
    /// Age in milliseconds of the oldest batch known to exist and not yet applied.
    pub lag_ms: u64,
    /// Why the state is not live, or what is odd although it is; empty when all is well.
    pub reason: &'static str,
}

/// What ingest knows of a stream it subscribes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// The subscription is up.
    pub connected: bool,
    /// The engine is known to live the life that the index holds: it was heard since this node started, by its
    /// publications or by an answer; or, where another node takes its events in, the log brought some of them while
    /// this node was connected and heard its cluster.
    pub heard: bool,
    /// Batches are known to exist that are not applied: received and queued, or being replayed.
    pub behind: bool,
    /// Age in milliseconds of the oldest of them; 0 when there are none.
    pub lag_ms: u64,
    /// kvindex binds the stream's endpoint and waits there for the engine.
    pub binds: bool,
    /// Several engines publish into this one stream, so it says now what one holds, now another.
    pub crowded: bool,
    /// The engine's batches name another data-parallel rank than the stream's.
    pub another_rank: bool,
    /// Whether the engine hashes as its hash profile says.
    pub hash_check: HashCheck,
    /// This node belongs to a cluster and does not hear what the stream's shard agrees on.
    pub cut_off: bool,
}

impl Link {
    /// Of a stream whose events are pushed: each call is answered after it was applied.
    pub const PUSHED: Self = Self {
        connected: true,
        heard: true,
        behind: false,
        lag_ms: 0,
        binds: false,
        crowded: false,
        another_rank: false,
        hash_check: HashCheck::Unchecked,
        cut_off: false,
    };
}

impl Trust {
    /// The stamp of a stream.
    #[must_use]
    pub fn judge(stamp: &StreamStamp, link: Link) -> Self {
        let (state, reason) = verdict(stamp, link);
        Self { state, generation: stamp.generation, applied: stamp.applied, lag_ms: link.lag_ms, reason }
    }
}

/// The worst thing that is true decides: wrong either way, then too low, then exact.
fn verdict(stamp: &StreamStamp, link: Link) -> (TrustState, &'static str) {
    if stamp.applied.is_none() {
        let reason = match (link.connected, link.behind) {
            (false, _) if link.binds => {
                "the engine has not connected to the endpoint that kvindex binds for it"
            }
            (false, _) => "not connected to the engine yet",
            (true, true) => "the engine's first batches are being fetched",
            (true, false) => "connected, but the engine has announced nothing yet",
        };
        return (TrustState::Pending, reason);
    }
    if link.cut_off {
        return (TrustState::Suspect, "this node is cut off from its cluster, or its shard has no leader");
    }
    if stamp.coverage == Coverage::Suspect {
        return (TrustState::Suspect, "batches were lost and older blocks were kept");
    }
    if !link.connected {
        return (TrustState::Suspect, "the engine is disconnected");
    }
    if link.crowded {
        return (TrustState::Suspect, "several engines connect to this stream's endpoint");
    }
    if !link.heard {
        // Restored from a snapshot: the engine may have started again since.
        return (TrustState::Suspect, "nothing was heard of the engine since this node started");
    }
    if link.behind {
        return (TrustState::Rebuilding, "batches are outstanding");
    }
    let hashes_differ = link.hash_check == HashCheck::Differs;
    match stamp.coverage {
        // The answer is right for whoever publishes there; whether that is the rank asked for is not known.
        Coverage::Complete if link.another_rank => {
            (TrustState::Live, "the engine's batches name another data-parallel rank: is the port right?")
        }
        // Answers by tokens are right; those by hashes that a caller computed by the profile are always empty.
        Coverage::Complete if hashes_differ => (
            TrustState::Live,
            "the engine hashes blocks otherwise than its hash_profile says: hashes computed by it find nothing",
        ),
        Coverage::Complete => (TrustState::Live, ""),
        Coverage::Incomplete if hashes_differ => (
            TrustState::Rebuilding,
            "earlier batches are unknown, or blocks were evicted, so blocks may be missing; and the engine hashes \
             blocks otherwise than its hash_profile says: hashes computed by it find nothing",
        ),
        Coverage::Incomplete | Coverage::Suspect => (
            TrustState::Rebuilding,
            "earlier batches are unknown, or blocks were evicted, so blocks may be missing",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(applied: Option<u64>, coverage: Coverage, connected: bool, behind: bool) -> TrustState {
        let stamp = StreamStamp { applied: applied.map(BatchSeq), coverage, ..StreamStamp::default() };
        Trust::judge(&stamp, Link { connected, behind, ..Link::PUSHED }).state
    }

    #[test]
    fn the_worst_that_is_true_decides() {
        use Coverage::{Complete, Incomplete, Suspect};
        for (applied, coverage, connected, behind, state) in [
            (None, Complete, true, false, TrustState::Pending),
            (None, Complete, false, false, TrustState::Pending),
            (Some(3), Complete, true, false, TrustState::Live),
            (Some(3), Complete, true, true, TrustState::Rebuilding),
            (Some(3), Complete, false, false, TrustState::Suspect),
            (Some(3), Incomplete, true, false, TrustState::Rebuilding),
            (Some(3), Incomplete, false, true, TrustState::Suspect),
            (Some(3), Suspect, true, false, TrustState::Suspect),
        ] {
            let case = format!("{applied:?} {coverage:?} {connected} {behind}");
            assert_eq!(judge(applied, coverage, connected, behind), state, "{case}");
        }
    }

    #[test]
    fn what_a_snapshot_says_is_suspect_until_the_engine_is_heard() {
        let restored = StreamStamp { applied: Some(BatchSeq(3)), ..StreamStamp::default() };
        let link = Link { connected: true, ..Link::default() };
        assert_eq!(Trust::judge(&restored, link).state, TrustState::Suspect);
    }

    #[test]
    fn a_mistake_in_the_wiring_is_told() {
        let live = StreamStamp { applied: Some(BatchSeq(0)), ..StreamStamp::default() };
        let crowded = Trust::judge(&live, Link { crowded: true, ..Link::PUSHED });
        assert_eq!(crowded.state, TrustState::Suspect);
        let other = Trust::judge(&live, Link { another_rank: true, ..Link::PUSHED });
        assert_eq!((other.state, other.reason.contains("rank")), (TrustState::Live, true));
    }

    #[test]
    fn hashes_that_differ_from_the_profile_are_told_whatever_the_coverage() {
        let link = Link { hash_check: HashCheck::Differs, ..Link::PUSHED };
        for (coverage, state) in
            [(Coverage::Complete, TrustState::Live), (Coverage::Incomplete, TrustState::Rebuilding)]
        {
            let stamp = StreamStamp { applied: Some(BatchSeq(0)), coverage, ..StreamStamp::default() };
            let told = Trust::judge(&stamp, link);
            assert_eq!((told.state, told.reason.contains("hash_profile")), (state, true));
            let matching = Link { hash_check: HashCheck::Matches, ..Link::PUSHED };
            assert!(!Trust::judge(&stamp, matching).reason.contains("hash_profile"));
        }
    }

    #[test]
    fn only_live_has_no_reason() {
        let live = StreamStamp { applied: Some(BatchSeq(0)), ..StreamStamp::default() };
        assert_eq!(Trust::judge(&live, Link::PUSHED).reason, "");
        assert_ne!(Trust::judge(&StreamStamp::default(), Link::PUSHED).reason, "");
    }
}
