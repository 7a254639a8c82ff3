//! kvindex-core (crate page written at the end)
mod columns;
mod command;
mod event;
mod hash;
mod ids;
pub mod limits;
mod index;
mod query;
mod worker;

pub use command::{Batch, Change, Command, GapPolicy, StoredRun, StreamEvents};
pub use event::{BlockRemoved, BlockStored, EngineKind, EngineProfile, EventBatch, KvEvent};
pub use hash::{
    BlockHasher, EngineBlockHash, ExtraKey, HASH_SEED, LocalBlockHash, SequenceHash, local_hash_of_le_bytes,
};
pub use limits::IndexLimits;
pub use ids::{BatchSeq, DpRank, Generation, Group, NameError, StreamId, Tier, WorkerId, check_name};
pub use index::{
    Coverage, Index, IndexReader, IndexStats, Notice, Outcome, SnapshotError, StreamStamp, WorkerStreams,
};
pub use query::{
    Explanation, Filter, Matches, Prompt, PromptItem, Query, QueryError, Reason, Scratch, TierMatch, Tokens,
    WorkerExplanation, WorkerMatch, explain, find_matches,
};
pub use worker::{
    CopyPolicy, DEFAULT_TENANT, HashScheme, ItemForm, Namespace, PodRef, WorkerSpec,
};
