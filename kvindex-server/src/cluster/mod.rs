//! What makes nodes a cluster: finding each other, the directory of nodes, each shard's members, who follows which
//! engine, and changes on their way to the node that may make them.

mod changes;
mod directory;
mod discovery;
mod formation;
mod home;
mod identity;
mod intake;
mod link;
mod link_wire;
mod machine;
mod membership;
mod messages;
mod returning;
mod room;
mod service;
mod settings;
mod steering;
mod streams;
mod transport;
mod warmth;

pub use changes::{ClusterError, PushError, WorkerError};
pub use directory::{Directory, DirectoryAnswer, DirectoryChange, KnownNode};
pub use home::{DataDirectory, Home, HomeError};
pub use identity::{IdentityError, NodeRecord};
pub use link::LinkSettings;
pub use machine::Witness;
pub use messages::HostCommand;
pub use service::{PeerDoor, PeerHandler, serve_peers};
pub use settings::{ClusterSettings, DEFAULT_SHARDS};
pub use streams::{EngineStreams, Streams};
pub use transport::GrpcTransport;

#[cfg(test)]
mod link_test;
#[cfg(test)]
mod transport_test;

use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use kvindex_core::replication::log_store::{Durability, LogStore};
use kvindex_core::replication::{
    ClusterId, NodeId, ReadError, ReadLevel, Replica, ShardId, ShardStatus, StartError, Surroundings,
    Transport,
};
use kvindex_core::{StreamId, WorkerId};

use crate::node::Node;
use machine::NodeMachine;
use steering::Steering;

/// Why a node cannot be part of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// What it keeps cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its shards cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Another process answers for this node.
    #[error(
        "{node} of this cluster already runs at {address}: stop that process, or start this one with an empty \
         data_dir to let it join as a new node"
    )]
    Twice {
        /// Which.
        node: NodeId,
        /// Where the other one is.
        address: String,
    },
    /// Its cluster does not want it any more.
    #[error(
        "{node} was removed from its cluster, says {address}: empty data_dir to let it join as a new node, or take \
         this process out of service"
    )]
    Dismissed {
        /// Which.
        node: NodeId,
        /// Who says so.
        address: String,
    },
    /// What it keeps is of one cluster, whoever answers is of another.
    #[error(
        "data_dir is of cluster {ours}, but {address} belongs to cluster {theirs}: correct cluster_peers, or empty \
         data_dir to let this node join there"
    )]
    OtherCluster {
        /// The node's own.
        ours: ClusterId,
        /// The other.
        theirs: ClusterId,
        /// Who answered.
        address: String,
    },
}

/// What a cluster's node is made of.
#[derive(Debug)]
pub struct Parts {
    /// How it takes part.
    pub settings: ClusterSettings,
    /// The index.
    pub node: Arc<Node>,
    /// What outlives the process.
    pub home: Arc<dyn Home>,
    /// When log entries count as kept.
    pub durability: Durability,
    /// How other nodes are reached.
    pub transport: Arc<dyn Transport>,
    /// The engines' streams.
    pub streams: Arc<dyn Streams>,
    /// Who sees what the logs say before the node does; in service nobody.
    pub witness: Option<Arc<dyn Witness>>,
    /// Drawn anew at every start.
    pub run: u64,
}

/// This node's part in a cluster.
#[derive(Debug)]
pub struct Cluster {
    settings: ClusterSettings,
    node: Arc<Node>,
    home: Arc<dyn Home>,
    durability: Durability,
    transport: Arc<dyn Transport>,
    witness: Option<Arc<dyn Witness>>,
    run: u64,
    /// Held while the node becomes a member.
    forming: tokio::sync::Mutex<()>,
    member: OnceLock<Member>,
    /// Turns true once it is.
    joined: watch::Sender<bool>,
    /// What stands in the way until then.
    obstacle: parking_lot::Mutex<String>,
    /// Held by the one round that makes room.
    making_room: tokio::sync::Mutex<room::Told>,
    steering: Steering,
}

/// Age of what is known from which on a node counts as cut off: several elections fit in.
const CUT_OFF: Duration = Duration::from_secs(3);

/// What the node asks for its trust stamps.
#[derive(Debug)]
struct Stamps(std::sync::Weak<Cluster>);

impl crate::node::Freshness for Stamps {
    fn is_cut_off(&self, stream: &StreamId) -> bool {
        let lag = self.0.upgrade().and_then(|cluster| {
            let replica = cluster.replica()?;
            replica.lag(replica.shard_of(&stream.worker))
        });
        lag.is_none_or(|lag| lag.age.is_none_or(|age| age > CUT_OFF))
    }

    fn hears_engines(&self) -> bool {
        self.0.upgrade().is_none_or(|cluster| cluster.settings.standby)
    }
}

/// Between two looks at whether this node still works.
const LOOK: Duration = Duration::from_millis(250);

/// What there is once the node belongs to a cluster.
#[derive(Debug)]
struct Member {
    replica: Arc<Replica>,
    machine: Arc<NodeMachine>,
    /// With whom this node still has to found the cluster.
    founders: std::collections::BTreeMap<NodeId, KnownNode>,
}

impl JoinError {
    /// Whether what is kept is not what was written: joining anew helps, and nothing else does.
    fn is_damage(&self) -> bool {
        match self {
            Self::Home(HomeError::Log(error)) => error.is_damage(),
            Self::Start(StartError::Damaged(_)) => true,
            _ => false,
        }
    }
}

impl Cluster {
    /// A node that takes no part yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { settings, node, home, durability, transport, streams, witness, run } = parts;
        let (joined, _) = watch::channel(false);
        Arc::new(Self {
            steering: Steering::new(streams, settings.standby),
            settings,
            node,
            home,
            durability,
            transport,
            witness,
            run,
            forming: tokio::sync::Mutex::default(),
            member: OnceLock::new(),
            joined,
            obstacle: parking_lot::Mutex::default(),
            making_room: tokio::sync::Mutex::default(),
        })
    }

    /// Comes back with what is kept of an earlier run, if anything is.
    ///
    /// # Errors
    /// When what is kept cannot be used, or another process answers for this node.
    pub async fn come_back(&self) -> Result<(), JoinError> {
        self.return_if_known().await
    }

    /// Takes part from now on: becomes a member as soon as it can, and does a member's work. The node ends with its
    /// tasks.
    #[must_use]
    pub fn start(self: &Arc<Self>) -> Vec<JoinHandle<()>> {
        self.stamp_answers();
        vec![
            tokio::spawn(formation::run(Arc::clone(self))),
            tokio::spawn(membership::run(Arc::clone(self))),
            tokio::spawn(steering::run(Arc::clone(self))),
            tokio::spawn(room::run(Arc::clone(self))),
            tokio::spawn(Arc::clone(self).keep_log_short()),
        ]
    }

    /// Starts the shards; only one identity is ever accepted.
    async fn enter(&self, record: &NodeRecord) -> Result<(), JoinError> {
        if self.member.get().is_some() {
            return Ok(());
        }
        let identity = record.identity;
        let machine = Arc::new(NodeMachine::new(Arc::clone(&self.node), identity.shards));
        let logs = LogStore::start(self.home.logs()?, self.durability);
        if logs.tail_may_be_gone() && self.goes_on_without_tail(identity).await {
            tracing::warn!(
                "the machine was started anew before the log was flushed, and no cluster went on meanwhile: this node \
                 goes on with what is left, and what was acknowledged last may be gone (durability)"
            );
            logs.accept_tail().map_err(HomeError::from)?;
        }
        let witnessed = match &self.witness {
            Some(witness) => witness.around(Arc::clone(&machine) as _),
            None => Arc::clone(&machine) as _,
        };
        let surroundings = Surroundings {
            logs,
            snapshots: self.home.snapshots()?,
            machine: witnessed,
            transport: Arc::clone(&self.transport),
        };
        let replica = Arc::new(Replica::start(identity, self.settings.pace, surroundings).await?);
        if self.member.set(Member { replica, machine, founders: record.founders.clone() }).is_ok() {
            tracing::info!(cluster = %identity.cluster, node = identity.node.0, shards = identity.shards, "member");
            self.obstacle.lock().clear();
            self.joined.send_replace(true);
        }
        Ok(())
    }

    /// The shards, once this node is a member.
    #[must_use]
    pub fn replica(&self) -> Option<&Arc<Replica>> {
        self.member.get().map(|member| &member.replica)
    }

    /// Everyone who belongs to the cluster, as far as this node knows.
    #[must_use]
    pub fn directory(&self) -> Directory {
        self.member.get().map(|member| member.machine.directory()).unwrap_or_default()
    }

    /// The settings it was started with.
    #[must_use]
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// What stands in the way of membership; empty while this node is a member.
    #[must_use]
    pub fn waits_for(&self) -> String {
        self.obstacle.lock().clone()
    }

    /// Resolves once this node is a member.
    pub async fn until_joined(&self) {
        let mut joined = self.joined.subscribe();
        // The sender lives as long as `self`.
        let _ = joined.wait_for(|joined| *joined).await;
    }

    /// Every shard as this node sees it; empty before it is a member.
    #[must_use]
    pub fn status(&self) -> Vec<ShardStatus> {
        self.replica().map(|replica| replica.status()).unwrap_or_default()
    }

    /// Why a shard stopped by itself, if one did: its log cannot be written, or an entry cannot be applied.
    #[must_use]
    fn stopped(&self) -> Option<String> {
        let why = |status: ShardStatus| Some(format!("{} has stopped: {}", status.shard, status.stopped?));
        self.status().into_iter().find_map(why)
    }

    /// Waits until answers of this node are as fresh as `level` asks for.
    ///
    /// # Errors
    /// When a shard has no leader with a quorum, or this node belongs to no cluster yet.
    pub async fn barrier(&self, level: ReadLevel, timeout: Duration) -> Result<(), ReadError> {
        let replica = self.replica().ok_or_else(stranger)?;
        let shards = (0..replica.identity().shards).map(ShardId);
        replica.barrier(shards, level, timeout).await
    }

    /// Waits until this node has applied every acknowledged change of a worker.
    ///
    /// # Errors
    /// As [`Cluster::barrier`].
    pub async fn barrier_of(&self, worker: &WorkerId, timeout: Duration) -> Result<(), ReadError> {
        let replica = self.replica().ok_or_else(stranger)?;
        replica.barrier([replica.shard_of(worker)], ReadLevel::Linearizable, timeout).await
    }

    /// Answers another node.
    pub async fn handle(self: &Arc<Self>, request: Bytes) -> Bytes {
        if messages::is_node_message(&request) {
            return self.answer_node(&request).await;
        }
        match self.replica() {
            Some(replica) => replica.handle(&request).await,
            None => Replica::refuse_as_stranger(),
        }
    }

    /// Lets the node's answers say how fresh they are.
    fn stamp_answers(self: &Arc<Self>) {
        self.node.belong_to(Box::new(Stamps(Arc::downgrade(self))));
    }

    async fn keep_log_short(self: Arc<Self>) {
        self.until_joined().await;
        if let Some(replica) = self.replica() {
            replica.keep_log_short(self.settings.pace).await;
        }
    }

    /// Streams that fell back to standby want to be led again; called from ingest.
    pub fn fell_back(&self, streams: &[StreamId]) {
        self.steering.fell_back(streams);
    }

    /// Resolves with the reason when this node cannot go on: its log cannot be written, turned out to be
    /// damaged, or a shard has stopped.
    /// It acknowledges nothing any more, and must stop.
    pub async fn until_failed(&self) -> String {
        loop {
            let log = self.replica().and_then(|replica| replica.failure());
            if let Some(failure) = log.or_else(|| self.stopped()) {
                return failure;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Hands leadership to others where they can take it.
    pub async fn hand_over_all(&self) {
        if let Some(replica) = self.replica() {
            membership::hand_over_all(self, replica).await;
        }
    }

    /// Stops the shards. A log that turned out to be damaged is put aside, so that the next start joins anew.
    pub async fn shutdown(&self) {
        let Some(replica) = self.replica() else { return };
        replica.shutdown().await;
        let Some(damage) = replica.damage() else { return };
        match self.home.put_aside() {
            Ok(aside) => {
                tracing::error!(%damage, aside, "this node's data are put aside, the next start joins anew");
            }
            Err(error) => {
                tracing::error!(%damage, %error, "this node's data cannot be put aside: do that by hand");
            }
        }
    }
}

fn stranger() -> ReadError {
    ReadError { shard: ShardId(0), reason: "this node has not joined a cluster yet".into() }
}
