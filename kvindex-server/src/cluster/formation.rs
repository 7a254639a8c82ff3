//! Becoming a member: founding a cluster with others that have no data either, or joining one.
//!
//! Nodes without data greet everyone on their list. Who meets a member asks it for an id. Where nobody is a member
//! and enough nodes want the same cluster, the one with the lowest address founds it: it draws an id for it, writes
//! the plan down, has each of the others write it down, and only then starts the shards' first election. A crash in
//! between leaves a plan that the founder takes up again.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kvindex_core::replication::{ClusterId, Identity, NodeAddress, NodeId, ReadLevel, Replica, ShardId};

use super::changes::ClusterError;
use super::directory::{DirectoryAnswer, DirectoryChange, KnownNode};
use super::messages::{self, Greeting, NodeRequest, NodeResponse, Plan};
use super::{Cluster, DEFAULT_SHARDS, JoinError, NodeRecord, discovery};

/// Between two looks around.
pub(super) const PAUSE: Duration = Duration::from_millis(300);
/// How long a greeting may take.
const GREETING: Duration = Duration::from_secs(1);
/// Between two looks at whether this node still belongs to the cluster.
const STAYING: Duration = Duration::from_secs(1);
/// How long a node waits for the latest directory before it tells its address although that may be known.
const FRESH: Duration = Duration::from_secs(2);
/// How often the same obstacle is told.
const TELL_EVERY: u32 = 30;

/// Until the node is a member, and what a founder has to finish.
pub(super) async fn run(cluster: Arc<Cluster>) {
    let mut rounds = 0u32;
    while cluster.replica().is_none() {
        if let Err(obstacle) = cluster.look_around().await {
            rounds += 1;
            if cluster.tell(&obstacle) || rounds.is_multiple_of(TELL_EVERY) {
                tracing::info!(%obstacle, "not a member of a cluster yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    cluster.finish_founding().await;
    cluster.tell_address().await;
    cluster.stay().await;
}

/// Who answered on the list.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// By their runs: where they are and what they said.
    pub(super) greetings: BTreeMap<u64, (String, Greeting)>,
    /// Who says that this node was removed.
    pub(super) dismissed_by: Option<String>,
    /// Why the others gave no answer.
    pub(super) silent: Vec<String>,
}

impl Cluster {
    /// Notes what stands in the way; answers whether that is new. A member has nothing in its way.
    fn tell(&self, obstacle: &str) -> bool {
        let mut told = self.obstacle.lock();
        if self.replica().is_some() || *told == obstacle {
            return false;
        }
        obstacle.clone_into(&mut told);
        true
    }

    pub(super) fn greeting(&self) -> Greeting {
        let identity = self.replica().map(|replica| replica.identity());
        Greeting {
            member: identity.map(|identity| (identity.cluster, identity.node)),
            address: self.settings.address.clone(),
            run: self.run,
            shards: identity
                .map_or(self.settings.shards.unwrap_or(DEFAULT_SHARDS), |identity| identity.shards),
            size: self.settings.size,
            led: self.replica().is_some_and(|replica| {
                let known = |age: Option<Duration>| age.is_some_and(|age| age <= super::CUT_OFF);
                replica.lags().all(|lag| known(lag.age))
            }),
        }
    }

    pub(super) async fn ask(
        &self,
        address: &str,
        request: &NodeRequest,
        timeout: Duration,
    ) -> Result<NodeResponse, String> {
        let answer = self.transport.call(address, messages::write(request), timeout).await;
        messages::read(&answer.map_err(|error| error.to_string())?)
    }

    /// Everyone on the list who answers, but not this very process.
    pub(super) async fn greet(&self, as_whom: Greeting) -> Heard {
        let addresses = discovery::addresses(&self.settings.peers).await;
        let request = NodeRequest::Hello(as_whom);
        let asked =
            addresses.iter().map(async |address| (address, self.ask(address, &request, GREETING).await));
        let mut heard = Heard::default();
        for (address, answer) in futures_util::future::join_all(asked).await {
            match answer {
                Ok(NodeResponse::Hello(greeting)) if greeting.run != self.run => {
                    heard.greetings.insert(greeting.run, (address.clone(), greeting));
                }
                Ok(NodeResponse::Hello(_)) => {}
                Ok(NodeResponse::Dismissed) => heard.dismissed_by = Some(address.clone()),
                Ok(other) => heard.silent.push(format!("{address}: {other:?}")),
                Err(reason) => heard.silent.push(reason),
            }
        }
        heard
    }

    /// One round of a node without data. An error says what it waits for.
    async fn look_around(&self) -> Result<(), String> {
        let Heard { greetings, silent, .. } = self.greet(self.greeting()).await;
        let members: Vec<_> = (greetings.values())
            .filter_map(|(at, greeting)| Some((at, greeting.member?.0, greeting.shards)))
            .collect();
        if let Some((first, cluster, shards)) = members.first() {
            if let Some((second, other, _)) = members.iter().find(|(_, other, _)| other != cluster) {
                return Err(format!(
                    "{first} belongs to cluster {cluster} and {second} to {other}: remove one of them from cluster_peers"
                ));
            }
            // Before it is given an id.
            self.check_shards(*shards)?;
            return self.join(first).await;
        }
        self.found(greetings, &silent).await
    }

    async fn join(&self, address: &str) -> Result<(), String> {
        let request = NodeRequest::Join { address: self.settings.address.clone(), nonce: self.run };
        let answer = self.ask(address, &request, self.settings.patience).await?;
        let NodeResponse::Joined { cluster, node, shards } = answer else {
            return Err(format!("{address} does not let this node join: {answer:?}"));
        };
        self.check_shards(shards)?;
        let identity = Identity { cluster, node, shards };
        self.settle(NodeRecord { identity, founders: BTreeMap::new() }).await
    }

    fn check_shards(&self, shards: u16) -> Result<(), String> {
        match self.settings.shards.filter(|configured| *configured != shards) {
            None => Ok(()),
            Some(configured) => Err(format!(
                "the cluster has {shards} shards, the configuration asks for {configured} (cluster_shards): a \
                 cluster's shard count never changes; set it to {shards}"
            )),
        }
    }

    /// Writes down who this node is and starts its shards.
    async fn settle(&self, record: NodeRecord) -> Result<(), String> {
        let _one_at_a_time = self.forming.lock().await;
        if self.replica().is_some() {
            return Ok(());
        }
        self.home.keep(&record).map_err(|error| error.to_string())?;
        self.enter(&record).await.map_err(|error| error.to_string())
    }

    async fn found(&self, heard: BTreeMap<u64, (String, Greeting)>, silent: &[String]) -> Result<(), String> {
        let own = self.greeting();
        let mut greetings: Vec<Greeting> = heard.into_values().map(|(_, greeting)| greeting).collect();
        for other in &greetings {
            if (other.shards, other.size) != (own.shards, own.size) {
                return Err(format!(
                    "{} is to be in a cluster of {} with {} shards, this node in one of {} with {}: set \
                     cluster_size and cluster_shards alike",
                    other.address, other.size, other.shards, own.size, own.shards
                ));
            }
        }
        greetings.push(own.clone());
        greetings.sort_by(|a, b| a.address.peer.cmp(&b.address.peer));
        greetings.dedup_by(|a, b| a.address.peer == b.address.peer);
        let size = usize::from(own.size);
        if greetings.len() < size {
            let silent = if silent.is_empty() { String::new() } else { format!(" ({})", silent.join("; ")) };
            return Err(format!("{} of {size} nodes found each other{silent}", greetings.len()));
        }
        if greetings[0].run != self.run {
            return Err(format!("{} is to found the cluster", greetings[0].address));
        }
        let founder = |(id, greeting): (u64, &Greeting)| {
            let known = KnownNode { address: greeting.address.clone(), nonce: greeting.run, voter: true };
            (NodeId(id), known)
        };
        let founders = (1..).zip(greetings.iter().take(size)).map(founder).collect();
        let cluster = ClusterId(u128::from(self.run) << 64 | u128::from(fingerprint(&founders)));
        let identity = Identity { cluster, node: NodeId(1), shards: own.shards };
        self.settle(NodeRecord { identity, founders }).await
    }

    /// What is left to do for the node that founds the cluster: everyone needs the plan, then the shards hold their
    /// first election, then the directory is written.
    async fn finish_founding(&self) {
        let Some(member) = self.member.get().filter(|member| !member.founders.is_empty()) else { return };
        let identity = member.replica.identity();
        let nodes = member.founders.clone();
        let plan = Plan { cluster: identity.cluster, shards: identity.shards, nodes: nodes.clone() };
        for (_, founder) in nodes.iter().filter(|(id, _)| **id != identity.node) {
            let address = &founder.address.peer;
            while !matches!(
                self.ask(address, &NodeRequest::Found(plan.clone()), GREETING).await,
                Ok(NodeResponse::Founding)
            ) {
                tracing::debug!(address, "the cluster's founding waits for this node");
                tokio::time::sleep(PAUSE).await;
            }
        }
        let voters = nodes.iter().map(|(id, known)| (*id, known.address.clone())).collect();
        while let Err(error) = member.replica.found(&voters).await {
            tracing::warn!(%error, "the cluster is not founded yet");
            tokio::time::sleep(PAUSE).await;
        }
        let change = DirectoryChange::Found { nodes, size: self.settings.size };
        while let Err(error) = self.change_directory(change.clone()).await {
            tracing::debug!(%error, "the directory is not written yet");
            tokio::time::sleep(PAUSE).await;
        }
        let record = NodeRecord { identity, founders: BTreeMap::new() };
        if let Err(error) = self.home.keep(&record) {
            tracing::warn!(%error, "the founding will be looked at again at the next start");
        }
        tracing::info!(cluster = %identity.cluster, "cluster founded");
    }

    /// Sees to it that the others know where this node is.
    async fn tell_address(&self) {
        let Some(member) = self.member.get() else { return };
        let node = member.replica.identity().node;
        let address = self.settings.address.clone();
        loop {
            let known = member.machine.directory().get(node).map(|known| known.address.clone());
            match known {
                // A directory that is behind may be of the time before the node's last move.
                Some(known) if known == address && self.directory_is_fresh(&member.replica).await => return,
                Some(_) => {
                    let change = DirectoryChange::Move { node, address: address.clone() };
                    // What went wrong is tried again, as long as it takes.
                    if self.change_directory(change).await.is_ok() {
                        return;
                    }
                }
                None if member.machine.directory().dismissed(node) => return,
                None => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn directory_is_fresh(&self, replica: &Replica) -> bool {
        replica.barrier([ShardId(0)], ReadLevel::Linearizable, FRESH).await.is_ok()
    }

    /// Until this node is removed from the cluster, which it then says of itself.
    async fn stay(&self) {
        let Some(member) = self.member.get() else { return };
        let node = member.replica.identity().node;
        loop {
            tokio::time::sleep(STAYING).await;
            let led = member.replica.status().iter().all(|shard| shard.leader.is_some());
            // Who is removed while it is away does not learn of it from the log.
            let by = if member.machine.directory().dismissed(node) {
                Some("the cluster's directory".to_owned())
            } else if led {
                None
            } else {
                self.greet(self.greeting()).await.dismissed_by
            };
            if let Some(address) = by {
                let removed = JoinError::Dismissed { node, address }.to_string();
                tracing::warn!(%removed, "not ready any more");
                *self.obstacle.lock() = removed;
                return;
            }
        }
    }

    /// Answers what another node asks of this one.
    pub(super) async fn answer_node(self: &Arc<Self>, request: &[u8]) -> Bytes {
        let answer = match messages::read(request) {
            Ok(NodeRequest::Hello(other)) => self.answer_hello(&other),
            Ok(NodeRequest::Found(plan)) => self.take_part(&plan).await,
            Ok(NodeRequest::Join { address, nonce }) => self.admit(address, nonce).await,
            Ok(NodeRequest::Change { cluster, shard, command }) => {
                self.answer_change(cluster, shard, command).await
            }
            Ok(NodeRequest::HandOver { cluster, shard, to }) => {
                self.answer_hand_over(cluster, shard, to).await
            }
            Ok(NodeRequest::Warm { cluster, shard }) => self.answer_warm(cluster, shard),
            Ok(NodeRequest::MakeRoom { cluster, node, keep }) => {
                self.answer_make_room(cluster, node, keep).await
            }
            Err(reason) => NodeResponse::Refused(reason),
        };
        messages::write(&answer)
    }

    fn answer_hello(&self, other: &Greeting) -> NodeResponse {
        if let (Some(member), Some((cluster, node))) = (self.member.get(), other.member)
            && cluster == member.replica.identity().cluster
            && member.machine.directory().dismissed(node)
        {
            return NodeResponse::Dismissed;
        }
        NodeResponse::Hello(self.greeting())
    }

    async fn take_part(&self, plan: &Plan) -> NodeResponse {
        if let Some(replica) = self.replica() {
            let ours = replica.identity().cluster;
            return if ours == plan.cluster {
                NodeResponse::Founding
            } else {
                NodeResponse::Refused(format!("this node belongs to cluster {ours} already"))
            };
        }
        let own = &self.settings.address.peer;
        let Some((node, _)) = plan.nodes.iter().find(|(_, known)| known.address.peer == *own) else {
            return NodeResponse::Refused(format!("the plan does not name {own}"));
        };
        let identity = Identity { cluster: plan.cluster, node: *node, shards: plan.shards };
        match self.settle(NodeRecord { identity, founders: BTreeMap::new() }).await {
            Ok(()) => NodeResponse::Founding,
            Err(reason) => NodeResponse::Refused(reason),
        }
    }

    /// A request to join may come late: of a process that is gone, or of one that became a member by its founder's plan
    /// meanwhile. If it were granted, it would take the place of whoever is there.
    async fn still_asks(&self, address: &NodeAddress, nonce: u64) -> Result<(), String> {
        if self.directory().is_empty() {
            return Err("the cluster is still being founded: ask again".into());
        }
        let peer = &address.peer;
        match self.ask(peer, &NodeRequest::Hello(self.greeting()), GREETING).await {
            Ok(NodeResponse::Hello(other)) if other.run != nonce => {
                Err(format!("another process answers at {peer}"))
            }
            Ok(NodeResponse::Hello(Greeting { member: Some((cluster, node)), .. })) => {
                Err(format!("{peer} is {node} of cluster {cluster} by now"))
            }
            // Who cannot be heard from here may be heard by others.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn admit(&self, address: NodeAddress, nonce: u64) -> NodeResponse {
        let Some(replica) = self.replica() else {
            return NodeResponse::Refused("this node is no member itself".into());
        };
        let Identity { cluster, shards, .. } = replica.identity();
        if let Err(reason) = self.still_asks(&address, nonce).await {
            return NodeResponse::Refused(reason);
        }
        match self.change_directory(DirectoryChange::Admit { address, nonce }).await {
            Ok(DirectoryAnswer::Admitted(node)) => NodeResponse::Joined { cluster, node, shards },
            Ok(other) => NodeResponse::Refused(format!("{other:?}")),
            Err(error @ ClusterError::Unsure { .. }) => NodeResponse::Unsure(error.to_string()),
            Err(error) => NodeResponse::Refused(error.to_string()),
        }
    }
}

/// Tells this founding from others that the same process may begin.
fn fingerprint(founders: &BTreeMap<NodeId, KnownNode>) -> u64 {
    let nonces: Vec<u8> = founders.values().flat_map(|known| known.nonce.to_le_bytes()).collect();
    xxhash_rust::xxh3::xxh3_64(&nonces)
}
