//! What simulated workers are registered as: engines with their streams, and registers, which are workers without
//! any. A register's value is a label of its definition, so a client's write goes the way that every change goes.

use kvindex_core::replication::{ShardId, shard_of};
use kvindex_core::{GapPolicy, StreamId, WorkerId, WorkerSpec};
use kvindex_server::node::Node;
use kvindex_server::{StreamSource, WorkerDefinition};
use std::collections::BTreeMap;

use crate::engine::EnginePlan;
use crate::question::spec;

/// Registers of each shard.
pub(crate) const REGISTERS: u64 = 2;
/// The label that holds a register's value.
const VALUE: &str = "value";
/// Of registers, so that no question meets them.
const NO_MODEL: &str = "register";

/// Where a stream is published.
#[must_use]
pub(crate) fn endpoint(stream: &StreamId) -> String {
    format!("tcp://{}:{}", stream.worker, 5557 + stream.dp_rank.0)
}

/// Every worker behind these engines.
#[must_use]
pub(crate) fn all(engines: &[EnginePlan]) -> Vec<WorkerDefinition> {
    let mut workers: BTreeMap<WorkerId, WorkerDefinition> = BTreeMap::new();
    for engine in engines {
        let id = &engine.stream.worker;
        let worker = workers.entry(id.clone()).or_insert_with(|| without_streams(spec(id.clone())));
        worker.streams.push(StreamSource {
            dp_rank: engine.stream.dp_rank,
            endpoint: endpoint(&engine.stream),
            replay_endpoint: (engine.buffer > 0).then(|| format!("{}0", endpoint(&engine.stream))),
            topic: String::new(),
        });
    }
    workers.into_values().collect()
}

fn without_streams(spec: WorkerSpec) -> WorkerDefinition {
    WorkerDefinition { spec, streams: Vec::new(), gap_policy: GapPolicy::Purge, hash_profile: None }
}

/// The worker that is a register of a shard.
#[must_use]
pub(crate) fn register_id(shard: ShardId, register: u64, shards: u16) -> Option<WorkerId> {
    let names = (0..u64::MAX).filter_map(|number| WorkerId::new(format!("register-{number}")).ok());
    let mut here = names.filter(|worker| shard_of(worker, shards) == shard);
    here.nth(usize::try_from(register).ok()?)
}

/// The register with a value.
#[must_use]
pub(crate) fn register(id: WorkerId, value: u64) -> WorkerDefinition {
    let mut spec = WorkerSpec::new(id, NO_MODEL);
    spec.labels.insert(VALUE.into(), value.to_string());
    without_streams(spec)
}

/// A register's value, where it was ever written.
#[must_use]
pub(crate) fn value(node: &Node, id: &WorkerId) -> Option<u64> {
    node.known_worker(id)?.definition.spec.labels.get(VALUE)?.parse().ok()
}
