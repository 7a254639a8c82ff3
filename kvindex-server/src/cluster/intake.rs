//! From ingest's threads to the shards' logs: the commands of one turn, shard by shard, each in one entry, and the
//! answer once all of it is applied here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;

use kvindex_core::replication::{EntryEncoder, ShardCommand, ShardId};
use kvindex_core::{Command, StreamId};

use super::{Cluster, Stamps};
use crate::ingest::{NotTaken, Resume, Wiring};
use crate::node::Freshness;

/// How long a turn's commands may take before their streams fall back to standby.
const PATIENCE: Duration = Duration::from_secs(5);

/// What goes to one shard in one turn. One entry, so that it is taken whole or not at all: of two, the second could
/// be taken without the first, and what the first said would be missing without a trace.
#[derive(Debug, Default)]
struct Load {
    entry: EntryEncoder,
    streams: BTreeSet<StreamId>,
}

fn stream_of(command: &Command) -> Option<&StreamId> {
    match command {
        Command::Events(events) => Some(&events.stream),
        Command::NewGeneration { stream, .. } | Command::Gap { stream, .. } => Some(stream),
        Command::Forget(blocks) => Some(&blocks.stream),
        Command::Register(_) | Command::Unregister { .. } | Command::Evict { .. } => None,
    }
}

impl Cluster {
    /// Connects ingest's threads with this cluster. `runtime` is where the shards run.
    #[must_use]
    pub fn wiring(self: &Arc<Self>, runtime: &Handle) -> Wiring {
        let cluster: Weak<Self> = Arc::downgrade(self);
        let (sink, applied, fresh) = (cluster.clone(), cluster.clone(), Stamps(cluster.clone()));
        let runtime = runtime.clone();
        Wiring {
            sink: Arc::new(move |commands| match sink.upgrade() {
                Some(cluster) => runtime.block_on(cluster.take_in(commands)),
                None => Err(NotTaken::All),
            }),
            applied: Arc::new(move |stream| applied.upgrade()?.resume(stream)),
            fresh: Arc::new(move |stream| !fresh.is_cut_off(stream)),
            fell_back: Arc::new(move |streams| {
                if let Some(cluster) = cluster.upgrade() {
                    cluster.fell_back(streams);
                }
            }),
        }
    }

    fn resume(&self, stream: &StreamId) -> Option<Resume> {
        self.node.resume(stream)
    }

    /// Proposes a turn's commands. Those of one shard go in order; shards go side by side.
    ///
    /// # Errors
    /// The streams of shards that did not take all of theirs.
    pub async fn take_in(&self, commands: Vec<Command>) -> Result<(), NotTaken> {
        let Some(replica) = self.replica() else { return Err(NotTaken::All) };
        let mut loads: BTreeMap<ShardId, Load> = BTreeMap::new();
        for command in commands {
            let Some(worker) = stream_of(&command).map(|stream| &stream.worker) else { continue };
            let load = loads.entry(replica.shard_of(worker)).or_default();
            if let Some(stream) = stream_of(&command).filter(|stream| !load.streams.contains(*stream)) {
                load.streams.insert(stream.clone());
            }
            if let Err(error) = load.entry.push(&ShardCommand::Index(command)) {
                tracing::error!(%error, "a command cannot be written");
                return Err(NotTaken::All);
            }
        }
        let proposed = loads.into_iter().map(async |(shard, load)| {
            match replica.propose_here(shard, load.entry.finish(), PATIENCE).await {
                Ok(_) => BTreeSet::new(),
                Err(error) => {
                    tracing::info!(%shard, %error, streams = load.streams.len(), "streams fall back to standby");
                    load.streams
                }
            }
        });
        let failed = futures_util::future::join_all(proposed).await;
        let failed: BTreeSet<StreamId> = failed.into_iter().flatten().collect();
        if failed.is_empty() { Ok(()) } else { Err(NotTaken::Streams(failed)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::CUT_OFF;
    use crate::ingest::SETTLED_MS;

    /// What a leader heard before this node was connected to the engine must be applied here, or void, before what the
    /// log brings speaks for the engine.
    #[test]
    fn what_the_log_brings_late_does_not_speak_for_an_engine() {
        assert!(Duration::from_millis(SETTLED_MS) >= CUT_OFF + PATIENCE);
    }
}
