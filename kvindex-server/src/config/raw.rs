//! The configuration as written, every key optional, and how each checked value prints.

use serde::{Deserialize, Serialize};

use super::{Config, LogFormat};
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
    /// Static workers; only in the file.
    #[serde(skip_serializing)]
    pub workers: Vec<RawWorker>,
}

/// Every key that may also come from the environment.
pub(super) const KEYS: [&str; 19] = [
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
    KEYS.into_iter().zip(values)
}

/// JSON's escapes are TOML's too.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
