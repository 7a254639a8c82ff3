//! What a shard says of itself.

use openraft::async_runtime::WatchReceiver;
use openraft::metrics::{RaftMetrics, RaftServerMetrics};
use std::collections::BTreeMap;

use super::ids::{NodeAddress, NodeId, ShardId};
use super::progress::ShardLag;
use super::raft::Raft;
use super::state::ShardState;

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

/// Resolves when leadership, term or members have changed after the call, and a status says so; never when the shard has
/// stopped.
pub(super) fn next_change(
    raft: &openraft::Raft<Raft, ShardState>,
) -> impl Future<Output = ()> + Send + use<> {
    let (mut changes, mut status) = (raft.server_metrics(), raft.metrics());
    // The receiver that openraft hands out has seen nothing since the start.
    drop(changes.borrow_and_update());
    async move {
        if changes.changed().await.is_err() {
            // It has stopped, and changes no more.
            return std::future::pending().await;
        }
        // openraft tells of a change a moment before its status has it.
        while !is_in(&changes.borrow_watched(), &status.borrow_watched()) {
            if status.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

fn is_in(change: &RaftServerMetrics<Raft>, status: &RaftMetrics<Raft>) -> bool {
    change.state == status.state
        && change.current_leader == status.current_leader
        && change.vote == status.vote
        && change.membership_config == status.membership_config
}
