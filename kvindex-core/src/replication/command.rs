//! What one shard's log says: changes of the index, and what the hosting program keeps beside it.

use bytes::Bytes;

use crate::command::Command;

/// One command of a shard's log. A log entry holds many, see [`encode`](super::encode).
#[derive(Debug, Clone, PartialEq)]
pub enum ShardCommand {
    /// Changes the index that all shards of a node share.
    Index(Command),
    /// Changes what the hosting program keeps for the shard; opaque here.
    Host(Bytes),
}

impl From<Command> for ShardCommand {
    fn from(command: Command) -> Self {
        Self::Index(command)
    }
}
