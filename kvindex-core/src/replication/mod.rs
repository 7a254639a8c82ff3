//! Replication: shards of the event stream as raft groups, so that every node holds the same index. The only room
//! that names openraft; nothing of it shows outside.
//!
//! A *shard* is one raft group. Every worker belongs to one shard, so one stream has one order. All shards of a
//! node apply into one index, which the hosting program owns.

mod codec;
mod command;
mod container;
mod counters;
mod envelope;
mod ids;
mod incoming;
pub mod log_store;
mod machine;
mod network;
mod placement;
mod progress;
mod promises;
mod raft;
mod replica;
mod serving;
mod settings;
mod shard;
mod snapshot_store;
mod state;
mod status;
mod transport;
mod wire;

#[cfg(test)]
mod golden_test;

pub use codec::{CodecError, EntryEncoder, decode, encode};
pub use command::ShardCommand;
pub use container::ContainerError;
pub use counters::{LogCounters, ProposalCounters};
pub use envelope::{ClusterId, Refusal};
pub use ids::{NodeAddress, NodeId, ShardId};
pub use machine::{LogPosition, Machine};
pub use placement::shard_of;
pub use progress::ShardLag;
pub use replica::{Identity, Replica, StartError, Surroundings};
pub use settings::Settings;
pub use shard::{ProposeError, ReadError, ReadLevel};
pub use snapshot_store::{SnapshotFolder, SnapshotMemory, SnapshotStore};
pub use status::{Member, Role, ShardStatus};
pub use transport::{Transport, TransportError};
