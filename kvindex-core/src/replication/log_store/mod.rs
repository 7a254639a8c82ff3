//! The log store: what shards have agreed on, kept on disk until a snapshot holds it.
//!
//! A node has one [`LogStore`] over one [`LogBackend`]. Its shards' logs queue their writes there; one task commits
//! them together, so one flush serves all shards. Which engine keeps the bytes is a matter of configuration.

mod backend;
mod blocking;
mod committer;
mod data_dir;
mod error;
mod fjall;
mod fjall_journal;
mod keys;
mod memory;
mod raft_storage;
mod record;
mod seal;
mod shard_log;
mod sled;
mod sled_flush;
mod tail;

#[cfg(test)]
mod committer_test;
#[cfg(test)]
mod data_dir_test;
#[cfg(test)]
mod record_test;
#[cfg(test)]
mod shard_log_test;
#[cfg(test)]
mod suite_test;

pub use self::fjall::FjallBackend;
pub use self::sled::SledBackend;
pub use backend::{BackendKind, Change, Durability, LogBackend, Mark, StoredShard};
pub use committer::{LogStore, Urgency};
pub use error::LogError;
pub use memory::MemoryBackend;
pub(crate) use shard_log::ShardLog;
