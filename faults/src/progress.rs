//! How far each node is with each engine's batches: for the time that writing stands still, and for what is missing
//! at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kvindex_client::v1;
use kvindex_client::v1::query_service_client::QueryServiceClient;

use crate::cluster::{Channel, Cluster};

const POLL: Duration = Duration::from_millis(5);
/// How long a node may stand still before its streams count as left behind.
const STILL: Duration = Duration::from_secs(20);
const CALL: Duration = Duration::from_secs(1);

/// Last applied batch of each worker, by generation and number.
pub type Applied = BTreeMap<String, (u64, Option<u64>)>;

/// A batch of a worker.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Whose it is.
    pub worker: String,
    /// Its number.
    pub seq: u64,
}

/// What a node has applied of every worker.
///
/// # Errors
/// When it does not answer in time.
pub async fn applied(channel: &Channel) -> anyhow::Result<Applied> {
    let mut client = QueryServiceClient::new(channel.clone());
    let listed = tokio::time::timeout(CALL, client.list_workers(v1::ListWorkersRequest::default())).await;
    let workers = listed.context("no answer in time")??.into_inner().workers;
    let trust = |worker: v1::Worker| {
        let trust = worker.streams.into_iter().next().and_then(|stream| stream.trust).unwrap_or_default();
        (worker.worker_id, (trust.generation, trust.applied_seq))
    };
    Ok(workers.into_iter().map(trust).collect())
}

fn has(applied: &Applied, batch: &Batch) -> bool {
    applied.get(&batch.worker).is_some_and(|(_, seq)| *seq >= Some(batch.seq))
}

/// Waits until all `nodes` have applied all `batches`; answers how long after `since` the last one came.
pub async fn until_applied(
    nodes: &[Channel],
    batches: &[Batch],
    since: Instant,
    patience: Duration,
) -> anyhow::Result<Duration> {
    let mut waiting: Vec<(&Channel, &Batch)> =
        nodes.iter().flat_map(|node| batches.iter().map(move |batch| (node, batch))).collect();
    while let Some((node, _)) = waiting.first().copied() {
        if since.elapsed() > patience {
            bail!("{} batches are not applied after {} s", waiting.len(), patience.as_secs());
        }
        if let Ok(now) = applied(node).await {
            // Nodes are asked in turn: the time of the last one counts.
            waiting.retain(|(at, batch)| !std::ptr::eq(*at, node) || !has(&now, batch));
            if waiting.first().is_some_and(|(at, _)| !std::ptr::eq(*at, node)) {
                continue;
            }
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(since.elapsed())
}

/// Batches that a node has not applied once nothing moves any more: the published ones less the applied ones, and
/// all of a stream that began anew because something was missing.
pub async fn missing(node: &Channel, last: &[Batch]) -> anyhow::Result<u64> {
    let (mut before, mut moved) = (Applied::default(), Instant::now());
    loop {
        let now = applied(node).await?;
        if last.iter().all(|batch| has(&now, batch)) || moved.elapsed() > STILL {
            let behind = |batch: &Batch| match now.get(&batch.worker) {
                Some((0, Some(seq))) => batch.seq.saturating_sub(*seq),
                _ => batch.seq + 1,
            };
            return Ok(last.iter().map(behind).sum());
        }
        if now != before {
            (before, moved) = (now, Instant::now());
        }
        tokio::time::sleep(POLL * 4).await;
    }
}

/// Batches that a node has found missing without anybody to ask for them, since its start. 0 when it cannot be
/// asked: then it has not just been in a position to find any.
pub fn lost_in_gaps(cluster: &Cluster, number: usize) -> u64 {
    cluster.metric(number, "kvindex_ingest_gap_batches_total").unwrap_or(0)
}
