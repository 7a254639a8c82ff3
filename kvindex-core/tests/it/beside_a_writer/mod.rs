//! Whether threads that ask while the index changes hear the truth: a linearisation check of `Scorer`.
//!
//! One thread applies commands, others ask without a break and note which commands had ended before a question and
//! which had begun when its answer was there. Every answer must then be the naive model's at one moment in between,
//! for all workers at once, where every single block stored or removed makes a moment, and a clear takes blocks away
//! in any order.
//!
//! `KVINDEX_SOAK=100` runs a hundred times as many rounds; `KVINDEX_SEED=17` repeats the commands of the round that
//! failed. Threads meet differently every time, so it may take more than one go to see the same again.

mod moments;
mod moves;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use kvindex_core::{Index, Score, ScoreQuery, Scorer, Scratch, SequenceHash, score};

use crate::rig::{BLOCK, MODEL};
use moments::{Answer, Depths, Moments, Proof};
use moves::{CHAINS, Plan, WORKERS, chain, plan, registrations};

const READERS: usize = 2;
/// Commands of a round.
const COMMANDS: usize = 300;
const ROUNDS: u64 = 200;
/// What all rounds together must have come to, or they prove nothing: answers beside a command, and answers that hold
/// in the middle of one alone.
const BESIDE: usize = 500;
const AMID: usize = 20;
/// Times as many rounds as wanted, before a machine counts as too busy to let threads meet.
const PATIENCE: u64 = 20;

/// How far the writer is.
#[derive(Debug, Default)]
struct Progress {
    begun: AtomicUsize,
    ended: AtomicUsize,
    over: AtomicBool,
}

/// What a reader needs.
struct Asking<'a> {
    scorer: Scorer,
    /// Worker of each stream's number.
    workers: Vec<Option<usize>>,
    paths: &'a [Vec<SequenceHash>],
}

impl Asking<'_> {
    fn ask(&self, path: usize, scratch: &mut Scratch) -> Result<Depths, String> {
        let query = ScoreQuery::new(MODEL, BLOCK, &self.paths[path]);
        let scores = self.scorer.score(&query, scratch).map_err(|error| error.to_string())?;
        let scores = scores.ok_or("all streams are plain, but the scorer does not answer")?;
        if !scores.is_sorted_by(|one, next| one.blocks >= next.blocks) {
            return Err(format!("out of order: {scores:?}"));
        }
        let mut depths = Depths::default();
        for Score { stream, blocks } in scores {
            let worker = self.workers.get(stream.number() as usize).copied().flatten();
            let depth = worker.map(|worker| &mut depths[worker]).filter(|depth| **depth == 0);
            *depth.ok_or_else(|| format!("{scores:?} names nobody, or somebody twice"))? = *blocks as u16;
        }
        Ok(depths)
    }

    /// Asks for all paths in turn until the writer is through.
    fn ask_on(&self, progress: &Progress, first: usize) -> Result<Vec<Answer>, String> {
        let (mut answers, mut scratch) = (Vec::new(), Scratch::default());
        for path in (0..self.paths.len()).cycle().skip(first) {
            let over = progress.over.load(Ordering::SeqCst);
            let ended = progress.ended.load(Ordering::SeqCst);
            let depths = self.ask(path, &mut scratch)?;
            let begun = progress.begun.load(Ordering::SeqCst);
            answers.push(Answer { path, ended, begun, depths });
            if over {
                break;
            }
        }
        Ok(answers)
    }
}

/// An index as it is when the readers begin.
fn begin(plan: &Plan) -> Index {
    let mut index = Index::default();
    for command in registrations() {
        index.apply(&command);
    }
    for step in &plan.before {
        index.apply(&step.command);
    }
    assert!(
        index.stats().runs >= CHAINS,
        "the anchor's chains lie in as many runs, so that paths cross several"
    );
    index
}

/// Which worker has which stream's number: all of them hold something when the readers begin.
fn workers(index: &Index, paths: &[Vec<SequenceHash>]) -> Vec<Option<usize>> {
    let (reader, mut workers) = (index.reader(), vec![None; 2 * WORKERS.len()]);
    for path in paths {
        let query = ScoreQuery::new(MODEL, BLOCK, path);
        for found in score(&reader, &query, &mut Scratch::default()).unwrap() {
            let name = &reader.stream_of(found.stream).unwrap().worker;
            let worker = WORKERS.iter().position(|worker| *worker == name.as_str());
            workers[found.stream.number() as usize] = worker;
        }
    }
    assert_eq!(workers.iter().flatten().count(), WORKERS.len());
    workers
}

/// One thread alone: what it sees wrong is not for want of a lock.
fn alone(plan: &Plan, moments: &Moments, paths: &[Vec<SequenceHash>]) -> Result<(), String> {
    let (mut index, mut scratch) = (begin(plan), Scratch::default());
    let asking = Asking { scorer: index.scorer(), workers: workers(&index, paths), paths };
    for ended in 0..=plan.moves.len() {
        for path in 0..paths.len() {
            let (seen, held) = (asking.ask(path, &mut scratch)?, moments.at_rest(path, ended));
            if seen != held {
                return Err(format!("without threads, {ended} commands: path {path}, {seen:?} not {held:?}"));
            }
        }
        if let Some(next) = plan.moves.get(ended) {
            index.apply(&next.command);
        }
    }
    index.check_invariants()
}

/// Applies the commands of a seed while others ask.
fn round(seed: u64) -> Result<Proof, String> {
    let plan = plan(seed, COMMANDS);
    let moments = Moments::of(&plan);
    let paths: Vec<Vec<SequenceHash>> = plan.paths.iter().map(|path| chain(path)).collect();
    alone(&plan, &moments, &paths)?;
    let mut index = begin(&plan);
    let asking = Asking { scorer: index.scorer(), workers: workers(&index, &paths), paths: &paths };
    let (progress, start) = (Progress::default(), Barrier::new(READERS + 1));
    let heard = thread::scope(|scope| {
        let readers = [0, paths.len() / READERS].map(|first| {
            let (asking, progress, start) = (&asking, &progress, &start);
            scope.spawn(move || {
                start.wait();
                asking.ask_on(progress, first)
            })
        });
        start.wait();
        for (number, step) in plan.moves.iter().enumerate() {
            progress.begun.store(number + 1, Ordering::SeqCst);
            index.apply(&step.command);
            progress.ended.store(number + 1, Ordering::SeqCst);
        }
        progress.over.store(true, Ordering::SeqCst);
        readers.map(|reader| reader.join().unwrap_or_else(|_| Err("a reader panics, see above".into())))
    });
    let mut proof = Proof::default();
    for answers in heard {
        proof += moments.explain(&answers?)?;
    }
    index.check_invariants()?;
    Ok(proof)
}

#[test]
fn answers_beside_a_writer_are_true_at_one_moment() {
    let variable = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let (one, soak) = (variable("KVINDEX_SEED"), variable("KVINDEX_SOAK").unwrap_or(1));
    let wanted = ROUNDS * soak;
    let mut all = Proof::default();
    for number in 1..=wanted * PATIENCE {
        let seed = one.unwrap_or(number);
        all += round(seed).unwrap_or_else(|error| panic!("{error}\nagain with KVINDEX_SEED={seed}"));
        if number >= wanted && all.beside >= BESIDE && all.amid >= AMID {
            break;
        }
    }
    println!("{all:?}");
    assert!(all.beside >= BESIDE && all.amid >= AMID, "threads hardly met, which proves nothing: {all:?}");
}

#[test]
fn an_answer_of_no_moment_or_of_one_gone_by_is_refused() {
    let plan = plan(1, COMMANDS);
    let moments = Moments::of(&plan);
    let (mut lies, mut late) = (0, 0);
    for path in 0..plan.paths.len() {
        for ended in 1..=plan.moves.len() {
            let (before, now) = (moments.at_rest(path, ended - 1), moments.at_rest(path, ended));
            let answer = |depths| Answer { path, ended, begun: ended, depths };
            assert!(moments.explain(&[answer(now)]).is_ok());
            let mut more = now;
            more[ended % WORKERS.len()] += 1;
            assert!(moments.explain(&[answer(more)]).is_err());
            lies += 1;
            if before != now {
                assert!(moments.explain(&[answer(before)]).is_err(), "over before it was asked for");
                // Both may be true while the command is under way, but in this order alone.
                let amid = |depths| Answer { ended: ended - 1, ..answer(depths) };
                assert!(moments.explain(&[amid(before), amid(now)]).is_ok());
                assert!(moments.explain(&[answer(now), amid(before)]).is_err(), "back in time");
                late += 1;
            }
        }
    }
    assert!(lies > 1000 && late > 100, "{lies} {late}");
}
