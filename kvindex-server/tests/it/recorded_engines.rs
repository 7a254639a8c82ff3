//! Recorded engines as truth: every checkpoint's every answer of every case, through the real decoder and the
//! real index, by tokens and by engine block hashes, after every step also against the index's invariants.

use std::path::{Path, PathBuf};

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, Command, DpRank, EngineBlockHash, EngineKind, Filter, Generation, Index,
    IndexLimits, Prompt, PromptItem, Query, Scratch, StreamEvents, StreamId, Tokens, WorkerId, WorkerSpec,
    find_matches,
};
use kvindex_recording::{Bar, Header, Recording, Truth};
use kvindex_server::ingest::decode::decode;

const MODEL: &str = "m";

fn cases_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recording/cases")
}

fn spec_of(header: &Header, engine: usize) -> WorkerSpec {
    let mut spec = WorkerSpec::new(WorkerId::new(header.engines[engine].name.clone()).unwrap(), MODEL);
    spec.engine = match header.engine {
        kvindex_recording::EngineKind::Vllm => EngineKind::Vllm,
        kvindex_recording::EngineKind::Sglang => EngineKind::Sglang,
    };
    let v = header.version;
    spec.engine_version = Some(format!("{}.{}.{}", v.major, v.minor, v.patch));
    spec
}

/// Answers that differ from the engine's own, as (too high, too low).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Wrong {
    high: usize,
    low: usize,
}

impl Wrong {
    fn add(&mut self, ours: usize, theirs: usize) {
        self.high += usize::from(ours > theirs);
        self.low += usize::from(ours < theirs);
    }

    fn total(self) -> usize {
        self.high + self.low
    }
}

struct Replayed {
    index: Index,
    specs: Vec<WorkerSpec>,
    streams: Vec<StreamId>,
    generations: Vec<u64>,
    next: Vec<u64>,
    hasher: BlockHasher,
}

impl Replayed {
    fn new(header: &Header) -> Self {
        let specs: Vec<WorkerSpec> = (0..header.engines.len()).map(|e| spec_of(header, e)).collect();
        let mut index = Index::new(IndexLimits::default());
        for spec in &specs {
            index.apply(&Command::Register(Box::new(spec.clone())));
        }
        let rank = |e: usize| DpRank(header.engines[e].dp_rank);
        let streams = (0..specs.len()).map(|e| StreamId { worker: specs[e].id.clone(), dp_rank: rank(e) });
        Self {
            streams: streams.collect(),
            generations: vec![0; specs.len()],
            next: vec![0; specs.len()],
            hasher: BlockHasher::new(),
            index,
            specs,
        }
    }

    fn apply(&mut self, engine: usize, seq: u64, t_us: u64, payload: &[u8]) {
        if seq == 0 && self.next[engine] > 0 {
            self.generations[engine] += 1;
        }
        self.next[engine] = seq + 1;
        let batch = decode(payload).unwrap().batch;
        let changes = batch.seal(&self.specs[engine].profile(), &mut self.hasher);
        let events = StreamEvents {
            stream: self.streams[engine].clone(),
            generation: Generation(self.generations[engine]),
            at_ms: t_us / 1000,
            batches: vec![Batch { seq: BatchSeq(seq), changes }],
        };
        let outcome = self.index.apply(&Command::Events(events));
        assert_eq!((outcome.batches, outcome.duplicates), (1, 0));
    }

    fn ask(&self, query: &Query<'_>, engine: usize, scratch: &mut Scratch) -> usize {
        let id = [self.specs[engine].id.as_str()];
        let query = Query { filter: Filter { candidates: &id, ..Filter::default() }, ..query.clone() };
        let found = find_matches(&self.index.reader(), &query, scratch).unwrap();
        let rank = self.streams[engine].dp_rank;
        found.workers.iter().filter(|w| w.dp_rank == rank).map(|w| w.matched_tokens).max().unwrap_or(0)
    }
}

/// Replays a case; answers what differs by tokens and by hashes, and how many answers there were.
fn replay(case: &str) -> (Wrong, Wrong, usize) {
    let path = cases_dir().join(case);
    let recording = Recording::open(&path).unwrap();
    let header = &recording.header;
    let mut engines = Replayed::new(header);
    let (mut by_tokens, mut by_hash, mut answers, mut pos) = (Wrong::default(), Wrong::default(), 0, 0);
    let mut scratch = Scratch::default();
    for checkpoint in Truth::open(&path).unwrap() {
        let checkpoint = checkpoint.unwrap();
        for record in &recording.records[pos..checkpoint.pos] {
            engines.apply(record.engine as usize, record.seq, record.t_us, &record.payload);
        }
        pos = checkpoint.pos;
        engines.index.check_invariants().unwrap();
        for query in &checkpoint.queries {
            let items: Vec<PromptItem<'_>> = query
                .mm
                .iter()
                .map(|m| PromptItem {
                    identifier: &m.identifier,
                    offset: u64::from(m.offset),
                    length: u64::from(m.length),
                })
                .collect();
            let (tokens, salt) = (Tokens::Ids(&query.tokens), query.salt.as_deref());
            for (e, truth) in query.engines.iter().enumerate() {
                let theirs = truth.expected_tokens() as usize;
                // Adapter names are on SGLang's wire since 0.5.22; before, naming one would match nothing.
                let v = header.version;
                let tells = (v.major, v.minor, v.patch) >= (0, 5, 22);
                let key = query.extra_key.as_ref().filter(|_| tells);
                let named = key.and_then(|key| header.engines[e].lora_names.get(key));
                let lora = query.lora.as_ref().map(|lora| lora.name.as_str()).or(named.map(String::as_str));
                let prompt = Prompt::Tokens { tokens, salt, items: &items };
                let ask = Query { lora, prompt, ..Query::tokens(MODEL, &[]) };
                by_tokens.add(engines.ask(&ask, e, &mut scratch), theirs);
                let size = header.engines[e].block_size;
                if let Some(hashes) = query.block_hashes_for(size) {
                    let hashes: Vec<EngineBlockHash> = hashes.iter().map(|h| EngineBlockHash(*h)).collect();
                    let prompt = Prompt::EngineHashes(&hashes);
                    let ask = Query { prompt, block_size: Some(size), ..Query::tokens(MODEL, &[]) };
                    by_hash.add(engines.ask(&ask, e, &mut scratch), theirs);
                }
                answers += 1;
            }
        }
        if checkpoint.checkpoint % 16 == 0 {
            let restored = Index::restore(&engines.index.snapshot(), IndexLimits::default()).unwrap();
            assert_eq!(restored.digest(), engines.index.digest(), "{case}");
            assert_eq!(restored.snapshot(), engines.index.snapshot(), "{case}");
        }
    }
    (by_tokens, by_hash, answers)
}

/// The reference model's line is the bar: nothing may be worse, and by hash nothing may differ at all. What
/// the wire cannot decide by tokens is pinned (too high, too low), so that slack under the bar hides nothing.
fn check(case: &str, pinned: (usize, usize)) {
    let (by_tokens, by_hash, answers) = replay(case);
    println!("{case}: {answers} answers, by tokens {by_tokens:?}, by hash {by_hash:?}");
    let bar = Bar::of(case).unwrap();
    assert_eq!(by_hash, Wrong::default(), "{case} by hash");
    let allowed = bar.by_tokens.unwrap();
    assert_eq!(answers, allowed.answers as usize, "{case}");
    assert_eq!((by_tokens.high, by_tokens.low), pinned, "{case} by tokens");
    assert!(by_tokens.total() <= allowed.mismatches as usize, "{case}: {by_tokens:?}, allowed {allowed:?}");
}

macro_rules! cases {
    ($($name:ident: $case:literal $high:literal $low:literal;)*) => {
        $(#[test] fn $name() { check($case, ($high, $low)); })*
    };
}

cases! {
    basic: "basic" 2 0;
    basic_v0_11_0: "basic-v0.11.0" 68 0;
    basic_v0_20_2: "basic-v0.20.2" 0 0;
    basic_pyhashseed0: "basic-pyhashseed0" 2 0;
    block64: "block64" 1 0;
    bytes_cbor: "bytes-cbor" 2 0;
    xxhash_cbor: "xxhash-cbor" 4 0;
    dp: "dp" 0 0;
    dp_v0_20_2: "dp-v0.20.2" 0 0;
    dup: "dup" 0 0;
    dup_v0_11_0: "dup-v0.11.0" 0 0;
    dup_v0_20_2: "dup-v0.20.2" 0 0;
    restart: "restart" 0 0;
    restart_v0_20_2: "restart-v0.20.2" 0 0;
    conv_a: "conv-a" 0 0;
    synth_a: "synth-a" 0 0;
    mixed_a: "mixed-a" 0 0;
    hot_a: "hot-a" 0 0;
    sglang_v0_5_4: "sglang-v0.5.4" 65 621;
    sglang_v0_5_14: "sglang-v0.5.14" 65 0;
    sglang_v0_5_23: "sglang-v0.5.23" 39 0;
    dynamo_sglang_v0_5_23: "dynamo-sglang-v0.5.23" 2 0;
}
