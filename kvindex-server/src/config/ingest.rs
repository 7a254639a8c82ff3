//! The keys of taking events in.

use clap::Args;
use kvindex_core::GapPolicy;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::check::Checker;
use super::{Config, ConfigError, Shown, text};

/// How events are taken in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[serde(default)]
pub struct RawIngest {
    /// Threads that own engine sockets [default: 1].
    #[arg(long, value_name = "N")]
    pub ingest_threads: Option<u64>,
    /// What an unfillable gap does: purge or keep_as_suspect [default: purge].
    #[arg(long, value_name = "POLICY")]
    pub gap_policy: Option<String>,
    /// Silence after which an engine's last batch is asked for again [default: 5000].
    #[arg(long, value_name = "MS")]
    pub idle_poll_ms: Option<u64>,
    /// How long a replay may take to answer, and to go on [default: 2000].
    #[arg(long, value_name = "MS")]
    pub replay_timeout_ms: Option<u64>,
}

/// How events are taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestConfig {
    /// Threads that own sockets.
    pub threads: usize,
    /// What an unfillable gap does, for workers that do not say.
    pub gap_policy: GapPolicy,
    /// Silence after which an engine's last batch is asked for again.
    pub idle_poll: Duration,
    /// How long a replay may take to answer, and to go on.
    pub replay_timeout: Duration,
}

const GAP_POLICIES: [(&str, GapPolicy); 2] =
    [("purge", GapPolicy::Purge), ("keep_as_suspect", GapPolicy::KeepAsSuspect)];

impl Checker<'_> {
    pub(super) fn ingest(&self, raw: &RawIngest) -> Result<IngestConfig, ConfigError> {
        Ok(IngestConfig {
            threads: self.number("ingest_threads", raw.ingest_threads, 1, 1..=64)?,
            gap_policy: self.word("gap_policy", raw.gap_policy.as_deref(), &GAP_POLICIES)?,
            idle_poll: self.millis("idle_poll_ms", raw.idle_poll_ms, 5000)?,
            replay_timeout: self.millis("replay_timeout_ms", raw.replay_timeout_ms, 2000)?,
        })
    }
}

/// The values in effect.
pub(super) fn shown(config: &Config) -> Shown {
    let ingest = &config.ingest;
    let policy = GAP_POLICIES.iter().find(|(_, policy)| *policy == ingest.gap_policy);
    vec![
        ("ingest_threads", ingest.threads.to_string()),
        ("gap_policy", text(policy.map_or("", |(word, _)| word))),
        ("idle_poll_ms", ingest.idle_poll.as_millis().to_string()),
        ("replay_timeout_ms", ingest.replay_timeout.as_millis().to_string()),
    ]
}
