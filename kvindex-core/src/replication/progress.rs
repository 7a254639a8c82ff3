//! How far a shard is on this node, and how fresh that makes its answers.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// What is applied here beside what is known to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardLag {
    /// Number of the last applied entry; `None` before the first.
    pub applied: Option<u64>,
    /// Entries that are known to be committed and not applied.
    pub entries: u64,
    /// Age of the last moment at which everything committed was applied here: an answer of this node is no older.
    /// `None` when there was no such moment since the start.
    pub age: Option<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Progress {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    applied: Option<u64>,
    committed: Option<u64>,
    /// When the leader last said what is committed.
    heard: Option<Instant>,
    /// The last of those moments at which all of that was, or came to be, applied.
    fresh: Option<Instant>,
}

impl State {
    fn settle(&mut self) {
        if self.heard > self.fresh && self.applied >= self.committed {
            self.fresh = self.heard;
        }
    }
}

impl Progress {
    pub(crate) fn applied(&self, index: u64) {
        let mut state = self.state.lock();
        state.applied = Some(index);
        state.settle();
    }

    /// The leader's word on what is committed.
    pub(crate) fn heard(&self, committed: Option<u64>) {
        let mut state = self.state.lock();
        state.committed = state.committed.max(committed);
        state.heard = Some(Instant::now());
        state.settle();
    }

    /// `quorum` is, for a leader, how long ago a quorum confirmed it: what it has applied is what there was then.
    pub(crate) fn lag(&self, quorum: Option<Duration>) -> ShardLag {
        let state = self.state.lock();
        let behind = match (state.committed, state.applied) {
            (Some(committed), Some(applied)) => committed.saturating_sub(applied),
            (Some(committed), None) => committed + 1,
            (None, _) => 0,
        };
        let age = quorum.or_else(|| state.fresh.map(|at| at.elapsed()));
        ShardLag { applied: state.applied, entries: if quorum.is_some() { 0 } else { behind }, age }
    }
}
