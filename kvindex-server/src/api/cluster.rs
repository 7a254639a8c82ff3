//! The cluster's calls, and waiting until an answer is as fresh as was asked for.

use std::sync::Arc;
use std::time::Duration;

use kvindex_core::WorkerId;
use kvindex_core::replication::{NodeId, ReadLevel, Role, ShardId, ShardStatus, shard_of};
use kvindex_proto::v1;

use super::Api;
use super::error::{ApiError, Kind};
use crate::access::{Caller, Right};
use crate::cluster::{Cluster, ClusterError, DirectoryAnswer, DirectoryChange};

/// How long a fresh answer is waited for: a leader's death and the next election fit in.
const FRESH: Duration = Duration::from_secs(3);

/// What a token has no right to, when it has not.
const THE_CLUSTER: &str = "the cluster";

/// What a request says about freshness.
fn level(consistency: &str) -> Result<ReadLevel, ApiError> {
    match consistency {
        "" | "local" => Ok(ReadLevel::Local),
        "lease" => Ok(ReadLevel::Lease),
        "linearizable" => Ok(ReadLevel::Linearizable),
        _ => Err(ApiError::invalid("consistency", "must be local, lease or linearizable")),
    }
}

/// Refused where a call cannot wait.
pub(super) fn only_local(consistency: &str) -> Result<(), ApiError> {
    match level(consistency)? {
        ReadLevel::Local => Ok(()),
        _ => Err(ApiError::invalid("consistency", "must be local here; ask by a call of its own")),
    }
}

fn millis(age: Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

impl Api {
    /// Waits until this node's answers are as fresh as `consistency` asks for. A node alone always is.
    pub(super) async fn wait_fresh(&self, consistency: &str) -> Result<(), ApiError> {
        let level = level(consistency)?;
        let Some(cluster) = self.cluster.as_ref().filter(|_| level != ReadLevel::Local) else {
            return Ok(());
        };
        let fresh = cluster.barrier(level, FRESH).await;
        fresh.map_err(|error| ApiError::new(Kind::Unavailable, error.to_string()))
    }

    /// Waits until this node has applied every change of a worker that was acknowledged.
    pub(super) async fn catch_up_on(&self, cluster: &Cluster, worker: &WorkerId) -> Result<(), ApiError> {
        let caught_up = cluster.barrier_of(worker, FRESH).await;
        caught_up.map_err(|error| ApiError::new(Kind::Unavailable, error.to_string()))
    }

    /// The same for many questions: as the most demanding of them asks.
    pub(super) async fn wait_fresh_batch(&self, request: &v1::MatchBatchRequest) -> Result<(), ApiError> {
        for wanted in ["linearizable", "lease"] {
            if request.requests.iter().any(|question| question.consistency == wanted) {
                return self.wait_fresh(wanted).await;
            }
        }
        Ok(())
    }

    /// How fresh an answer is that is given now; asked for before the index is.
    pub(super) fn freshness(&self, caller: &Caller, report_applied: bool) -> Option<v1::Freshness> {
        let cluster = self.cluster.as_ref()?;
        let mut freshness = v1::Freshness { age_ms: Some(0), ..v1::Freshness::default() };
        let Some(replica) = cluster.replica() else {
            return Some(v1::Freshness { age_ms: None, ..freshness });
        };
        for lag in replica.lags() {
            freshness.age_ms = freshness.age_ms.zip(lag.age.map(millis)).map(|(worst, age)| worst.max(age));
            if caller.sees_all() {
                // The log is every tenant's: how much is in it is not for all to know.
                freshness.entries_behind += lag.entries;
            }
            if report_applied {
                freshness.applied.push(lag.applied.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX)));
            }
        }
        Some(freshness)
    }

    fn in_cluster(&self) -> Result<&Arc<Cluster>, ApiError> {
        let alone = || {
            ApiError::new(Kind::Precondition, "this node is alone; peer_listen makes it part of a cluster")
        };
        self.cluster.as_ref().ok_or_else(alone)
    }

    pub(super) fn cluster_status(
        &self,
        caller: &Caller,
        request: v1::ClusterStatusRequest,
    ) -> Result<v1::ClusterStatusResponse, ApiError> {
        caller.may_everywhere(Right::Admin, THE_CLUSTER)?;
        let cluster = self.in_cluster()?;
        let identity = cluster.replica().map(|replica| replica.identity());
        let directory = cluster.directory();
        let nodes = directory.nodes().map(|(id, known)| v1::ClusterNode {
            node_id: id.0,
            peer_address: known.address.peer.clone(),
            address: known.address.public.clone(),
            voter: known.voter,
        });
        let shards = cluster.status();
        let count = shards.len() as u16;
        // A walk over the whole index.
        let digest = |shard: ShardId| {
            let walk = || self.node.digest_of(|worker| shard_of(worker, count) == shard);
            request.digests.then(|| super::calls::run(true, walk))
        };
        Ok(v1::ClusterStatusResponse {
            cluster_id: identity.map(|identity| identity.cluster.to_string()).unwrap_or_default(),
            node_id: identity.map_or(0, |identity| identity.node.0),
            nodes: nodes.collect(),
            shards: shards
                .into_iter()
                .map(|shard| {
                    let digest = digest(shard.shard);
                    state(shard, digest)
                })
                .collect(),
            waits_for: cluster.waits_for(),
        })
    }

    /// What the node waits for before it is ready, if it can say.
    pub(super) fn waits_for(&self) -> String {
        self.cluster.as_ref().map(|cluster| cluster.waits_for()).unwrap_or_default()
    }

    pub(super) async fn remove_node(
        &self,
        caller: &Caller,
        request: v1::RemoveNodeRequest,
    ) -> Result<v1::ClusterChangeResponse, ApiError> {
        caller.may_everywhere(Right::Admin, THE_CLUSTER)?;
        let cluster = self.in_cluster()?;
        let node = NodeId(request.node_id);
        let directory = cluster.directory();
        let left = directory.nodes().filter(|(id, known)| known.voter && *id != node).count();
        if left == 0 && directory.get(node).is_some() {
            return Err(ApiError::of_field(Kind::Precondition, "node_id", "is the last voter"));
        }
        // Who is unknown is told so below.
        if !request.force && directory.get(node).is_some() {
            let refused = |reason| format!("{reason}; set force to remove it all the same");
            let can = cluster.can_lose(node).await.map_err(refused);
            can.map_err(|reason| ApiError::of_field(Kind::Precondition, "node_id", reason))?;
        }
        self.change_directory(DirectoryChange::Dismiss(node)).await
    }

    pub(super) async fn set_voter(
        &self,
        caller: &Caller,
        request: v1::SetVoterRequest,
    ) -> Result<v1::ClusterChangeResponse, ApiError> {
        caller.may_everywhere(Right::Admin, THE_CLUSTER)?;
        let (node, voter) = (NodeId(request.node_id), request.voter);
        let cluster = self.in_cluster()?;
        let directory = cluster.directory();
        let voters = directory.nodes().filter(|(id, known)| known.voter && *id != node).count();
        if !voter && voters == 0 && directory.get(node).is_some() {
            return Err(ApiError::of_field(Kind::Precondition, "node_id", "is the last voter"));
        }
        if !voter && directory.get(node).is_some_and(|known| known.voter) {
            let refused = |reason| format!("{reason}; remove those first that do not answer");
            let can = cluster.can_lose(node).await.map_err(refused);
            can.map_err(|reason| ApiError::of_field(Kind::Precondition, "node_id", reason))?;
        }
        self.change_directory(DirectoryChange::Vote { node, voter }).await
    }

    async fn change_directory(&self, change: DirectoryChange) -> Result<v1::ClusterChangeResponse, ApiError> {
        match self.in_cluster()?.change_directory(change).await? {
            DirectoryAnswer::Done | DirectoryAnswer::Admitted(_) => Ok(v1::ClusterChangeResponse {}),
            DirectoryAnswer::NotFounded => {
                Err(ApiError::new(Kind::Unavailable, "the cluster is still being founded"))
            }
            DirectoryAnswer::Unknown => {
                Err(ApiError::of_field(Kind::NotFound, "node_id", "is no node of the cluster"))
            }
        }
    }

    pub(super) async fn hand_over(
        &self,
        caller: &Caller,
        request: v1::HandOverRequest,
    ) -> Result<v1::ClusterChangeResponse, ApiError> {
        caller.may_everywhere(Right::Admin, THE_CLUSTER)?;
        let shard = u16::try_from(request.shard).map_err(|_| ApiError::invalid("shard", "is no shard"))?;
        self.in_cluster()?.hand_over(ShardId(shard), NodeId(request.node_id)).await?;
        Ok(v1::ClusterChangeResponse {})
    }
}

fn state(shard: ShardStatus, digest: Option<u64>) -> v1::ShardState {
    let role = match shard.role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    };
    let member = |(node, member): (NodeId, kvindex_core::replication::Member)| v1::ShardMember {
        node_id: node.0,
        voter: member.voter,
        matched: member.matched,
    };
    v1::ShardState {
        shard: shard.shard.0.into(),
        role: role.into(),
        leader: shard.leader.map_or(0, |leader| leader.0),
        term: shard.term,
        applied: shard.lag.applied,
        entries_behind: shard.lag.entries,
        age_ms: shard.lag.age.map(millis),
        last: shard.last,
        snapshot: shard.snapshot,
        members: shard.members.into_iter().map(member).collect(),
        changing: shard.changing,
        stopped: shard.stopped.unwrap_or_default(),
        digest,
    }
}

impl From<ClusterError> for ApiError {
    fn from(error: ClusterError) -> Self {
        let kind = match &error {
            ClusterError::NotJoined | ClusterError::NoLeader { .. } | ClusterError::Unsure { .. } => {
                Kind::Unavailable
            }
            ClusterError::Refused(_) => Kind::Precondition,
        };
        Self::new(kind, error.to_string())
    }
}
