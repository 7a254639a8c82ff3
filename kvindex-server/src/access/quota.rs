//! So many questions a second, and so many at once.

use governor::DefaultDirectRateLimiter;
use governor::clock::{Clock, DefaultClock};
use std::num::NonZeroU32;
use std::time::Duration;

/// How many questions a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) per_second: NonZeroU32,
    /// How many at once after a rest.
    pub(super) burst: NonZeroU32,
}

/// A rate that is kept to.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) rate: Rate,
    limiter: DefaultDirectRateLimiter,
}

/// A question was one too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{whose} may ask {} questions a second and {} at once (queries_per_s, burst){}", .rate.per_second, .rate.burst, hint(.retry_after.as_ref(), *.asked))]
pub(crate) struct Limited {
    /// Whose limit it was: `token "x"` or `tenant "y"`.
    pub(super) whose: String,
    pub(super) is_tenant: bool,
    pub(super) rate: Rate,
    pub(super) asked: u32,
    /// When so many fit again; `None` when they never fit together.
    pub(crate) retry_after: Option<Duration>,
}

impl Limited {
    /// The reason's word, for metrics.
    pub(crate) fn word(&self) -> &'static str {
        if self.is_tenant { "rate_tenant" } else { "rate_token" }
    }
}

fn hint(retry_after: Option<&Duration>, asked: u32) -> String {
    match retry_after {
        Some(after) => format!("; retry after {} ms", after.as_millis().max(1)),
        None => format!("; {asked} in one call never fit, send fewer"),
    }
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        let quota = governor::Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self { rate, limiter: DefaultDirectRateLimiter::direct(quota) }
    }

    /// Takes so many questions, or says when they may come again. Nothing is taken then.
    pub(super) fn take(&self, questions: u32) -> Result<(), Option<Duration>> {
        let Some(questions) = NonZeroU32::new(questions) else { return Ok(()) };
        match self.limiter.check_n(questions) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(early)) => Err(Some(early.wait_time_from(DefaultClock::default().now()))),
            Err(_never) => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_rules() {
        let rate = Rate { per_second: 10.try_into().unwrap(), burst: 3.try_into().unwrap() };
        let bucket = Bucket::new(rate);
        assert_eq!(bucket.take(4), Err(None), "more than the burst never fit");
        assert_eq!(bucket.take(3), Ok(()));
        let wait = bucket.take(1).unwrap_err().unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        assert_eq!(bucket.take(0), Ok(()));
        let wait = bucket.take(3).unwrap_err().unwrap();
        assert!(wait > Duration::from_millis(200) && wait <= Duration::from_millis(300), "{wait:?}");
    }
}
