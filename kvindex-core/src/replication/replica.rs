//! A node's part in a cluster: all its shards, behind one door.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{join_all, select_all};
use openraft::ChangeMembers;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use super::command::ShardCommand;
use super::counters::{LogCounters, ProposalCounters};
use super::envelope::{ClusterId, Envelope, Refusal};
use super::ids::{NodeAddress, NodeId, ShardId};
use super::log_store::{LogError, LogStore};
use super::machine::{LogPosition, Machine};
use super::placement::shard_of;
use super::progress::ShardLag;
use super::settings::Settings;
use super::shard::{Parts, ProposeError, ReadError, ReadLevel, Shard};
use super::snapshot_store::SnapshotStore;
use super::status::ShardStatus;
use super::transport::Transport;
use crate::ids::WorkerId;

/// How long the same refusal is told once.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// Who a node is, and how its shards pace themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster that its data belong to.
    pub cluster: ClusterId,
    /// Its own id.
    pub node: NodeId,
    /// How many shards the cluster has.
    pub shards: u16,
}

/// What a replica works with.
#[derive(Debug)]
pub struct Surroundings {
    /// Where logs and votes are kept.
    pub logs: LogStore,
    /// Where snapshots are.
    pub snapshots: Arc<dyn SnapshotStore>,
    /// What entries are applied to.
    pub machine: Arc<dyn Machine>,
    /// How other nodes are reached.
    pub transport: Arc<dyn Transport>,
}

/// A replica that cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// What is kept is not what was written, or its end may be missing. Nothing mends that: the node has to join anew,
    /// under a new id.
    #[error("{0}")]
    Damaged(String),
    /// Anything else; it may pass.
    #[error("{0}")]
    Other(String),
}

impl From<LogError> for StartError {
    fn from(error: LogError) -> Self {
        if error.is_damage() { Self::Damaged(error.to_string()) } else { Self::Other(error.to_string()) }
    }
}

/// A node's part in a cluster.
#[derive(Debug)]
pub struct Replica {
    identity: Identity,
    shards: Vec<Arc<Shard>>,
    logs: LogStore,
    proposals: ProposalCounters,
    /// The last refusal that the log of events names, and when.
    told: parking_lot::Mutex<Option<(Refusal, Instant)>>,
}

impl Replica {
    /// Starts every shard from what is stored of it.
    ///
    /// # Errors
    /// When a log or snapshot cannot be read or used, or the settings make no sense.
    pub async fn start(
        identity: Identity,
        settings: Settings,
        surroundings: Surroundings,
    ) -> Result<Self, StartError> {
        let shards = Vec::with_capacity(usize::from(identity.shards));
        let mut replica = Self {
            identity,
            shards,
            logs: surroundings.logs.clone(),
            proposals: ProposalCounters::default(),
            told: Default::default(),
        };
        match replica.start_shards(settings, surroundings).await {
            Ok(()) => Ok(replica),
            Err(error) => {
                // Nothing may write to the files any more when somebody puts them aside.
                replica.shutdown().await;
                Err(error)
            }
        }
    }

    async fn start_shards(
        &mut self,
        settings: Settings,
        surroundings: Surroundings,
    ) -> Result<(), StartError> {
        let Surroundings { logs, snapshots, machine, transport } = surroundings;
        if logs.tail_may_be_gone() {
            let why = "the machine was started anew before the log was flushed (durability): its end may be missing, \
                       and the cluster went on meanwhile";
            return Err(StartError::Damaged(why.into()));
        }
        for shard in (0..self.identity.shards).map(ShardId) {
            let parts = Parts {
                cluster: self.identity.cluster,
                node: self.identity.node,
                shard,
                settings,
                log: logs.shard_log(shard).await?,
                snapshots: Arc::clone(&snapshots),
                machine: Arc::clone(&machine),
                transport: Arc::clone(&transport),
            };
            // What openraft says of a damaged log does not say that it is damaged.
            let started = Shard::start(parts).await.map_err(|error| match logs.failure() {
                Some(failure) => failure.into(),
                None => error,
            });
            self.shards.push(Arc::new(started?));
        }
        Ok(())
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The shard of a worker.
    #[must_use]
    pub fn shard_of(&self, worker: &WorkerId) -> ShardId {
        shard_of(worker, self.identity.shards)
    }

    fn shard(&self, shard: ShardId) -> Result<&Arc<Shard>, ProposeError> {
        let no_such = || ProposeError::Refused { shard, reason: "there is no such shard".into() };
        self.shards.get(usize::from(shard.0)).ok_or_else(no_such)
    }

    /// Founds the cluster with these voters, this node among them. Doing it again changes nothing.
    ///
    /// # Errors
    /// When a shard cannot be founded; the others may be.
    pub async fn found(&self, voters: &BTreeMap<NodeId, NodeAddress>) -> Result<(), StartError> {
        for shard in &self.shards {
            shard.found(voters.clone()).await.map_err(StartError::Other)?;
        }
        Ok(())
    }

    /// Applies an encoded entry (see [`encode`](super::encode)) if this node leads the shard. Answers where it is in
    /// the log and what the machine answered.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_here(
        &self,
        shard: ShardId,
        entry: Bytes,
        timeout: Duration,
    ) -> Result<(LogPosition, Bytes), ProposeError> {
        let started = Instant::now();
        let proposed = self.shard(shard)?.propose_here(entry, started + timeout).await;
        self.proposals.ended(proposed.is_ok(), started.elapsed());
        proposed
    }

    /// What became of the entries that this node proposed.
    #[must_use]
    pub fn proposals(&self) -> &ProposalCounters {
        &self.proposals
    }

    /// What its log has written.
    #[must_use]
    pub fn log_counters(&self) -> &LogCounters {
        self.logs.counters()
    }

    /// Applies commands through whichever node leads the shard, waiting for one if there is none.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(
        &self,
        shard: ShardId,
        commands: &[ShardCommand],
        timeout: Duration,
    ) -> Result<(LogPosition, Bytes), ProposeError> {
        self.shard(shard)?.propose(commands, Instant::now() + timeout).await
    }

    /// Waits until this node's answers on `shards` are as fresh as `level` asks for.
    ///
    /// # Errors
    /// When a shard has no leader with a quorum until the time is over.
    pub async fn barrier(
        &self,
        shards: impl IntoIterator<Item = ShardId>,
        level: ReadLevel,
        timeout: Duration,
    ) -> Result<(), ReadError> {
        let deadline = Instant::now() + timeout;
        let asked: BTreeSet<ShardId> = shards.into_iter().collect();
        let shards = asked.iter().filter_map(|shard| self.shards.get(usize::from(shard.0)));
        join_all(shards.map(|shard| shard.barrier(level, deadline))).await.into_iter().collect()
    }

    /// Answers another node's request.
    pub async fn handle(&self, request: &[u8]) -> Bytes {
        let Identity { cluster, node, shards } = self.identity;
        let answer = match Envelope::open(cluster, node, shards, request) {
            Ok(opened) => match self.shards.get(usize::from(opened.shard.0)) {
                Some(shard) => Ok(shard.answer(opened.from, opened.request).await),
                None => Err(Refusal::NoShard { shards, asked: opened.shard }),
            },
            Err(refusal) => {
                self.tell(&refusal);
                Err(refusal)
            }
        };
        Envelope::answer(&answer)
    }

    /// Says that a message was refused, but not every time: whoever is wrong about this node asks many times a second.
    fn tell(&self, refusal: &Refusal) {
        let mut told = self.told.lock();
        let known = |(what, when): &(Refusal, Instant)| what == refusal && when.elapsed() < TELL_AGAIN;
        if !told.as_ref().is_some_and(known) {
            tracing::warn!(%refusal, "a peer's message was refused");
            *told = Some((refusal.clone(), Instant::now()));
        }
    }

    /// What a node answers that is no member yet.
    #[must_use]
    pub fn refuse_as_stranger() -> Bytes {
        Envelope::answer(&Err(Refusal::NoMember))
    }

    /// Every shard as this node sees it.
    #[must_use]
    pub fn status(&self) -> Vec<ShardStatus> {
        self.shards.iter().map(|shard| shard.status()).collect()
    }

    /// How far this node is with every shard, shard 0 first.
    pub fn lags(&self) -> impl Iterator<Item = ShardLag> + '_ {
        self.shards.iter().map(|shard| shard.lag())
    }

    /// How far this node is with one shard; `None` when there is no such shard.
    #[must_use]
    pub fn lag(&self, shard: ShardId) -> Option<ShardLag> {
        self.shards.get(usize::from(shard.0)).map(|shard| shard.lag())
    }

    /// One shard as this node sees it; `None` when there is no such shard.
    #[must_use]
    pub fn shard_status(&self, shard: ShardId) -> Option<ShardStatus> {
        self.shards.get(usize::from(shard.0)).map(|shard| shard.status())
    }

    /// Why this node cannot go on, if it cannot: its log failed, or one of its shards stopped by itself.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let log = self.logs.failure().map(|error| error.to_string());
        log.or_else(|| {
            let mut shards = self.status().into_iter();
            shards.find_map(|status| Some(format!("{} stopped: {}", status.shard, status.stopped?)))
        })
    }

    /// What of the log is not what was written, if that was found while it was read.
    #[must_use]
    pub fn damage(&self) -> Option<LogError> {
        self.logs.failure().filter(LogError::is_damage)
    }

    /// Resolves when leadership, term or members of a shard have changed after the call.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<> {
        select_all(self.shards.iter().map(|shard| shard.watch().boxed())).map(|_| ())
    }

    /// Adds a node without a vote, or corrects its address. Only a shard's leader can.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn add(&self, shard: ShardId, node: NodeId, address: NodeAddress) -> Result<(), ProposeError> {
        let nodes = BTreeMap::from([(node, address)]);
        let known = self.shard_status(shard).is_some_and(|status| status.members.contains_key(&node));
        // Replacing an address is safe because an id is of one node only, for as long as its data live.
        let change = if known { ChangeMembers::SetNodes(nodes) } else { ChangeMembers::AddNodes(nodes) };
        self.shard(shard)?.change(change, false).await
    }

    /// Gives a node that was added a vote. Only a shard's leader can.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn promote(&self, shard: ShardId, node: NodeId) -> Result<(), ProposeError> {
        self.shard(shard)?.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), false).await
    }

    /// Finishes a change of voters that an earlier leader began: until then two sets of them decide together, and no
    /// other change is taken. Only a shard's leader can.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn finish_change(&self, shard: ShardId) -> Result<(), ProposeError> {
        self.shard(shard)?.change(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await
    }

    /// Takes a node's vote away; it goes on following. Only a shard's leader can.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn demote(&self, shard: ShardId, node: NodeId) -> Result<(), ProposeError> {
        self.shard(shard)?.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), true).await
    }

    /// Removes a node, its vote first. Only a shard's leader can.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn remove(&self, shard: ShardId, node: NodeId) -> Result<(), ProposeError> {
        let status = self.shard_status(shard);
        let member = status.as_ref().and_then(|status| status.members.get(&node));
        match member.map(|member| member.voter) {
            None => Ok(()),
            Some(true) => {
                self.shard(shard)?.change(ChangeMembers::RemoveVoters(BTreeSet::from([node])), false).await
            }
            Some(false) => {
                self.shard(shard)?.change(ChangeMembers::RemoveNodes(BTreeSet::from([node])), false).await
            }
        }
    }

    /// Asks the shard's leader, if that is this node, to hand over to another voter.
    ///
    /// # Errors
    /// When `to` is not another voter, there is no such shard, or it has stopped.
    pub async fn hand_over(&self, shard: ShardId, to: NodeId) -> Result<(), ProposeError> {
        let members = self.shard_status(shard).map(|status| status.members).unwrap_or_default();
        // A leader that waits for somebody who cannot follow it takes no writes meanwhile, alone for ever.
        if to == self.identity.node || !members.get(&to).is_some_and(|member| member.voter) {
            return Err(ProposeError::Refused { shard, reason: format!("{to} is no other voter of it") });
        }
        let handed = self.shard(shard)?.hand_over(to).await;
        handed.map_err(|reason| ProposeError::Refused { shard, reason })
    }

    /// Takes a snapshot of a shard soon.
    ///
    /// # Errors
    /// When there is no such shard, or it has stopped.
    pub async fn snapshot(&self, shard: ShardId) -> Result<(), ProposeError> {
        let taken = self.shard(shard)?.snapshot().await;
        taken.map_err(|reason| ProposeError::Refused { shard, reason })
    }

    /// Takes snapshots as the log grows, until the future is dropped.
    pub async fn keep_log_short(&self, settings: Settings) {
        // What was left after the last snapshot: the entries that are kept behind it may be many bytes.
        let mut left = vec![0; self.shards.len()];
        loop {
            sleep(Duration::from_secs(1)).await;
            for (shard, left) in self.shards.iter().zip(&mut left) {
                let bytes = shard.log_bytes();
                *left = bytes.min(*left);
                if bytes - *left > settings.snapshot_after {
                    *left = bytes;
                    // An error says that the shard has stopped, which its status tells as well.
                    let _ = shard.snapshot().await;
                }
            }
        }
    }

    /// Stops every shard and closes the log.
    pub async fn shutdown(&self) {
        for shard in &self.shards {
            shard.shutdown().await;
        }
        if let Err(error) = self.logs.close().await {
            tracing::error!(%error, "the log was not closed");
        }
    }
}
