//! What a node's part in a cluster has done since it started, for a metrics page.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Durations;

/// Commits of a node's log, all shards together.
#[derive(Debug, Default)]
pub struct LogCounters {
    /// How long each took, the flush included where it flushed.
    pub commits: Durations,
    bytes: AtomicU64,
}

impl LogCounters {
    pub(super) fn committed(&self, bytes: usize, took: Duration) {
        self.commits.note(took);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// About how many bytes were written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Entries that this node proposed as a leader.
#[derive(Debug, Default)]
pub struct ProposalCounters {
    /// How long each took from being proposed to being applied here.
    pub applied: Durations,
    failed: AtomicU64,
}

impl ProposalCounters {
    pub(super) fn ended(&self, well: bool, took: Duration) {
        if well {
            self.applied.note(took);
        } else {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Entries that were not taken, or of which it is not known.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
