//! When a cluster is whole, and when it has come to rest: everyone who belongs to it runs and is listed, all have
//! applied the same, and every stream is as its engine has it.

use kvindex_core::replication::{NodeId, ShardId, shard_of};
use std::collections::BTreeMap;

use crate::network::address;
use crate::world::World;

impl World {
    /// What is not yet as it must be at rest.
    pub(crate) fn unsettled(&self) -> Option<String> {
        self.incomplete().or_else(|| self.shards().find_map(|shard| self.unequal(shard)))
    }

    /// What keeps the cluster from being whole: every node that has not left is listed and runs, and every shard's
    /// members are those that are listed, wherever one looks.
    pub(crate) fn incomplete(&self) -> Option<String> {
        let mut listed = BTreeMap::new();
        for node in self.nodes() {
            let Some(running) = self.network.running(node.number) else {
                return Some(format!("node {} does not run", node.number));
            };
            let Some(id) = running.id() else {
                return Some(format!("node {} is no member: {}", node.number, running.cluster.waits_for()));
            };
            listed.insert(id, address(node.number));
        }
        for running in self.members() {
            let (number, directory) = (running.life.node, running.cluster.directory());
            let known: BTreeMap<_, _> =
                directory.nodes().map(|(id, known)| (id, known.address.clone())).collect();
            if known != listed {
                return Some(format!("node {number} knows {known:?}, there are {listed:?}"));
            }
            for status in running.cluster.status() {
                let members: BTreeMap<_, _> =
                    status.members.iter().map(|(id, member)| (*id, member.address.clone())).collect();
                if members != listed || status.changing {
                    return Some(format!("node {number} has members {members:?} of {}", status.shard));
                }
                let voters = |id: &NodeId| directory.get(*id).is_some_and(|known| known.voter);
                if status.members.iter().any(|(id, member)| member.voter != voters(id)) {
                    return Some(format!(
                        "node {number} sees other voters of {} than are listed",
                        status.shard
                    ));
                }
            }
        }
        None
    }

    /// What of a shard its nodes do not agree on with each other and the engines.
    fn unequal(&self, shard: ShardId) -> Option<String> {
        let Some(leader) = self.leader(shard) else { return Some(format!("{shard} has no leader")) };
        let applied = leader.witness.applied(shard);
        for running in self.members() {
            let number = running.life.node;
            let found = running.witness.applied(shard);
            if found != applied {
                return Some(format!(
                    "node {number} has {shard} up to {found:?}, the leader up to {applied:?}"
                ));
            }
            let stats = running.server.stats();
            let cap = self.plan.caps.of_node(number).filter(|cap| stats.bytes > *cap && stats.entries > 0);
            if let Some(cap) = cap {
                return Some(format!("node {number} has {} bytes, its cap is {cap}", stats.bytes));
            }
            let status = running.replica().and_then(|replica| replica.shard_status(shard));
            let follows = status.and_then(|status| status.leader);
            if follows != leader.id() {
                return Some(format!("node {number} takes {follows:?} for the leader of {shard}"));
            }
            let mut engines = self.engines.iter();
            let behind = engines.find(|engine| {
                shard_of(&engine.plan.stream.worker, self.plan.shards) == shard
                    && !running.is_as(&self.judge, &engine.plan, &engine.now())
            });
            if let Some(engine) = behind {
                let (life, next, truth) = engine.now();
                let stream = &engine.plan.stream;
                return Some(format!(
                    "node {number} has {stream} at {:?}, the engine is at batch {next} of life {life}; held and truth \
                     differ in {:?}",
                    running.server.stream_stamp(stream),
                    running.difference(stream, &truth)
                ));
            }
        }
        None
    }
}
