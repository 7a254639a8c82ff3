//! What a shard says of itself.

use std::collections::BTreeMap;

use super::ids::{NodeAddress, NodeId, ShardId};
use super::progress::ShardLag;

/// A node's part in a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Proposes entries.
    Leader,
    /// Votes and follows.
    Follower,
    /// Wants to lead.
    Candidate,
    /// Follows without a vote, or is no member.
    Learner,
    /// Does nothing any more.
    Stopped,
}

/// One member of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it is.
    pub address: NodeAddress,
    /// Whether it votes.
    pub voter: bool,
    /// Number of the last entry that it is known to have; only a leader knows.
    pub matched: Option<u64>,
}

/// A shard as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// This node's part.
    pub role: Role,
    /// Who leads, if known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// How far this node is.
    pub lag: ShardLag,
    /// Number of the last entry in this node's log.
    pub last: Option<u64>,
    /// Number of the last entry in its snapshot.
    pub snapshot: Option<u64>,
    /// Everyone.
    pub members: BTreeMap<NodeId, Member>,
    /// Voters are being changed: two sets decide together.
    pub changing: bool,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
}
