//! One shard on this node: a raft group and what is asked of it.

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use openraft::raft::linearizable_read::{Linearizer, ReadLogId};
use openraft::{ChangeMembers, ReadPolicy, ServerState};
use openraft_rt::deterministic_rng::DeterministicRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

use super::codec;
use super::command::ShardCommand;
use super::envelope::{ClusterId, Envelope};
use super::ids::{NodeAddress, NodeId, ShardId};
use super::incoming::Incoming;
use super::log_store::ShardLog;
use super::machine::{LogPosition, Machine};
use super::network::{Addresses, Network};
use super::progress::{Progress, ShardLag};
use super::raft::{LogId, Payload, Raft};
use super::replica::StartError;
use super::settings::Settings;
use super::snapshot_store::SnapshotStore;
use super::state::ShardState;
use super::status::{Member, Role, ShardStatus, next_change};
use super::transport::Transport;
use super::wire::{Request, Response, WirePosition};

/// How long to wait before an undecided election or a lost lease is looked at again.
const RETRY: Duration = Duration::from_millis(25);

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadLevel {
    /// What this node has applied.
    #[default]
    Local,
    /// Everything acknowledged before, as long as no clock runs faster than another by more than the lease allows.
    Lease,
    /// Everything acknowledged before, whatever clocks do: a quorum confirms the leader.
    Linearizable,
}

/// Why commands were not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing happened: this node does not lead the shard, or has lost its lease.
    #[error("{shard} is not led here{}", .leader.map(|node| format!(", but by {node}")).unwrap_or_default())]
    NotLeader {
        /// Which shard.
        shard: ShardId,
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// It may happen yet, or have happened: leadership changed meanwhile, or no quorum answered in time.
    #[error("{shard}: it is not known whether the change was made: {reason}")]
    Unsure {
        /// Which shard.
        shard: ShardId,
        /// Why.
        reason: String,
    },
    /// Nothing happened, and trying again does not help.
    #[error("{shard}: {reason}")]
    Refused {
        /// Which shard.
        shard: ShardId,
        /// Why.
        reason: String,
    },
}

/// Why a read cannot be as fresh as was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shard} has no leader with a quorum: {reason}")]
pub struct ReadError {
    /// Which shard.
    pub shard: ShardId,
    /// What was found last.
    pub reason: String,
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) shard: ShardId,
    pub(crate) settings: Settings,
    pub(crate) log: ShardLog,
    pub(crate) snapshots: Arc<dyn SnapshotStore>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) transport: Arc<dyn Transport>,
}

/// One shard on this node.
#[derive(Debug)]
pub(crate) struct Shard {
    id: ShardId,
    node: NodeId,
    raft: openraft::Raft<Raft, ShardState>,
    log: ShardLog,
    network: Network,
    progress: Arc<Progress>,
    incoming: Incoming,
}

impl Shard {
    /// Starts it from what is stored.
    pub(crate) async fn start(parts: Parts) -> Result<Self, StartError> {
        let Parts { cluster, node, shard, settings, log, snapshots, machine, transport } = parts;
        let progress = Arc::new(Progress::default());
        let addresses = Addresses::default();
        let state =
            ShardState::open(shard, machine, snapshots, Arc::clone(&progress), addresses.clone()).await?;
        let envelope = Envelope { cluster, from: node, shard };
        let network = Network::new(envelope, transport, addresses);
        let config = Arc::new(settings.raft_config(shard).map_err(StartError::Other)?);
        let raft = openraft::Raft::new(node, config, network.clone(), log.clone(), state);
        let raft = DeterministicRng::<openraft::TokioRuntime>::scope(settings.seed_of(shard), raft);
        let raft = raft.await.map_err(|error| StartError::Other(format!("{shard}: {error}")))?;
        Ok(Self { id: shard, node, raft, log, network, progress, incoming: Incoming::default() })
    }

    /// Founds the shard with these voters. Doing it again changes nothing.
    pub(crate) async fn found(&self, voters: BTreeMap<NodeId, NodeAddress>) -> Result<(), String> {
        match self.raft.initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(format!("{}: {error}", self.id)),
        }
    }

    /// Applies commands if this node leads; answers where they are and what the machine answered.
    pub(crate) async fn propose_here(
        &self,
        entry: Bytes,
        deadline: Instant,
    ) -> Result<(LogPosition, Bytes), ProposeError> {
        let shard = self.id;
        let unsure = |reason: String| ProposeError::Unsure { shard, reason };
        let written = timeout_at(deadline, self.raft.client_write(Payload(entry))).await;
        match written.map_err(|_| unsure("no quorum answered in time".into()))? {
            Ok(response) => Ok((position(response.log_id), response.data.0)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { shard, leader: self.other(&forward) })
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(unsure("another node leads now".into()))
            }
            Err(error @ RaftError::APIError(_)) => {
                Err(ProposeError::Refused { shard, reason: error.to_string() })
            }
            Err(RaftError::Fatal(fatal)) => Err(unsure(fatal.to_string())),
        }
    }

    /// Applies commands, through whichever node leads, until `deadline`.
    pub(crate) async fn propose(
        &self,
        commands: &[ShardCommand],
        deadline: Instant,
    ) -> Result<(LogPosition, Bytes), ProposeError> {
        let shard = self.id;
        let entry = codec::encode(commands)
            .map_err(|error| ProposeError::Refused { shard, reason: error.to_string() })?;
        loop {
            let failed = match self.propose_here(entry.clone(), deadline).await {
                Err(ProposeError::NotLeader { leader, .. }) => {
                    match self.forward(leader, &entry, deadline).await {
                        Err(error @ ProposeError::NotLeader { .. }) => error,
                        settled => return settled,
                    }
                }
                settled => return settled,
            };
            if Instant::now() + RETRY >= deadline {
                return Err(failed);
            }
            sleep(RETRY).await;
        }
    }

    async fn forward(
        &self,
        leader: Option<NodeId>,
        entry: &Bytes,
        deadline: Instant,
    ) -> Result<(LogPosition, Bytes), ProposeError> {
        let shard = self.id;
        let not_led = ProposeError::NotLeader { shard, leader };
        let Some((leader, address)) = leader.and_then(|id| Some((id, self.address_of(id)?))) else {
            return Err(not_led);
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        let link = self.network.to(leader, &address);
        match link.call(&Request::Propose(entry.clone()), remaining).await {
            Ok(Response::Proposed(at, answer)) => Ok((position(at.into()), answer)),
            Ok(Response::NotLeader(_)) => Err(not_led),
            Ok(Response::Failed(reason)) => Err(ProposeError::Refused { shard, reason }),
            Ok(Response::Unsure(reason)) => Err(ProposeError::Unsure { shard, reason }),
            Ok(_) => Err(ProposeError::Unsure { shard, reason: "an answer of another kind came".into() }),
            Err(error) => Err(ProposeError::Unsure { shard, reason: error.to_string() }),
        }
    }

    /// Waits until this node has applied what `level` asks for.
    pub(crate) async fn barrier(&self, level: ReadLevel, deadline: Instant) -> Result<(), ReadError> {
        if level == ReadLevel::Local {
            return Ok(());
        }
        loop {
            let reason = match timeout_at(deadline, self.try_barrier(level)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(reason)) => reason,
                Err(_) => return Err(ReadError { shard: self.id, reason: "no answer in time".into() }),
            };
            if Instant::now() + RETRY >= deadline {
                return Err(ReadError { shard: self.id, reason });
            }
            sleep(RETRY).await;
        }
    }

    async fn try_barrier(&self, level: ReadLevel) -> Result<(), String> {
        let at = match self.read_position(level).await {
            Ok(at) => at,
            Err(Response::NotLeader(Some(leader))) => {
                let address = self.address_of(leader).ok_or("the leader's address is not known")?;
                let request = Request::ReadPosition { lease: level == ReadLevel::Lease };
                let answer = self.network.to(leader, &address).call(&request, Duration::from_secs(1)).await;
                match answer.map_err(|error| error.to_string())? {
                    Response::ReadPosition(at) => at,
                    _ => return Err("the leader has changed".into()),
                }
            }
            Err(Response::Failed(reason)) => return Err(reason),
            Err(_) => return Err("no leader is known".into()),
        };
        let log_id = ReadLogId::from_log_id(at.into());
        let linearizer = Linearizer::<Raft>::new(self.node, log_id, None);
        linearizer.await_ready(&self.raft).await.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn read_position(&self, level: ReadLevel) -> Result<WirePosition, Response> {
        let policy = if level == ReadLevel::Lease { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
        match self.raft.get_read_linearizer(policy).await {
            Ok(linearizer) => Ok((*linearizer.read_log_id().log_id()).into()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(Response::NotLeader(self.other(&forward)))
            }
            Err(error) => Err(Response::Failed(error.to_string())),
        }
    }

    /// The leader that an error names, unless that is this very node, which just said that it cannot.
    fn other(&self, forward: &ForwardToLeader<Raft>) -> Option<NodeId> {
        forward.leader_id.filter(|leader| *leader != self.node)
    }

    fn address_of(&self, node: NodeId) -> Option<NodeAddress> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&node).cloned()
    }

    /// Answers another node.
    pub(crate) async fn answer(&self, from: NodeId, request: Request) -> Response {
        match request {
            Request::Append { .. } | Request::Vote { .. } | Request::Transfer { .. } => {
                super::serving::raft(&self.raft, &self.progress, request).await
            }
            Request::Snapshot { vote, transfer, offset, total, part } => {
                match self.incoming.take(from, transfer, offset, total, &part) {
                    Err(()) => Response::SnapshotLost,
                    Ok(None) => Response::SnapshotTaken(None),
                    Ok(Some(bytes)) => super::serving::snapshot(&self.raft, self.id, vote, bytes).await,
                }
            }
            Request::ReadPosition { lease } => {
                let level = if lease { ReadLevel::Lease } else { ReadLevel::Linearizable };
                self.read_position(level).await.map_or_else(|failed| failed, Response::ReadPosition)
            }
            Request::WentBack { had } => {
                self.log.went_back(from, had.into());
                Response::Noted
            }
            Request::Propose(entry) => {
                match self.propose_here(entry, Instant::now() + Duration::from_secs(10)).await {
                    Ok((at, answer)) => Response::Proposed(wire(at), answer),
                    Err(ProposeError::NotLeader { leader, .. }) => Response::NotLeader(leader),
                    Err(ProposeError::Unsure { reason, .. }) => Response::Unsure(reason),
                    Err(ProposeError::Refused { reason, .. }) => Response::Failed(reason),
                }
            }
        }
    }

    /// How far this node is: what every answer asks, so it copies nothing.
    pub(crate) fn lag(&self) -> ShardLag {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        self.progress.lag(quorum_heard(&metrics))
    }

    /// As this node sees it.
    pub(crate) fn status(&self) -> ShardStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = &metrics.membership_config;
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let matched = |node: &NodeId| metrics.replication.as_ref()?.get(node)?.map(|at| at.index);
        let member = |(id, address): (&NodeId, &NodeAddress)| {
            let member =
                Member { address: address.clone(), voter: voters.contains(id), matched: matched(id) };
            (*id, member)
        };
        ShardStatus {
            shard: self.id,
            role: role(metrics.state),
            leader: metrics.current_leader,
            term: metrics.current_term,
            lag: self.progress.lag(quorum_heard(&metrics)),
            last: metrics.last_log_index,
            snapshot: metrics.snapshot.map(|at| at.index),
            members: membership.nodes().map(member).collect(),
            changing: membership.get_joint_config().len() > 1,
            stopped: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Resolves when leadership, term or members have changed after the call, and [`status`](Self::status) says so.
    pub(crate) fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        next_change(&self.raft)
    }

    /// Changes members; with `keep`, who loses its vote goes on following. Only the leader can; it answers once a
    /// quorum of the new members has the change.
    pub(crate) async fn change(
        &self,
        change: ChangeMembers<NodeId, NodeAddress>,
        keep: bool,
    ) -> Result<(), ProposeError> {
        let shard = self.id;
        match self.raft.change_membership(change, keep).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { shard, leader: self.other(&forward) })
            }
            Err(error @ RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Err(ProposeError::Unsure { shard, reason: error.to_string() })
            }
            Err(error) => Err(ProposeError::Refused { shard, reason: error.to_string() }),
        }
    }

    /// Hands leadership to another voter, which takes it once it has everything.
    pub(crate) async fn hand_over(&self, to: NodeId) -> Result<(), String> {
        self.raft.trigger().transfer_leader(to).await.map_err(|error| error.to_string())
    }

    /// Takes a snapshot soon, and then lets go of the log before it.
    pub(crate) async fn snapshot(&self) -> Result<(), String> {
        self.raft.trigger().snapshot().await.map_err(|error| error.to_string())
    }

    /// Bytes of log that are kept.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.log_bytes()
    }

    pub(crate) async fn shutdown(&self) {
        // An error says that it had stopped before.
        let _ = self.raft.shutdown().await;
    }
}

/// For a leader, how long ago a quorum last took it for one: what it applied is all there was then. An old leader
/// that is cut off still thinks that it leads.
fn quorum_heard(metrics: &openraft::RaftMetrics<Raft>) -> Option<Duration> {
    // Before an entry of its own term is applied, a leader does not know what earlier leaders have committed.
    let applied = metrics.last_applied.map(|at| at.leader_id.term);
    if metrics.state != ServerState::Leader || applied != Some(metrics.current_term) {
        return None;
    }
    let alone = metrics.membership_config.voter_ids().count() == 1;
    let acked = metrics.last_quorum_acked.map(|at| openraft::Instant::elapsed(&*at));
    if alone { Some(Duration::ZERO) } else { acked }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn position(id: LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

fn wire(at: LogPosition) -> WirePosition {
    LogId::new_term_index(at.term, at.index).into()
}
