//! What is known of each stream right now, shared between the thread that follows it and whoever answers
//! queries: an answer's trust stamp reads it without ever waiting for the receive path.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use kvindex_core::{BatchSeq, Generation};

use super::profile_check::HashCheck;
use super::sequencer::Phase;

/// A stream as ingest sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStatus {
    /// Whether it is led: what it hears goes to the index. Otherwise it is on standby, and only kept.
    pub led: bool,
    /// How far it is to be trusted.
    pub phase: Phase,
    /// Whether the subscription is connected.
    pub connected: bool,
    /// Whether kvindex binds the endpoint and the engine connects to it.
    pub binds: bool,
    /// How many publishers it is connected to; more than one only where engines connect to kvindex, by mistake.
    pub publishers: u32,
    /// Whether a batch named another data-parallel rank than the stream has.
    pub another_rank: bool,
    /// Whether the engine hashes as its hash profile says.
    pub hash_check: HashCheck,
    /// Age in milliseconds of the oldest batch known to exist and not yet applied; `None` when there is none.
    pub behind_ms: Option<u64>,
    /// Its generation.
    pub generation: Generation,
    /// The next batch expected.
    pub next: BatchSeq,
    /// Batches received, live and by replay.
    pub received: u64,
    /// Gaps declared.
    pub gaps: u64,
}

/// How a stream stands, as whoever reads it sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) led: bool,
    pub(super) phase: Phase,
    pub(super) behind_since_ms: Option<u64>,
    pub(super) generation: Generation,
    pub(super) next: BatchSeq,
}

const NOT_BEHIND: u64 = u64::MAX;

/// One stream's row of the shared table.
#[derive(Debug)]
pub(super) struct SharedStatus {
    binds: bool,
    led: AtomicBool,
    phase: AtomicU8,
    publishers: AtomicU32,
    another_rank: AtomicBool,
    hash_check: AtomicU8,
    behind_since_ms: AtomicU64,
    generation: AtomicU64,
    next: AtomicU64,
    received: AtomicU64,
    gaps: AtomicU64,
}

impl SharedStatus {
    /// Of a stream that nothing is known of yet.
    pub(super) fn new(binds: bool) -> Self {
        Self {
            binds,
            led: AtomicBool::new(false),
            phase: AtomicU8::new(0),
            publishers: AtomicU32::new(0),
            another_rank: AtomicBool::new(false),
            hash_check: AtomicU8::new(0),
            behind_since_ms: AtomicU64::new(NOT_BEHIND),
            generation: AtomicU64::new(0),
            next: AtomicU64::new(0),
            received: AtomicU64::new(0),
            gaps: AtomicU64::new(0),
        }
    }

    /// Takes over how the stream stands, once what was decided was applied.
    pub(super) fn publish(&self, standing: &Standing) {
        let phase = match standing.phase {
            Phase::Pending => 0,
            Phase::CatchingUp => 1,
            Phase::Live => 2,
        };
        self.led.store(standing.led, Ordering::Relaxed);
        self.generation.store(standing.generation.0, Ordering::Relaxed);
        self.next.store(standing.next.0, Ordering::Relaxed);
        self.behind_since_ms.store(standing.behind_since_ms.unwrap_or(NOT_BEHIND), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Release);
    }

    /// Notes that batches are on their way to the index; [`SharedStatus::publish`] ends it.
    pub(super) fn mark_behind(&self, now_ms: u64) {
        let unset = (NOT_BEHIND, now_ms);
        let _ = self.behind_since_ms.compare_exchange(unset.0, unset.1, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn set_publishers(&self, publishers: usize) {
        self.publishers.store(u32::try_from(publishers).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Notes that a batch named another rank; whether it is the first that did.
    pub(super) fn note_another_rank(&self) -> bool {
        !self.another_rank.swap(true, Ordering::Relaxed)
    }

    pub(super) fn set_hash_check(&self, state: HashCheck) {
        self.hash_check.store(state as u8, Ordering::Relaxed);
    }

    pub(super) fn count_received(&self) {
        self.received.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, now_ms: u64) -> StreamStatus {
        let phase = match self.phase.load(Ordering::Acquire) {
            0 => Phase::Pending,
            1 => Phase::CatchingUp,
            _ => Phase::Live,
        };
        let since = self.behind_since_ms.load(Ordering::Relaxed);
        let publishers = self.publishers.load(Ordering::Relaxed);
        let state = self.hash_check.load(Ordering::Relaxed);
        let hash_check = HashCheck::ALL.into_iter().find(|check| *check as u8 == state).unwrap_or_default();
        StreamStatus {
            led: self.led.load(Ordering::Relaxed),
            phase,
            connected: publishers > 0,
            binds: self.binds,
            publishers,
            another_rank: self.another_rank.load(Ordering::Relaxed),
            hash_check,
            behind_ms: (since != NOT_BEHIND).then(|| now_ms.saturating_sub(since)),
            generation: Generation(self.generation.load(Ordering::Relaxed)),
            next: BatchSeq(self.next.load(Ordering::Relaxed)),
            received: self.received.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
        }
    }
}

/// A clock that never goes back, in milliseconds since it was made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
