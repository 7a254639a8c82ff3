//! kvindex-core: one thread at a time changes the index, others ask beside it. The only file here that knows kvindex-core.

use std::cell::RefCell;
use std::hint::black_box;

use kvindex_core::{
    Batch, BatchSeq, Change, Command, DpRank, EngineBlockHash, Generation, Group, HashScheme, HiddenIdentity,
    Index, IndexLimits, LocalBlockHash, Registration, Score, ScoreQuery, Scorer, Scratch, SequenceHash,
    StoredRun, StreamEvents, StreamId, Tier, WorkerId, WorkerSpec,
};
use parking_lot::Mutex;

use super::KvIndex;
use crate::work::Credit;
use crate::work::random::mix;
use crate::work::stream::Block;

/// Tokens a block; nothing depends on it here.
const BLOCK_SIZE: u32 = 16;
const MODEL: &str = "bench";

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The index, and each worker's stream with its next batch number.
pub(crate) struct Kvindex {
    index: Mutex<Index>,
    scorer: Scorer,
    streams: Mutex<Vec<(StreamId, u64)>>,
    /// Whether each worker's engine hashes blocks in its own way.
    private: bool,
}

impl Kvindex {
    pub(crate) fn new(private: bool) -> Self {
        let index = Index::new(IndexLimits::default());
        let scorer = index.scorer();
        Self { index: Mutex::new(index), scorer, streams: Mutex::default(), private }
    }

    fn engine_hash(&self, worker: u32, hash: u64) -> EngineBlockHash {
        let salted = || mix(hash ^ mix(u64::from(worker) + 1));
        EngineBlockHash(if self.private { salted() } else { hash })
    }

    /// Wraps a change. A worker not seen before is registered here, outside the timed part, as a node does long
    /// before its first event.
    fn command(&self, worker: u32, change: Change) -> Command {
        let mut streams = self.streams.lock();
        while let Some(stream) = stream(streams.len() as u32).filter(|_| streams.len() <= worker as usize) {
            let spec = WorkerSpec::new(stream.worker.clone(), MODEL);
            let spec = WorkerSpec { hidden_identity: HiddenIdentity::Unused, ..spec };
            let mut index = self.index.lock();
            index.apply(&Command::Register(Box::new(spec)));
            // Opens the stream, so that streams have the workers' numbers.
            let generation = Generation(0);
            let registration = Registration::default();
            index.apply(&Command::NewGeneration {
                stream: stream.clone(),
                generation,
                at_ms: 0,
                registration,
            });
            streams.push((stream, 0));
        }
        let (stream, next) = &mut streams[worker as usize];
        let seq = BatchSeq(*next);
        *next += 1;
        Command::Events(StreamEvents {
            stream: stream.clone(),
            generation: Generation(0),
            at_ms: 1,
            payload_digest: None,
            registration: Registration::default(),
            batches: [Batch { seq, changes: [change].into() }].into(),
        })
    }
}

/// Nanoseconds a block that chaining local hashes to sequence hashes costs. It is outside the timed part: a
/// caller chains a prompt once, while it hashes the tokens.
pub(crate) fn chaining_ns() -> f64 {
    const BLOCKS: u64 = 1_000_000;
    let started = std::time::Instant::now();
    let mut before = None;
    for local in 0..BLOCKS {
        before = Some(SequenceHash::chain(before, LocalBlockHash(local)));
    }
    black_box(before);
    started.elapsed().as_nanos() as f64 / BLOCKS as f64
}

fn stream(worker: u32) -> Option<StreamId> {
    let worker = WorkerId::new(format!("w{worker:04}")).ok()?;
    Some(StreamId { worker, dp_rank: DpRank(0) })
}

impl KvIndex for Kvindex {
    type Event = Command;
    type Query = Vec<SequenceHash>;
    type Answer = Vec<Score>;

    fn store(&self, worker: u32, _: u64, parent: Option<u64>, blocks: &[Block]) -> Command {
        let hash = |block: &Block| self.engine_hash(worker, block.engine);
        self.command(
            worker,
            Change::Stored(StoredRun {
                lora: None,
                block_size: BLOCK_SIZE,
                stride: 1,
                scheme: HashScheme { salt: true, ..HashScheme::default() },
                tier: Tier::Device,
                group: Group(0),
                kind: None,
                sliding_window: None,
                parent: parent.map(|hash| self.engine_hash(worker, hash)),
                engine_hashes: blocks.iter().map(hash).collect(),
                local_hashes: blocks.iter().map(|block| LocalBlockHash(block.local)).collect(),
            }),
        )
    }

    fn remove(&self, worker: u32, _: u64, hashes: &[u64]) -> Command {
        let hashes = hashes.iter().map(|hash| self.engine_hash(worker, *hash)).collect();
        self.command(worker, Change::Removed { tier: Tier::Device, group: Group(0), hashes })
    }

    fn query(&self, locals: &[u64]) -> Vec<SequenceHash> {
        let mut before = None;
        let chain = |local: &u64| {
            let hash = SequenceHash::chain(before, LocalBlockHash(*local));
            before = Some(hash);
            hash
        };
        locals.iter().map(chain).collect()
    }

    fn apply(&self, event: Command) {
        black_box(self.index.lock().apply(&event));
    }

    fn find(&self, query: &Vec<SequenceHash>) -> Vec<Score> {
        let query = ScoreQuery::new(MODEL, BLOCK_SIZE, query);
        SCRATCH.with_borrow_mut(|scratch| {
            let found = self.scorer.score(&query, scratch).ok().flatten();
            found.map(<[Score]>::to_vec).unwrap_or_default()
        })
    }

    fn credits(answer: &Vec<Score>) -> Vec<Credit> {
        let mut credits: Vec<Credit> =
            answer.iter().map(|score| (score.stream.number(), score.blocks)).collect();
        credits.sort_unstable();
        credits
    }
}
