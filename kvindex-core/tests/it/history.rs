//! Random histories of two workers, as sealed commands: consistent as an engine makes them, or hostile as a
//! broken peer could send them. Everything follows from a seed, so that a failure can be had again.

use std::sync::Arc;

use kvindex_core::{
    Batch, BatchSeq, Change, Command, CopyPolicy, EngineBlockHash, EngineKind, GapPolicy, Generation, Group,
    GroupKind, GroupSpec, HashScheme, Index, LocalBlockHash, Registration, StoredRun, StreamEvents, Tier,
    WorkerSpec,
};

use crate::rig::{BLOCK, engine_hash, spec, stream};

pub(crate) const WORKERS: [&str; 2] = ["a", "b"];
pub(crate) const ADAPTER: &str = "adapter";

/// What a history is made of. The default is an ordinary model on one tier, whose every block is named.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    /// Names, sizes, kinds and columns that contradict each other.
    pub(crate) hostile: bool,
    /// Three groups: every block, a window, states.
    pub(crate) groups: bool,
    /// The groups' blocks have different sizes, and a batch is hashed in units of what it has itself.
    pub(crate) sizes: bool,
    pub(crate) tiers: bool,
    /// Events that name some of their blocks, or have no tokens.
    pub(crate) sparse: bool,
    pub(crate) adapters: bool,
    /// Some events name blocks by their content alone.
    pub(crate) content: bool,
    /// Workers are described anew, with other groups, engines, copies and chunks.
    pub(crate) described_anew: bool,
    /// Hits are announced again, followed by what the request adds to them.
    pub(crate) repeated: bool,
}

/// One step. Worker numbers index [`WORKERS`].
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Command(Command),
    Batch(usize, Vec<Change>),
    Gap {
        worker: usize,
        purge: bool,
    },
    Restart(usize),
    /// A snapshot is taken and read back; from here on the copy lives beside the original.
    Fork,
}

impl Step {
    /// The step as a command that follows on what the index has applied; none for a fork.
    pub(crate) fn command(&self, index: &Index) -> Option<Command> {
        let next = |worker: usize| {
            let stamp = index.reader().stream(&stream(WORKERS[worker])).unwrap_or_default();
            (stamp.generation, BatchSeq(stamp.applied.map_or(0, |seq| seq.0 + 1)))
        };
        Some(match self {
            Step::Fork => return None,
            Step::Command(command) => command.clone(),
            Step::Batch(worker, changes) => {
                let (generation, seq) = next(*worker);
                let batches = vec![Batch { seq, changes: changes.clone().into() }];
                Command::Events(StreamEvents {
                    stream: stream(WORKERS[*worker]),
                    generation,
                    at_ms: 5,
                    payload_digest: None,
                    registration: Registration::default(),
                    batches: batches.into(),
                })
            }
            Step::Gap { worker, purge } => {
                let (generation, first) = next(*worker);
                let policy = if *purge { GapPolicy::Purge } else { GapPolicy::KeepAsSuspect };
                let stream = stream(WORKERS[*worker]);
                let registration = Registration::default();
                Command::Gap { stream, generation, first, last: first, policy, at_ms: 6, registration }
            }
            Step::Restart(worker) => {
                let generation = Generation(next(*worker).0.0 + 1);
                let (stream, registration) = (stream(WORKERS[*worker]), Registration::default());
                Command::NewGeneration { stream, generation, at_ms: 7, registration }
            }
        })
    }
}

/// A xorshift generator: the tests need it to be the same for ever, not to be good.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..5 {
            dice.below(2);
        }
        dice
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// A path of two letters, so that paths share prefixes; each letter is one hash unit.
    pub(crate) fn path(&mut self) -> Vec<u8> {
        (0..1 + self.below(8)).map(|_| b'x' + self.below(2) as u8).collect()
    }
}

pub(crate) fn local(unit: &[u8]) -> LocalBlockHash {
    LocalBlockHash(xxhash_rust::xxh3::xxh3_64(unit))
}

/// What a history draws from.
pub(crate) struct Generator {
    plan: Plan,
    dice: Dice,
    /// Units a block, for each group.
    strides: [usize; 3],
    /// Whether the batch at hand has groups with larger blocks only, so that those are its units.
    coarse: bool,
}

/// A history and the paths to ask about after each of its steps.
pub(crate) fn history(plan: Plan, seed: u64) -> (Vec<Step>, Vec<Vec<u8>>) {
    let mut dice = Dice::new(seed);
    let strides = if plan.sizes { dice.pick(&[[2, 1, 1], [1, 2, 2], [1, 1, 2]]) } else { [1; 3] };
    let mut generator = Generator { plan, dice, strides, coarse: false };
    let length = 1 + generator.dice.below(40);
    let steps = (0..length).map(|_| generator.step()).collect();
    (steps, (0..8).map(|_| generator.dice.path()).collect())
}

/// What a worker is first registered with.
pub(crate) fn registration(worker: &str) -> Command {
    Command::Register(Box::new(spec(worker)))
}

impl Generator {
    fn step(&mut self) -> Step {
        let worker = self.dice.below(WORKERS.len());
        match self.dice.below(100) {
            0 => Step::Command(Command::Unregister { worker: spec(WORKERS[worker]).id }),
            1..=4 => Step::Command(Command::Register(Box::new(self.description(worker)))),
            5 => Step::Restart(worker),
            6 => Step::Gap { worker, purge: self.dice.chance(50) },
            7..=10 => Step::Fork,
            _ => Step::Batch(worker, self.batch(worker)),
        }
    }

    fn batch(&mut self, worker: usize) -> Vec<Change> {
        self.coarse = self.plan.sizes && self.dice.chance(30);
        let mut changes: Vec<Change> = (0..1 + self.dice.below(4)).map(|_| self.change(worker)).collect();
        if self.plan.sizes && !self.coarse {
            // Larger blocks are cut in units because the batch has the smaller ones as well.
            let fine = self.strides.iter().position(|stride| *stride == 1).unwrap_or(0);
            changes.push(Change::Stored(self.run(worker, Group(fine as u16))));
        }
        if self.plan.repeated && self.dice.chance(50) {
            changes.extend(self.repeated(worker));
        }
        changes
    }

    fn description(&mut self, worker: usize) -> WorkerSpec {
        let (dice, mut spec) = (&mut self.dice, spec(WORKERS[worker]));
        if !self.plan.described_anew {
            return spec;
        }
        spec.copies = dice.pick(&[CopyPolicy::Count, CopyPolicy::Set]);
        spec.engine = dice.pick(&[EngineKind::Vllm, EngineKind::Vllm, EngineKind::Sglang]);
        spec.offload_chunk = dice.pick(&[None, Some(0), Some(1), Some(2), Some(u32::MAX)]);
        let kinds = [GroupKind::Full, GroupKind::SlidingWindow, GroupKind::Mamba, GroupKind::Other];
        for group in 0..dice.below(4) as u16 {
            spec.groups.push(GroupSpec {
                group: Group(group),
                kind: dice.pick(&kinds),
                block_size: dice.pick(&[1, 2, 4, 0]),
                sliding_window: dice.pick(&[None, Some(5)]),
            });
        }
        spec
    }

    fn change(&mut self, worker: usize) -> Change {
        match self.dice.below(100) {
            0 => Change::Cleared { tier: Some(Tier::Device) },
            1 => Change::Cleared { tier: None },
            2 => Change::Unreadable,
            3..=40 => {
                let (tier, group) = (self.tier(), self.group());
                let count = 1 + self.dice.below(2);
                let hashes = (0..count).map(|_| {
                    let path = self.dice.path();
                    self.name(worker, &path)
                });
                Change::Removed { tier, group, hashes: hashes.collect() }
            }
            _ => {
                let group = self.group();
                let coarse = (0u16..).zip(self.strides).find(|(_, stride)| *stride > 1);
                let group = coarse.filter(|_| self.coarse).map_or(group, |(coarse, _)| Group(coarse));
                let mut run = self.run(worker, group);
                if self.plan.hostile {
                    self.spoil(&mut run);
                }
                Change::Stored(run)
            }
        }
    }

    fn tier(&mut self) -> Tier {
        let tiers = [Tier::Host, Tier::Disk, Tier::Device, Tier::Device, Tier::Device];
        if self.plan.tiers { self.dice.pick(&tiers) } else { Tier::Device }
    }

    fn group(&mut self) -> Group {
        Group(if self.plan.groups { self.dice.pick(&[0, 0, 0, 1, 1, 2]) } else { 0 })
    }

    fn name(&mut self, worker: usize, path: &[u8]) -> EngineBlockHash {
        if self.plan.hostile { self.any_name() } else { engine_hash(WORKERS[worker], path) }
    }

    /// So few that they are used again for something else.
    fn any_name(&mut self) -> EngineBlockHash {
        EngineBlockHash(1 + self.dice.below(14) as u64)
    }

    fn run(&mut self, worker: usize, group: Group) -> StoredRun {
        let (path, tier) = (self.dice.path(), self.tier());
        let stride = self.strides[usize::from(group.0)];
        let whole = path.len() / stride * stride;
        let from = if self.dice.chance(50) { 0 } else { (self.dice.below(4) * stride).min(whole) };
        let mut ends: Vec<usize> = (from + stride..=whole).step_by(stride).collect();
        let unit = if self.coarse { stride } else { 1 };
        let mut local_hashes: Vec<LocalBlockHash> = path[from..whole].chunks(unit).map(local).collect();
        if self.plan.sparse {
            match self.dice.below(8) {
                0 => local_hashes.clear(),
                1 => ends.retain(|_| self.dice.chance(60)),
                2 => ends.clear(),
                _ => {}
            }
        }
        let kinds = [
            (GroupKind::Full, None),
            (GroupKind::SlidingWindow, Some(2 * BLOCK + 1)),
            (GroupKind::Mamba, None),
        ];
        let kind = self.plan.groups.then(|| kinds[usize::from(group.0)]);
        let content_only = self.plan.content && self.dice.chance(60);
        StoredRun {
            lora: (self.plan.adapters && self.dice.chance(30)).then(|| Arc::from(ADAPTER)),
            block_size: BLOCK * unit as u32,
            stride: (stride / unit) as u32,
            scheme: HashScheme { content_only, ..HashScheme::default() },
            tier,
            group,
            kind: kind.map(|(kind, _)| kind),
            sliding_window: kind.and_then(|(_, window)| window),
            parent: (from > 0).then(|| self.name(worker, &path[..from])),
            engine_hashes: ends.iter().map(|end| self.name(worker, &path[..*end])).collect(),
            local_hashes: local_hashes.into(),
        }
    }

    /// Makes a run contradict itself and others.
    fn spoil(&mut self, run: &mut StoredRun) {
        let kinds = [GroupKind::Full, GroupKind::SlidingWindow, GroupKind::Mamba, GroupKind::Other];
        run.kind = self.dice.chance(80).then(|| self.dice.pick(&kinds));
        run.sliding_window = self.dice.pick(&[None, Some(0), Some(3), Some(5), Some(u32::MAX)]);
        run.stride = self.dice.pick(&[1, 1, 1, 2, 2, 3, 0, u32::MAX]);
        run.block_size = self.dice.pick(&[2, 2, 2, 2, 2, 4, 4, 0]);
        if self.dice.chance(20) {
            run.parent = Some(self.any_name());
        }
        if self.dice.chance(2) {
            run.group = Group(u16::MAX);
        }
        match self.dice.below(8) {
            0 => run.local_hashes.truncate(self.dice.below(4)),
            1 => run.local_hashes.extend(vec![local(b"x"); self.dice.below(5)]),
            2 => run.engine_hashes.extend(run.engine_hashes.first().copied()),
            _ => {}
        }
    }

    /// An empty run of an ordinary model on the device.
    fn plain() -> StoredRun {
        StoredRun {
            lora: None,
            block_size: BLOCK,
            stride: 1,
            scheme: HashScheme::default(),
            tier: Tier::Device,
            group: Group(0),
            kind: None,
            sliding_window: None,
            parent: None,
            engine_hashes: Vec::new().into(),
            local_hashes: Vec::new().into(),
        }
    }

    /// A hit announced again, and below it what the request adds.
    fn repeated(&mut self, worker: usize) -> Vec<Change> {
        let path = self.dice.path();
        let cut = 1 + self.dice.below(path.len());
        let part = |from: usize, to: usize| {
            Change::Stored(StoredRun {
                parent: (from > 0).then(|| engine_hash(WORKERS[worker], &path[..from])),
                engine_hashes: (from + 1..=to)
                    .map(|end| engine_hash(WORKERS[worker], &path[..end]))
                    .collect(),
                local_hashes: path[from..to].chunks(1).map(local).collect(),
                ..Self::plain()
            })
        };
        let mut parts = vec![part(0, cut)];
        parts.extend((cut < path.len()).then(|| part(cut, path.len())));
        parts
    }
}
