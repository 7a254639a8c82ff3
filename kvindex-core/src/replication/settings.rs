//! How a shard paces itself.

use openraft::{Config, SnapshotPolicy};
use std::time::Duration;

use super::ids::ShardId;

/// Times and sizes of all shards of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// Silence after which followers elect another, at random between these two; the larger one is also how long a
    /// leader may trust its lease.
    pub election: (Duration, Duration),
    /// Bytes of log since the last snapshot that make the next one due.
    pub snapshot_after: u64,
    /// Entries kept in the log behind a snapshot, for followers that are only a little behind.
    pub keep_entries: u64,
    /// How long a follower may take for a part of a snapshot, the last part's installation included. An answer that is
    /// lost without an error holds its catching up for so long.
    pub install: Duration,
    /// Makes election times; random in service, given in a simulation.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(300), Duration::from_millis(600)),
            snapshot_after: 64 << 20,
            keep_entries: 1000,
            install: Duration::from_secs(30),
            seed: 0,
        }
    }
}

impl Settings {
    pub(crate) fn raft_config(&self, shard: ShardId) -> Result<Config, String> {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            cluster_name: shard.to_string(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election.0),
            election_timeout_max: ms(self.election.1),
            // Ours count bytes, not entries, which are of very different sizes.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.keep_entries,
            purge_batch_size: 256,
            max_payload_entries: 1024,
            install_snapshot_timeout: ms(self.install),
            enable_pre_vote: Some(true),
            // A leader restored at restart may serve what is older than what was seen.
            enable_leader_restore: Some(false),
            ..Config::default()
        };
        config.validate().map_err(|error| format!("heartbeat and election times: {error}"))
    }

    /// Differs between shards, so that they do not all hold elections at one moment.
    pub(crate) fn seed_of(&self, shard: ShardId) -> u64 {
        self.seed.rotate_left(u32::from(shard.0) % 63) ^ (u64::from(shard.0) << 48)
    }
}
