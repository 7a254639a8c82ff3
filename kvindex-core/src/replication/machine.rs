//! What a shard's log is applied to. The hosting program owns the index and whatever else a shard replicates; this
//! room only says when which entry is due.

use bytes::Bytes;
use std::fmt::Debug;

use super::command::ShardCommand;
use super::ids::ShardId;

/// Place of an entry in a shard's log. Positions of one shard only ever grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LogPosition {
    /// The leader's term.
    pub term: u64,
    /// The entry's number, from 0.
    pub index: u64,
}

/// The replicated state of a node: one for all its shards. Calls for different shards may come at the same time,
/// calls for one shard come one after the other.
pub trait Machine: Debug + Send + Sync + 'static {
    /// Applies one entry; the same entries in the same order must lead to the same state on every node. The answer
    /// goes to whoever proposed the entry, if that was this node.
    ///
    /// # Errors
    /// When the entry cannot be understood. The shard stops then, because going on would make it differ from the
    /// others.
    fn apply(&self, shard: ShardId, at: LogPosition, commands: Vec<ShardCommand>) -> Result<Bytes, String>;

    /// The shard's state in pieces, which [`Machine::import`] takes back. The shard applies nothing until the last
    /// piece was taken, other shards go on.
    fn export(&self, shard: ShardId) -> Box<dyn Iterator<Item = Vec<u8>> + Send + '_>;

    /// Replaces the shard's state by the pieces of an export, as it was at this position.
    ///
    /// # Errors
    /// When the pieces cannot be used; what is wrong with them.
    fn import(&self, shard: ShardId, at: LogPosition, pieces: Vec<Bytes>) -> Result<(), String>;
}
