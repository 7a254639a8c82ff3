//! The only source of chance. Everything that a run leaves open is drawn from dice that its seed made, so that a
//! seed is a run.

use std::ops::Range;

/// A SplitMix64 generator: it must be the same for ever, not good.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice of a seed.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ 0x6b76_696e_6465_7873)
    }

    /// Dice for one purpose: what others draw changes nothing here.
    #[must_use]
    pub(crate) fn of(seed: u64, purpose: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64_with_seed(purpose.as_bytes(), seed))
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..count`; 0 when there is none.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % (count.max(1) as u64)).unwrap_or(0)
    }

    /// One of a range; its start when it is empty.
    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % range.end.saturating_sub(range.start).max(1)
    }

    /// Yes, so many times in a thousand.
    pub(crate) fn permille(&mut self, times: u32) -> bool {
        self.next() % 1000 < u64::from(times)
    }

    /// Yes, so many times in a hundred.
    pub(crate) fn percent(&mut self, times: u32) -> bool {
        self.permille(times * 10)
    }

    /// One of these, if there are any.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}
