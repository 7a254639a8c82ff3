//! How well another node is reached: Normal, Limited or Blocked, as one atomic word that every call's end may move.
//!
//! A refused connection says that the host is there and the path works; silence says neither. So only silence blocks a
//! path. A blocked path stays so for 15 seconds even when calls get through again, because a path that comes and goes
//! every second is worse than none; after that one call is let through as a probe. What keeps a cluster alive
//! (heartbeats, votes, log entries) is never held back, whatever the state: its calls are what the state is made from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathState {
    /// As it should be.
    Normal,
    /// Slow, or some calls fail.
    Limited,
    /// Nothing was heard for a while.
    Blocked,
}

impl PathState {
    /// Its word in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Limited => "limited",
            Self::Blocked => "blocked",
        }
    }
}

/// How a call over a path ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// With an answer, after so long.
    Answered(Duration),
    /// Somebody or something said no: refused, hung up, wrong certificate.
    Refused,
    /// With nothing.
    Silent,
}

/// A call that takes longer is slow: even a flushed log entry takes far less.
const SLOW: Duration = Duration::from_millis(500);
/// So many bad calls in a row limit a path: one or two are an accident.
const LIMITS: u64 = 3;
/// So many good calls in a row make it normal again.
const RECOVERS: u64 = 3;
/// So many bad calls in a row, with silence at the end, may block a path.
const BLOCKS: u64 = 5;
/// And only when there was no good one for this long: a burst of calls that end together is one event.
const QUIET_MS: u64 = 2_000;
/// How long a blocked path stays blocked.
const HOLD_MS: u64 = 15_000;
/// How long others wait for the one call that probes.
const PROBE_MS: u64 = 2_000;

/// The word taken apart. Times are milliseconds since an origin that the caller keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Word {
    state: PathState,
    /// Calls in a row of one kind: bad ones in Normal, good or bad ones in Limited.
    streak: u64,
    /// Whether the streak is of good ones.
    good: bool,
    /// Whether a blocked path's probe is under way.
    probing: bool,
    /// In Normal and Limited when the streak began; in Blocked when it was blocked, or the probe began.
    since_ms: u64,
}

const STREAK_MAX: u64 = 0xff;

impl Word {
    const FRESH: Self = Self { state: PathState::Normal, streak: 0, good: true, probing: false, since_ms: 0 };

    fn pack(self) -> u64 {
        let state = self.state as u64;
        state
            | u64::from(self.good) << 2
            | u64::from(self.probing) << 3
            | self.streak.min(STREAK_MAX) << 8
            | self.since_ms << 16
    }

    fn unpack(word: u64) -> Self {
        let state = match word & 3 {
            0 => PathState::Normal,
            1 => PathState::Limited,
            _ => PathState::Blocked,
        };
        let (good, probing) = (word & 4 != 0, word & 8 != 0);
        Self { state, good, probing, streak: word >> 8 & STREAK_MAX, since_ms: word >> 16 }
    }

    /// One more call in a row, or the first of a new row.
    fn counted(self, good: bool, now_ms: u64) -> Self {
        let goes_on = self.good == good;
        let streak = if goes_on { self.streak + 1 } else { 1 };
        let since_ms = if goes_on { self.since_ms } else { now_ms };
        Self { good, streak: streak.min(STREAK_MAX), since_ms, ..self }
    }

    fn enters(self, state: PathState, now_ms: u64) -> Self {
        // The streak goes on: what limited a path counts towards what blocks it.
        let since_ms = if state == PathState::Blocked { now_ms } else { self.since_ms };
        Self { state, since_ms, ..self }
    }

    fn after(self, signal: Signal, now_ms: u64) -> Self {
        let good = matches!(signal, Signal::Answered(took) if took < SLOW);
        if self.state == PathState::Blocked {
            return self.after_while_blocked(signal, good, now_ms);
        }
        let next = self.counted(good, now_ms);
        let quiet = now_ms.saturating_sub(next.since_ms) >= QUIET_MS;
        let silent = signal == Signal::Silent;
        match next.state {
            PathState::Limited if good && next.streak >= RECOVERS => next.enters(PathState::Normal, now_ms),
            PathState::Normal if !good && next.streak >= LIMITS => next.enters(PathState::Limited, now_ms),
            PathState::Limited if silent && next.streak >= BLOCKS && quiet => {
                next.enters(PathState::Blocked, now_ms)
            }
            _ => next,
        }
    }

    fn after_while_blocked(self, signal: Signal, good: bool, now_ms: u64) -> Self {
        match signal {
            // Counted, so that a path over which everything comes again is used while it is still held.
            _ if self.is_held(now_ms) => Self { since_ms: self.since_ms, ..self.counted(good, now_ms) },
            // A failed probe: the time begins anew.
            Signal::Silent => Self { probing: false, since_ms: now_ms, ..self },
            _ => Self { state: PathState::Limited, streak: 1, good, probing: false, since_ms: now_ms },
        }
    }

    fn is_held(self, now_ms: u64) -> bool {
        !self.probing && now_ms < self.since_ms.saturating_add(HOLD_MS)
    }
}

/// The state of the path to one node.
#[derive(Debug)]
pub struct Path(AtomicU64);

impl Default for Path {
    fn default() -> Self {
        Self(AtomicU64::new(Word::FRESH.pack()))
    }
}

impl Path {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> PathState {
        Word::unpack(self.0.load(Ordering::Acquire)).state
    }

    /// Takes in how a call ended; answers from where to where the path moved, if it did. Of many calls that end at
    /// once exactly one makes the move.
    pub fn note(&self, signal: Signal, now_ms: u64) -> Option<(PathState, PathState)> {
        let mut before = self.0.load(Ordering::Acquire);
        loop {
            let word = Word::unpack(before);
            let after = word.after(signal, now_ms);
            match self.0.compare_exchange_weak(before, after.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (word.state != after.state).then_some((word.state, after.state)),
                Err(other) => before = other,
            }
        }
    }

    /// Whether a call that can wait, or go elsewhere, should be made. While the path is blocked it should not, unless
    /// the last calls over it (heartbeats are never held back) were all answered; once it was blocked for long enough
    /// one caller is told yes, whose call is the probe.
    pub fn admits(&self, now_ms: u64) -> bool {
        let before = self.0.load(Ordering::Acquire);
        let word = Word::unpack(before);
        if word.state != PathState::Blocked {
            return true;
        }
        if word.good && word.streak >= RECOVERS {
            return true;
        }
        let probed = word.probing && now_ms < word.since_ms.saturating_add(PROBE_MS);
        if word.is_held(now_ms) || probed {
            return false;
        }
        let probed = Word { probing: true, since_ms: now_ms, ..word };
        self.0.compare_exchange(before, probed.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
#[path = "path_test.rs"]
mod tests;
