//! Changes of workers and nodes, from wherever they were asked for to the node that leads their shard, and back.

use bytes::Bytes;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use kvindex_core::replication::{
    ClusterId, NodeId, ProposeError, Replica, Role, ShardCommand, ShardId, encode,
};
use kvindex_core::{StreamEvents, WorkerId};

use super::Cluster;
use super::directory::{DirectoryAnswer, DirectoryChange};
use super::machine::DIRECTORY_SHARD;
use super::messages::{HostCommand, NodeRequest, NodeResponse};
use crate::node::{ChangeAnswer, Origin, PublishError, Published, RegisterError, Registered, WorkerChange};
use crate::workers::WorkerDefinition;

/// How long to wait before looking for a leader again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a node may take to say that it is there.
const THERE: Duration = Duration::from_secs(1);

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// This node belongs to no cluster yet.
    #[error("this node has not joined a cluster yet")]
    NotJoined,
    /// Nobody could make it in time; nothing was changed.
    #[error("{shard} has no leader with a quorum: {reason}")]
    NoLeader {
        /// Which shard.
        shard: ShardId,
        /// What was found last.
        reason: String,
    },
    /// It may have been made.
    #[error("it is not known whether the change was made, ask again: {reason}")]
    Unsure {
        /// Why.
        reason: String,
    },
    /// It was refused.
    #[error("{0}")]
    Refused(String),
}

/// Why a worker did not become known.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The cluster could not make the change.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The change was refused.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why a pushed batch was not applied.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The cluster could not make the change.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The batch was refused.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl From<ProposeError> for ClusterError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NotLeader { shard, .. } => Self::NoLeader { shard, reason: error.to_string() },
            ProposeError::Unsure { reason, .. } => Self::Unsure { reason },
            ProposeError::Refused { .. } => Self::Refused(error.to_string()),
        }
    }
}

impl Cluster {
    /// Makes a change of a worker, through whichever node leads its shard.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn change(&self, change: WorkerChange) -> Result<ChangeAnswer, ClusterError> {
        let replica = self.replica().ok_or(ClusterError::NotJoined)?;
        let shard = replica.shard_of(change.worker());
        let answer = self.change_shard(shard, HostCommand::Worker(change)).await?;
        decoded(&answer)
    }

    /// Makes a worker known to the whole cluster.
    ///
    /// # Errors
    /// See [`RegisterError`] and [`ClusterError`].
    pub async fn register(
        &self,
        definition: WorkerDefinition,
        origin: Origin,
        replace: bool,
    ) -> Result<Registered, WorkerError> {
        self.node.check_room(&definition.spec.id, 0)?;
        let worker = definition.spec.id.clone();
        let definition = Box::new(definition);
        let answer = self.change(WorkerChange::Register { definition, origin, replace }).await?;
        Ok(answer.registered(&worker)?)
    }

    /// Forgets a worker and all its blocks on every node; answers whether it was known.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn unregister(&self, worker: WorkerId) -> Result<bool, ClusterError> {
        let answer = self.change(WorkerChange::Unregister { worker }).await?;
        Ok(answer == ChangeAnswer::Unregistered(true))
    }

    /// Applies one pushed batch on every node.
    ///
    /// # Errors
    /// See [`PublishError`] and [`ClusterError`].
    pub async fn publish(&self, events: StreamEvents) -> Result<Published, PushError> {
        let answer = self.change(WorkerChange::Publish { events: Box::new(events.clone()) }).await?;
        Ok(answer.published(&events)?)
    }

    /// Makes a change of the directory of nodes.
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn change_directory(&self, change: DirectoryChange) -> Result<DirectoryAnswer, ClusterError> {
        let answer = self.change_shard(DIRECTORY_SHARD, HostCommand::Directory(change)).await?;
        decoded(&answer)
    }

    async fn change_shard(&self, shard: ShardId, command: HostCommand) -> Result<Bytes, ClusterError> {
        let replica = self.replica().ok_or(ClusterError::NotJoined)?;
        let deadline = Instant::now() + self.settings.patience;
        loop {
            let failed = match self.try_change(replica, shard, &command, deadline).await {
                Err(error @ ClusterError::NoLeader { .. }) => error,
                settled => return settled,
            };
            if Instant::now() + RETRY >= deadline {
                return Err(failed);
            }
            sleep(RETRY).await;
        }
    }

    async fn try_change(
        &self,
        replica: &Replica,
        shard: ShardId,
        command: &HostCommand,
        deadline: Instant,
    ) -> Result<Bytes, ClusterError> {
        let no_leader = |reason: &str| ClusterError::NoLeader { shard, reason: reason.into() };
        let status = replica.shard_status(shard).ok_or_else(|| no_leader("there is no such shard"))?;
        if status.role == Role::Leader {
            return self.change_here(replica, shard, command, deadline).await;
        }
        let leader = status.leader.and_then(|leader| status.members.get(&leader));
        let address = &leader.ok_or_else(|| no_leader("none is known"))?.address.peer;
        // Tried again until the time is over, and then it is certain that nothing was changed: a call into a black hole
        // would leave that open.
        if !self.transport.admits(address) {
            return Err(no_leader("the path to it is blocked"));
        }
        let cluster = replica.identity().cluster;
        let request = NodeRequest::Change { cluster, shard, command: command.clone() };
        let remaining = deadline.saturating_duration_since(Instant::now());
        match self.ask(address, &request, remaining).await {
            Ok(NodeResponse::Changed(answer)) => Ok(answer),
            Ok(NodeResponse::NotLeader(_)) => Err(no_leader("it is changing")),
            Ok(NodeResponse::Refused(reason)) => Err(ClusterError::Refused(reason)),
            Ok(other) => Err(ClusterError::Unsure { reason: format!("{other:?}") }),
            Err(reason) => Err(ClusterError::Unsure { reason }),
        }
    }

    /// At the shard's leader: while a worker becomes another or is forgotten, none of its events may be under way.
    async fn change_here(
        &self,
        replica: &Replica,
        shard: ShardId,
        command: &HostCommand,
        deadline: Instant,
    ) -> Result<Bytes, ClusterError> {
        let entry = encode(&[ShardCommand::Host(command.to_bytes())])
            .map_err(|error| ClusterError::Refused(error.to_string()))?;
        let _held = match command {
            HostCommand::Worker(WorkerChange::Register { .. } | WorkerChange::Unregister { .. }) => {
                Some(self.hold_for(command).await)
            }
            HostCommand::Worker(WorkerChange::Publish { .. }) | HostCommand::Directory(_) => None,
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        let (_, answer) = replica.propose_here(shard, entry, remaining).await?;
        Ok(answer)
    }

    async fn hold_for(&self, command: &HostCommand) -> Option<super::steering::Held<'_>> {
        let HostCommand::Worker(change) = command else { return None };
        let known = self.node.known_worker(change.worker())?;
        let unchanged = matches!(
            change,
            WorkerChange::Register { definition, .. } if known.definition == **definition
        );
        if unchanged { None } else { Some(self.steering.hold(change.worker()).await) }
    }

    pub(super) async fn answer_change(
        &self,
        cluster: ClusterId,
        shard: ShardId,
        command: HostCommand,
    ) -> NodeResponse {
        let Some(replica) = self.replica().filter(|replica| replica.identity().cluster == cluster) else {
            return NodeResponse::Refused("this node belongs to another cluster, or to none".into());
        };
        if replica.shard_status(shard).is_none_or(|status| status.role != Role::Leader) {
            return NodeResponse::NotLeader(replica.shard_status(shard).and_then(|status| status.leader));
        }
        let deadline = Instant::now() + self.settings.patience;
        match self.change_here(replica, shard, &command, deadline).await {
            Ok(answer) => NodeResponse::Changed(answer),
            Err(ClusterError::NoLeader { .. }) => NodeResponse::NotLeader(None),
            Err(ClusterError::Unsure { reason }) => NodeResponse::Unsure(reason),
            Err(error) => NodeResponse::Refused(error.to_string()),
        }
    }

    /// Whether the shards would still have a quorum that answers without this node's vote.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn can_lose(&self, node: NodeId) -> Result<(), String> {
        let directory = self.directory();
        let others: Vec<_> = directory.nodes().filter(|(id, known)| known.voter && *id != node).collect();
        let asked = others.iter().map(async |(id, known)| self.is_there(*id, &known.address.peer).await);
        let answering = join_all(asked).await.into_iter().filter(|there| *there).count();
        if answering <= others.len() / 2 {
            return Err(format!("{answering} of {} voters would be left that answer", others.len()));
        }
        self.has_close_voters_without(node)
    }

    /// Whether a node answers, and as itself.
    async fn is_there(&self, node: NodeId, address: &str) -> bool {
        let Some(me) = self.replica().map(|replica| replica.identity()) else { return false };
        if me.node == node {
            return true;
        }
        let answer = self.ask(address, &NodeRequest::Hello(self.greeting()), THERE).await;
        matches!(answer, Ok(NodeResponse::Hello(other)) if other.member == Some((me.cluster, node)))
    }

    /// Whether a quorum of each shard that this node leads has nearly everything.
    fn has_close_voters_without(&self, node: NodeId) -> Result<(), String> {
        for status in self.status() {
            let Some(last) = status.last.filter(|_| status.role == Role::Leader) else { continue };
            let others: Vec<_> =
                status.members.iter().filter(|(id, member)| member.voter && **id != node).collect();
            let me = self.replica().map(|replica| replica.identity().node);
            let close = |(id, member): &&(&NodeId, &kvindex_core::replication::Member)| {
                Some(**id) == me || member.matched.is_some_and(|matched| matched + 1000 >= last)
            };
            let answering = others.iter().filter(close).count();
            if answering <= others.len() / 2 {
                return Err(format!(
                    "{answering} of {} voters would be left that have what {} holds",
                    others.len(),
                    status.shard
                ));
            }
        }
        Ok(())
    }

    /// Asks a shard's leader to hand over to `to`.
    ///
    /// # Errors
    /// When nobody leads, or `to` cannot.
    pub async fn hand_over(&self, shard: ShardId, to: NodeId) -> Result<(), ClusterError> {
        let replica = self.replica().ok_or(ClusterError::NotJoined)?;
        let refused = |text: String| ClusterError::Refused(text);
        let status = replica.shard_status(shard).ok_or_else(|| refused(format!("there is no {shard}")))?;
        if status.members.get(&to).is_none_or(|member| !member.voter) {
            return Err(refused(format!("{to} has no vote in {shard}")));
        }
        let no_leader = || ClusterError::NoLeader { shard, reason: "none is known".into() };
        let leader = status.leader.ok_or_else(no_leader)?;
        if leader == to {
            return Ok(());
        }
        if status.role == Role::Leader {
            return Ok(replica.hand_over(shard, to).await?);
        }
        let address = &status.members.get(&leader).ok_or_else(no_leader)?.address.peer;
        let request = NodeRequest::HandOver { cluster: replica.identity().cluster, shard, to };
        match self.ask(address, &request, self.settings.patience).await {
            Ok(NodeResponse::Done) => Ok(()),
            Ok(other) => Err(refused(format!("{other:?}"))),
            Err(reason) => Err(ClusterError::Unsure { reason }),
        }
    }

    pub(super) async fn answer_hand_over(
        &self,
        cluster: ClusterId,
        shard: ShardId,
        to: NodeId,
    ) -> NodeResponse {
        let Some(replica) = self.replica().filter(|replica| replica.identity().cluster == cluster) else {
            return NodeResponse::Refused("this node belongs to another cluster, or to none".into());
        };
        match replica.hand_over(shard, to).await {
            Ok(()) => NodeResponse::Done,
            Err(error) => NodeResponse::Refused(error.to_string()),
        }
    }
}

fn decoded<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, ClusterError> {
    rmp_serde::from_slice(answer)
        .map_err(|error| ClusterError::Refused(format!("the answer cannot be read: {error}")))
}
