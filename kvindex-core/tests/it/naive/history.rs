//! Random histories of a few workers for the naive model: engines that hash alike, or each with a salt, or with two;
//! names that move, names that mean something else elsewhere. So few contents and names that everything meets.
//! Everything follows from a seed.
//!
//! Two things are left out. Hits announced again (vLLM's report mode) are told from copies by a rule that proves
//! nothing, so no batch goes on below a chain that it stores from the start, which is what gives the mode away. Every
//! worker says that its offload tiers move single blocks, so that no chunk is guessed.

use std::sync::Arc;

use kvindex_core::{
    Change, Column, EngineBlockHash, Group, HashScheme, StoredRun, Tier, WorkerId, WorkerSpec,
};

use super::fleet::{ADAPTER, Fleet, Naming, settle};
use crate::history::{Dice, local};
use crate::rig::BLOCK;

/// One step. Numbers of streams and workers index the fleet's.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// The next batches of a stream, in one command.
    Batches(usize, Vec<Vec<Change>>),
    /// A batch with a number so far behind the last one that was applied.
    Again {
        stream: usize,
        back: u64,
        changes: Vec<Change>,
    },
    /// A batch of the generation before.
    Stale {
        stream: usize,
        changes: Vec<Change>,
    },
    /// Another life, by word or by its first batch.
    Restart {
        stream: usize,
        first: Option<Vec<Change>>,
    },
    /// So many batches are lost; 0 says again that the last applied one is.
    Gap {
        stream: usize,
        lost: u64,
        purge: bool,
    },
    /// A worker comes, or is described anew.
    Register(Box<WorkerSpec>),
    Unregister(WorkerId),
    /// So much of all that is held must go.
    Evict {
        percent: usize,
    },
    /// A snapshot is taken and read back; from here on the copy answers, and the original goes on beside it.
    Fork,
}

/// A history, and what is asked after its steps.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) fleet: Fleet,
    pub(crate) steps: Vec<Step>,
    pub(crate) paths: Vec<Vec<u8>>,
    pub(crate) names: Vec<Vec<EngineBlockHash>>,
    /// Steps between two comparisons.
    pub(crate) every: usize,
}

/// What a stream stored lately.
#[derive(Debug, Clone)]
struct Kept {
    path: Vec<u8>,
    naming: Naming,
    tier: Tier,
    lora: Option<Arc<str>>,
    scheme: HashScheme,
}

struct Generator {
    dice: Dice,
    fleet: Fleet,
    kept: Vec<Vec<Kept>>,
    /// Whether long chains come up.
    long: bool,
    stems: [Vec<u8>; 2],
}

/// The history of a seed.
pub(crate) fn history(seed: u64) -> History {
    let mut dice = Dice::new(seed);
    let fleet = Fleet::random(&mut dice);
    let (long, kept) = (dice.chance(10), vec![Vec::new(); fleet.streams.len()]);
    let stems = [220, 140].map(|length| (0..length).map(|_| b'x' ^ dice.below(2) as u8).collect());
    let mut generator = Generator { dice, fleet, kept, long, stems };
    let length = if generator.dice.chance(5) { 150 } else { 6 + generator.dice.below(50) };
    let steps = (0..length).map(|_| generator.step()).collect();
    let paths: Vec<Vec<u8>> = (0..5).map(|_| generator.asked()).collect();
    let names = paths.iter().map(|path| generator.asked_names(path)).collect();
    let every = generator.dice.pick(&[2, 5, 9]);
    History { fleet: generator.fleet, steps, paths, names, every }
}

impl Generator {
    fn step(&mut self) -> Step {
        let stream = self.dice.below(self.fleet.streams.len());
        let worker = self.dice.below(self.fleet.workers.len());
        match self.dice.below(200) {
            0..=1 => Step::Unregister(self.fleet.workers[worker].id.clone()),
            2..=5 => {
                let mut spec = self.fleet.workers[worker].clone();
                settle(&mut spec, self.dice.pick(&self.fleet.homes));
                Step::Register(Box::new(spec))
            }
            6 => Step::Restart { stream, first: None },
            7 => Step::Restart { stream, first: self.batches(stream).pop() },
            8..=9 => Step::Gap { stream, lost: self.dice.below(3) as u64, purge: self.dice.chance(50) },
            10..=11 => Step::Again {
                stream,
                back: self.dice.below(3) as u64,
                changes: self.batches(stream).pop().unwrap_or_default(),
            },
            12 => Step::Stale { stream, changes: self.batches(stream).pop().unwrap_or_default() },
            13..=16 => Step::Fork,
            17..=18 => Step::Evict { percent: self.dice.pick(&[1, 10, 40, 100]) },
            _ => Step::Batches(stream, self.batches(stream)),
        }
    }

    /// A path to ask about: what was stored, with another end, or any.
    fn asked(&mut self) -> Vec<u8> {
        let stream = self.dice.below(self.fleet.streams.len());
        let mut path = match self.recent(stream) {
            Some(kept) if self.dice.chance(80) => kept.path,
            _ => self.dice.path(),
        };
        if self.dice.chance(30) {
            path.truncate(1 + self.dice.below(path.len()));
            path.extend(self.dice.path());
        }
        path
    }

    /// The names that some stream has or may have for a path, or for one that it stored.
    fn asked_names(&mut self, path: &[u8]) -> Vec<EngineBlockHash> {
        let stream = self.dice.below(self.fleet.streams.len());
        match self.recent(stream) {
            Some(kept) if self.dice.chance(50) => kept.naming.names(&kept.path),
            _ => self.naming(stream).names(path),
        }
    }

    fn naming(&mut self, stream: usize) -> Naming {
        if self.dice.chance(self.fleet.lapses) {
            let salted = Naming::Salted(stream as u8 + 10);
            return self.dice.pick(&[salted, Naming::Twisted, Naming::Shifted, Naming::Few]);
        }
        self.dice.pick(&self.fleet.habits[stream])
    }

    fn recent(&mut self, stream: usize) -> Option<Kept> {
        // Now and then another's, so that streams hold and drop the same.
        let from = if self.dice.chance(30) { self.dice.below(self.kept.len()) } else { stream };
        (!self.kept[from].is_empty()).then(|| self.dice.pick(&self.kept[from]))
    }

    fn keep(&mut self, stream: usize, kept: Kept) {
        let list = &mut self.kept[stream];
        if list.len() >= 10 {
            list.remove(self.dice.below(10));
        }
        list.push(kept);
    }

    /// One or a few batches. A new one begins before a chain that goes on below one stored from the start.
    fn batches(&mut self, stream: usize) -> Vec<Vec<Change>> {
        let mut batches = vec![Vec::new()];
        let mut from_start: Vec<EngineBlockHash> = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            for change in self.changes(stream) {
                let mut cut = self.dice.chance(10);
                if let Change::Stored(run) = &change {
                    let sign = run.parent.is_some_and(|parent| from_start.contains(&parent));
                    cut |= sign && run.tier == Tier::Device;
                }
                if cut && batches.last().is_some_and(|batch| !batch.is_empty()) {
                    batches.push(Vec::new());
                    from_start.clear();
                }
                if let Change::Stored(StoredRun { parent: None, engine_hashes, .. }) = &change {
                    from_start.extend(engine_hashes.last());
                }
                batches.last_mut().unwrap().push(change);
            }
        }
        batches
    }

    /// What happens next on a stream.
    fn changes(&mut self, stream: usize) -> Vec<Change> {
        let kept = self.recent(stream);
        match (self.dice.below(100), kept) {
            (0, _) => vec![Change::Cleared { tier: self.dice.chance(70).then(|| self.tier()) }],
            (1..=36, Some(kept)) => self.removals(kept),
            (37..=50, Some(kept)) => self.appends(stream, kept),
            (51..=60, Some(kept)) => {
                // Another copy, or the same on this stream.
                let naming = if self.dice.chance(70) { kept.naming } else { self.naming(stream) };
                let path = kept.path.clone();
                self.stored(stream, Kept { naming, ..kept }, &path)
            }
            (61..=64, Some(kept)) => self.moved(stream, &kept),
            (65..=67, Some(kept)) => vec![self.by_name(&kept)],
            (68..=72, _) if self.long => self.long_chain(stream),
            _ => {
                let path = self.dice.path();
                let kept = self.fresh(stream, &path);
                self.stored(stream, kept, &path)
            }
        }
    }

    fn tier(&mut self) -> Tier {
        if self.fleet.tiers && self.dice.chance(40) { Tier::Host } else { Tier::Device }
    }

    fn fresh(&mut self, stream: usize, path: &[u8]) -> Kept {
        let (mut naming, tier) = (self.naming(stream), self.tier());
        let lora = (self.fleet.adapters && self.dice.chance(40)).then(|| Arc::from(ADAPTER));
        if lora.is_some() && self.fleet.apart && naming == Naming::Shared {
            naming = Naming::Salted(100);
        }
        let salt = self.fleet.schemes && self.dice.chance(40);
        let scheme = HashScheme { salt, ..HashScheme::default() };
        Kept { path: path.to_vec(), naming, tier, lora, scheme }
    }

    /// All of a path, from the start or from the middle on, or the end first.
    fn stored(&mut self, stream: usize, kept: Kept, path: &[u8]) -> Vec<Change> {
        let cut = self.dice.below(path.len());
        let run = |from, to| Change::Stored(kept.run(path, from, to));
        let changes = match self.dice.below(10) {
            0..=5 => vec![run(0, path.len())],
            6..=7 => vec![run(cut, path.len())],
            8 => vec![run(cut, path.len()), run(0, cut)],
            _ => (0..path.len()).rev().map(|at| run(at, at + 1)).collect(),
        };
        self.keep(stream, Kept { path: path.to_vec(), ..kept });
        changes
    }

    /// Blocks that decoding fills, one by one.
    fn appends(&mut self, stream: usize, mut kept: Kept) -> Vec<Change> {
        let from = kept.path.len();
        kept.path.extend(self.dice.path());
        let changes = (from..kept.path.len()).map(|at| Change::Stored(kept.run(&kept.path, at, at + 1)));
        let changes = changes.collect();
        self.keep(stream, kept);
        changes
    }

    /// Some of a path's blocks go: its end, its start, its middle or all, in one event or one by one.
    fn removals(&mut self, kept: Kept) -> Vec<Change> {
        let mut names = kept.naming.names(&kept.path);
        let (from, to) = (self.dice.below(names.len()), 1 + self.dice.below(names.len()));
        match self.dice.below(8) {
            0..=2 => names.drain(..from).for_each(drop),
            3 => names.truncate(to),
            4..=5 => names = names[from.min(to - 1)..to.max(from + 1)].to_vec(),
            _ => {}
        }
        if self.dice.chance(60) {
            names.reverse();
        }
        let (tier, group) = (if self.dice.chance(90) { kept.tier } else { self.tier() }, Group(0));
        if self.dice.chance(50) {
            return vec![Change::Removed { tier, group, hashes: names.into() }];
        }
        let one = |name| Change::Removed { tier: tier.clone(), group, hashes: vec![name].into() };
        names.into_iter().map(one).collect()
    }

    /// A path's names go, and some come back for another path's blocks.
    fn moved(&mut self, stream: usize, kept: &Kept) -> Vec<Change> {
        let names = kept.naming.names(&kept.path);
        let removed =
            Change::Removed { tier: kept.tier.clone(), group: Group(0), hashes: names.clone().into() };
        let (mut path, from) = (self.dice.path(), self.dice.below(3));
        path.resize(kept.path.len(), b'y');
        let other = Kept { path, ..kept.clone() };
        let mut run = other.run(&other.path, from.min(names.len() - 1), names.len());
        run.engine_hashes = names[names.len() - run.engine_hashes.len()..].to_vec().into();
        if self.dice.chance(50) {
            run.parent = kept.run(&kept.path, from.min(names.len() - 1), names.len()).parent;
        }
        self.keep(stream, other);
        let whole = self.dice.chance(70);
        [removed].into_iter().filter(|_| whole).chain([Change::Stored(run)]).collect()
    }

    /// A placeholder event: names without tokens, mostly of a tier behind the device.
    fn by_name(&mut self, kept: &Kept) -> Change {
        let mut run = kept.run(&kept.path, self.dice.below(kept.path.len()), kept.path.len());
        (run.local_hashes, run.parent) = (Column::new(), None);
        run.block_size = self.dice.pick(&[0, 0, BLOCK]);
        run.tier = if self.fleet.tiers && self.dice.chance(80) { Tier::Host } else { Tier::Device };
        Change::Stored(run)
    }

    /// A chain of up to 300 blocks, at once, in pieces or one by one, that leaves a common stem somewhere.
    fn long_chain(&mut self, stream: usize) -> Vec<Change> {
        let stem = self.stems[self.dice.below(2)].clone();
        let mut path = stem[..1 + self.dice.below(stem.len())].to_vec();
        for _ in 0..self.dice.pick(&[0, 1, 2, 20]) {
            path.extend(self.dice.path());
        }
        let kept = self.fresh(stream, &path);
        let piece = self.dice.pick(&[1, 7, 64, 300]);
        let from = if self.dice.chance(70) { 0 } else { self.dice.below(path.len()) };
        let starts = (from..path.len()).step_by(piece);
        let runs = starts.map(|at| Change::Stored(kept.run(&path, at, (at + piece).min(path.len()))));
        let runs = runs.collect();
        self.keep(stream, kept);
        runs
    }
}

impl Kept {
    /// Blocks `from..to` of a path, as this one is named and lies.
    fn run(&self, path: &[u8], from: usize, to: usize) -> StoredRun {
        let names = self.naming.names(path);
        StoredRun {
            lora: self.lora.clone(),
            block_size: BLOCK,
            stride: 1,
            scheme: self.scheme,
            tier: self.tier.clone(),
            group: Group(0),
            kind: None,
            sliding_window: None,
            parent: from.checked_sub(1).map(|before| names[before]),
            engine_hashes: names[from..to].to_vec().into(),
            local_hashes: path[from..to].iter().map(|unit| local(&[*unit])).collect(),
        }
    }
}
