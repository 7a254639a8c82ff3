//! The soak: fleets that play at full speed, leave and come back, a tenant that stores without end under a cap on the
//! index, and clients that ask all the time; with TLS and tokens on every door, and certificates renewed on the way. Memory must be flat once the cap is reached, and every answer about the
//! fleets the engines' own, also while the other tenant is evicted.

mod fleet;
mod glutton;
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use kvindex_faults::cluster::{Cluster, Options};
use kvindex_faults::secrets::{Role, Secrets};

use crate::clients::Clients;
use crate::engines::Case;
use crate::stage::{NODES, Play, sample};
use fleet::{Fleet, Played};
use glutton::Glutton;
use memory::{EVERY, Memory};

/// Fleets that come and go.
const FLEETS: usize = 3;
/// Cap on each node's index: the least there may be, some times what the fleets need.
const CAP_BYTES: u64 = 16 << 20;
/// Warming up takes at least so much of the time, and three minutes: so long the log store's tables grow. A short run
/// has less time for it than that, and says little.
const WARM_UP: f64 = 0.25;
const WARM_UP_LEAST: Duration = Duration::from_secs(180);
const WARM_UP_MOST: f64 = 0.5;

/// Whether those at work go on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Going(Arc<AtomicBool>);

impl Going {
    pub(crate) fn on(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Soaks; answers a page and whether all was well.
pub(crate) async fn run(play: &Play, minutes: f64, locked: bool) -> anyhow::Result<(String, bool)> {
    let length = Duration::from_secs_f64(minutes * 60.0);
    let mut cluster = started(play, locked).await?;
    let (going, begun) = (Going::default(), Instant::now());
    let checkpoint = play.case.checkpoints.last().context("the recording has no checkpoints")?;
    let channels = |role| {
        let of = |number| cluster.channel_of(number, role);
        cluster.all().map(of).collect::<anyhow::Result<Vec<_>>>()
    };
    let (operator, tenant) = (channels(Role::Operator)?, channels(Role::Tenant)?);
    let host = cluster.network().engines().to_owned();
    let case_of = |slot: usize| Arc::new(Case::renamed(&play.case, &format!("-{slot}")));
    let first = case_of(0);
    let clients = Clients::start(channels(Role::Router)?, &sample(&first, checkpoint)?, play.every);
    let fleets: Vec<_> = (0..FLEETS)
        .map(|slot| {
            let case = if slot == 0 { Arc::clone(&first) } else { case_of(slot) };
            Fleet { slot, case, host: host.clone(), nodes: operator.clone() }
        })
        .map(|fleet| tokio::spawn(fleet.come_and_go(going.clone())))
        .collect();
    let glutton = tokio::spawn(Glutton::new(tenant).store(going.clone()));
    let mut memory = Memory::new(&cluster)?;
    let mut renewed = false;
    while begun.elapsed() < length {
        tokio::time::sleep(EVERY).await;
        memory.look(begun.elapsed(), &cluster);
        if !renewed && begun.elapsed() > length / 2 {
            renewed = true;
            cluster.secrets().map_or(Ok(()), Secrets::renew).context("renewing certificates")?;
        }
        for number in cluster.all() {
            anyhow::ensure!(
                !cluster.has_ended(number)?,
                "node {} ended: {}",
                number + 1,
                cluster.log(number)
            );
        }
    }
    going.end();
    let mut played = Played::default();
    for fleet in fleets {
        played.add(fleet.await.context("a fleet")??);
    }
    let stored = glutton.await.context("who stores without end")??;
    let equal = cluster.until_equal().await;
    let seen = clients.stop().await;
    let warm_up = WARM_UP_LEAST.max(length.mul_f64(WARM_UP)).min(length.mul_f64(WARM_UP_MOST));
    let flat = memory.judge(warm_up, CAP_BYTES);
    let (doors, taken) = taken(&cluster);
    let evicted: Vec<u64> = cluster.all().map(|number| evicted(&cluster, number)).collect();
    let memory_good = if flat.good { "flat" } else { "NOT FLAT" };
    let good = flat.good
        && played.is_good()
        && equal.is_ok()
        && seen.failed == 0
        && evicted.iter().all(|n| *n > 0)
        && taken;
    let mut page = format!("{minutes} minutes, {FLEETS} fleets, a cap of {} MiB\n\n", CAP_BYTES >> 20);
    page += &flat.table;
    page += &format!(
        "\nstored without end: {stored} blocks; evicted on each node: {evicted:?}\n{}\nqueries: {}, refused as too many {}, failed {}, longest \
         silence {} ms\n{doors}\nresident memory: {memory_good}\nwrong answers: {}\ndigests: {}\n",
        played.text(),
        seen.answered,
        seen.refused,
        seen.failed,
        seen.worst.as_millis(),
        played.wrong(),
        equal.map_or_else(|error| format!("{error:#}"), |()| "equal".to_owned()),
    );
    seen.reasons.iter().for_each(|reason| page += &format!("{reason}\n"));
    cluster.keep |= !good;
    page += if good { "good" } else { "NOT GOOD" };
    if cluster.keep {
        page += &format!(", logs in {}", cluster.folder().display());
    }
    Ok((page, good))
}

/// What the doors speak, and whether all took the certificates that were renewed.
fn taken(cluster: &Cluster) -> (String, bool) {
    if cluster.secrets().is_none() {
        return ("doors: neither TLS nor tokens".into(), true);
    }
    let taken = |door: &str| {
        let name = format!("kvindex_tls_reloads_total{{door=\"{door}\",result=\"taken\"}}");
        cluster.all().map(|number| cluster.metric(number, &name).unwrap_or(0)).collect::<Vec<_>>()
    };
    let (public, peer) = (taken("public"), taken("peer"));
    let all = public.iter().chain(&peer).all(|count| *count > 0);
    let text = format!(
        "doors: TLS and tokens for clients, mutual TLS between nodes; certificates renewed on the way, taken {public:?} \
         times by public doors and {peer:?} by peers'"
    );
    (text, all)
}

async fn started(play: &Play, locked: bool) -> anyhow::Result<Cluster> {
    let mut flags = vec!["--max-index-bytes".to_owned(), CAP_BYTES.to_string()];
    flags.extend(play.options.flags.iter().cloned());
    let start = if locked { Cluster::locked } else { Cluster::start };
    let mut cluster = start(Options { flags, ..play.options.clone() }, "soak", NODES)?;
    cluster.keep = play.keep;
    for number in cluster.all() {
        cluster.run(number)?;
    }
    cluster.until_ready().await.context("founding")?;
    cluster.until_balanced().await?;
    Ok(cluster)
}

fn evicted(cluster: &Cluster, number: usize) -> u64 {
    let name = "kvindex_index_effects_total{effect=\"evicted\"}";
    cluster.metric(number, name).unwrap_or(0)
}
