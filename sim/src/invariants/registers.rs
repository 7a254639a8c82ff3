//! Clients' registers are linearizable: some order of all reads and writes explains every value, and agrees with the
//! order in which they happened. Each register is looked at on its own, which loses nothing, with the search of Wing
//! and Gong as Lowe improved it. A write of unknown outcome may take effect at any later time, or never.

use kvindex_core::replication::ShardId;
use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Ledger, Register, Verdict};

/// Steps of one search after which it is given up; a history of a run needs a few hundred.
const MOST_STEPS: usize = 200_000;

/// Operations of a history that a report shows.
const SHOWN: usize = 12;

type Place = (ShardId, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operation {
    begin: u64,
    /// `MAX` for a write of unknown outcome.
    end: u64,
    writes: bool,
    value: u64,
}

#[derive(Debug, Default)]
pub(super) struct Registers {
    now: u64,
    histories: BTreeMap<Place, Vec<Operation>>,
    reading: BTreeMap<u64, u64>,
}

impl Invariant for Registers {
    fn name(&self) -> &'static str {
        "linearizable registers"
    }

    fn register(&mut self, event: Register) {
        self.now += 1;
        let now = self.now;
        match event {
            Register::Writes { register, value } => {
                let write = Operation { begin: now, end: u64::MAX, writes: true, value };
                self.histories.entry(register).or_default().push(write);
            }
            Register::Wrote { register, value } => {
                let history = self.histories.entry(register).or_default();
                let write = history.iter_mut().find(|operation| operation.writes && operation.value == value);
                write.into_iter().for_each(|write| write.end = now);
            }
            // A read that sees it all the same finds no order.
            Register::Refused { register, value } => {
                let history = self.histories.entry(register).or_default();
                history.retain(|operation| !(operation.writes && operation.value == value));
            }
            Register::Reads { number } => {
                self.reading.insert(number, now);
            }
            Register::Read { number, register, value } => {
                if let Some(begin) = self.reading.remove(&number) {
                    // Values begin at 1: 0 is what nobody wrote.
                    let read = Operation { begin, end: now, writes: false, value: value.unwrap_or(0) };
                    self.histories.entry(register).or_default().push(read);
                }
            }
        }
    }

    fn finish(&mut self, _: &Ledger) -> Verdict {
        for ((shard, register), history) in &mut self.histories {
            history.sort_by_key(|operation| operation.begin);
            if linearizable(history) == Some(false) {
                let last = &history[history.len().saturating_sub(SHOWN)..];
                return Err(format!("no order explains register {register} of {shard}: ... {last:?}"));
            }
        }
        Ok(())
    }
}

/// Whether some order explains a history; `None` when the search was given up.
fn linearizable(history: &[Operation]) -> Option<bool> {
    let words = history.len().div_ceil(64);
    let mut seen: BTreeSet<(Vec<u64>, u64)> = BTreeSet::new();
    let mut stack = vec![(vec![0u64; words], 0u64)];
    let is_done = |done: &[u64], at: usize| done[at / 64] >> (at % 64) & 1 == 1;
    let mut steps = 0;
    while let Some((done, value)) = stack.pop() {
        steps += 1;
        if steps > MOST_STEPS {
            return None;
        }
        let left = || history.iter().enumerate().filter(|(at, _)| !is_done(&done, *at));
        let horizon = left().map(|(_, operation)| operation.end).min().unwrap_or(u64::MAX);
        if horizon == u64::MAX {
            return Some(true);
        }
        for (at, operation) in left() {
            let next = match operation {
                Operation { begin, .. } if *begin > horizon => break,
                Operation { writes: true, value, .. } => *value,
                read if read.value == value => value,
                _ => continue,
            };
            let mut after = done.clone();
            after[at / 64] |= 1 << (at % 64);
            if seen.insert((after.clone(), next)) {
                stack.push((after, next));
            }
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(begin: u64, end: u64, value: u64) -> Operation {
        Operation { begin, end, writes: true, value }
    }

    fn read(begin: u64, end: u64, value: u64) -> Operation {
        Operation { begin, end, writes: false, value }
    }

    #[test]
    fn histories_are_told_apart() {
        let unknown = u64::MAX;
        let fine = [
            vec![],
            vec![read(1, 2, 0), write(3, 4, 1), read(5, 6, 1)],
            vec![write(1, 9, 1), read(2, 3, 0), read(4, 5, 1), read(6, 7, 1)],
            vec![write(1, unknown, 1), read(2, 3, 0), read(4, 5, 1)],
            vec![write(1, unknown, 1), read(2, 3, 0), write(4, 5, 2), read(6, 7, 2)],
            vec![write(1, unknown, 1), write(2, 3, 2), read(4, 5, 2), read(6, 7, 1)],
        ];
        let broken = [
            vec![write(1, 2, 1), read(3, 4, 0)],
            vec![write(1, 9, 1), read(2, 3, 1), read(4, 5, 0)],
            vec![write(1, 2, 1), write(3, 4, 2), read(5, 6, 1)],
            vec![read(1, 2, 1), write(3, 4, 1)],
            vec![write(1, unknown, 1), write(2, 3, 2), read(4, 5, 1), read(6, 7, 2)],
        ];
        fine.iter().for_each(|history| assert_eq!(linearizable(history), Some(true), "{history:?}"));
        broken.iter().for_each(|history| assert_eq!(linearizable(history), Some(false), "{history:?}"));
    }
}
