//! What every question may be answered with, moment by moment: each single-block step of each command makes one. The
//! naive model is one set of blocks a worker.

use std::collections::{BTreeMap, BTreeSet};

use super::moves::{Block, Plan, Step, WORKERS};

/// How many blocks each worker holds of a path.
pub(super) type Depths = [u16; WORKERS.len()];

/// An answer, and what was known when it was asked for and when it was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) path: usize,
    /// Commands that had ended before the question.
    pub(super) ended: usize,
    /// Commands that had begun when the answer was there.
    pub(super) begun: usize,
    pub(super) depths: Depths,
}

/// What holds from a moment on, until the next one's.
#[derive(Debug, Clone, Copy)]
struct State {
    from: usize,
    depths: Depths,
    /// A worker that is being cleared: it may hold any part of what it held.
    clearing: Option<usize>,
}

/// All states of all paths.
#[derive(Debug)]
pub(super) struct Moments {
    /// For every path.
    states: Vec<Vec<State>>,
    /// The moment at which so many commands have ended.
    ends: Vec<usize>,
}

/// How well a reader's answers prove something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Proof {
    pub(super) answers: usize,
    /// Answers during which a command was, or could have been, under way.
    pub(super) beside: usize,
    /// Answers that hold at no moment between two commands, only in the middle of one.
    pub(super) amid: usize,
}

impl std::ops::AddAssign for Proof {
    fn add_assign(&mut self, other: Self) {
        self.answers += other.answers;
        self.beside += other.beside;
        self.amid += other.amid;
    }
}

impl State {
    fn allows(&self, depths: &Depths) -> bool {
        let mut workers = self.depths.iter().zip(depths).enumerate();
        workers.all(|(worker, (held, seen))| held == seen || self.clearing == Some(worker) && seen <= held)
    }
}

impl Moments {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut on: BTreeMap<Block, Vec<usize>> = BTreeMap::new();
        for (number, path) in plan.paths.iter().enumerate() {
            for end in 1..=path.len() {
                on.entry(path[..end].to_vec()).or_default().push(number);
            }
        }
        let first = State { from: 0, depths: Depths::default(), clearing: None };
        let mut all = Self { states: vec![vec![first]; plan.paths.len()], ends: Vec::new() };
        let mut held: Vec<BTreeSet<Block>> = vec![BTreeSet::new(); WORKERS.len()];
        let mut now = 0;
        for (number, step) in plan.before.iter().chain(&plan.moves).enumerate() {
            if number >= plan.before.len() {
                all.ends.push(now);
            }
            let (worker, held) = (step.worker, &mut held[step.worker]);
            for step in &step.steps {
                now += 1;
                let block = match step {
                    Step::Stored(block) => held.insert(block.clone()).then_some(block),
                    Step::Removed(block) => held.remove(block).then_some(block),
                    Step::Cleared => {
                        held.clear();
                        all.clear(worker, now);
                        now += 1;
                        continue;
                    }
                };
                for path in block.and_then(|block| on.get(block)).into_iter().flatten() {
                    let blocks = &plan.paths[*path];
                    let depth = (1..=blocks.len()).take_while(|end| held.contains(&blocks[..*end])).count();
                    all.note(*path, worker, depth as u16, now);
                }
            }
        }
        all.ends.push(now);
        all
    }

    fn note(&mut self, path: usize, worker: usize, depth: u16, now: usize) {
        let states = &mut self.states[path];
        let mut depths = states[states.len() - 1].depths;
        if depths[worker] != depth {
            depths[worker] = depth;
            states.push(State { from: now, depths, clearing: None });
        }
    }

    /// A moment in which the blocks go, and one in which they are gone.
    fn clear(&mut self, worker: usize, now: usize) {
        for states in &mut self.states {
            let mut last = states[states.len() - 1];
            if last.depths[worker] > 0 {
                states.push(State { from: now, clearing: Some(worker), ..last });
                last.depths[worker] = 0;
                states.push(State { from: now + 1, ..last });
            }
        }
    }

    /// What a path is answered with when so many commands have ended and no other has begun.
    pub(super) fn at_rest(&self, path: usize, ended: usize) -> Depths {
        let states = &self.states[path];
        states[self.state_at(path, self.ends[ended])].depths
    }

    fn state_at(&self, path: usize, moment: usize) -> usize {
        self.states[path].partition_point(|state| state.from <= moment) - 1
    }

    /// Finds a moment for each of one reader's answers: within what it knew, and none before the answer that it had
    /// last. The earliest one is taken, which leaves the most to those that follow.
    pub(super) fn explain(&self, answers: &[Answer]) -> Result<Proof, String> {
        let (mut proof, mut last) = (Proof::default(), 0);
        for answer in answers {
            let Answer { path, ended, begun, depths } = *answer;
            let (from, to) = (self.ends[ended].max(last), self.ends[begun]);
            let states = &self.states[path];
            let range = self.state_at(path, from)..=self.state_at(path, to);
            let Some(state) = states[range.clone()].iter().find(|state| state.allows(&depths)) else {
                let allowed: Vec<_> =
                    states[range].iter().map(|state| (state.depths, state.clearing)).collect();
                return Err(format!("{answer:?} is true at no moment; since the one before it: {allowed:?}"));
            };
            last = from.max(state.from);
            proof.answers += 1;
            proof.beside += usize::from(begun > ended);
            proof.amid += usize::from((ended..=begun).all(|ended| self.at_rest(path, ended) != depths));
        }
        Ok(proof)
    }
}
