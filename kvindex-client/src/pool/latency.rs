//! How long answers took lately: for choosing between two endpoints, and for when a second one should be asked.

use std::time::{Duration, Instant};

/// After so long an observation has lost two thirds of its weight: what was slow is tried again within half a minute.
const DECAY: Duration = Duration::from_secs(10);

/// What is assumed of an endpoint that has not answered yet.
const UNKNOWN: Duration = Duration::from_millis(1);

/// Answers that a quantile is taken of.
const KEPT: usize = 256;

/// Fewer answers say nothing about a 95th percentile.
const ENOUGH: usize = 32;

/// A moving mean that jumps up at once and comes down slowly, so that an endpoint that became slow is noticed by its
/// first slow answer. (Finagle's and linkerd's "peak EWMA".)
#[derive(Debug, Default)]
pub(crate) struct PeakMean {
    last: Option<(f64, Instant)>,
}

impl PeakMean {
    pub(crate) fn observe(&mut self, took: Duration, now: Instant) {
        let took = took.as_secs_f64();
        let mean = match self.last {
            Some((mean, at)) if took <= mean => {
                let weight = decay(at, now);
                mean * weight + took * (1.0 - weight)
            }
            _ => took,
        };
        self.last = Some((mean, now));
    }

    /// An answer that was not waited for took longer than this.
    pub(crate) fn observe_at_least(&mut self, waited: Duration, now: Instant) {
        if waited > self.mean().unwrap_or_default() {
            self.observe(waited, now);
        }
    }

    /// As it was at the last observation.
    pub(crate) fn mean(&self) -> Option<Duration> {
        self.last.map(|(mean, _)| Duration::from_secs_f64(mean))
    }

    /// What a call is expected to take, in seconds. Old observations fade, or who was slow once would never be asked again.
    pub(crate) fn expected(&self, now: Instant) -> f64 {
        match self.last {
            None => UNKNOWN.as_secs_f64(),
            // To nothing: below what any other takes, however fast those are.
            Some((mean, at)) => mean * decay(at, now),
        }
    }

    pub(crate) fn forget(&mut self) {
        self.last = None;
    }
}

fn decay(at: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(at).as_secs_f64() / DECAY.as_secs_f64()).exp()
}

/// The last answers' times, and their 95th percentile.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    took: Vec<Duration>,
    next: usize,
    p95: Option<Duration>,
}

impl Recent {
    pub(crate) fn observe(&mut self, took: Duration) {
        match self.took.get_mut(self.next) {
            Some(oldest) => *oldest = took,
            None => self.took.push(took),
        }
        self.next = (self.next + 1) % KEPT;
        // Not with each answer: selecting among 256 takes longer than all the rest of a call's bookkeeping.
        if self.next.is_multiple_of(ENOUGH / 2) && self.took.len() >= ENOUGH {
            let mut sorted = self.took.clone();
            let at = sorted.len() * 95 / 100;
            self.p95 = Some(*sorted.select_nth_unstable(at).1);
        }
    }

    /// `None` until there were enough answers.
    pub(crate) fn p95(&self) -> Option<Duration> {
        self.p95
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_mean_jumps_up_comes_down_slowly_and_fades() {
        let now = Instant::now();
        let mut mean = PeakMean::default();
        assert!((mean.expected(now) - 0.001).abs() < 1e-9);
        mean.observe(2 * MS, now);
        mean.observe(50 * MS, now);
        assert_eq!(mean.mean(), Some(50 * MS));
        mean.observe(2 * MS, now + Duration::from_millis(100));
        assert!(mean.mean() > Some(49 * MS));
        mean.observe_at_least(MS, now);
        assert!(mean.mean() > Some(49 * MS), "waiting for less says nothing");
        assert!(mean.expected(now + 6 * DECAY) < 0.000_3, "it is asked again beside one of 0.3 ms");
        mean.observe_at_least(80 * MS, now);
        assert_eq!(mean.mean(), Some(80 * MS));
    }

    #[test]
    fn the_95th_percentile_is_of_recent_answers() {
        let mut recent = Recent::default();
        for _ in 0..ENOUGH - 1 {
            recent.observe(900 * MS);
        }
        assert_eq!(recent.p95(), None);
        for i in 0..1_000_u32 {
            recent.observe((i % 100) * MS);
        }
        let p95 = recent.p95().unwrap_or_default();
        assert!(p95 >= 93 * MS && p95 <= 97 * MS, "{p95:?}");
    }
}
