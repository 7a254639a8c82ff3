//! Answers counted: those that equal the engines' own, those that differ, and which of these say so.

use std::collections::BTreeMap;

use super::ask::{Said, Way};
use super::doubts;

/// How many unmarked differences are kept to be shown.
const SHOWN: usize = 10;
/// How many marked differences of each doubt are kept to be shown.
const SHOWN_OF_DOUBT: usize = 3;

/// Answers of one way of asking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Answers compared.
    pub(super) answers: u64,
    /// Those that promise more than the engine holds.
    pub(super) too_high: u64,
    /// Those that promise less.
    pub(super) too_low: u64,
    /// Those that carry a doubt, whether they differ or not.
    pub(super) marked: u64,
    /// Those that differ and carry no doubt that allows for it.
    pub(super) wrong: u64,
}

impl Count {
    /// Answers that differ.
    pub(super) fn mismatches(&self) -> u64 {
        self.too_high + self.too_low
    }
}

/// One answer beside the engine's own.
#[derive(Debug, Clone)]
pub(super) struct Compared {
    /// How it was asked.
    pub(super) way: Way,
    /// The checkpoint's number and label.
    pub(super) checkpoint: String,
    /// Place of the query in the checkpoint.
    pub(super) query: usize,
    /// The worker.
    pub(super) worker: String,
    /// Tokens by the engine's own answer.
    pub(super) engine: u64,
    /// What the node says.
    pub(super) node: Said,
}

/// Answers that differ as the same doubt allows.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubted {
    /// How many.
    pub(super) answers: u64,
    /// The first of them.
    pub(super) first: Vec<Compared>,
}

/// All answers so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<Way, Count>,
    /// The first answers that differ without a mark that allows for it.
    pub(super) wrong: Vec<Compared>,
    /// Answers that differ, by the name of each doubt that allows for it.
    pub(super) doubted: BTreeMap<String, Doubted>,
}

impl Tally {
    /// Counts one answer.
    pub(super) fn count(&mut self, compared: Compared) {
        let count = self.counts.entry(compared.way).or_default();
        let (node, engine) = (compared.node.tokens, compared.engine);
        count.answers += 1;
        count.marked += u64::from(!compared.node.doubts.is_empty());
        count.too_high += u64::from(node > engine);
        count.too_low += u64::from(node < engine);
        if node == engine {
            return;
        }
        let mut allowed = false;
        for doubt in compared.node.doubts.iter().filter(|doubt| doubts::explains(doubt, node > engine)) {
            allowed = true;
            let doubted = self.doubted.entry(doubt.clone()).or_default();
            doubted.answers += 1;
            if doubted.first.len() < SHOWN_OF_DOUBT {
                doubted.first.push(compared.clone());
            }
        }
        if !allowed {
            count.wrong += 1;
            if self.wrong.len() < SHOWN {
                self.wrong.push(compared);
            }
        }
    }

    /// Answers of one way of asking.
    pub(super) fn of(&self, way: Way) -> Count {
        self.counts.get(&way).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_without_a_mark_that_allows_for_it_is_wrong() {
        let mut tally = Tally::default();
        let (high, low) = (Some("hidden_identity"), Some("unplaced_blocks"));
        for (engine, tokens, doubt) in [
            (16, 16, None),
            (16, 16, high),
            (16, 32, high),
            (32, 16, None),
            (32, 0, low),
            (48, 64, low),
            (32, 0, low),
        ] {
            let node = Said { tokens, doubts: doubt.map(String::from).into_iter().collect() };
            let (checkpoint, worker) = ("0".into(), "w".into());
            tally.count(Compared { way: Way::Hashes, checkpoint, query: 0, worker, engine, node });
        }
        let count = Count { answers: 7, too_high: 2, too_low: 3, marked: 5, wrong: 2 };
        assert_eq!((tally.of(Way::Hashes), tally.of(Way::Tokens)), (count, Count::default()));
        let wrong: Vec<_> = tally.wrong.iter().map(|c| (c.engine, c.node.tokens)).collect();
        assert_eq!(wrong, [(32, 16), (48, 64)]);
        let of = |name: &str| (tally.doubted[name].answers, tally.doubted[name].first[0].node.tokens);
        assert_eq!((of("hidden_identity"), of("unplaced_blocks")), ((1, 32), (2, 0)));
    }
}
