//! A log in memory: for nodes that keep nothing, and for tests.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::ids::ShardId;
use super::backend::{Change, LogBackend, Mark, StoredShard};
use super::error::LogError;

/// Logs in memory. A clone is the same store, so a test may open it again.
#[derive(Debug, Clone, Default)]
pub struct MemoryBackend {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: BTreeMap<(ShardId, u64), Bytes>,
    marks: BTreeMap<(ShardId, Mark), Bytes>,
}

impl Kept {
    fn first_of(&self, shard: ShardId, first: u64, last: u64) -> Option<(ShardId, u64)> {
        let (key, _) = self.entries.range((shard, first)..).next()?;
        (*key <= (shard, last)).then_some(*key)
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Append { shard, index, record } => {
                self.entries.insert((shard, index), record);
            }
            Change::Remove { shard, first, last } => {
                while let Some(key) = self.first_of(shard, first, last) {
                    self.entries.remove(&key);
                }
            }
            Change::Mark { shard, mark, record } => {
                self.marks.insert((shard, mark), record);
            }
        }
    }
}

impl LogBackend for MemoryBackend {
    fn commit(&self, changes: Vec<Change>, _durable: bool) -> BoxFuture<'_, Result<(), LogError>> {
        let mut kept = self.kept.lock();
        changes.into_iter().for_each(|change| kept.change(change));
        ready(Ok(())).boxed()
    }

    fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, Bytes)>, LogError>> {
        let kept = self.kept.lock();
        let mut found = Vec::new();
        let mut bytes = 0;
        if first <= last {
            for ((_, index), record) in kept.entries.range((shard, first)..=(shard, last)) {
                bytes += record.len();
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push((*index, record.clone()));
            }
        }
        ready(Ok(found)).boxed()
    }

    fn shard(&self, shard: ShardId) -> BoxFuture<'_, Result<StoredShard, LogError>> {
        let kept = self.kept.lock();
        let mut entries = kept.entries.range((shard, 0)..=(shard, u64::MAX)).map(|((_, index), _)| *index);
        let first = entries.next();
        let mut stored = StoredShard { first, last: entries.next_back().or(first), ..StoredShard::default() };
        for mark in Mark::ALL {
            *stored.mark_mut(mark) = kept.marks.get(&(shard, mark)).cloned();
        }
        ready(Ok(stored)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        ready(Ok(())).boxed()
    }

    /// No: a fresh store has no past.
    fn tail_may_be_gone(&self) -> bool {
        false
    }

    fn accept_tail(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn place(&self) -> String {
        "memory".into()
    }
}
