//! A bounded memory of what went away and why, for `explain` only: advisory, not in snapshots or digests.

use std::collections::VecDeque;

use super::owner_set::OwnerSlot;
use crate::hash::SequenceHash;
use crate::ids::{BatchSeq, Generation};
use crate::limits::IndexLimits;

/// Why a block is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The engine removed the last copy.
    Removed,
    /// The engine cleared its cache.
    Cleared,
    /// The engine restarted.
    Restarted,
    /// Batches were lost and the stream's blocks were dropped.
    Purged,
    /// The index itself dropped it, to stay below its cap.
    Evicted,
    /// The worker is gone: nobody can ask why it does not hold a block.
    Unregistered,
}

/// All causes.
const CAUSES: [Cause; 6] =
    [Cause::Removed, Cause::Cleared, Cause::Restarted, Cause::Purged, Cause::Evicted, Cause::Unregistered];
const CAUSE_BITS: u32 = 4;

/// One block that went away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Departure {
    pub(crate) block: SequenceHash,
    pub(crate) at_ms: u64,
    pub(crate) batch: BatchSeq,
    /// Serial number of the stream: never used again, unlike its slot.
    pub(crate) stream: u32,
    /// Owner and cause in one word: a journal is as long as its entries are short.
    who: u32,
}

impl Departure {
    pub(crate) fn new(
        (block, batch, at_ms): (SequenceHash, BatchSeq, u64),
        (stream, owner): (u32, OwnerSlot),
        cause: Cause,
    ) -> Self {
        Self { block, at_ms, batch, stream, who: owner.0 << CAUSE_BITS | cause as u32 }
    }

    pub(crate) fn owner(&self) -> OwnerSlot {
        OwnerSlot(self.who >> CAUSE_BITS)
    }

    pub(crate) fn cause(&self) -> Cause {
        let is_it = |cause: &&Cause| **cause as u32 == self.who & ((1 << CAUSE_BITS) - 1);
        CAUSES.iter().find(is_it).copied().unwrap_or(Cause::Removed)
    }
}

/// Something that happened to a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incident {
    Gap { first: BatchSeq, last: BatchSeq, at_ms: u64 },
    Generation { generation: Generation, at_ms: u64 },
}

#[derive(Debug)]
pub(crate) struct Journal {
    departures: VecDeque<Departure>,
    max: usize,
    /// Time of the newest departure that was forgotten.
    pub(crate) forgotten_until_ms: Option<u64>,
}

impl Journal {
    pub(crate) fn new(limits: &IndexLimits) -> Self {
        Self { departures: VecDeque::new(), max: limits.journal_removals, forgotten_until_ms: None }
    }

    pub(crate) fn note(&mut self, departure: Departure) {
        if self.max == 0 || departure.cause() == Cause::Unregistered {
            return;
        }
        if self.departures.len() == self.max {
            self.forgotten_until_ms = self.departures.pop_front().map(|d| d.at_ms);
        }
        self.departures.push_back(departure);
    }

    /// Departures, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Departure> {
        self.departures.iter().rev()
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.departures.capacity() * size_of::<Departure>()
    }
}
