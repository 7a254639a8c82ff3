//! NVIDIA Dynamo's structures, from the crate `dynamo-kv-router`.

use std::cell::RefCell;
use std::hint::black_box;

use dynamo_kv_router::indexer::{KvIndexerInterface, SyncIndexer, ThreadPoolIndexer};
use dynamo_kv_router::nested_map::SearchMode;
use dynamo_kv_router::protocols::{
    ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheRemoveData, KvCacheStoreData,
    KvCacheStoredBlockData, LocalBlockHash, OverlapScores, RouterEvent,
};
use dynamo_kv_router::{ConcurrentRadixTreeCompressed, PositionalIndexer, RadixTree};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::KvIndex;
use crate::work::Credit;
use crate::work::stream::Block;

/// Tokens a block; nothing depends on it here.
const BLOCK_SIZE: u32 = 16;
/// Blocks that the positional index jumps at once, as its own benchmarks have it.
const JUMP: usize = 64;

fn stored(worker: u32, id: u64, parent: Option<u64>, blocks: &[Block]) -> RouterEvent {
    let block = |block: &Block| KvCacheStoredBlockData {
        tokens_hash: LocalBlockHash(block.local),
        block_hash: ExternalSequenceBlockHash(block.engine),
        mm_extra_info: None,
    };
    let data = KvCacheEventData::Stored(KvCacheStoreData {
        parent_hash: parent.map(ExternalSequenceBlockHash),
        start_position: None,
        blocks: blocks.iter().map(block).collect(),
    });
    RouterEvent::new(u64::from(worker), KvCacheEvent { event_id: id, dp_rank: 0, data })
}

fn removed(worker: u32, id: u64, hashes: &[u64]) -> RouterEvent {
    let block_hashes = hashes.iter().map(|hash| ExternalSequenceBlockHash(*hash)).collect();
    let data = KvCacheEventData::Removed(KvCacheRemoveData { block_hashes });
    RouterEvent::new(u64::from(worker), KvCacheEvent { event_id: id, dp_rank: 0, data })
}

fn credits(scores: &OverlapScores) -> Vec<Credit> {
    let credit = |(worker, depth): (&dynamo_kv_router::protocols::WorkerWithDpRank, &u32)| {
        (*depth > 0).then_some((worker.worker_id as u32, *depth))
    };
    let mut credits: Vec<Credit> = scores.scores.iter().filter_map(credit).collect();
    credits.sort_unstable();
    credits
}

/// `RadixTree` on the calling thread. In production it stands behind a channel, which costs more.
pub(crate) struct Radix(RefCell<RadixTree>);

impl Default for Radix {
    fn default() -> Self {
        Self(RefCell::new(RadixTree::new()))
    }
}

impl KvIndex for Radix {
    type Event = RouterEvent;
    type Query = Vec<LocalBlockHash>;
    type Answer = OverlapScores;

    fn store(&self, worker: u32, id: u64, parent: Option<u64>, blocks: &[Block]) -> RouterEvent {
        stored(worker, id, parent, blocks)
    }
    fn remove(&self, worker: u32, id: u64, hashes: &[u64]) -> RouterEvent {
        removed(worker, id, hashes)
    }
    fn query(&self, locals: &[u64]) -> Vec<LocalBlockHash> {
        locals.iter().map(|hash| LocalBlockHash(*hash)).collect()
    }
    fn apply(&self, event: RouterEvent) {
        // Blocks without a known parent are refused; what that does to answers shows in the probes.
        let _ = black_box(self.0.borrow_mut().apply_event(event));
    }
    fn find(&self, query: &Vec<LocalBlockHash>) -> OverlapScores {
        self.0.borrow().find_matches(query.clone(), false)
    }
    fn credits(answer: &OverlapScores) -> Vec<Credit> {
        credits(answer)
    }
}

/// The production shape: one writer thread behind a queue, reads on the calling thread.
pub(crate) struct Pool<T: SyncIndexer> {
    index: ThreadPoolIndexer<T>,
    runtime: Option<Mutex<Runtime>>,
}

impl<T: SyncIndexer> Pool<T> {
    fn new(backend: T) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().ok().map(Mutex::new);
        Self { index: ThreadPoolIndexer::new(backend, 1, BLOCK_SIZE), runtime }
    }
}

/// Dynamo's concurrent compressed radix tree.
pub(crate) fn compressed() -> Pool<ConcurrentRadixTreeCompressed> {
    Pool::new(ConcurrentRadixTreeCompressed::new())
}

/// Dynamo's positional indexer.
pub(crate) fn positional() -> Pool<PositionalIndexer> {
    Pool::new(PositionalIndexer::new_with_mode(JUMP, SearchMode::Strided))
}

impl<T: SyncIndexer> KvIndex for Pool<T> {
    const QUEUES: bool = true;
    type Event = RouterEvent;
    type Query = Vec<LocalBlockHash>;
    type Answer = OverlapScores;

    fn store(&self, worker: u32, id: u64, parent: Option<u64>, blocks: &[Block]) -> RouterEvent {
        stored(worker, id, parent, blocks)
    }
    fn remove(&self, worker: u32, id: u64, hashes: &[u64]) -> RouterEvent {
        removed(worker, id, hashes)
    }
    fn query(&self, locals: &[u64]) -> Vec<LocalBlockHash> {
        locals.iter().map(|hash| LocalBlockHash(*hash)).collect()
    }
    fn apply(&self, event: RouterEvent) {
        let queued = self.index.enqueue_event(event);
        debug_assert!(queued.is_ok(), "the writer thread is gone");
    }
    fn barrier(&self) {
        if let Some(runtime) = &self.runtime {
            let flushed = runtime.lock().block_on(self.index.flush_and_wait());
            debug_assert!(flushed.is_ok(), "the writer thread is gone");
        }
    }
    fn find(&self, query: &Vec<LocalBlockHash>) -> OverlapScores {
        self.index.backend().find_matches(query, false)
    }
    fn credits(answer: &OverlapScores) -> Vec<Credit> {
        credits(answer)
    }
}

impl<T: SyncIndexer> Drop for Pool<T> {
    fn drop(&mut self) {
        self.index.shutdown();
    }
}
