//! Short ways to say commands and questions.

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, BlockRemoved, BlockStored, Command, DpRank, EngineBlockHash, EngineProfile,
    EventBatch, Generation, Index, KvEvent, Outcome, Query, Registration, ScoreQuery, Scratch, SequenceHash,
    StreamEvents, StreamId, Tier, WorkerId, WorkerMatch, WorkerSpec, find_matches, score,
};

pub(crate) const MODEL: &str = "m";
pub(crate) const BLOCK: u32 = 2;

pub(crate) fn stream(worker: &str) -> StreamId {
    StreamId { worker: WorkerId::new(worker).unwrap(), dp_rank: DpRank(0) }
}

/// The engine block hash that this worker gives a prefix: private to the worker, one per path.
pub(crate) fn engine_hash(worker: &str, path: &[u8]) -> EngineBlockHash {
    let bytes = [worker.as_bytes(), &[0xff], path].concat();
    EngineBlockHash(xxhash_rust::xxh3::xxh3_64(&bytes))
}

/// Tokens of a path: each letter is one block.
pub(crate) fn tokens(path: &[u8]) -> Vec<u32> {
    path.iter().flat_map(|letter| [u32::from(*letter), 7]).collect()
}

/// Event: the blocks of `path` from block `from` on are stored.
pub(crate) fn stored(worker: &str, path: &[u8], from: usize) -> BlockStored {
    BlockStored {
        block_hashes: (from..path.len()).map(|i| engine_hash(worker, &path[..=i])).collect(),
        parent: (from > 0).then(|| engine_hash(worker, &path[..from])),
        token_ids: tokens(&path[from..]),
        block_size: BLOCK,
        ..BlockStored::default()
    }
}

/// Event: one copy of the last block of `path` goes.
pub(crate) fn removed(worker: &str, path: &[u8]) -> BlockRemoved {
    BlockRemoved { block_hashes: vec![engine_hash(worker, path)], ..BlockRemoved::default() }
}

/// A worker whose offload tiers move single blocks, as the oracle's do.
pub(crate) fn spec(worker: &str) -> WorkerSpec {
    WorkerSpec { offload_chunk: Some(1), ..WorkerSpec::new(WorkerId::new(worker).unwrap(), MODEL) }
}

/// An index fed one batch at a time.
pub(crate) struct Rig {
    pub(crate) index: Index,
    pub(crate) now_ms: u64,
}

impl Rig {
    pub(crate) fn new(workers: &[&str]) -> Self {
        let mut index = Index::default();
        for worker in workers {
            index.apply(&Command::Register(Box::new(spec(worker))));
        }
        Self { index, now_ms: 1000 }
    }

    /// Applies the next batch of the worker's current generation.
    pub(crate) fn send(&mut self, worker: &str, events: Vec<KvEvent>) -> Outcome {
        let command = self.next_batch(worker, events);
        self.index.apply(&command)
    }

    /// The same from an engine of which more is known.
    pub(crate) fn send_as(&mut self, worker: &str, events: Vec<KvEvent>, profile: &EngineProfile) -> Outcome {
        let command = self.batch_as(worker, events, profile);
        self.index.apply(&command)
    }

    pub(crate) fn next_batch(&mut self, worker: &str, events: Vec<KvEvent>) -> Command {
        self.batch_as(worker, events, &EngineProfile::default())
    }

    fn batch_as(&mut self, worker: &str, events: Vec<KvEvent>, profile: &EngineProfile) -> Command {
        self.now_ms += 10;
        let stamp = self.index.reader().stream(&stream(worker)).unwrap_or_default();
        let seq = BatchSeq(stamp.applied.map_or(0, |seq| seq.0 + 1));
        let batch = EventBatch { events, ..EventBatch::default() };
        let changes = batch.seal(profile, &mut BlockHasher::new());
        Command::Events(StreamEvents {
            stream: stream(worker),
            generation: stamp.generation,
            at_ms: self.now_ms,
            payload_digest: None,
            registration: Registration::default(),
            batches: vec![Batch { seq, changes }].into(),
        })
    }

    pub(crate) fn store(&mut self, worker: &str, path: &str, from: usize) -> Outcome {
        self.send(worker, vec![KvEvent::BlockStored(stored(worker, path.as_bytes(), from))])
    }

    pub(crate) fn remove(&mut self, worker: &str, path: &str) -> Outcome {
        self.send(worker, vec![KvEvent::BlockRemoved(removed(worker, path.as_bytes()))])
    }

    pub(crate) fn restart(&mut self, worker: &str, generation: u64) -> Outcome {
        let generation = Generation(generation);
        let (stream, registration) = (stream(worker), Registration::default());
        self.index.apply(&Command::NewGeneration { stream, generation, at_ms: self.now_ms, registration })
    }

    pub(crate) fn ask(&self, path: &str) -> Vec<WorkerMatch> {
        ask(&self.index, path.as_bytes())
    }

    /// Matched blocks of one worker.
    pub(crate) fn hit(&self, worker: &str, path: &str) -> usize {
        let found = self.ask(path);
        found.iter().find(|w| w.worker.id.as_str() == worker).map_or(0, |w| w.matched_blocks)
    }
}

pub(crate) fn ask(index: &Index, path: &[u8]) -> Vec<WorkerMatch> {
    let tokens = tokens(path);
    find_matches(&index.reader(), &Query::tokens(MODEL, &tokens), &mut Scratch::default()).unwrap().workers
}

/// The same event on host memory.
pub(crate) fn on_host(mut event: KvEvent) -> KvEvent {
    match &mut event {
        KvEvent::BlockStored(stored) => stored.tier = Tier::Host,
        KvEvent::BlockRemoved(removed) => removed.tier = Tier::Host,
        KvEvent::AllBlocksCleared => {}
    }
    event
}

/// The sequence hashes of a path's blocks.
pub(crate) fn hashes(path: &[u8]) -> Vec<SequenceHash> {
    let (tokens, mut hasher) = (tokens(path), BlockHasher::new());
    let mut before = None;
    let hashes = tokens.chunks_exact(BLOCK as usize).map(|block| {
        before = Some(SequenceHash::chain(before, hasher.local(block, &[])));
        before.unwrap()
    });
    hashes.collect()
}

/// Scores say what matches say, for all streams, for the best few and for some candidates.
pub(crate) fn compare_scores(index: &Index, path: &[u8]) {
    let hashes = hashes(path);
    let (reader, mut scratch) = (index.reader(), Scratch::default());
    let matches = ask(index, path);
    let expected = |id: &StreamId| {
        let found = matches.iter().find(|w| w.worker.id == id.worker && w.dp_rank == id.dp_rank);
        found.map_or(0, |w| w.matched_blocks)
    };
    let query = ScoreQuery::new(MODEL, BLOCK, &hashes);
    let all = score(&reader, &query, &mut scratch).unwrap().to_vec();
    assert!(all.windows(2).all(|pair| pair[0].blocks >= pair[1].blocks), "{all:?}");
    let scored: Vec<(StreamId, usize)> =
        all.iter().map(|s| (reader.stream_of(s.stream).unwrap().clone(), s.blocks as usize)).collect();
    for (id, blocks) in &scored {
        assert_eq!(*blocks, expected(id), "{id}");
    }
    let matched = matches.iter().filter(|w| w.matched_blocks > 0).count();
    assert_eq!(scored.len(), matched, "each once, none left out");
    for top_k in [0, 1, 2] {
        let few = score(&reader, &ScoreQuery { top_k, ..query }, &mut scratch).unwrap();
        let lengths: Vec<u32> = few.iter().map(|s| s.blocks).collect();
        let best: Vec<u32> = all.iter().map(|s| s.blocks).take(top_k).collect();
        assert_eq!(lengths, best);
    }
    let some: Vec<&StreamId> = scored.iter().map(|(id, _)| id).step_by(2).collect();
    let candidates = reader.candidates(some.iter().copied());
    let query = ScoreQuery { candidates: Some(&candidates), ..query };
    let chosen = score(&reader, &query, &mut scratch).unwrap().to_vec();
    assert_eq!(chosen.len(), some.len());
    assert!(chosen.iter().all(|s| some.contains(&reader.stream_of(s.stream).unwrap())));
}
