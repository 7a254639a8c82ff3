//! A circuit breaker for one endpoint: after enough failures nobody waits for it any more, and now and then one call
//! tries whether it is back. A state machine without a clock of its own, so that its rules are tested without waiting.

use std::time::{Duration, Instant};

/// Failures in a row after which it opens. Fewer would open it for one lost connection with several calls on it.
const IN_A_ROW: u32 = 5;

/// Calls within [`WINDOW`] from which on the share of failures counts.
const ENOUGH: u32 = 20;

/// How long calls count towards the share of failures.
const WINDOW: Duration = Duration::from_secs(10);

/// First time for which it stays open; doubled whenever the call that tries fails.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Longest time for which it stays open: an endpoint that is back is found within this.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long the one call that tries may take to report. It may be cancelled, and then another one tries.
const TRIAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    Trial { until: Instant },
}

/// Whether calls go to an endpoint.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    in_a_row: u32,
    calls: u32,
    failures: u32,
    since: Instant,
    pause: Duration,
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self { state: State::Closed, in_a_row: 0, calls: 0, failures: 0, since: now, pause: FIRST_PAUSE }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// How long nobody calls; `None` when a call may go.
    pub(crate) fn pauses(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed => None,
            State::Open { until } | State::Trial { until } => {
                until.checked_duration_since(now).filter(|left| !left.is_zero())
            }
        }
    }

    /// Whether the next call would be the one that tries.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        !self.is_closed() && self.pauses(now).is_none()
    }

    /// A call is made: the first one after a pause is the trial, and others wait for what it says.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.is_due(now) {
            self.state = State::Trial { until: now + TRIAL };
        }
    }

    /// A call was answered; says whether that closed the breaker.
    pub(crate) fn answered(&mut self, now: Instant) -> bool {
        let closes = !self.is_closed();
        if closes {
            *self = Self::new(now);
        }
        self.in_a_row = 0;
        self.count(now, false);
        closes
    }

    /// A call failed; says whether that opened the breaker.
    pub(crate) fn failed(&mut self, now: Instant) -> bool {
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.count(now, true);
        match self.state {
            State::Closed if self.in_a_row >= IN_A_ROW || self.mostly_fails() => self.open(now),
            State::Trial { .. } => {
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                self.open(now);
            }
            // Late news of calls that began before it opened.
            State::Closed | State::Open { .. } => return false,
        }
        true
    }

    /// The endpoint answers probes again after it did not: the next call may try at once.
    pub(crate) fn revived(&mut self, now: Instant) {
        if let State::Open { .. } = self.state {
            self.state = State::Open { until: now };
            self.pause = FIRST_PAUSE;
        }
    }

    fn open(&mut self, now: Instant) {
        // Not all clients shall come back in the same moment.
        self.state = State::Open { until: now + self.pause.mul_f64(0.8 + 0.4 * fastrand::f64()) };
    }

    fn mostly_fails(&self) -> bool {
        self.calls >= ENOUGH && self.failures * 2 >= self.calls
    }

    fn count(&mut self, now: Instant, failed: bool) {
        if now.saturating_duration_since(self.since) > WINDOW {
            (self.calls, self.failures, self.since) = (0, 0, now);
        }
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(now);
        for failure in 1..=IN_A_ROW {
            assert_eq!(breaker.failed(now), failure == IN_A_ROW);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_lets_one_call_try() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.pauses(now).is_some() && !breaker.is_due(now));
        let later = now + FIRST_PAUSE.mul_f64(1.3);
        assert!(breaker.is_due(later));
        breaker.begin(later);
        assert!(breaker.pauses(later).is_some(), "one call tries, the others do not wait for it");
        assert!(breaker.answered(later));
        assert!(breaker.is_closed() && breaker.pauses(later).is_none());
    }

    #[test]
    fn each_failed_trial_doubles_the_pause_up_to_a_bound() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            now += LONGEST_PAUSE * 2;
            breaker.begin(now);
            assert!(breaker.failed(now));
            pauses.extend(breaker.pauses(now));
        }
        assert!(pauses.first().is_some_and(|pause| *pause < Duration::from_millis(1_300)), "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE.mul_f64(1.2)), "{pauses:?}");
        assert!(pauses.last().is_some_and(|pause| *pause >= LONGEST_PAUSE.mul_f64(0.8)), "{pauses:?}");
        breaker.revived(now);
        assert!(breaker.is_due(now));
    }

    #[test]
    fn it_opens_when_half_of_many_calls_fail_and_not_for_a_few() {
        let now = Instant::now();
        let mut breaker = Breaker::new(now);
        let opened_at = (1..=40).find(|_| {
            breaker.answered(now);
            breaker.failed(now)
        });
        assert_eq!(opened_at, Some(ENOUGH / 2));
        let mut breaker = Breaker::new(now);
        for call in 0..200 {
            let at = now + Duration::from_millis(call);
            assert!(
                !if call % 3 == 0 { breaker.failed(at) } else { breaker.answered(at) },
                "a third is no half"
            );
        }
        let mut breaker = Breaker::new(now);
        for call in 0..100 {
            let at = now + (WINDOW / 4) * call;
            breaker.answered(at);
            assert!(!breaker.failed(at), "calls of long ago do not count");
        }
    }

    #[test]
    fn a_trial_that_never_reports_is_tried_again() {
        let now = Instant::now() + LONGEST_PAUSE;
        let mut breaker = opened(now);
        let at = now + LONGEST_PAUSE;
        breaker.begin(at);
        assert!(!breaker.is_due(at));
        assert!(breaker.is_due(at + TRIAL));
    }
}
