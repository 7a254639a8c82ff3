//! Each shard's members follow the directory: its leader adds who is listed and drops who is not, gives votes to
//! those who have caught up, and hands leadership on so that it is spread over the nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

use kvindex_core::replication::{NodeId, ProposeError, Replica, Role, ShardId, ShardStatus};

use super::{Cluster, Directory};

/// Between two looks at the shards.
const PERIOD: Duration = Duration::from_millis(500);
/// A leader that is not the preferred one stays for so long.
const SETTLED: Duration = Duration::from_secs(5);
/// Entries that a node may lack and count as caught up.
const CLOSE: u64 = 100;
/// How long a stopping node waits for others to lead.
const HAND_OVER: Duration = Duration::from_secs(2);

/// Does so for as long as the node runs.
pub(super) async fn run(cluster: Arc<Cluster>) {
    cluster.until_joined().await;
    let Some(member) = cluster.member.get() else { return };
    let mut since: BTreeMap<ShardId, Instant> = BTreeMap::new();
    loop {
        sleep(PERIOD).await;
        let directory = member.machine.directory();
        for status in member.replica.status() {
            if status.role != Role::Leader {
                since.remove(&status.shard);
                continue;
            }
            let led_since = *since.entry(status.shard).or_insert_with(Instant::now);
            if directory.is_empty() {
                continue;
            }
            if let Err(error) = step(&cluster, &member.replica, &directory, &status, led_since).await {
                tracing::debug!(%error, "members are looked at again");
            }
        }
    }
}

/// One step towards what the directory says. One at a time, because each changes who decides about the next.
async fn step(
    cluster: &Cluster,
    replica: &Replica,
    directory: &Directory,
    status: &ShardStatus,
    led_since: Instant,
) -> Result<(), ProposeError> {
    let (shard, me) = (status.shard, replica.identity().node);
    if status.changing {
        // Changes are made here and waited for, so this one is an earlier leader's, which will not finish it any more.
        tracing::info!(%shard, "a change of voters is finished");
        return replica.finish_change(shard).await;
    }
    for (node, known) in directory.nodes() {
        if status.members.get(&node).is_none_or(|member| member.address != known.address) {
            tracing::info!(%shard, %node, address = %known.address, "takes part");
            return replica.add(shard, node, known.address.clone()).await;
        }
    }
    let close = |node: &NodeId| {
        let matched = status.members.get(node).and_then(|member| member.matched);
        *node == me || matched.is_some_and(|matched| matched + CLOSE >= status.last.unwrap_or(0))
    };
    for (node, member) in &status.members {
        let wanted = directory.get(*node).map(|known| known.voter);
        match (member.voter, wanted) {
            (false, Some(true)) if close(node) => {
                tracing::info!(%shard, %node, "votes from now on");
                return replica.promote(shard, *node).await;
            }
            (true, Some(false)) => {
                tracing::info!(%shard, %node, "votes no more");
                return replica.demote(shard, *node).await;
            }
            (_, None) => {
                tracing::info!(%shard, %node, "leaves");
                return replica.remove(shard, *node).await;
            }
            _ => {}
        }
    }
    let preferred = preferred_leader(status);
    if let Some(preferred) = preferred
        && preferred != me
        && close(&preferred)
        && led_since.elapsed() >= SETTLED
        && let Some(member) = status.members.get(&preferred)
        && cluster.is_warm_at(&member.address.peer, shard).await
    {
        tracing::info!(%shard, to = %preferred, "leadership is handed on, so that nodes share the work");
        return replica.hand_over(shard, preferred).await;
    }
    Ok(())
}

/// Voters lead in turn, shard by shard.
fn preferred_leader(status: &ShardStatus) -> Option<NodeId> {
    let voters: Vec<NodeId> =
        status.members.iter().filter(|(_, member)| member.voter).map(|(node, _)| *node).collect();
    let count = voters.len().max(1);
    voters.get(usize::from(status.shard.0) % count).copied()
}

/// Before a node stops: whoever has caught up furthest takes over what it leads, a warm node if there is one.
pub(super) async fn hand_over_all(cluster: &Cluster, replica: &Replica) {
    let deadline = Instant::now() + HAND_OVER;
    let me = replica.identity().node;
    loop {
        let mut left = 0;
        for status in replica.status() {
            let others = status.members.iter().filter(|(node, member)| member.voter && **node != me);
            let furthest = others.max_by_key(|(_, member)| member.matched).map(|(node, _)| *node);
            let (Role::Leader, Some(furthest)) = (status.role, furthest) else { continue };
            left += 1;
            let heir = cluster.warm_heir(&status).await.unwrap_or(furthest);
            // Half way between two sets of voters, a shard may need the vote of the node that stops.
            if !status.changing {
                // Asked again below if it did not work.
                let _ = replica.hand_over(status.shard, heir).await;
            }
        }
        if left == 0 || Instant::now() >= deadline {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}
