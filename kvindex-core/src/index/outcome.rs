//! What applying a command did: counts for metrics, and notices for those who follow the index.

use super::registry::Astray;
use crate::hash::SequenceHash;
use crate::ids::{BatchSeq, Generation, Group, StreamId, Tier, WorkerId};
use crate::worker::Namespace;

/// Counts of what one command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Batches applied.
    pub batches: u64,
    /// Batches ignored because they were applied before.
    pub duplicates: u64,
    /// Commands ignored because their generation is over.
    pub stale: u64,
    /// Commands for a worker that is not registered: ignored.
    pub unknown_worker: u64,
    /// Commands for another registration of their worker than the present one: ignored.
    pub other_registration: u64,
    /// Generations begun.
    pub generations: u64,
    /// Blocks that an owner did not hold before.
    pub stored: u64,
    /// Further copies of blocks it held.
    pub copies: u64,
    /// Blocks whose last copy went.
    pub removed: u64,
    /// Removals of blocks that the owner did not hold (ordinary after joining late).
    pub removed_unknown: u64,
    /// Blocks stored whose parent is not known: kept by engine hash until it comes.
    pub orphaned: u64,
    /// Orphans joined to their parent, and blocks placed by a name that came up elsewhere.
    pub joined: u64,
    /// Orphans that will not be joined because too many wait.
    pub unjoinable: u64,
    /// Stores refused because the index is full.
    pub refused: u64,
    /// Blocks dropped by clears, restarts, gaps and worker removal.
    pub dropped: u64,
    /// (Block, owner) entries taken away by [`Command::Evict`](crate::Command::Evict).
    pub evicted: u64,
}

impl std::ops::AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.batches += other.batches;
        self.duplicates += other.duplicates;
        self.stale += other.stale;
        self.unknown_worker += other.unknown_worker;
        self.other_registration += other.other_registration;
        self.generations += other.generations;
        self.stored += other.stored;
        self.copies += other.copies;
        self.removed += other.removed;
        self.removed_unknown += other.removed_unknown;
        self.orphaned += other.orphaned;
        self.joined += other.joined;
        self.unjoinable += other.unjoinable;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.evicted += other.evicted;
    }
}

impl Outcome {
    pub(super) fn count_astray(&mut self, astray: Astray) {
        match astray {
            Astray::UnknownWorker => self.unknown_worker += 1,
            Astray::OtherRegistration => self.other_registration += 1,
        }
    }
}

/// One normalised change, as a follower of the index sees it. Blocks appear when an owner begins to hold them
/// at a known position, and vanish when it no longer does; further copies make no notice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Notice<'a> {
    /// Consecutive blocks are held from now on.
    Stored {
        /// By which stream.
        stream: &'a StreamId,
        /// In which batch.
        batch: BatchSeq,
        /// Where.
        tier: &'a Tier,
        /// In which KV-cache group.
        group: Group,
        /// In which namespace.
        namespace: &'a Namespace,
        /// Which blocks, first to last.
        blocks: &'a [SequenceHash],
    },
    /// A block is not held any more.
    Removed {
        /// By which stream.
        stream: &'a StreamId,
        /// In which batch.
        batch: BatchSeq,
        /// Where.
        tier: &'a Tier,
        /// In which KV-cache group.
        group: Group,
        /// In which namespace.
        namespace: &'a Namespace,
        /// Which block.
        block: SequenceHash,
    },
    /// A tier of a stream is empty.
    Cleared {
        /// Which stream.
        stream: &'a StreamId,
        /// Which tier; `None` for all.
        tier: Option<&'a Tier>,
        /// How many blocks were dropped.
        blocks: u64,
    },
    /// A stream lost batches.
    Gap {
        /// Which stream.
        stream: &'a StreamId,
        /// First lost.
        first: BatchSeq,
        /// Last lost.
        last: BatchSeq,
    },
    /// A stream's cache is a new one.
    Generation {
        /// Which stream.
        stream: &'a StreamId,
        /// The new generation.
        generation: Generation,
    },
    /// A worker was registered or its description replaced.
    Registered {
        /// Which.
        worker: &'a WorkerId,
    },
    /// A worker is gone.
    Unregistered {
        /// Which.
        worker: &'a WorkerId,
    },
}
