//! How long things took, for a metrics page: plain atomics, so that counting costs what is counted nothing worth
//! measuring, and no metrics library is needed where it happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets in microseconds: from a step in memory to a disk that hangs.
const ENDS_US: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    5_000_000,
];

/// Counts durations in buckets.
#[derive(Debug, Default)]
pub struct Durations {
    /// One more than there are ends: the last is for everything longer.
    buckets: [AtomicU64; ENDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// What was counted until some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationCounts {
    /// (upper end in seconds, durations of this bucket alone); the last end is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// All of them together, in seconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

impl Durations {
    /// Counts one.
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = ENDS_US.partition_point(|end| *end < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What was counted until now.
    #[must_use]
    pub fn counts(&self) -> DurationCounts {
        let ends = ENDS_US.iter().map(|us| Duration::from_micros(*us).as_secs_f64()).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        DurationCounts { buckets, sum, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        for us in [0, 100, 101, 5_000_000, 5_000_001] {
            durations.note(Duration::from_micros(us));
        }
        let counts = durations.counts();
        let filled: Vec<(f64, u64)> =
            counts.buckets.iter().copied().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.0001, 2), (0.00025, 1), (5.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(counts.count, 5);
        assert!((counts.sum - 10.000_202).abs() < 1e-9, "{counts:?}");
    }
}
