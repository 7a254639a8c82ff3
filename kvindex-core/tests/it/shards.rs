//! What replication rests on, on random histories: workers are partitioned over shards, and an index that applied each
//! shard's log in order holds and answers the same, in whatever order the shards' commands came in between, and
//! whether it applied them all or took in shares of some shards and went on from there.
//!
//! `KVINDEX_HISTORIES=1000000` runs as many; `KVINDEX_SEED=17` runs the one that failed.

use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kvindex_core::{Command, Index, IndexLimits, Outcome, Scratch, WorkerId};

use crate::against_naive;
use crate::histories::{self, Answers};
use crate::history::{self, ADAPTER, Dice, Plan, WORKERS, registration};
use crate::naive::{self, Naive, View, compare, hold};

/// Histories of each kind that the tests run when nothing else is said.
const HISTORIES: u64 = 500;

/// A history whose commands are known to the last one, by shard.
struct Logs {
    limits: IndexLimits,
    /// Which workers each shard has.
    workers: Vec<Vec<WorkerId>>,
    /// Each shard's commands, and what applying them did.
    logs: Vec<Vec<(Command, Outcome)>>,
}

impl Logs {
    /// Deals the workers to shards.
    fn new(limits: IndexLimits, workers: &[WorkerId], dice: &mut Dice) -> Self {
        let shards = 1 + dice.below(workers.len());
        let mut logs = Self { limits, workers: vec![Vec::new(); shards], logs: Vec::new() };
        logs.logs.resize_with(shards, Vec::new);
        for worker in workers {
            logs.workers[dice.below(shards)].push(worker.clone());
        }
        logs
    }

    /// Applies the next command, and notes it in the log of its worker's shard.
    fn write(&mut self, index: &mut Index, command: Command) {
        let worker = match &command {
            Command::Register(spec) => &spec.id,
            Command::Unregister { worker } => worker,
            Command::Events(events) => &events.stream.worker,
            Command::NewGeneration { stream, .. } | Command::Gap { stream, .. } => &stream.worker,
            Command::Forget(blocks) => &blocks.stream.worker,
            Command::Evict { .. } => unreachable!("it concerns all shards"),
        };
        let shard = self.workers.iter().position(|workers| workers.contains(worker)).unwrap();
        let outcome = index.apply(&command);
        self.logs[shard].push((command, outcome));
    }

    /// Evicts from one shard, as its leader would.
    fn evict(&mut self, index: &mut Index, entries: u64, dice: &mut Dice) -> Vec<Command> {
        let workers = self.workers[dice.below(self.workers.len())].clone();
        let of = |worker: &WorkerId| workers.contains(worker);
        let reader = index.reader();
        // By entries, by what a node can bear, and by bytes.
        let keep = reader.entry_count().saturating_sub(entries as usize);
        let plan = match dice.below(3) {
            0 => reader.plan_eviction(entries, 8, of),
            1 => reader.plan_giving(&reader.giving_to_entries(keep, of), 8, of),
            _ => reader.plan_giving(&reader.giving_to_bytes(reader.bytes() / 8 * 7, of), 8, of),
        };
        plan.iter().for_each(|command| self.write(index, command.clone()));
        plan
    }

    fn digest_of(&self, index: &Index, shard: usize) -> u64 {
        index.reader().digest_of(|worker| self.workers[shard].contains(worker))
    }
}

/// An index somewhere on its way through the logs.
struct Replica<'a> {
    logs: &'a Logs,
    index: Index,
    /// How much of each shard's log is in it.
    applied: Vec<usize>,
}

impl<'a> Replica<'a> {
    fn new(logs: &'a Logs) -> Self {
        Self { logs, index: Index::new(logs.limits), applied: vec![0; logs.logs.len()] }
    }

    /// Applies the shard's next command, which must do what it did in the first place.
    fn advance(&mut self, shard: usize) -> Result<(), String> {
        let Some((command, expected)) = self.logs.logs[shard].get(self.applied[shard]) else { return Ok(()) };
        self.applied[shard] += 1;
        let outcome = self.index.apply(command);
        hold(outcome == *expected, || format!("outcome {outcome:?}, expected {expected:?} of {command:?}"))
    }

    /// Goes on in random order until each shard stands at these lengths, where it is not there already.
    fn advance_to(&mut self, lengths: &[usize], dice: &mut Dice) -> Result<(), String> {
        loop {
            let behind = (0..lengths.len()).filter(|shard| self.applied[*shard] < lengths[*shard]);
            let behind: Vec<usize> = behind.collect();
            if behind.is_empty() {
                return self.index.check_invariants();
            }
            self.advance(dice.pick(&behind))?;
        }
    }

    /// Takes over a shard, some workers at a time, from an index that goes on with the others meanwhile.
    fn take_over(&mut self, shard: usize, source: &mut Self, dice: &mut Dice) -> Result<(), String> {
        let workers = &self.logs.workers[shard];
        let others: Vec<usize> = (0..self.applied.len()).filter(|other| *other != shard).collect();
        let mut rest = workers.as_slice();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(1 + dice.below(rest.len()));
            let share = source.index.reader().export(piece);
            let known = piece.iter().filter(|worker| source.index.reader().worker(worker).is_some());
            let imported = self.index.import(&share).map_err(|error| error.to_string())?;
            hold(imported.iter().eq(known), || format!("imported {imported:?}"))?;
            self.index.check_invariants()?;
            for gone in piece.iter().filter(|worker| !imported.contains(worker)) {
                self.index.apply(&Command::Unregister { worker: gone.clone() });
            }
            rest = after;
            for _ in 0..dice.below(4).min(others.len() * 4) {
                source.advance(dice.pick(&others))?;
            }
        }
        self.applied[shard] = source.applied[shard];
        let (here, there) =
            (self.logs.digest_of(&self.index, shard), self.logs.digest_of(&source.index, shard));
        hold(here == there, || format!("other digests of shard {shard} where it was taken from"))
    }
}

/// Random points in all logs, half of them at their ends or starts.
fn points(logs: &Logs, dice: &mut Dice) -> Vec<usize> {
    let point = |log: &Vec<(Command, Outcome)>| match dice.below(4) {
        0 => 0,
        1 => log.len(),
        _ => dice.below(log.len() + 1),
    };
    logs.logs.iter().map(point).collect()
}

/// Everything that may happen to a replica; `agrees` says whether an index answers as it must in the end.
fn check_replicas(
    logs: &Logs,
    digest: u64,
    dice: &mut Dice,
    mut agrees: impl FnMut(&Index) -> Result<(), String>,
) -> Result<(), String> {
    let ends: Vec<usize> = logs.logs.iter().map(Vec::len).collect();
    let mut finished = |replica: &Replica<'_>, how: &str| {
        let same = replica.index.digest() == digest;
        hold(same, || format!("another digest {how}"))?;
        agrees(&replica.index).map_err(|error| format!("{error}, {how}"))
    };
    let mut interleaved = Replica::new(logs);
    interleaved.advance_to(&ends, dice)?;
    finished(&interleaved, "in another order")?;
    // One that is full of what is old, or empty, takes over from one that is further, shard by shard.
    let (mut source, mut target) = (Replica::new(logs), Replica::new(logs));
    source.advance_to(&points(logs, dice), dice)?;
    if dice.chance(70) {
        target.advance_to(&points(logs, dice), dice)?;
    }
    for _ in 0..1 + dice.below(2 * ends.len()) {
        let shard = dice.below(ends.len());
        if target.applied[shard] <= source.applied[shard] {
            target.take_over(shard, &mut source, dice)?;
        }
        if dice.chance(50) {
            target.advance(dice.below(ends.len()))?;
        }
    }
    target.advance_to(&ends, dice)?;
    finished(&target, "after shares")?;
    // Over content that is not older but newer, too: a share replaces whatever there is.
    let (mut again, shard) = (Replica::new(logs), dice.below(ends.len()));
    again.advance_to(&points(logs, dice), dice)?;
    target.take_over(shard, &mut again, dice)?;
    target.advance_to(&ends, dice)?;
    finished(&target, "after a step back")
}

/// Ordinary models, with the naive model to say what is right.
fn ordinary(seed: u64) -> Result<(), String> {
    let (history, mut dice) = (naive::history::history(seed), Dice::new(seed ^ 77));
    let workers: Vec<WorkerId> = history.fleet.workers.iter().map(|spec| spec.id.clone()).collect();
    let limits = against_naive::limits(&history.fleet);
    let (mut logs, mut index) = (Logs::new(limits, &workers, &mut dice), Index::new(limits));
    let mut model = Naive::new(history.fleet.max_orphans);
    let specs = history.fleet.workers.iter().map(|spec| Command::Register(Box::new(spec.clone())));
    for command in specs {
        model.apply(&command);
        logs.write(&mut index, command);
    }
    for step in &history.steps {
        match step.command(&history.fleet, |id| model.stands(id), model.entries()) {
            Some(Command::Evict { entries, .. }) => {
                let plan = logs.evict(&mut index, entries, &mut dice);
                for command in &plan {
                    model.apply(command);
                }
            }
            Some(command) => {
                model.apply(&command);
                logs.write(&mut index, command);
            }
            None => {}
        }
    }
    let view = View::of(&model);
    let agrees = |index: &Index| compare(index, &view, &history, &mut Scratch::default());
    agrees(&index)?;
    check_replicas(&logs, index.digest(), &mut dice, agrees)
}

/// Hybrid models, names of content, everything else, against the index that wrote the logs.
fn any_model(seed: u64, plan: Plan) -> Result<(), String> {
    let (steps, paths) = history::history(plan, seed);
    let mut dice = Dice::new(seed ^ 99);
    let workers = WORKERS.map(|worker| WorkerId::new(worker).unwrap());
    let limits = histories::limits();
    let (mut logs, mut index) = (Logs::new(limits, &workers, &mut dice), Index::new(limits));
    WORKERS.iter().for_each(|worker| logs.write(&mut index, registration(worker)));
    for step in &steps {
        match step.command(&index) {
            Some(command) => logs.write(&mut index, command),
            None => drop(logs.evict(&mut index, 1 + dice.below(9) as u64, &mut dice)),
        }
    }
    let answers = |index: &Index| -> Vec<Answers> {
        let kinds = [(1, None), (2, None), (1, Some(ADAPTER))];
        let of = |path: &Vec<u8>| kinds.map(|(unit, lora)| Answers::of(index, path, unit, lora));
        paths.iter().flat_map(of).collect()
    };
    let expected = answers(&index);
    check_replicas(&logs, index.digest(), &mut dice, |index| same(&answers(index), &expected))
}

fn same<T: PartialEq + Debug>(answers: &[T], expected: &[T]) -> Result<(), String> {
    let differs = answers.iter().zip(expected).find(|(answer, expected)| answer != expected);
    differs.map_or(Ok(()), |(answer, expected)| Err(format!("answers {answer:?}, expected {expected:?}")))
}

fn check(run: impl Fn(u64) -> Result<(), String>) {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seeds = match variable("KVINDEX_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=variable("KVINDEX_HISTORIES").unwrap_or(HISTORIES),
    };
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
        let result = result.unwrap_or_else(|_| Err("it panics, see above".into()));
        if let Err(error) = result {
            panic!("{error}\nagain with KVINDEX_SEED={seed}");
        }
    }
}

#[test]
fn shares_of_ordinary_models() {
    check(ordinary);
}

#[test]
fn shares_of_hybrid_models() {
    let plan = Plan { sparse: true, tiers: true, groups: true, sizes: true, ..Plan::default() };
    check(|seed| any_model(seed, Plan { described_anew: seed % 2 == 0, ..plan }));
}

#[test]
fn shares_of_names_of_content_and_hits_announced_again() {
    let plan = Plan { sparse: true, tiers: true, adapters: true, content: true, ..Plan::default() };
    check(|seed| any_model(seed, Plan { repeated: seed % 2 == 0, groups: seed % 3 == 0, ..plan }));
}

#[test]
fn shares_of_hostile_histories() {
    let plan =
        Plan { hostile: true, sparse: true, tiers: true, adapters: true, content: true, ..Plan::default() };
    check(|seed| any_model(seed, Plan { groups: seed % 2 == 0, described_anew: seed % 3 == 0, ..plan }));
}
