//! The index of kvindex as a library: which LLM engine holds how long a prefix of a prompt in its KV cache,
//! on which tier, and why not longer.
//!
//! Engines announce the blocks they cache as KV events. Hash an [`EventBatch`] with [`EventBatch::seal`]
//! (token ids go no further), wrap the result in a [`Command`], [`Index::apply`] it, and ask
//! [`find_matches`] or [`explain`]. No async runtime, no threads, no clock: time enters as data, and equal
//! commands make equal indexes.
//!
//! ```
//! use kvindex_core::*;
//! let mut index = Index::default();
//! let worker = WorkerId::new("vllm-0")?;
//! index.apply(&Command::Register(Box::new(WorkerSpec::new(worker.clone(), "llama"))));
//!
//! let stored = BlockStored {
//!     block_hashes: vec![EngineBlockHash(11), EngineBlockHash(12)],
//!     token_ids: vec![1, 2, 3, 4, 5, 6, 7, 8],
//!     block_size: 4,
//!     ..BlockStored::default()
//! };
//! let batch = EventBatch { events: vec![KvEvent::BlockStored(stored)], ..EventBatch::default() };
//! index.apply(&Command::Events(StreamEvents {
//!     stream: StreamId { worker, dp_rank: DpRank(0) },
//!     generation: Generation(0),
//!     at_ms: 0,
//!     payload_digest: None,
//!     registration: Registration::default(),
//!     batches: vec![Batch {
//!         seq: BatchSeq(0),
//!         changes: batch.seal(&EngineProfile::default(), &mut BlockHasher::new()),
//!     }].into(),
//! }));
//!
//! let prompt = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
//! let query = Query::tokens("llama", &prompt);
//! let found = find_matches(&index.reader(), &query, &mut Scratch::default())?;
//! assert_eq!(found.workers[0].matched_tokens, 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What answers are worth is said with them: see [`Coverage`]. Formats: [`Index::snapshot`] for snapshots,
//! [`SequenceHash`] for hashes. Limits: [`limits`].

mod columns;
mod command;
mod durations;
mod engine;
mod event;
mod hash;
mod ids;
mod index;
pub mod limits;
pub mod mirror;
mod query;
#[cfg(feature = "replication")]
pub mod replication;
mod worker;

pub use columns::Column;
pub use command::{
    Batch, Batches, Change, Changes, Command, ForgottenBlocks, GapPolicy, StoredRun, StreamEvents,
};
pub use durations::{DurationCounts, Durations};
pub use engine::{ClearPolicy, EngineKind, EngineProfile, GroupKind, GroupSpec, HiddenIdentity};
pub use event::{BlockRemoved, BlockStored, EventBatch, KvEvent};
pub use hash::{
    BlockHasher, EngineBlockHash, ExtraKey, HASH_SEED, LocalBlockHash, SequenceHash, local_hash_of_le_bytes,
};
pub use ids::{
    BatchSeq, DpRank, Generation, Group, NameError, Registration, StreamId, Tier, WorkerId, check_name,
};
pub use index::{
    Coverage, Giving, Index, IndexReader, IndexStats, NamespaceUsage, Notice, Outcome, SnapshotError,
    StreamStamp, TenantUsage, Usage, WorkerStreams,
};
pub use limits::IndexLimits;
pub use query::{
    Candidates, Doubt, Doubts, Explanation, Filter, HeldPrefix, Matches, Prompt, PromptItem, Query,
    QueryError, Reason, Score, ScoreQuery, Scorer, Scratch, StreamSlot, TierMatch, Tokens, WorkerExplanation,
    WorkerMatch, explain, explain_hashed, find_hashed, find_matches, hash_noted, hash_prompt, is_noted,
    note_namespaces, score,
};
pub use worker::{CopyPolicy, DEFAULT_TENANT, HashScheme, ItemForm, Namespace, PodRef, WorkerSpec};
