//! Keeping every node's index below that node's cap.
//!
//! Replicas must stay equal, so what goes is decided once, by whoever leads shard 0, and travels as ordinary entries of
//! the shards concerned, block by block. Bytes differ from node to node (tables, names, caps), entries do not: a node
//! above its cap works out how many entries it can bear, and asks for no more to be kept. Asked twice, late, by several
//! nodes or of two leaders, that is the same number and, of equal indexes, the same blocks; so nothing goes twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use kvindex_core::replication::{ClusterId, NodeId, ReadLevel, Replica, Role, ShardCommand, ShardId};
use kvindex_core::{Command, WorkerId};

use super::Cluster;
use super::machine::DIRECTORY_SHARD;
use super::messages::{NodeRequest, NodeResponse};

/// Between two looks at what the index takes.
const PERIOD: Duration = Duration::from_millis(100);
/// How long one round may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// While blocks go all the time, it is told so often.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Blocks that one entry names, about: 128 KiB, applied in some ten milliseconds.
const BLOCKS_PER_ENTRY: usize = 16_384;
/// Blocks that go in one round; then it is measured again.
const BLOCKS_AT_ONCE: usize = 1 << 20;

/// For which node eviction was last told of, and when.
pub(super) type Told = Option<(NodeId, Instant)>;

/// Looks at what the index takes for as long as the node runs.
pub(super) async fn run(cluster: Arc<Cluster>) {
    cluster.until_joined().await;
    loop {
        sleep(PERIOD).await;
        let Some(keep) = cluster.node.bearable_entries() else { continue };
        if let Err(reason) = cluster.ask_for_room(keep).await {
            tracing::debug!(%reason, "this node's index stays above its cap for now");
        }
    }
}

impl Cluster {
    /// Has the cluster keep no more than so many entries, through whoever decides.
    async fn ask_for_room(&self, keep: u64) -> Result<(), String> {
        let replica = self.replica().ok_or("this node has not joined a cluster yet")?;
        let me = replica.identity();
        let status = replica.shard_status(DIRECTORY_SHARD).ok_or("there is no shard 0")?;
        if status.role == Role::Leader {
            return self.make_room(replica, me.node, keep).await;
        }
        let leader = status.leader.and_then(|leader| status.members.get(&leader));
        let address = &leader.ok_or("nobody leads shard 0")?.address.peer;
        let request = NodeRequest::MakeRoom { cluster: me.cluster, node: me.node, keep };
        match self.ask(address, &request, PATIENCE).await? {
            NodeResponse::Done => Ok(()),
            other => Err(format!("{address}: {other:?}")),
        }
    }

    pub(super) async fn answer_make_room(&self, cluster: ClusterId, node: NodeId, keep: u64) -> NodeResponse {
        let Some(replica) = self.replica().filter(|replica| replica.identity().cluster == cluster) else {
            return NodeResponse::Refused("this node belongs to another cluster, or to none".into());
        };
        if !decides(replica) {
            return NodeResponse::NotLeader(None);
        }
        match self.make_room(replica, node, keep).await {
            Ok(()) => NodeResponse::Done,
            Err(reason) => NodeResponse::Unsure(reason),
        }
    }

    /// One round: plans with all that is committed applied, and proposes. Whoever needs more asks again.
    async fn make_room(&self, replica: &Replica, node: NodeId, keep: u64) -> Result<(), String> {
        // Who comes meanwhile measures again afterwards.
        let Ok(mut told) = self.making_room.try_lock() else { return Ok(()) };
        // What has no leader gives nothing now, and takes nothing in either: the others give in its place.
        let led: Vec<ShardId> =
            replica.status().iter().filter(|s| s.leader.is_some()).map(|s| s.shard).collect();
        let barrier = replica.barrier(led.iter().copied(), ReadLevel::Linearizable, PATIENCE).await;
        barrier.map_err(|error| error.to_string())?;
        let of = |worker: &WorkerId| led.contains(&replica.shard_of(worker));
        let commands = self.node.plan_room(keep, BLOCKS_AT_ONCE, of);
        if commands.is_empty() {
            return Ok(());
        }
        let (blocks, now) = (commands.iter().map(blocks_in).sum::<usize>(), self.node.entry_count());
        if told.is_none_or(|(last, when)| last != node || when.elapsed() > TELL_AGAIN) {
            *told = Some((node, Instant::now()));
            tracing::info!(%node, keep, now, blocks, "blocks are evicted, so that this node's index stays below its cap");
        }
        let proposed = entries(replica, commands).into_iter().map(async |(shard, entries)| {
            for entry in entries {
                if !decides(replica) {
                    return Err("another node decides now".to_owned());
                }
                replica.propose(shard, &entry, PATIENCE).await.map_err(|error| error.to_string())?;
            }
            Ok(())
        });
        futures_util::future::join_all(proposed).await.into_iter().collect()
    }
}

/// Whether this node decides what goes.
fn decides(replica: &Replica) -> bool {
    replica.shard_status(DIRECTORY_SHARD).is_some_and(|status| status.role == Role::Leader)
}

fn blocks_in(command: &Command) -> usize {
    if let Command::Forget(blocks) = command { blocks.hashes.len() } else { 0 }
}

/// Commands as entries of their shards, none much larger than a command may be.
fn entries(replica: &Replica, commands: Vec<Command>) -> BTreeMap<ShardId, Vec<Vec<ShardCommand>>> {
    let mut shards: BTreeMap<ShardId, (usize, Vec<Vec<ShardCommand>>)> = BTreeMap::new();
    for command in commands {
        let Command::Forget(named) = &command else { continue };
        let (room, entries) = shards.entry(replica.shard_of(&named.stream.worker)).or_default();
        let blocks = blocks_in(&command);
        if blocks > *room {
            *room = BLOCKS_PER_ENTRY;
            entries.push(Vec::new());
        }
        *room = room.saturating_sub(blocks);
        if let Some(entry) = entries.last_mut() {
            entry.push(ShardCommand::Index(command));
        }
    }
    shards.into_iter().map(|(shard, (_, entries))| (shard, entries)).collect()
}
