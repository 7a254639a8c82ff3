//! What waits for what in a group commit, and what a failure leaves.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, RaftLogReader};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::ids::{NodeId, ShardId};
use super::super::raft::{Entry, LogId, Vote};
use super::{Change, Durability, LogBackend, LogError, LogStore, Mark, MemoryBackend, StoredShard, Urgency};

fn blank(index: u64) -> Entry {
    Entry { log_id: LogId::new_term_index(1, index), payload: EntryPayload::Blank }
}

/// After the first failure nothing is written any more, and everything says why.
#[tokio::test]
async fn a_failure_is_final() {
    let backend = FailsOnce::default();
    let store = LogStore::start(Arc::new(backend), Durability::Fsync);
    let mut log = store.shard_log(ShardId(0)).await.unwrap();
    let failed = store.write(vec![commit_mark()], Urgency::Ordinary).await.unwrap_err();
    assert!(matches!(failed, LogError::Engine { .. }));
    assert_eq!(store.write(vec![commit_mark()], Urgency::Ordinary).await, Err(failed.clone()));
    assert!(log.append(vec![blank(0)], IOFlushed::noop()).await.is_err());
    assert!(log.try_get_log_entries(..).await.is_err());
    assert!(log.save_vote(&Vote::new(1, NodeId(1))).await.is_err());
    assert_eq!(store.close().await, Err(failed.clone()));
    assert_eq!(store.failure(), Some(failed));
}

/// A flush that was due by time stayed due once the log had failed: the task that writes went round and round.
#[test]
fn a_log_that_has_failed_rests() {
    let (done, rests) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            let store = LogStore::start(Arc::new(FailsOnce::default()), Durability::ASYNC);
            store.write(vec![commit_mark()], Urgency::Ordinary).await.unwrap_err();
            // A paused clock moves on only when nobody has anything to do.
            tokio::time::sleep(Duration::from_secs(10)).await;
        });
        done.send(()).unwrap();
    });
    assert!(rests.recv_timeout(Duration::from_secs(30)).is_ok());
}

fn commit_mark() -> Change {
    Change::Mark { shard: ShardId(0), mark: Mark::Committed, record: Bytes::new() }
}

/// A disk that fails one write, and would take the next.
#[derive(Debug, Default)]
struct FailsOnce {
    memory: MemoryBackend,
    failed: AtomicBool,
}

impl LogBackend for FailsOnce {
    fn commit(&self, changes: Vec<Change>, durable: bool) -> BoxFuture<'_, Result<(), LogError>> {
        if self.failed.swap(true, Ordering::Relaxed) {
            return self.memory.commit(changes, durable);
        }
        let error = LogError::Engine { doing: "writing", place: self.place(), why: "no space".into() };
        futures_util::future::ready(Err(error)).boxed()
    }

    fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, Bytes)>, LogError>> {
        self.memory.read(shard, first, last, max_bytes)
    }

    fn shard(&self, shard: ShardId) -> BoxFuture<'_, Result<StoredShard, LogError>> {
        self.memory.shard(shard)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.memory.close()
    }

    fn tail_may_be_gone(&self) -> bool {
        false
    }

    fn accept_tail(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn place(&self) -> String {
        "a failing disk".into()
    }
}

/// A disk that takes 10 ms, of virtual time, and notes how many changes each commit had, and whether it was flushed.
#[derive(Debug, Clone, Default)]
struct Slow {
    memory: MemoryBackend,
    commits: Arc<Mutex<Vec<(usize, bool)>>>,
}

impl LogBackend for Slow {
    fn commit(&self, changes: Vec<Change>, durable: bool) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            self.commits.lock().push((changes.len(), durable));
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.memory.commit(changes, durable).await
        }
        .boxed()
    }

    fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, Bytes)>, LogError>> {
        self.memory.read(shard, first, last, max_bytes)
    }

    fn shard(&self, shard: ShardId) -> BoxFuture<'_, Result<StoredShard, LogError>> {
        self.memory.shard(shard)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        self.memory.close()
    }

    fn tail_may_be_gone(&self) -> bool {
        false
    }

    fn accept_tail(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn place(&self) -> String {
        "a slow disk".into()
    }
}

fn append(shard: u16) -> Vec<Change> {
    vec![Change::Append { shard: ShardId(shard), index: 0, record: Bytes::new() }]
}

/// What eight shards queue while one commit is under way is one commit.
#[tokio::test(start_paused = true)]
async fn shards_share_a_flush() {
    let disk = Slow::default();
    let store = LogStore::start(Arc::new(disk.clone()), Durability::Fsync);
    let shards = (0..9).map(|shard| {
        let store = store.clone();
        async move { store.write(append(shard), Urgency::Ordinary).await.unwrap() }
    });
    futures_util::future::join_all(shards).await;
    let sizes: usize = disk.commits.lock().iter().map(|(size, _)| size).sum();
    assert_eq!(sizes, 9);
    assert!(disk.commits.lock().len() <= 2);
    assert!(disk.commits.lock().iter().all(|(_, durable)| *durable));
}

/// At `async` an entry does not wait for the flush, which comes within the interval, and once; a vote does.
#[tokio::test(start_paused = true)]
async fn only_votes_wait_for_the_flush() {
    let disk = Slow::default();
    let store = LogStore::start(Arc::new(disk.clone()), Durability::ASYNC);
    store.write(append(0), Urgency::Ordinary).await.unwrap();
    assert_eq!(*disk.commits.lock(), [(1, false)]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(*disk.commits.lock(), [(1, false), (0, true)]);
    store.write(append(1), Urgency::Flushed).await.unwrap();
    assert_eq!(disk.commits.lock().last(), Some(&(1, true)));
}

/// A lazy mark rides with the next commit, and is written by itself when there is none; the latest one counts.
#[tokio::test(start_paused = true)]
async fn lazy_marks_ride_along() {
    let disk = Slow::default();
    let store = LogStore::start(Arc::new(disk.clone()), Durability::Fsync);
    for _ in 0..5 {
        store.write(vec![commit_mark()], Urgency::Lazy).await.unwrap();
    }
    assert!(disk.commits.lock().is_empty());
    store.write(append(0), Urgency::Ordinary).await.unwrap();
    assert_eq!(*disk.commits.lock(), [(2, true)]);
    store.write(vec![commit_mark()], Urgency::Lazy).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(*disk.commits.lock(), [(2, true), (1, true)]);
}

/// What was queued before the store is closed is written, what comes after is refused.
#[tokio::test(start_paused = true)]
async fn closing_finishes_what_is_queued() {
    let disk = Slow::default();
    let store = LogStore::start(Arc::new(disk.clone()), Durability::ASYNC);
    let early = store.write(append(0), Urgency::Ordinary);
    let (early, closed) = tokio::join!(early, store.close());
    assert_eq!((early, closed), (Ok(()), Ok(())));
    assert_eq!(disk.commits.lock().last(), Some(&(0, true)));
    assert_eq!(store.write(append(1), Urgency::Ordinary).await, Err(LogError::Closed));
}
