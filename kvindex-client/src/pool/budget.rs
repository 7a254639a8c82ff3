//! What extra calls may cost: a share of the ordinary ones. Without it, nodes that fail because there is too much to do
//! would get twice as much to do.

use std::sync::atomic::{AtomicU64, Ordering};

/// In these units an extra call costs 1000.
const CALL: u64 = 1_000;

/// Extra calls that may be made at once, and before there were ordinary ones: a client that seldom asks must be able to
/// ask again too.
const RESERVE: u64 = 10;

/// A bucket that ordinary calls fill and extra calls empty.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What an ordinary call puts in.
    share: u64,
    left: AtomicU64,
    spent: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    /// So many extra calls for every hundred.
    pub(crate) fn percent(percent: u64) -> Self {
        Self {
            share: CALL / 100 * percent,
            left: AtomicU64::new(RESERVE * CALL),
            spent: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// An ordinary call is made.
    pub(crate) fn earn(&self) {
        let more = |left: u64| Some((left + self.share).min(RESERVE * CALL));
        // The closure refuses nothing.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// Whether an extra call may be made, which is then paid for.
    pub(crate) fn spend(&self) -> bool {
        let less = |left: u64| left.checked_sub(CALL);
        let may = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok();
        let count = if may { &self.spent } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
        may
    }

    /// Extra calls made.
    pub(crate) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Extra calls that were not made because nothing was left.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_calls_are_a_share_of_the_others_and_a_reserve() {
        let budget = Budget::percent(10);
        let mut extra = 0;
        for _ in 0..1_000 {
            budget.earn();
            extra += u64::from(budget.spend());
        }
        assert_eq!(extra, 100 + RESERVE - 1, "the first calls find the bucket full");
        assert_eq!((budget.spent(), budget.refused()), (extra, 1_000 - extra));
    }

    #[test]
    fn what_is_saved_is_bounded() {
        let budget = Budget::percent(5);
        (0..100_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count() as u64, RESERVE);
    }
}
