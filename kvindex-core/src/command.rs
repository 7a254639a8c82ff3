//! Commands: the only thing that can change an index. A command holds no token ids, and time enters it as
//! data, so the same commands in the same order make equal indexes everywhere.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

use crate::columns::Column;
use crate::engine::GroupKind;
use crate::hash::{EngineBlockHash, LocalBlockHash};
use crate::ids::{BatchSeq, Generation, Group, Registration, StreamId, Tier, WorkerId};
use crate::worker::{HashScheme, WorkerSpec};

/// A change to an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Adds a worker, or replaces what is known of it; its blocks stay.
    Register(Box<WorkerSpec>),
    /// Removes a worker with all its blocks. Removing an unknown one succeeds.
    Unregister {
        /// Which.
        worker: WorkerId,
    },
    /// Event batches of one stream, applied exactly once by (generation, sequence number).
    Events(StreamEvents),
    /// A stream's cache is another one from now on (engine restarted): its blocks go away.
    NewGeneration {
        /// Which stream.
        stream: StreamId,
        /// The new generation; an older or equal one is ignored.
        generation: Generation,
        /// Milliseconds since the Unix epoch, as data for `explain`.
        at_ms: u64,
        /// For which registration of the worker it was made.
        #[serde(default)]
        registration: Registration,
    },
    /// Batches of a stream are lost for good.
    Gap {
        /// Which stream.
        stream: StreamId,
        /// Its generation.
        generation: Generation,
        /// First lost batch.
        first: BatchSeq,
        /// Last lost batch; the next one expected is the one after.
        last: BatchSeq,
        /// What to do about it.
        policy: GapPolicy,
        /// Milliseconds since the Unix epoch, as data for `explain`.
        at_ms: u64,
        /// For which registration of the worker it was made.
        #[serde(default)]
        registration: Registration,
    },
    /// Takes blocks away from owners, so that the index stays below a cap. Tenants with many entries give before
    /// those with few, and of a tenant goes first what no event touched for longest. Streams that lose blocks
    /// answer too little from then on, never too much.
    Evict {
        /// How many (block, owner) entries must go at least; all when there are fewer.
        entries: u64,
        /// Milliseconds since the Unix epoch, as data for `explain`.
        at_ms: u64,
    },
    /// Takes named blocks away from one owner: an eviction that says itself what goes, so that indexes need not
    /// agree on what is oldest. See [`IndexReader::plan_eviction`](crate::IndexReader::plan_eviction).
    Forget(ForgottenBlocks),
}

/// Blocks of one owner that an index is to hold no longer, in whatever number of copies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgottenBlocks {
    /// Which stream.
    pub stream: StreamId,
    /// Its generation: in another one the names mean other blocks, and nothing is taken.
    pub generation: Generation,
    /// Where.
    pub tier: Tier,
    /// Which group.
    pub group: Group,
    /// Which blocks, the deepest first. Unknown ones are ignored.
    #[serde(with = "crate::columns")]
    pub hashes: Vec<EngineBlockHash>,
    /// Milliseconds since the Unix epoch, as data for `explain`.
    pub at_ms: u64,
    /// For which registration of the worker it was made.
    #[serde(default)]
    pub registration: Registration,
}

/// What an unfillable gap does to a stream's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapPolicy {
    /// Drop them: answers may then be too low, never too high.
    #[default]
    Purge,
    /// Keep them and mark every answer as suspect.
    KeepAsSuspect,
}

/// Batches of one command. One alone, as a live engine sends them, needs no allocation.
pub type Batches = SmallVec<[Batch; 1]>;

/// Changes of one batch. One alone needs no allocation.
pub type Changes = SmallVec<[Change; 1]>;

/// Consecutive event batches of one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamEvents {
    /// Which stream.
    pub stream: StreamId,
    /// Its generation.
    pub generation: Generation,
    /// Milliseconds since the Unix epoch when these were received, as data for `explain` and lag.
    pub at_ms: u64,
    /// The batches, ascending.
    pub batches: Batches,
    /// XXH3-64 of the last batch as the engine sent it, by which a reader of the same stream can tell whether it
    /// hears the same life of the engine; `None` where nobody looked.
    #[serde(default)]
    pub payload_digest: Option<u64>,
    /// For which registration of the worker it was made. A command may be under way for so long that it comes after
    /// the worker was registered anew, perhaps for another engine: it is ignored then.
    #[serde(default)]
    pub registration: Registration,
}

/// One event batch, sealed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its sequence number.
    pub seq: BatchSeq,
    /// What it changes, in order.
    pub changes: Changes,
}

/// One sealed event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Blocks entered a cache.
    Stored(StoredRun),
    /// One copy of each block left a cache.
    Removed {
        /// Where.
        tier: Tier,
        /// Which group.
        group: Group,
        /// Which blocks.
        #[serde(with = "crate::columns")]
        hashes: Column<EngineBlockHash>,
    },
    /// An event that could not be read: it may have been a removal, so from here on the stream's blocks may be
    /// too many. A clear, a restart or a purge mends that.
    Unreadable,
    /// All of one tier was cleared, or of every tier.
    Cleared {
        /// Which tier; `None` for every tier.
        tier: Option<Tier>,
    },
}

/// A stored run: one parent reference and two columns, 16 bytes a block. It may be empty: then it says
/// that a group exists, and of which kind it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredRun {
    /// LoRA adapter.
    pub lora: Option<Arc<str>>,
    /// Tokens that one local hash covers: the block size, or in a hybrid model the unit of all groups' sizes. 0
    /// in placeholder events, which tell no size.
    pub block_size: u32,
    /// Units a block, usually 1.
    pub stride: u32,
    /// What identifies a block here.
    pub scheme: HashScheme,
    /// Where the copies lie.
    pub tier: Tier,
    /// Which group.
    pub group: Group,
    /// What the group needs of a prefix, where the engine says it.
    pub kind: Option<GroupKind>,
    /// Tokens that the group's sliding window reaches back.
    pub sliding_window: Option<u32>,
    /// The block before the first; `None` at the start of a prompt.
    pub parent: Option<EngineBlockHash>,
    /// Engine block hashes.
    #[serde(with = "crate::columns")]
    pub engine_hashes: Column<EngineBlockHash>,
    /// Local hashes of all the units that the event's tokens cover. `stride` a block where every block is
    /// named; more where a hybrid model's group announced only some of the blocks, without saying which; none
    /// when the event did not say which tokens are whose.
    #[serde(with = "crate::columns")]
    pub local_hashes: Column<LocalBlockHash>,
}
