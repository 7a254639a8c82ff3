//! A node that comes back with what it kept, and one that comes with nothing and gets a snapshot of everything.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kvindex_faults::cluster::Cluster;
use kvindex_proto::v1;
use kvindex_proto::v1::cluster_service_client::ClusterServiceClient;
use kvindex_recording::Pace;

use super::engines::Engines;
use super::intake::started;
use super::load::prefills;
use super::machine::bytes_in;
use super::{Bench, NODES, PATIENCE};

const LOOK: Duration = Duration::from_millis(10);
/// The node that is killed.
const KILLED: usize = NODES - 1;

/// One way that engines name blocks.
#[derive(Debug, Clone)]
pub(super) struct Returned {
    /// Engines hash alike, or each in its own way.
    pub(super) alike: bool,
    pub(super) entries: u64,
    /// Bytes of all shards' snapshots on the node that is killed.
    pub(super) snapshots: u64,
    pub(super) restarts: Vec<Duration>,
    pub(super) joins: Vec<Joined>,
}

/// One node's catching up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined {
    /// From the start of its process until it belonged to the cluster.
    pub(super) member: Duration,
    /// From then on until it held everything.
    pub(super) caught_up: Duration,
    /// Shards that sent it a snapshot, and the bytes of these; of the others it had the log.
    pub(super) by_snapshot: usize,
    pub(super) bytes: u64,
}

/// A cluster that holds everything, in snapshots as far as its log allows.
async fn filled(bench: &Bench, alike: bool) -> anyhow::Result<(Cluster, Engines, u64)> {
    // A snapshot for each so many bytes: what is left in the log behind the last one is small beside it.
    let log_mib = bench.scale.snapshot_log_mib.to_string();
    let shards = bench.scale.shards.to_string();
    let options = bench.options(&["--snapshot-log-mib", &log_mib, "--cluster-shards", &shards]);
    let name = if alike { "alike" } else { "private" };
    let cluster = started(Cluster::start(options, name, NODES)?, NODES).await?;
    let load = prefills(&bench.case, bench.scale.entries, alike);
    let entries = load.blocks as u64;
    let engines = Engines::start(load, Pace::Rate(bench.scale.fill_batches), NODES)?;
    engines.register(cluster.channel(0)?).await?;
    engines.until_heard().await?;
    if bench.scale.balanced {
        cluster.until_balanced().await?;
    }
    engines.play_until(usize::MAX).await?;
    engines.until_applied(&cluster, cluster.all(), engines.records()).await?;
    for number in cluster.all() {
        ensure_held(&cluster, number, entries)?;
    }
    Ok((cluster, engines, entries))
}

/// The bytes of snapshots, once no node takes one any more.
async fn settled_snapshots(cluster: &Cluster) -> anyhow::Result<u64> {
    let folder = |number| cluster.data(number).join("snapshots");
    let bytes = || cluster.all().map(|number| bytes_in(&folder(number), "")).collect::<Result<Vec<_>, _>>();
    let mut before = bytes()?;
    loop {
        // The log is looked at every second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = bytes()?;
        if now == before {
            return bytes_in(&folder(KILLED), ".snapshot");
        }
        before = now;
    }
}

/// A node holds so many entries. Counting them walks the whole index, so this is no way to wait.
fn ensure_held(cluster: &Cluster, number: usize, entries: u64) -> anyhow::Result<()> {
    let held = cluster.metric(number, "kvindex_index_entries");
    ensure!(held == Some(entries), "node {} holds {held:?} of {entries} entries", number + 1);
    Ok(())
}

/// Kills a node and starts it again; how long until it was ready, with everything applied.
async fn restart(cluster: &mut Cluster, entries: u64) -> anyhow::Result<Duration> {
    cluster.kill(KILLED)?;
    let started = Instant::now();
    cluster.run(KILLED)?;
    cluster.until_serving(KILLED, PATIENCE).await?;
    let took = started.elapsed();
    ensure_held(cluster, KILLED, entries)?;
    cluster.until_ready().await?;
    Ok(took)
}

/// Lets an empty node join, and removes it again.
async fn join(
    bench: &Bench,
    (cluster, engines): (&mut Cluster, &Engines),
    entries: u64,
) -> anyhow::Result<Joined> {
    let number = cluster.one_more()?;
    let started = Instant::now();
    cluster.run(number)?;
    let id = loop {
        let said = cluster.status(number, false).await;
        if let Ok(id) = said.map(|status| status.node_id)
            && id > 0
        {
            break id;
        }
        ensure!(started.elapsed() < PATIENCE, "the node does not join");
        tokio::time::sleep(LOOK).await;
    };
    let member = started.elapsed();
    engines.until_applied(cluster, [number], engines.records()).await?;
    cluster.until_serving(number, PATIENCE).await?;
    let caught_up = started.elapsed() - member;
    ensure_held(cluster, number, entries)?;
    let snapshots = cluster.data(number).join("snapshots");
    let of_shard = |shard: &u16| snapshots.join(format!("shard-{shard}.snapshot")).exists();
    let by_snapshot = (0..bench.scale.shards).filter(of_shard).count();
    let bytes = bytes_in(&snapshots, ".snapshot")?;
    let mut client = ClusterServiceClient::new(cluster.channel(0)?);
    let removed = client.remove_node(v1::RemoveNodeRequest { node_id: id, force: false }).await;
    removed.context("cannot remove the node that joined")?;
    // Its leaders must hear of it before it is gone, or they would wait for it.
    tokio::time::sleep(bench.scale.settle).await;
    cluster.kill(number)?;
    std::fs::remove_dir_all(cluster.data(number)).context("the data of the node that joined")?;
    Ok(Joined { member, caught_up, by_snapshot, bytes })
}

/// All rounds, on one cluster.
pub(super) async fn rounds(bench: &Bench, alike: bool) -> anyhow::Result<Returned> {
    let (mut cluster, engines, entries) = filled(bench, alike).await?;
    let snapshots = settled_snapshots(&cluster).await?;
    let (mut restarts, mut joins) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        restarts.push(restart(&mut cluster, entries).await?);
    }
    for _ in 0..bench.scale.rounds {
        joins.push(join(bench, (&mut cluster, &engines), entries).await?);
    }
    Ok(Returned { alike, entries, snapshots, restarts, joins })
}
