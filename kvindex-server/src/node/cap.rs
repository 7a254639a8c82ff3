//! Keeping the index below a cap on its bytes. A node alone evicts by itself, on the way that every change takes. In a
//! cluster a node only says how many entries it can bear, and what goes is replicated (`cluster/room`).

use parking_lot::{Mutex, RwLockWriteGuard};
use std::time::{Duration, Instant};

use kvindex_core::{Command, Giving, WorkerId};

use super::{Node, unix_ms};
use crate::config::Config;

/// How often the index is measured at least, because not only entries take room.
const EVERY: Duration = Duration::from_secs(1);
/// Tries to get below the cap before the next commands are taken in; what is left waits for the next measurement.
const ROUNDS: usize = 4;

#[derive(Debug)]
pub(super) struct Cap {
    /// 0 for none.
    bytes: usize,
    /// Whether this node decides for itself.
    alone: bool,
    next: Mutex<Next>,
}

/// When the index is measured again.
#[derive(Debug)]
struct Next {
    /// When it has so many entries.
    entries: usize,
    /// Or at this time.
    at: Instant,
}

impl Cap {
    pub(super) fn new(config: &Config) -> Self {
        let next = Mutex::new(Next { entries: 0, at: Instant::now() });
        Self { bytes: config.limits.index_bytes, alone: config.cluster.is_none(), next }
    }

    /// What is evicted down to: a twentieth below the cap, so that it is not needed all the time.
    fn enough(&self) -> usize {
        self.bytes / 20 * 19
    }
}

impl Node {
    /// The cap on the index's bytes; 0 for none.
    #[must_use]
    pub fn index_cap(&self) -> usize {
        self.cap.bytes
    }

    /// Evicts what is above the cap, if this node is alone.
    pub(super) fn keep_below_cap(&self) {
        if self.cap.bytes == 0 || !self.cap.alone {
            return;
        }
        // Another thread is at it.
        let Some(mut next) = self.cap.next.try_lock() else { return };
        if self.index.read().reader().entry_count() < next.entries && Instant::now() < next.at {
            return;
        }
        for _ in 0..ROUNDS {
            let Some(commands) = self.above_cap() else { break };
            for command in &commands {
                let mut index = self.index.write();
                self.apply_locked(&mut index, command);
                RwLockWriteGuard::unlock_fair(index);
            }
        }
        let entries = self.index.read().reader().entry_count();
        *next = Next { entries: entries + entries / 64 + 256, at: Instant::now() + EVERY };
    }

    /// What is to go, if the index is above the cap.
    fn above_cap(&self) -> Option<Vec<Command>> {
        let index = self.index.read();
        let reader = index.reader();
        let giving = self.giving(|target| reader.giving_to_bytes(target, |_| true), reader.bytes())?;
        if giving.values().sum::<usize>() >= reader.entry_count() {
            let (bytes, cap) = (reader.bytes(), self.cap.bytes);
            tracing::warn!(
                bytes,
                cap,
                "even an empty index is above max_index_bytes: everything is evicted; raise it"
            );
        }
        Some(reader.plan_giving(&giving, unix_ms(), |_| true))
    }

    fn giving(&self, to: impl FnOnce(usize) -> Giving, bytes: usize) -> Option<Giving> {
        let above = self.cap.bytes > 0 && bytes > self.cap.bytes;
        Some(to(self.cap.enough())).filter(|giving| above && !giving.is_empty())
    }

    /// How many entries this node can bear, if it holds more. It follows from what entries cost here and now.
    pub(crate) fn bearable_entries(&self) -> Option<u64> {
        if self.cap.bytes == 0 {
            return None;
        }
        let index = self.index.read();
        let reader = index.reader();
        let giving = self.giving(|target| reader.giving_to_bytes(target, |_| true), reader.bytes())?;
        let left = reader.entry_count().saturating_sub(giving.values().sum());
        Some(u64::try_from(left).unwrap_or(u64::MAX))
    }

    /// What of the workers that `of` chooses is to go so that no more than `keep` entries are left, `at_once` at most.
    pub(crate) fn plan_room(
        &self,
        keep: u64,
        at_once: usize,
        of: impl Fn(&WorkerId) -> bool,
    ) -> Vec<Command> {
        let index = self.index.read();
        let reader = index.reader();
        let entries = reader.entry_count();
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).max(entries.saturating_sub(at_once));
        let giving = reader.giving_to_entries(keep, &of);
        if giving.is_empty() {
            return Vec::new();
        }
        reader.plan_giving(&giving, unix_ms(), of)
    }
}
