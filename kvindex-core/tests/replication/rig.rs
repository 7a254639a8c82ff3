//! A cluster in one process.

use kvindex_core::replication::log_store::{Durability, LogBackend, LogStore, MemoryBackend};
use kvindex_core::replication::{
    ClusterId, Identity, NodeAddress, NodeId, Replica, Role, Settings, ShardId, SnapshotMemory, Surroundings,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::machine::Counting;
use super::network::{Wire, Wires};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What outlives a node's process.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) backend: Arc<MemoryBackend>,
    pub(crate) snapshots: Arc<SnapshotMemory>,
}

#[derive(Debug)]
pub(crate) struct RunningNode {
    pub(crate) replica: Arc<Replica>,
    pub(crate) machine: Arc<Counting>,
}

#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) wires: Arc<Wires>,
    pub(crate) disks: BTreeMap<u64, Disk>,
    pub(crate) nodes: BTreeMap<u64, RunningNode>,
    pub(crate) shards: u16,
}

pub(crate) fn address(node: u64) -> NodeAddress {
    NodeAddress { peer: format!("node-{node}:1"), public: format!("node-{node}:2") }
}

pub(crate) fn settings(node: u64) -> Settings {
    Settings { seed: node, keep_entries: 3, ..Settings::default() }
}

impl Rig {
    /// Nodes 1 to `nodes`, which found a cluster together.
    pub(crate) async fn found(nodes: u64, shards: u16) -> Self {
        let mut rig = Self { wires: Arc::default(), disks: BTreeMap::new(), nodes: BTreeMap::new(), shards };
        for node in 1..=nodes {
            rig.start(node).await;
        }
        let voters: BTreeMap<NodeId, NodeAddress> =
            (1..=nodes).map(|node| (NodeId(node), address(node))).collect();
        rig.nodes[&1].replica.found(&voters).await.unwrap();
        rig.until("every shard has a leader", |rig| (0..shards).all(|shard| rig.leader(shard).is_some()))
            .await;
        rig
    }

    pub(crate) async fn start(&mut self, node: u64) {
        self.start_at(node, &address(node).peer).await;
    }

    pub(crate) async fn start_at(&mut self, node: u64, own: &str) {
        let disk = self.disks.entry(node).or_default();
        let own = own.to_owned();
        let machine = Arc::new(Counting::default());
        let surroundings = Surroundings {
            logs: LogStore::start(Arc::clone(&disk.backend) as Arc<dyn LogBackend>, Durability::Fsync),
            snapshots: Arc::clone(&disk.snapshots) as _,
            machine: Arc::clone(&machine) as _,
            transport: Arc::new(Wire { wires: Arc::clone(&self.wires), own: own.clone() }),
        };
        let identity = Identity { cluster: ClusterId(7), node: NodeId(node), shards: self.shards };
        let replica = Arc::new(Replica::start(identity, settings(node), surroundings).await.unwrap());
        self.wires.join(&own, &replica);
        self.nodes.insert(node, RunningNode { replica, machine });
    }

    pub(crate) async fn stop(&mut self, node: u64) {
        self.wires.leave(&address(node).peer);
        let stopped = self.nodes.remove(&node).unwrap();
        stopped.replica.shutdown().await;
    }

    /// The node that a majority calls leader, and that calls itself so.
    pub(crate) fn leader(&self, shard: u16) -> Option<u64> {
        let leads = |node: &RunningNode| {
            node.replica.shard_status(ShardId(shard)).is_some_and(|status| status.role == Role::Leader)
        };
        let mut leaders: Vec<(u64, u64)> = self
            .nodes
            .iter()
            .filter(|(_, node)| leads(node))
            .map(|(id, node)| (node.replica.shard_status(ShardId(shard)).unwrap().term, *id))
            .collect();
        leaders.sort_unstable();
        leaders.last().map(|(_, id)| *id)
    }

    pub(crate) fn replica(&self, node: u64) -> &Arc<Replica> {
        &self.nodes[&node].replica
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = tokio::time::Instant::now();
        while !holds(self) {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}; {:#?}", self.statuses());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn statuses(&self) -> Vec<String> {
        self.nodes
            .values()
            .flat_map(|node| node.replica.status())
            .map(|status| format!("{status:?}"))
            .collect()
    }

    pub(crate) async fn until_all_have(&self, shard: u16, words: &[&str]) {
        let all = |rig: &Self| rig.nodes.values().all(|node| node.machine.words(shard) == words);
        self.until("all nodes have the same words", all).await;
    }
}
