//! What is counted, by questions to a real index: the prefix that prompts share, how much of all it is, and that neither
//! time nor number lets it grow.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kvindex_core::{
    Batch, BatchSeq, BlockHasher, BlockStored, Command, DpRank, EngineBlockHash, EngineProfile, EventBatch,
    Generation, Index, KvEvent, Query, Registration, Scratch, StreamEvents, StreamId, WorkerId, WorkerSpec,
    find_matches,
};

use super::{Asked, COUNTERS, HotPrefix, LOOKS_PER_S, Sketch};

const BLOCK: usize = 4;

/// An index of workers that hold what they are told, and a sketch of what is asked of it.
struct Rig {
    index: Index,
    seqs: Vec<u64>,
    sketch: Sketch,
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Eight blocks that prompts share, then `own` blocks that only this one has.
fn prompt(number: u32, own: usize) -> Vec<u32> {
    let shared = 0..(8 * BLOCK) as u32;
    shared.chain((0..(own * BLOCK) as u32).map(|i| 1_000_000 + number * 1000 + i)).collect()
}

impl Rig {
    fn new(workers: usize) -> Self {
        let mut index = Index::default();
        for number in 0..workers {
            index.apply(&Command::Register(Box::new(WorkerSpec::new(worker(number), "llama"))));
        }
        Self { index, seqs: vec![0; workers], sketch: Sketch::new(at(0)) }
    }

    fn store(&mut self, number: usize, tokens: &[u32]) {
        // An engine names equal chains equally.
        let name = |i: usize| {
            let chain = tokens[..(i + 1) * BLOCK].iter();
            EngineBlockHash(chain.fold(7, |hash, token| hash * 31 % 0xffff_ffff_ffff + u64::from(*token)))
        };
        let stored = BlockStored {
            block_hashes: (0..tokens.len() / BLOCK).map(name).collect(),
            token_ids: tokens.to_vec(),
            block_size: BLOCK as u32,
            ..BlockStored::default()
        };
        let batch = EventBatch { events: vec![KvEvent::BlockStored(stored)], ..EventBatch::default() };
        let seq = BatchSeq(self.seqs[number]);
        self.seqs[number] += 1;
        self.index.apply(&Command::Events(StreamEvents {
            stream: StreamId { worker: worker(number), dp_rank: DpRank(0) },
            generation: Generation(0),
            at_ms: 0,
            payload_digest: None,
            registration: Registration::default(),
            batches: vec![Batch {
                seq,
                changes: batch.seal(&EngineProfile::default(), &mut BlockHasher::new()),
            }]
            .into(),
        }));
    }

    fn ask(&mut self, seconds: u64, tokens: &[u32]) {
        let (reader, mut scratch) = (self.index.reader(), Scratch::default());
        find_matches(&reader, &Query::tokens("llama", tokens), &mut scratch).unwrap();
        let held = scratch.held_prefix(&reader);
        let asked = held.map(|held| Asked { model: "llama", lora: None, held });
        self.sketch.note(at(seconds), 1, asked.as_ref());
    }

    fn list(&mut self, seconds: u64) -> Vec<HotPrefix> {
        self.sketch.list(at(seconds)).0
    }
}

fn worker(number: usize) -> WorkerId {
    WorkerId::new(format!("w{number}")).unwrap()
}

#[test]
fn the_prefix_that_prompts_share_is_told_with_its_share_and_its_holders() {
    let mut rig = Rig::new(3);
    rig.store(0, &prompt(0, 5));
    rig.store(1, &prompt(1, 2));
    rig.store(2, &prompt(2, 0));
    // Four go on as nobody holds, one as w1 does, three begin otherwise.
    for number in 10..14 {
        rig.ask(0, &prompt(number, 3));
    }
    rig.ask(0, &prompt(1, 2));
    for _ in 0..3 {
        rig.ask(0, &[9; 3 * BLOCK]);
    }
    let told = rig.list(0);
    let shapes: Vec<(usize, usize, f64)> =
        told.iter().map(|hot| (hot.blocks, hot.held_by, hot.share)).collect();
    assert_eq!(shapes, [(8, 3, 5.0 / 8.0), (10, 1, 1.0 / 8.0)]);
    assert!((told[0].per_s - 5.0).abs() < 0.2, "{told:?}");
}

#[test]
fn a_prefix_that_always_goes_on_alike_is_told_as_its_continuation() {
    let mut rig = Rig::new(2);
    rig.store(0, &prompt(0, 0));
    rig.ask(0, &prompt(0, 4));
    rig.store(1, &prompt(0, 4));
    for _ in 0..30 {
        rig.ask(0, &prompt(0, 4));
    }
    let told = rig.list(0);
    assert_eq!(told.iter().map(|hot| hot.blocks).collect::<Vec<_>>(), [12], "{told:?}");
    assert_eq!(told[0].held_by, 1);
}

#[test]
fn what_was_hot_long_ago_is_told_no_more_and_what_is_now_is() {
    let mut rig = Rig::new(1);
    rig.store(0, &prompt(0, 0));
    rig.store(0, &[5; 2 * BLOCK]);
    for _ in 0..20 {
        rig.ask(0, &prompt(0, 0));
    }
    // Ten half-lives later, and so many that weights were made small again.
    for later in [600, 60 * 200] {
        for _ in 0..20 {
            rig.ask(later, &[5; 2 * BLOCK]);
        }
        let told = rig.list(later);
        assert_eq!(told.iter().map(|hot| hot.blocks).collect::<Vec<_>>(), [2], "{told:?}");
        assert!(told[0].share > 0.99, "{told:?}");
    }
}

#[test]
fn counters_are_so_many_and_what_is_hot_keeps_one() {
    let mut rig = Rig::new(1);
    rig.store(0, &prompt(0, 0));
    for number in 0..4 * COUNTERS as u32 {
        let own = vec![2_000_000 + number; BLOCK];
        rig.store(0, &own);
        rig.ask(0, &own);
        if number % 4 == 0 {
            rig.ask(0, &prompt(0, 0));
        }
    }
    assert_eq!(rig.sketch.counters.len(), COUNTERS);
    let told = rig.list(0);
    assert_eq!(told[0].blocks, 8, "{:?}", &told[..3]);
    assert!((0.15..=0.2).contains(&told[0].share), "{:?}", told[0]);
}

#[test]
fn many_questions_a_second_are_looked_at_one_in_so_many() {
    let mut sketch = Sketch::new(at(0));
    let mut looks = 0;
    for asked in 0..100_000_u64 {
        if asked.is_multiple_of(sketch.step()) {
            sketch.note(at(1), sketch.step(), None);
            looks += 1;
        }
    }
    assert!(looks < 12 * LOOKS_PER_S, "{looks}");
    let per_s = sketch.list(at(1)).1;
    assert!((90_000.0..110_000.0).contains(&per_s), "{per_s}");
    // The next second begins with what this one had.
    sketch.note(at(2), sketch.step(), None);
    assert!((300..=500).contains(&sketch.step()), "{}", sketch.step());
    // Where nobody asks any more, the next question is looked at.
    sketch.list(at(60));
    sketch.list(at(62));
    assert_eq!(sketch.step(), 1);
}
