//! The index against the naive model, on random histories: equal outcomes, equal holdings, equal answers, and a
//! restored copy that goes on like the original.
//!
//! `KVINDEX_HISTORIES=1000000` runs as many; `KVINDEX_SEED=17` runs the one that failed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use kvindex_core::{Change, Command, Coverage, Index, IndexLimits, Notice, Outcome, Scratch};

use crate::naive::fleet::Fleet;
use crate::naive::history::{History, Step, history};
use crate::naive::{Followed, Naive, View, compare, hold};

/// Histories that the tests run when nothing else is said.
const HISTORIES: u64 = 10_000;
/// Longest time to make a failing history shorter.
const SHRINKING: Duration = Duration::from_secs(60);

struct World<'a> {
    history: &'a History,
    naive: Naive,
    index: Index,
    /// What the index was restored from, which must go on alike.
    original: Option<Index>,
    /// What a follower of the index knows.
    followed: Followed,
    scratch: Scratch,
}

impl<'a> World<'a> {
    fn new(history: &'a History) -> Result<Self, String> {
        let limits = limits(&history.fleet);
        let naive = Naive::new(history.fleet.max_orphans);
        let (index, followed, scratch) = (Index::new(limits), Followed::new(), Scratch::default());
        let mut world = Self { history, naive, index, original: None, followed, scratch };
        for spec in &history.fleet.workers {
            world.apply(&Command::Register(Box::new(spec.clone())))?;
        }
        Ok(world)
    }

    fn apply(&mut self, command: &Command) -> Result<(), String> {
        let expected = self.naive.apply(command);
        let followed = &mut self.followed;
        let outcome = self.index.apply_noticed(command, &mut |notice| follow(followed, &notice));
        hold(outcome == expected, || format!("outcome {outcome:?}, expected {expected:?}"))?;
        if let Some(original) = &mut self.original {
            let same = original.apply(command);
            hold(same == outcome, || format!("outcome {outcome:?}, without snapshot {same:?}"))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step.command(&self.history.fleet, |id| self.naive.stands(id), self.naive.entries()) {
            Some(Command::Evict { entries, at_ms }) => self.evict(entries, at_ms),
            Some(command) => self.apply(&command),
            None if matches!(step, Step::Fork) => self.fork(),
            None => Ok(()),
        }
    }

    /// The model cannot know what is oldest: it gives up what the index does, and checks how much that is of whom.
    fn evict(&mut self, entries: u64, at_ms: u64) -> Result<(), String> {
        let command = Command::Evict { entries, at_ms };
        let followed = &mut self.followed;
        let outcome = self.index.apply_noticed(&command, &mut |notice| follow(followed, &notice));
        if let Some(original) = &mut self.original {
            // As a plan, which says what goes.
            let plan = original.reader().plan_eviction(entries, at_ms, |_| true);
            let same = plan.iter().fold(Outcome::default(), |mut all, command| {
                all += original.apply(command);
                all
            });
            hold(same == outcome, || format!("outcome {outcome:?}, by a plan without snapshot {same:?}"))?;
        }
        let reader = self.index.reader();
        let kept = reader.names().map(|(stream, tier, _, name, _)| (stream.clone(), tier.clone(), name));
        let losers = self.naive.evict(entries as usize, outcome.evicted as usize, &kept.collect())?;
        for id in losers {
            let sure = reader.stream(&id).is_some_and(|stamp| stamp.coverage == Coverage::Complete);
            hold(!sure, || format!("{id} lost blocks and still claims to be complete"))?;
        }
        self.compare()
    }

    fn fork(&mut self) -> Result<(), String> {
        let bytes = self.index.snapshot();
        let restored = Index::restore(&bytes, limits(&self.history.fleet));
        let restored = restored.map_err(|error| format!("restore: {error}"))?;
        hold(restored.snapshot() == bytes, || "a restored snapshot has other bytes".into())?;
        self.original = Some(std::mem::replace(&mut self.index, restored));
        self.compare()
    }

    /// Everything that can be seen of the index is what the model says.
    fn compare(&mut self) -> Result<(), String> {
        self.index.check_invariants()?;
        if let Some(original) = &self.original {
            original.check_invariants().map_err(|error| format!("without snapshot: {error}"))?;
            let (now, same) = (self.index.digest(), original.digest());
            hold(now == same, || "other digests with a snapshot and without".into())?;
            let alike = self.index.snapshot() == original.snapshot();
            hold(alike, || "other runs, or other ages of them, with a snapshot and without".into())?;
        }
        let stats = self.index.stats();
        let (entries, orphans) = (self.naive.entries(), self.naive.orphans());
        hold(stats.entries == entries, || format!("{} entries, expected {entries}", stats.entries))?;
        hold(stats.orphans == orphans, || format!("{} orphans, expected {orphans}", stats.orphans))?;
        for id in &self.history.fleet.streams {
            let stamp = self.index.reader().stream(id).map(|stamp| (stamp.generation, stamp.applied));
            hold(stamp == self.naive.stands(id), || format!("{id} stands at {stamp:?}"))?;
        }
        let view = View::of(&self.naive);
        view.followed(&self.followed)?;
        compare(&self.index, &view, self.history, &mut self.scratch)
    }

    fn end(mut self) -> Result<(), String> {
        self.compare()?;
        for spec in &self.history.fleet.workers {
            self.apply(&Command::Unregister { worker: spec.id.clone() })?;
            self.index.check_invariants()?;
        }
        let left = self.index.stats();
        let nothing = (left.entries, left.blocks, left.runs, left.orphans) == (0, 0, 0, 0);
        hold(nothing, || format!("left when all are gone: {left:?}"))
    }
}

/// Takes note of what the index tells of its changes.
fn follow(followed: &mut Followed, notice: &Notice<'_>) {
    match notice {
        Notice::Stored { stream, tier, namespace, blocks, .. } => {
            let held = followed.entry(((*stream).clone(), (*tier).clone())).or_default();
            held.extend(blocks.iter().map(|block| ((*namespace).clone(), *block)));
        }
        Notice::Removed { stream, tier, namespace, block, .. } => {
            let held = followed.entry(((*stream).clone(), (*tier).clone())).or_default();
            held.remove(&((*namespace).clone(), *block));
        }
        Notice::Cleared { stream, tier, .. } => {
            followed.retain(|(other, at), _| other != *stream || tier.is_some_and(|tier| at != tier));
        }
        _ => {}
    }
}

pub(crate) fn limits(fleet: &Fleet) -> IndexLimits {
    IndexLimits { max_orphans_per_owner: fleet.max_orphans, ..IndexLimits::default() }
}

fn run(history: &History) -> Result<(), String> {
    let all = || {
        let mut world = World::new(history)?;
        for (at, step) in history.steps.iter().enumerate() {
            world.step(step)?;
            if at % history.every == 0 {
                world.compare()?;
            }
        }
        world.end()
    };
    catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|_| Err("it panics, see above".into()))
}

/// Leaves out every step, batch, change and question without which it still fails.
fn shrink(mut history: History) -> History {
    let until = Instant::now() + SHRINKING;
    let fails = |history: &History| Instant::now() < until && run(history).is_err();
    let at_once = History { every: 1, ..history.clone() };
    history = if fails(&at_once) { at_once } else { history };
    loop {
        let before = format!("{history:?}").len();
        shorten(&mut history, &fails, |history| Some(&mut history.steps));
        for step in 0..history.steps.len() {
            shorten(&mut history, &fails, |history| batches(&mut history.steps[step]));
            for batch in 0..batches(&mut history.steps[step]).map_or(0, |batches| batches.len()) {
                shorten(&mut history, &fails, |history| batches(&mut history.steps[step])?.get_mut(batch));
            }
        }
        shorten(&mut history, &fails, |history| Some(&mut history.paths));
        shorten(&mut history, &fails, |history| Some(&mut history.names));
        if format!("{history:?}").len() == before {
            return history;
        }
    }
}

fn batches(step: &mut Step) -> Option<&mut Vec<Vec<Change>>> {
    if let Step::Batches(_, batches) = step { Some(batches) } else { None }
}

/// Leaves out parts of a list, in large pieces first.
fn shorten<T: Clone>(
    history: &mut History,
    fails: &impl Fn(&History) -> bool,
    list: impl Fn(&mut History) -> Option<&mut Vec<T>>,
) {
    let Some(mut piece) = list(history).map(|list| list.len()) else { return };
    while piece > 0 {
        let mut at = 0;
        while at < list(history).map_or(0, |list| list.len()) {
            let mut fewer = history.clone();
            if let Some(list) = list(&mut fewer) {
                list.drain(at..(at + piece).min(list.len()));
            }
            if fails(&fewer) {
                *history = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs every second history, so that two tests share the work.
fn check(odd: u64) {
    let seeds = match variable("KVINDEX_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=variable("KVINDEX_HISTORIES").unwrap_or(HISTORIES),
    };
    for seed in seeds.filter(|seed| seed % 2 == odd) {
        let whole = history(seed);
        let Err(error) = run(&whole) else { continue };
        let short = shrink(whole);
        let last = run(&short).err();
        let shown: String = short.steps.iter().map(|step| format!("{step:?}\n")).collect();
        let History { fleet, paths, names, .. } = &short;
        panic!(
            "{error}\nagain with KVINDEX_SEED={seed}; in short: {last:?}, after\n{shown}\
             of {:?}\nasked for {paths:?} and {names:?}",
            fleet
                .workers
                .iter()
                .map(|spec| (&spec.id, spec.engine, spec.copies, &spec.tenant, &spec.model))
                .collect::<Vec<_>>()
        );
    }
}

#[test]
fn odd_histories_equal_the_naive_model() {
    check(1);
}

#[test]
fn even_histories_equal_the_naive_model() {
    check(0);
}
