//! Replication: shards of the event stream as raft groups, so that every node holds the same index. The only room
//! that names openraft; nothing of it shows outside.
//!
//! A *shard* is one raft group. Every worker belongs to one shard, so one stream has one order. All shards of a
//! node apply into one index, which the hosting program owns.

mod codec;
mod command;
mod ids;
mod raft;

pub use codec::{CodecError, EntryEncoder, decode, encode};
pub use command::ShardCommand;
pub use ids::{NodeAddress, NodeId, ShardId};
