//! How many queries run at one time, and which of the others wait. A queue of queries that grows makes every answer
//! late and helps nobody: a router goes on without an answer after some milliseconds. So a query that would wait
//! longer than that is refused at once, which costs next to nothing.
//!
//! How long it would wait is estimated from the work that waits before it, and from how long such work took lately.
//! The estimate only decides about queuing: a query that finds a free slot always runs, so a wrong one heals.
//!
//! Receiving has no slots, and where more comes than can be received and answered, the queue must not stand before this
//! gate, in sockets and in the scheduler, where nobody counts it. So a query whose turn it is lets everything that is
//! ready go first: heads and bodies that have come are read, and queue here or are refused here, before the next query
//! runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;
use tokio::time::timeout;

/// Bytes of a prompt that are as much work as a question by itself.
const UNIT_BYTES: usize = 16 << 10;

/// A new measurement's share in the estimate is one in so many.
const MEMORY: u64 = 8;

/// When to try again: by then the queue of now is long gone.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Runs some queries at one time.
#[derive(Debug)]
pub(crate) struct Gate {
    slots: Semaphore,
    count: u64,
    max_wait: Duration,
    /// Units of work that wait.
    waiting: AtomicU64,
    /// Nanoseconds that a unit takes, lately.
    unit_ns: AtomicU64,
}

/// A query was refused because it would have waited too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has as many queries as it can answer within {} µs each (max_query_wait_us); ask another one or later",
    .max_wait.as_micros()
)]
pub(crate) struct Overloaded {
    max_wait: Duration,
}

impl Overloaded {
    /// When another attempt may succeed.
    pub(crate) const RETRY_AFTER: Duration = RETRY_AFTER;
}

/// A query's slot; free again when dropped.
#[derive(Debug)]
pub(crate) struct Running<'a> {
    gate: &'a Gate,
    _slot: SemaphorePermit<'a>,
    units: u64,
    started: Instant,
}

/// Work that is counted as waiting, also when its caller goes away meanwhile.
struct Waiting<'a> {
    gate: &'a Gate,
    units: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(self.units, Ordering::Relaxed);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let unit = took / self.units.max(1);
        let before = self.gate.unit_ns.load(Ordering::Relaxed);
        // Two at one time may lose one of their measurements, which an estimate can bear.
        let after = before - before / MEMORY + unit / MEMORY;
        self.gate.unit_ns.store(after, Ordering::Relaxed);
    }
}

/// How much work questions are whose prompts have so many bytes.
pub(crate) fn units(questions: usize, bytes: usize) -> u64 {
    u64::try_from(questions.max(1) + bytes / UNIT_BYTES).unwrap_or(u64::MAX)
}

impl Gate {
    /// A gate with so many slots, for which nobody waits longer than `max_wait`.
    pub(crate) fn new(slots: usize, max_wait: Duration) -> Self {
        Self {
            slots: Semaphore::new(slots),
            count: slots as u64,
            max_wait,
            waiting: AtomicU64::new(0),
            unit_ns: AtomicU64::new(0),
        }
    }

    /// Whether a query that came now would be refused: known before its body is read.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.available_permits() == 0 && self.wait() > self.max_wait
    }

    /// How long a query that came now would wait for a slot.
    fn wait(&self) -> Duration {
        let (units, unit_ns) = (self.waiting.load(Ordering::Relaxed), self.unit_ns.load(Ordering::Relaxed));
        Duration::from_nanos(units.saturating_mul(unit_ns) / self.count.max(1))
    }

    /// What a query is told that would wait too long.
    pub(crate) fn overloaded(&self) -> Overloaded {
        Overloaded { max_wait: self.max_wait }
    }

    /// Takes a slot for so much work, now or after a short wait.
    ///
    /// # Errors
    /// When the wait is too long.
    pub(crate) async fn enter(&self, units: u64) -> Result<Running<'_>, Overloaded> {
        let overloaded = self.overloaded();
        let slot = match self.slots.try_acquire() {
            Ok(slot) => slot,
            Err(_) if self.wait() > self.max_wait => return Err(overloaded),
            Err(_) => {
                self.waiting.fetch_add(units, Ordering::Relaxed);
                let (_waiting, since) = (Waiting { gate: self, units }, Instant::now());
                match timeout(self.max_wait, self.slots.acquire()).await {
                    // Timers are late by up to a millisecond or two, which is more than a query may wait.
                    Ok(Ok(slot)) if since.elapsed() <= self.max_wait => slot,
                    // The estimate was too low: what runs takes longer than what ran before.
                    Ok(_) | Err(_) => return Err(overloaded),
                }
            }
        };
        // What is received meanwhile is part of how long a turn takes: those who wait, wait for that too.
        let started = Instant::now();
        yield_now().await;
        Ok(Running { gate: self, _slot: slot, units, started })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::future::join_all;

    const WAIT: Duration = Duration::from_millis(5);

    #[tokio::test(start_paused = true)]
    async fn a_free_slot_is_taken_and_a_busy_one_waited_for() {
        let gate = Gate::new(1, WAIT);
        let running = gate.enter(1).await.unwrap();
        let (next, ()) = tokio::join!(gate.enter(1), async {
            tokio::time::sleep(WAIT / 2).await;
            drop(running);
        });
        assert!(next.is_ok());
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_too_long_is_refused_and_waits_no_more() {
        let gate = Gate::new(1, WAIT);
        let _running = gate.enter(1).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(gate.enter(1).await.unwrap_err(), Overloaded { max_wait: WAIT });
        assert!(began.elapsed() < WAIT * 2, "{:?}", began.elapsed());
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn behind_much_work_a_query_is_refused_at_once() {
        let gate = Gate::new(2, WAIT);
        gate.unit_ns.store(1_000_000, Ordering::Relaxed);
        let _running = (gate.enter(1).await.unwrap(), gate.enter(1).await.unwrap());
        let began = tokio::time::Instant::now();
        // Ten units before it on two slots are the 5 ms that it may wait; the eleventh is too much.
        let (_waited, refused) = tokio::join!(join_all((0..11).map(|_| gate.enter(1))), async {
            assert!(gate.is_full());
            let refused = gate.enter(1).await.unwrap_err();
            assert_eq!(began.elapsed(), Duration::ZERO);
            refused
        });
        assert_eq!(refused, Overloaded { max_wait: WAIT });
        assert!(!gate.is_full(), "the queue is empty again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_leaves_the_queue() {
        let gate = Gate::new(1, WAIT);
        let _running = gate.enter(1).await.unwrap();
        let waiting = timeout(Duration::from_millis(1), gate.enter(7));
        assert!(waiting.await.is_err());
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_meanwhile_is_looked_at_before_a_query_runs() {
        let gate = Gate::new(1, WAIT);
        gate.unit_ns.store(1_000_000, Ordering::Relaxed);
        // Sixty at once, as from a socket that was not read for a while: none runs before all have been looked at.
        let asked = AtomicU64::new(0);
        let answers = join_all((0..60).map(|_| async {
            asked.fetch_add(1, Ordering::Relaxed);
            let running = gate.enter(1).await;
            running.map(|_running| assert_eq!(asked.load(Ordering::Relaxed), 60)).is_ok()
        }));
        let refused = answers.await.into_iter().filter(|answered| !answered).count();
        assert!(refused >= 50, "{refused} were refused");
    }

    #[test]
    fn the_estimate_follows_what_is_measured() {
        let gate = Gate::new(1, WAIT);
        for _ in 0..100 {
            let slot = gate.slots.try_acquire().unwrap();
            let started = Instant::now().checked_sub(Duration::from_millis(8)).unwrap();
            drop(Running { gate: &gate, _slot: slot, units: 4, started });
        }
        let unit = Duration::from_nanos(gate.unit_ns.load(Ordering::Relaxed));
        assert!(unit > Duration::from_micros(1900) && unit < Duration::from_millis(3), "{unit:?}");
    }
}
