//! What the screen tells, from two looks: counts of the later one, rates between them.

use kvindex_client::v1::{self, TrustState};
use serde::Serialize;
use std::collections::BTreeMap;

use super::look::Look;
use crate::tables::trust_word;

/// Everything on the screen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Board {
    pub(super) node: NodeLine,
    pub(super) workers: Vec<WorkerRow>,
    pub(super) shards: Vec<ShardRow>,
    pub(super) hot: Vec<HotRow>,
    /// What could not be had, and why.
    pub(super) notes: Vec<String>,
}

/// The node as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct NodeLine {
    pub(super) server: String,
    pub(super) version: Option<String>,
    pub(super) cluster_id: Option<String>,
    pub(super) node_id: Option<u64>,
    pub(super) nodes: usize,
    pub(super) leads: usize,
    pub(super) workers: usize,
    pub(super) streams: usize,
    pub(super) live: usize,
    pub(super) blocks: u64,
    pub(super) bytes: Option<u64>,
    pub(super) max_bytes: Option<u64>,
    pub(super) cpu_percent: Option<f64>,
    pub(super) batches_per_s: Option<f64>,
    pub(super) questions_per_s: Option<f64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

/// One event stream of a worker; a worker without any has a row as well.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct WorkerRow {
    pub(super) worker_id: String,
    pub(super) dp_rank: Option<u32>,
    pub(super) model: String,
    pub(super) tenant: String,
    pub(super) engine: String,
    pub(super) events_from: String,
    pub(super) trust: &'static str,
    pub(super) reason: String,
    pub(super) lag_ms: u64,
    pub(super) generation: u64,
    pub(super) applied_seq: Option<u64>,
    pub(super) blocks: u64,
    /// None without a look before, and across a restart of the engine.
    pub(super) batches_per_s: Option<f64>,
}

/// One shard on this node.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct ShardRow {
    pub(super) shard: u32,
    pub(super) role: String,
    pub(super) stopped: String,
    pub(super) leader: u64,
    pub(super) term: u64,
    pub(super) applied: Option<u64>,
    pub(super) entries_behind: u64,
    pub(super) age_ms: Option<u64>,
    pub(super) voters: usize,
    pub(super) members: usize,
    pub(super) entries_per_s: Option<f64>,
}

/// The beginning that many prompts share.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct HotRow {
    pub(super) model: String,
    pub(super) tenant: String,
    pub(super) lora_name: Option<String>,
    /// Of its last block, in hexadecimal.
    pub(super) sequence_hash: String,
    pub(super) blocks: u64,
    pub(super) tokens: u64,
    pub(super) questions_per_s: f64,
    /// Of its tenant's questions, 0 to 1.
    pub(super) share: f64,
    pub(super) held_by: u64,
}

impl Board {
    pub(super) fn new(server: &str, now: &Look, before: Option<&Look>) -> Self {
        let seconds = before.map_or(0.0, |before| now.at.saturating_duration_since(before.at).as_secs_f64());
        // Of no time there are no rates.
        let before = before.filter(|_| seconds > 0.0).map(|before| (before, seconds));
        let workers = worker_rows(now, before);
        let shards = shard_rows(now, before);
        let node = node_line(server, now, before, &workers);
        let missing = [now.cluster.as_ref().err(), now.page.as_ref().err()];
        let waits =
            now.cluster.as_ref().ok().map(|cluster| &cluster.waits_for).filter(|text| !text.is_empty());
        let notes = missing.into_iter().flatten().chain(waits).cloned().collect();
        Self { node, workers, shards, hot: hot_rows(now), notes }
    }
}

fn node_line(server: &str, now: &Look, before: Option<(&Look, f64)>, rows: &[WorkerRow]) -> NodeLine {
    let mut line = NodeLine {
        server: server.to_owned(),
        workers: now.workers.len(),
        streams: rows.iter().filter(|row| row.dp_rank.is_some()).count(),
        live: rows.iter().filter(|row| row.trust == TrustState::Live.word()).count(),
        blocks: rows.iter().map(|row| row.blocks).sum(),
        batches_per_s: before
            .map(|_| rows.iter().filter_map(|row| row.batches_per_s).fold(0.0, |sum, rate| sum + rate)),
        ..NodeLine::default()
    };
    if let Some(cluster) = now.cluster.as_ref().ok().filter(|cluster| !cluster.cluster_id.is_empty()) {
        line.cluster_id = Some(cluster.cluster_id.clone());
        line.node_id = Some(cluster.node_id);
        line.nodes = cluster.nodes.len();
        line.leads = cluster.shards.iter().filter(|shard| shard.leader == cluster.node_id).count();
    }
    // The node's own count, of the last minute, knows the questions on streams as well, but none of a tenant of whose
    // prompts nobody ever held anything; calls are all of those, and no streams.
    line.questions_per_s = now.hot.as_ref().map(|hot| hot.questions_per_s);
    let Ok(page) = &now.page else { return line };
    line.version = page.version.clone();
    line.bytes = page.bytes.map(|bytes| bytes as u64);
    line.max_bytes = page.max_bytes.map(|bytes| bytes as u64);
    let Some((Ok(earlier), seconds)) = before.map(|(before, seconds)| (&before.page, seconds)) else {
        return line;
    };
    let spent = page.cpu_seconds.zip(earlier.cpu_seconds).map(|(now, then)| now - then);
    line.cpu_percent = spent.filter(|spent| *spent >= 0.0).map(|spent| spent / seconds * 100.0);
    if let Some(answered) = page.since(earlier) {
        let calls = answered.calls / seconds;
        line.questions_per_s = Some(line.questions_per_s.map_or(calls, |counted| counted.max(calls)));
        line.p50_ms = answered.p50.map(|seconds| seconds * 1000.0);
        line.p99_ms = answered.p99.map(|seconds| seconds * 1000.0);
    }
    line
}

fn hot_rows(now: &Look) -> Vec<HotRow> {
    let row = |prefix: &v1::HotPrefix| HotRow {
        model: prefix.model.clone(),
        tenant: prefix.tenant.clone(),
        lora_name: prefix.lora_name.clone(),
        sequence_hash: format!("{:016x}", prefix.sequence_hash),
        blocks: prefix.blocks,
        tokens: prefix.tokens,
        questions_per_s: prefix.per_s,
        share: prefix.share,
        held_by: prefix.held_by,
    };
    now.hot.iter().flat_map(|hot| &hot.prefixes).map(row).collect()
}

/// Whose stream, in which life, and how far.
type Applied<'a> = BTreeMap<(&'a str, u32), (u64, u64)>;

fn applied(look: &Look) -> Applied<'_> {
    let streams =
        look.workers.iter().flat_map(|worker| worker.streams.iter().map(move |stream| (worker, stream)));
    streams
        .filter_map(|(worker, stream)| {
            let trust = stream.trust.as_ref()?;
            // The next one to come, so that the first batch counts as one.
            let next = trust.applied_seq.map_or(0, |seq| seq.saturating_add(1));
            Some(((worker.worker_id.as_str(), stream.dp_rank), (trust.generation, next)))
        })
        .collect()
}

fn worker_rows(now: &Look, before: Option<(&Look, f64)>) -> Vec<WorkerRow> {
    let earlier = before.map(|(look, seconds)| (applied(look), seconds));
    let mut rows = Vec::new();
    for worker in &now.workers {
        let row = WorkerRow {
            worker_id: worker.worker_id.clone(),
            model: worker.model.clone(),
            tenant: worker.tenant.clone(),
            engine: worker.engine.clone(),
            trust: trust_word(None),
            ..WorkerRow::default()
        };
        if worker.streams.is_empty() {
            rows.push(row.clone());
        }
        for stream in &worker.streams {
            let trust = stream.trust.clone().unwrap_or_default();
            let batches_per_s = earlier.as_ref().and_then(|(earlier, seconds)| {
                let (generation, next) = earlier.get(&(worker.worker_id.as_str(), stream.dp_rank))?;
                let now = trust.applied_seq.map_or(0, |seq| seq.saturating_add(1));
                (*generation == trust.generation && now >= *next).then(|| (now - next) as f64 / seconds)
            });
            rows.push(WorkerRow {
                dp_rank: Some(stream.dp_rank),
                events_from: stream.endpoint.clone().unwrap_or_else(|| "pushed".into()),
                trust: trust_word(Some(&trust)),
                reason: trust.reason,
                lag_ms: trust.lag_ms,
                generation: trust.generation,
                applied_seq: trust.applied_seq,
                blocks: stream.blocks,
                batches_per_s,
                ..row.clone()
            });
        }
    }
    rows
}

fn shard_rows(now: &Look, before: Option<(&Look, f64)>) -> Vec<ShardRow> {
    let Ok(cluster) = &now.cluster else { return Vec::new() };
    let earlier: BTreeMap<u32, u64> = match before.map(|(before, _)| &before.cluster) {
        Some(Ok(cluster)) => cluster.shards.iter().filter_map(|s| Some((s.shard, s.applied?))).collect(),
        _ => BTreeMap::new(),
    };
    let seconds = before.map_or(1.0, |(_, seconds)| seconds);
    let row = |shard: &v1::ShardState| ShardRow {
        shard: shard.shard,
        role: shard.role.clone(),
        stopped: shard.stopped.clone(),
        leader: shard.leader,
        term: shard.term,
        applied: shard.applied,
        entries_behind: shard.entries_behind,
        age_ms: shard.age_ms,
        voters: shard.members.iter().filter(|member| member.voter).count(),
        members: shard.members.len(),
        entries_per_s: (shard.applied.zip(earlier.get(&shard.shard)))
            .and_then(|(now, then)| now.checked_sub(*then))
            .map(|entries| entries as f64 / seconds),
    };
    cluster.shards.iter().map(row).collect()
}

#[cfg(test)]
mod tests;
