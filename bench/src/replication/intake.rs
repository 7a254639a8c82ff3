//! Ingest: one load at full speed into one node, and into three that replicate it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use kvindex_faults::cluster::Cluster;
use kvindex_faults::progress;
use kvindex_recording::Pace;

use super::engines::Engines;
use super::machine::cpu_seconds;
use super::{Bench, NODES};

/// Who takes the events in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takers {
    /// One node without a cluster.
    Alone,
    /// Three nodes; when a log entry counts as kept.
    Three(&'static str),
    /// Three nodes whose followers do not listen to the engines; at `async`.
    NoStandby,
    /// Three nodes and one shard, so that one node leads everything and the others follow; at `async`.
    OneShard,
}

/// One round.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) blocks: usize,
    /// From the first event until the slowest node has applied the last.
    pub(super) whole: Duration,
    /// Until the publisher had handed the last one to its sockets.
    pub(super) published: Duration,
    /// Cores that the nodes use before anything happens, on average.
    pub(super) idle: f64,
    /// CPU seconds of each node, whoever leads first; and of the publisher, which is also who asks.
    pub(super) cpu: Vec<f64>,
    pub(super) publisher_cpu: f64,
    /// (Block, holder) entries in the end.
    entries: u64,
}

impl Taken {
    /// Blocks a second.
    pub(super) fn rate(&self) -> f64 {
        self.blocks as f64 / self.whole.as_secs_f64()
    }

    /// CPU seconds of something for each million blocks.
    pub(super) fn per_million(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.blocks as f64
    }

    /// The mean of all nodes' CPU seconds.
    pub(super) fn mean_cpu(&self) -> f64 {
        self.cpu.iter().sum::<f64>() / self.cpu.len().max(1) as f64
    }
}

impl Takers {
    fn cluster(self, bench: &Bench) -> anyhow::Result<Cluster> {
        match self {
            Self::Alone => Cluster::alone(bench.options(&[]), "alone"),
            Self::Three(durability) => {
                Cluster::start(bench.options(&["--durability", durability]), durability, NODES)
            }
            Self::NoStandby => {
                let flags = ["--durability", "async", "--standby", "false"];
                Cluster::start(bench.options(&flags), "no-standby", NODES)
            }
            Self::OneShard => {
                let flags = ["--durability", "async", "--cluster-shards", "1"];
                Cluster::start(bench.options(&flags), "one-shard", NODES)
            }
        }
    }
}

/// Starts the nodes and waits until they can be written to.
pub(super) async fn started(mut cluster: Cluster, nodes: usize) -> anyhow::Result<Cluster> {
    for number in cluster.all() {
        cluster.run(number)?;
    }
    if nodes == 1 {
        cluster.until_serving(0, super::PATIENCE).await?;
    } else {
        cluster.until_ready().await?;
    }
    Ok(cluster)
}

/// Lets `takers` take in everything that so many fleets say.
pub(super) async fn round(bench: &Bench, takers: Takers, fleets: usize) -> anyhow::Result<Taken> {
    let nodes = if takers == Takers::Alone { 1 } else { NODES };
    let cluster = started(takers.cluster(bench)?, nodes).await?;
    let load = bench.case.fleets(fleets);
    let blocks = load.blocks;
    let listeners = if takers == Takers::NoStandby { 1 } else { nodes };
    let engines = Engines::start(load, Pace::Unpaced, listeners)?;
    engines.register(cluster.channel(0)?).await?;
    engines.until_heard().await?;
    if nodes > 1 && bench.scale.balanced {
        cluster.until_balanced().await?;
    }
    let pids = cluster.all().map(|number| cluster.pid(number)).collect::<Result<Vec<_>, _>>()?;
    let cpu = || pids.iter().map(|pid| cpu_seconds(*pid)).collect::<Result<Vec<_>, _>>();
    // Whoever leads now has to notice before it is told anything.
    tokio::time::sleep(bench.scale.settle).await;
    let (idle_before, idle_since) = (cpu()?, Instant::now());
    tokio::time::sleep(bench.scale.settle).await;
    let idle = difference(&cpu()?, &idle_before).iter().sum::<f64>() / nodes as f64;
    let idle = idle / idle_since.elapsed().as_secs_f64();
    eprintln!("{takers:?}: the engines play");
    let (before, own_before, start) = (cpu()?, cpu_seconds(std::process::id())?, Instant::now());
    let published = engines.play_until(usize::MAX).await?;
    engines.until_applied(&cluster, cluster.all(), engines.records()).await?;
    let (whole, after) = (start.elapsed(), cpu()?);
    let publisher_cpu = cpu_seconds(std::process::id())? - own_before;
    let mut cpu = difference(&after, &before);
    if takers == Takers::OneShard {
        let leads = cluster.leaders(0).await?.iter().position(|led| !led.is_empty()).unwrap_or(0);
        cpu.swap(0, leads);
    }
    let entries = check(&cluster, nodes).await?;
    Ok(Taken { blocks, whole, published, idle, cpu, publisher_cpu, entries })
}

fn difference(after: &[f64], before: &[f64]) -> Vec<f64> {
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

/// Nothing was lost, and all nodes hold the same; answers how many entries.
async fn check(cluster: &Cluster, nodes: usize) -> anyhow::Result<u64> {
    for number in cluster.all() {
        let lost = progress::lost_in_gaps(cluster, number);
        ensure!(lost == 0, "node {} lost {lost} batches: what it applied is not the load", number + 1);
    }
    if nodes > 1 {
        cluster.until_equal().await?;
    }
    Ok(cluster.metric(0, "kvindex_index_entries").unwrap_or(0))
}

/// Everybody took in the same.
pub(super) fn agree(taken: &[&Taken]) -> anyhow::Result<()> {
    let entries: Vec<u64> = taken.iter().map(|taken| taken.entries).collect();
    ensure!(entries.windows(2).all(|two| two[0] == two[1]), "the nodes' indexes differ: {entries:?} entries");
    Ok(())
}
