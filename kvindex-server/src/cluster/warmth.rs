//! Warm nodes: those that have listened to a shard's engines for so long that they can go on where the index stands.
//! A node that came lately may lead by its log, but lacks what engines said before it listened, and of an engine
//! without a replay socket nobody can bring that back. So leadership goes to warm nodes where there are any, and a
//! leader that is not warm passes it on.

use std::time::Duration;

use futures_util::future::join_all;
use kvindex_core::replication::{ClusterId, NodeId, ShardId, ShardStatus};

use super::Cluster;
use super::messages::{NodeRequest, NodeResponse};

/// Who has listened for so long has heard all that the index still lacks: more than an election takes, and than events
/// wait in a node that is busy.
pub(super) const WARM: Duration = Duration::from_secs(5);
/// How long the question may take. While it is open, a shard's streams wait.
const ASK: Duration = Duration::from_millis(200);

impl Cluster {
    /// Whether this node can go on with a shard's streams.
    pub(super) fn is_warm(&self, shard: ShardId) -> bool {
        self.replica().is_some_and(|replica| self.steering.is_warm(&self.node, replica, shard))
    }

    pub(super) fn answer_warm(&self, cluster: ClusterId, shard: ShardId) -> NodeResponse {
        if self.replica().is_none_or(|replica| replica.identity().cluster != cluster) {
            return NodeResponse::Refused("this node belongs to another cluster, or to none".into());
        }
        if self.is_warm(shard) {
            return NodeResponse::Done;
        }
        NodeResponse::Refused(format!(
            "this node has listened to the engines of {shard} for too short a time"
        ))
    }

    /// Whether another node can.
    pub(super) async fn is_warm_at(&self, address: &str, shard: ShardId) -> bool {
        let Some(cluster) = self.replica().map(|replica| replica.identity().cluster) else { return false };
        let answer = self.ask(address, &NodeRequest::Warm { cluster, shard }, ASK).await;
        matches!(answer, Ok(NodeResponse::Done))
    }

    /// The voter that is warm and has most of the log, but not this node.
    pub(super) async fn warm_heir(&self, status: &ShardStatus) -> Option<NodeId> {
        let me = self.replica()?.identity().node;
        let others = status.members.iter().filter(|(node, member)| member.voter && **node != me);
        let asked = others.map(async |(node, member)| {
            let warm = self.is_warm_at(&member.address.peer, status.shard).await;
            warm.then_some((member.matched, *node))
        });
        join_all(asked).await.into_iter().flatten().max().map(|(_, node)| node)
    }

    /// Passes a shard on that this node has come to lead and is not warm for; false when there is nobody better.
    pub(super) async fn passes_on(&self, shard: ShardId) -> bool {
        let Some(replica) = self.replica().filter(|_| !self.is_warm(shard)) else { return false };
        let Some(status) = replica.shard_status(shard) else { return false };
        let Some(heir) = self.warm_heir(&status).await else { return false };
        tracing::info!(%shard, to = %heir, "leadership is passed on to a node that has heard more of its engines");
        replica.hand_over(shard, heir).await.is_ok()
    }
}
