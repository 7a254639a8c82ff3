//! What the index says of its size beside what the allocator counts, and what is left when everything is gone.
#![allow(clippy::unwrap_used)]

mod allocator;

use allocator::live;
use kvindex_core::{
    Batch, BatchSeq, Change, Column, Command, DpRank, EngineBlockHash, Generation, Group, HashScheme, Index,
    LocalBlockHash, Registration, StoredRun, StreamEvents, StreamId, Tier, WorkerId, WorkerSpec,
};

/// How far the index's own count may be from the truth.
const TOLERANCE: f64 = 0.05;

/// Chains of the mixed load.
const CHAINS: u64 = 10_000;

fn worker(number: usize) -> WorkerId {
    WorkerId::new(format!("worker-{number}")).unwrap()
}

/// An index under load, one change a batch.
struct Load {
    before: isize,
    index: Index,
    batches: Vec<u64>,
}

impl Load {
    /// Workers of two tenants in turn.
    fn new(workers: usize) -> Self {
        let before = live();
        let mut index = Index::default();
        for number in 0..workers {
            let tenant = if number % 2 == 0 { "even" } else { "odd" };
            let spec = WorkerSpec { tenant: tenant.into(), ..WorkerSpec::new(worker(number), "model") };
            index.apply(&Command::Register(Box::new(spec)));
        }
        Self { before, index, batches: Vec::new() }.with(workers)
    }

    fn with(mut self, workers: usize) -> Self {
        self.batches = vec![0; workers];
        self
    }

    fn send(&mut self, number: usize, change: Change) {
        let seq = BatchSeq(self.batches[number]);
        self.batches[number] += 1;
        let stream = StreamId { worker: worker(number), dp_rank: DpRank(0) };
        let batches = vec![Batch { seq, changes: vec![change].into() }].into();
        let events = StreamEvents {
            stream,
            generation: Generation(0),
            at_ms: 1,
            payload_digest: None,
            registration: Registration::default(),
            batches,
        };
        self.index.apply(&Command::Events(events));
    }

    /// Stores `content`, the first block below `parent`, under names with this salt.
    fn store(&mut self, number: usize, parent: Option<u64>, content: &[u64], salt: u64) {
        let run = StoredRun {
            lora: None,
            block_size: 16,
            stride: 1,
            scheme: HashScheme::default(),
            tier: Tier::Device,
            group: Group(0),
            kind: None,
            sliding_window: None,
            parent: parent.map(|parent| name(parent, salt)),
            engine_hashes: content.iter().map(|block| name(*block, salt)).collect(),
            local_hashes: content.iter().map(|block| LocalBlockHash(mix(*block))).collect(),
        };
        self.send(number, Change::Stored(run));
    }

    fn remove(&mut self, number: usize, block: u64, salt: u64) {
        let hashes: Column<EngineBlockHash> = vec![name(block, salt)].into();
        self.send(number, Change::Removed { tier: Tier::Device, group: Group(0), hashes });
    }

    fn bytes(&self) -> isize {
        live() - self.before
    }

    /// Compares what the index says with what is allocated.
    fn check(&self, of: &str) {
        let (stats, usage, live) = (self.index.stats(), self.index.reader().usage(), self.bytes());
        let off = (stats.bytes as f64 - live as f64) / live as f64;
        println!(
            "{of}: {} entries, {live} bytes live, {} said, {:+.1} %",
            stats.entries,
            stats.bytes,
            off * 100.0
        );
        assert!(off.abs() <= TOLERANCE, "{of}: {live} bytes live, {} said", stats.bytes);
        assert_eq!(usage.bytes, stats.bytes);
        let tenants: usize = usage.tenants.iter().map(|tenant| tenant.bytes).sum();
        assert_eq!(tenants + usage.overhead, usage.bytes);
        assert_eq!(usage.tenants.iter().map(|tenant| tenant.entries).sum::<usize>(), stats.entries);
        let namespaces = self.index.reader().namespaces();
        assert_eq!(namespaces.iter().map(|space| space.blocks).sum::<usize>(), stats.blocks);
        assert_eq!(namespaces.iter().map(|space| space.runs).sum::<usize>(), stats.runs);
        let in_namespaces = namespaces.iter().map(|space| space.bytes).sum::<usize>();
        assert!(in_namespaces <= tenants, "{in_namespaces} in namespaces, {tenants} are tenants'");
    }
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ (x >> 32)
}

fn name(block: u64, salt: u64) -> EngineBlockHash {
    EngineBlockHash(mix(block.wrapping_add(salt << 48)))
}

fn chain(number: u64, blocks: u64) -> Vec<u64> {
    (0..blocks).map(|block| number * 10_000 + block + 1).collect()
}

#[test]
fn many_short_runs() {
    let mut load = Load::new(4);
    for number in 0..40_000 {
        let content = chain(number, 1 + number % 5);
        load.store(number as usize % 4, None, &content, 0);
    }
    load.check("many short runs");
}

#[test]
fn long_chains_that_all_share() {
    let mut load = Load::new(64);
    for number in 0..8 {
        let content = chain(number, 4000);
        (0..64).for_each(|worker| load.store(worker, None, &content, 0));
    }
    load.check("long chains that all share");
}

#[test]
fn chains_of_different_lengths() {
    let mut load = Load::new(200);
    for number in 0..20 {
        let content = chain(number, 2000);
        for worker in 0..200 {
            load.store(worker, None, &content[..10 * (worker + 1)], 0);
        }
    }
    load.check("chains of different lengths");
}

#[test]
fn private_names_and_copies() {
    let mut load = Load::new(16);
    for number in 0..100 {
        let content = chain(number, 200);
        for worker in 0..16 {
            load.store(worker, None, &content, worker as u64);
            if number % 3 == 0 {
                load.store(worker, None, &content, worker as u64);
            }
        }
    }
    load.check("private names and copies");
}

#[test]
fn orphans() {
    let mut load = Load::new(2);
    for number in 0..20_000 {
        load.store(number as usize % 2, Some(u64::MAX - number), &chain(number, 2), 0);
    }
    load.check("orphans");
}

#[test]
fn tenants_pay_for_what_is_theirs() {
    let mut load = Load::new(2);
    for number in 0..30_000 {
        load.store(usize::from(number % 10 == 0), None, &chain(number, 8), 0);
    }
    let usage = load.index.reader().usage();
    let [even, odd] = &usage.tenants[..] else { panic!("{usage:?}") };
    assert_eq!((even.tenant.as_str(), odd.tenant.as_str()), ("even", "odd"));
    assert_eq!((even.entries, odd.entries), (27_000 * 8, 3000 * 8));
    let ratio = even.bytes as f64 / odd.bytes as f64;
    assert!((8.0..10.0).contains(&ratio), "{ratio}");
    assert!(usage.overhead < usage.bytes / 5, "{usage:?}");
    load.check("two tenants");
}

/// Names of three kinds: 3,200,000 entries, beside which what the journal keeps is little.
fn mixture() -> Load {
    let mut load = Load::new(8);
    for number in 0..CHAINS {
        let content = chain(number, 40);
        for worker in 0..8 {
            load.store(worker, None, &content, worker as u64 % 3);
        }
    }
    load
}

#[test]
fn nothing_stays_when_all_is_removed_one_by_one() {
    let mut load = mixture();
    load.store(0, Some(9), &chain(50_000, 100), 0);
    load.store(1, None, &chain(1, 40), 1);
    load.check("before removal");
    let full = load.bytes();
    assert!(load.index.stats().entries >= 3_200_000);
    for number in 0..CHAINS {
        for block in chain(number, 40).iter().rev() {
            (0..8).for_each(|worker| load.remove(worker, *block, worker as u64 % 3));
        }
    }
    chain(50_000, 100).iter().for_each(|block| load.remove(0, *block, 0));
    chain(1, 40).iter().for_each(|block| load.remove(1, *block, 1));
    assert_eq!((load.index.stats().entries, load.index.stats().runs), (0, 0));
    load.index.check_invariants().unwrap();
    let left = load.bytes();
    println!("{full} bytes live, {left} left, {:.1} %", left as f64 / full as f64 * 100.0);
    assert!(left as f64 <= TOLERANCE * full as f64, "{left} of {full} bytes stay");
}

#[test]
fn nothing_stays_when_all_is_evicted() {
    let mut load = mixture();
    let full = load.bytes();
    while load.index.stats().entries > 0 {
        load.index.apply(&Command::Evict { entries: 800_000, at_ms: 1 });
    }
    let left = load.bytes();
    println!("{full} bytes live, {left} left when all is evicted");
    assert!(left as f64 <= TOLERANCE * full as f64, "{left} of {full} bytes stay");
}

#[test]
fn nothing_stays_when_all_workers_are_gone() {
    let mut load = mixture();
    let full = load.bytes();
    for number in 0..8 {
        load.index.apply(&Command::Unregister { worker: worker(number) });
    }
    let left = load.bytes();
    println!("{full} bytes live, {left} left when all workers are gone");
    assert!(left as f64 <= TOLERANCE / 10.0 * full as f64, "{left} of {full} bytes stay");
}

/// What counting costs those who store, and what it saves those who ask: `--ignored --nocapture`, optimised.
#[test]
#[ignore = "a measurement"]
fn how_long_storing_and_asking_take() {
    let least = |work: &mut dyn FnMut() -> std::time::Duration| (0..7).map(|_| work()).min().unwrap();
    let timed = |work: &mut dyn FnMut()| {
        let begun = std::time::Instant::now();
        work();
        begun.elapsed()
    };
    let stored = least(&mut || timed(&mut || drop(std::hint::black_box(mixture()))));
    let mut load = Load::new(200);
    for number in 0..1000 {
        let content = chain(number, 100);
        (0..200).for_each(|worker| load.store(worker, None, &content[..worker / 2 + 1], 0));
    }
    let mut long = Load::new(4);
    for number in 0..400_000 {
        long.store(number as usize % 4, None, &chain(number, 1 + number % 5), 0);
    }
    println!("3.2 M entries of 8 workers, stored and dropped: {stored:?}");
    for (of, load) in [("a thousand hot chains of 200 workers", &load), ("400,000 runs", &long)] {
        let reader = load.index.reader();
        let asked =
            least(&mut || timed(&mut || drop(std::hint::black_box((reader.usage(), reader.stats())))));
        println!("{of}, {} entries: usage and stats {asked:?}", reader.entry_count());
    }
    let hot = least(&mut || {
        let mut load = Load::new(200);
        timed(&mut || {
            for number in 0..50 {
                let content = chain(number, 100);
                (0..200).for_each(|worker| load.store(worker, None, &content[..worker / 2 + 1], 0));
            }
            for number in 0..50 {
                for block in chain(number, 100).iter().rev() {
                    (0..200).for_each(|worker| load.remove(worker, *block, 0));
                }
            }
        })
    });
    println!("fifty hot chains of 200 workers, stored and removed block by block: {hot:?}");
}
