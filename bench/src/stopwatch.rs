//! Wall times and their medians.

use std::time::{Duration, Instant};

/// Wall time of one call.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let done = work();
    (started.elapsed(), done)
}

/// Median, with the least and the greatest.
pub(crate) fn median(mut times: Vec<Duration>) -> (Duration, Duration, Duration) {
    times.sort_unstable();
    let at = |i: usize| times.get(i).copied().unwrap_or_default();
    (at(times.len() / 2), at(0), at(times.len().saturating_sub(1)))
}

/// What one in a hundred exceeds.
pub(crate) fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
}
