//! The configuration as written, every key optional, and how each checked value prints.

use serde::{Deserialize, Serialize};

use super::{ClusterConfig, Config, LogFormat};
use crate::cluster::DEFAULT_SHARDS;
use crate::workers::RawWorker;

/// The configuration as written in the file, the environment (`KVINDEX_` and the key in capitals) or flags.
/// A key left out keeps its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawConfig {
    /// Address and port to listen on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// `text` or `json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// Log filter, such as `info` or `kvindex_server=debug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_filter: Option<String>,
    /// Snapshot file; absent or empty for memory only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_path: Option<String>,
    /// Seconds between snapshots; 0 for at shutdown only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_interval_s: Option<u64>,
    /// Threads that own engine sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_threads: Option<u64>,
    /// `purge` or `keep_as_suspect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_policy: Option<String>,
    /// Milliseconds of silence after which an engine's last batch is asked for again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_poll_ms: Option<u64>,
    /// Milliseconds that a replay may take to answer, and to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay_timeout_ms: Option<u64>,
    /// Largest request in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Longest prompt in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_prompt_tokens: Option<u64>,
    /// Most questions in one batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch: Option<u64>,
    /// Most candidates or labels in one question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_candidates: Option<u64>,
    /// Most open match streams and watchers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<u64>,
    /// Changes a watcher may lag behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch_buffer: Option<u64>,
    /// Most registered workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_workers: Option<u64>,
    /// Most (block, owner) entries of the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_entries: Option<u64>,
    /// Most bytes of the index; beyond it blocks are evicted. 0 for no cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_index_bytes: Option<u64>,
    /// Seconds that open calls may take to end at shutdown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_s: Option<u64>,
    /// Where other nodes of the cluster are served; absent or empty for a node alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_listen: Option<String>,
    /// Where other nodes reach this one, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_peer: Option<String>,
    /// Where clients reach this node, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Where to look for other nodes, separated by commas: `host:port`, or `dns:host:port` for all addresses of a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_peers: Option<String>,
    /// Voters that the cluster shall have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Shards of the cluster; fixed when it is founded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_shards: Option<u64>,
    /// Directory of a cluster's node: identity, log, snapshots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
    /// `fjall`, `sled` or `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_store: Option<String>,
    /// `fsync`, `async` or `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,
    /// Whether followers listen to the engines as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby: Option<bool>,
    /// Milliseconds between a leader's signs of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
    /// MiB of log after which a shard's snapshot is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_log_mib: Option<u64>,
    /// Static workers; only in the file.
    #[serde(skip_serializing)]
    pub workers: Vec<RawWorker>,
}

/// Every key that may also come from the environment.
pub(super) const KEYS: [&str; 31] = [
    "listen",
    "log_format",
    "log_filter",
    "snapshot_path",
    "snapshot_interval_s",
    "ingest_threads",
    "gap_policy",
    "idle_poll_ms",
    "replay_timeout_ms",
    "max_body_bytes",
    "max_prompt_tokens",
    "max_batch",
    "max_candidates",
    "max_streams",
    "watch_buffer",
    "max_workers",
    "max_entries",
    "max_index_bytes",
    "drain_s",
    "peer_listen",
    "advertise_peer",
    "advertise",
    "cluster_peers",
    "cluster_size",
    "cluster_shards",
    "data_dir",
    "log_store",
    "durability",
    "standby",
    "heartbeat_ms",
    "snapshot_log_mib",
];

/// Every value in effect, as TOML.
pub(super) fn shown(config: &Config) -> impl Iterator<Item = (&'static str, String)> {
    let text = |text: &str| toml_string(text);
    let number = |value: usize| value.to_string();
    let format = match config.log.format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let policy = serde_json::to_value(config.ingest.gap_policy);
    let snapshot = config.snapshot.as_ref();
    let interval = snapshot.and_then(|s| s.interval).map_or(0, |i| i.as_secs());
    let values = [
        text(&config.listen.to_string()),
        text(format),
        text(&config.log.filter),
        text(&snapshot.map_or_else(String::new, |s| s.path.display().to_string())),
        interval.to_string(),
        number(config.ingest.threads),
        policy.map_or_else(|_| String::new(), |policy| policy.to_string()),
        config.ingest.idle_poll.as_millis().to_string(),
        config.ingest.replay_timeout.as_millis().to_string(),
        number(config.limits.body_bytes),
        number(config.limits.prompt_tokens),
        number(config.limits.batch),
        number(config.limits.candidates),
        number(config.limits.streams),
        number(config.limits.watch_buffer),
        number(config.limits.workers),
        number(config.index.max_entries),
        number(config.limits.index_bytes),
        config.drain.as_secs().to_string(),
    ];
    KEYS.into_iter().zip(values.into_iter().chain(shown_cluster(config.cluster.as_ref())))
}

/// The keys of a cluster's node; as good as absent for a node alone.
fn shown_cluster(cluster: Option<&ClusterConfig>) -> Vec<String> {
    let text = |text: String| toml_string(&text);
    let address = |address: Option<&String>| text(address.cloned().unwrap_or_default());
    let alone = ClusterConfig::default();
    let cluster = cluster.unwrap_or(&alone);
    vec![
        text(cluster.peer_listen.map_or_else(String::new, |listen| listen.to_string())),
        address(cluster.advertise_peer.as_ref()),
        address(cluster.advertise.as_ref()),
        text(cluster.peers.join(",")),
        cluster.size.to_string(),
        cluster.shards.map_or_else(|| DEFAULT_SHARDS.to_string(), |shards| shards.to_string()),
        text(cluster.data_dir.display().to_string()),
        text(cluster.log_store.name().into()),
        text(cluster.durability.name().into()),
        cluster.standby.to_string(),
        cluster.heartbeat.as_millis().to_string(),
        (cluster.snapshot_after >> 20).to_string(),
    ]
}

/// JSON's escapes are TOML's too.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
