//! What a storage engine must do to keep the logs of a node's shards.
//!
//! One backend holds the logs of all shards of a node, so that one flush makes the writes of all of them durable.
//! It knows nothing of raft: entries and marks are bytes to it.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt::{self, Debug};
use std::str::FromStr;
use std::time::Duration;

use super::super::ids::ShardId;
use super::error::LogError;

/// Which storage engine keeps the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BackendKind {
    /// `fjall`: a log-structured tree with a journal of its own.
    #[default]
    Fjall,
    /// `sled`, with a flush of ours.
    Sled,
    /// Nothing is kept; a restarted node has to join anew.
    Memory,
}

impl BackendKind {
    /// All of them, by the name that configuration uses.
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Fjall, "fjall"), (Self::Sled, "sled"), (Self::Memory, "memory")];

    /// The name that configuration uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BackendKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| format!("no log store \"{text}\": fjall, sled or memory"))
    }
}

/// When an entry counts as kept, and may be acknowledged. Votes and changes of membership are flushed always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once it is flushed: a loss of power loses nothing acknowledged.
    #[default]
    Fsync,
    /// Once the operating system has it; it is flushed every so often. A killed process loses nothing, a loss of
    /// power what came since the last flush.
    Async {
        /// How often.
        interval: Duration,
    },
    /// Once the operating system has it, and never flushed on purpose.
    Memory,
}

impl Durability {
    /// `Async` with the usual interval.
    pub const ASYNC: Self = Self::Async { interval: Duration::from_millis(100) };

    /// The name that configuration uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Async { .. } => "async",
            Self::Memory => "memory",
        }
    }
}

/// The few things kept for a shard beside its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// For whom the node voted.
    Vote,
    /// Up to where the log is committed, as far as known.
    Committed,
    /// Up to where the log is gone because a snapshot holds it.
    Purged,
}

impl Mark {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Vote, Self::Committed, Self::Purged];

    /// The byte that names it in keys and checksums. Never changes.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Vote => b'v',
            Self::Committed => b'c',
            Self::Purged => b'p',
        }
    }
}

/// One change of one shard's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Puts an entry at an index, in place of whatever is there.
    Append {
        /// Whose log.
        shard: ShardId,
        /// Where.
        index: u64,
        /// The entry, sealed with a checksum.
        record: Bytes,
    },
    /// Removes entries, at either end of the log.
    Remove {
        /// Whose log.
        shard: ShardId,
        /// The first index to go.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// Sets a mark.
    Mark {
        /// Whose.
        shard: ShardId,
        /// Which.
        mark: Mark,
        /// Its value, sealed with a checksum.
        record: Bytes,
    },
}

impl Change {
    /// About how much work it is, in bytes.
    pub(super) fn weight(&self) -> usize {
        /// A removal's key and bookkeeping.
        const REMOVED: u64 = 32;
        match self {
            Self::Append { record, .. } | Self::Mark { record, .. } => record.len() + 64,
            Self::Remove { first, last, .. } => {
                let entries = last.saturating_sub(*first).saturating_add(1);
                usize::try_from(entries.saturating_mul(REMOVED)).unwrap_or(usize::MAX)
            }
        }
    }
}

/// What is kept of a shard, as found at start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredShard {
    /// [`Mark::Vote`].
    pub vote: Option<Bytes>,
    /// [`Mark::Committed`].
    pub committed: Option<Bytes>,
    /// [`Mark::Purged`].
    pub purged: Option<Bytes>,
    /// Index of the first entry that is there.
    pub first: Option<u64>,
    /// Index of the last one.
    pub last: Option<u64>,
}

impl StoredShard {
    /// Where a mark's value goes.
    pub(super) fn mark_mut(&mut self, mark: Mark) -> &mut Option<Bytes> {
        match mark {
            Mark::Vote => &mut self.vote,
            Mark::Committed => &mut self.committed,
            Mark::Purged => &mut self.purged,
        }
    }
}

/// Keeps the logs of all shards of a node.
pub trait LogBackend: Debug + Send + Sync + 'static {
    /// Makes all changes in order; after a crash, only the first of them may be there, a removal's from its end
    /// backwards. Through means: they outlive this process, and if `durable`, a loss of power too, together with all
    /// changes before them. Never called again before it is through, and never again after an error.
    fn commit(&self, changes: Vec<Change>, durable: bool) -> BoxFuture<'_, Result<(), LogError>>;

    /// The records from index `first` up to and including `last` that are there, in order, up to `max_bytes` of
    /// them, but at least one.
    fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, Bytes)>, LogError>>;

    /// What there is of a shard; nothing for a shard that was never written.
    fn shard(&self, shard: ShardId) -> BoxFuture<'_, Result<StoredShard, LogError>>;

    /// Makes everything durable, and notes that the log was left in good order. The last call.
    fn close(&self) -> BoxFuture<'_, Result<(), LogError>>;

    /// Whether acknowledged entries may be missing since the last run: it was not closed, it did not flush what it
    /// acknowledged, and the machine was started anew since. Such a node must join anew, under a new id.
    fn tail_may_be_gone(&self) -> bool;

    /// Goes on with what is left, because nobody has more: the doubt of [`Self::tail_may_be_gone`] is over.
    ///
    /// # Errors
    /// When that cannot be noted.
    fn accept_tail(&self) -> Result<(), LogError>;

    /// Where the log is, for messages.
    fn place(&self) -> String;
}
