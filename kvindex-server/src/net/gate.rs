//! How many connections a door takes. One more is closed at once: a client that is refused within a moment tries
//! another node, one that waits in a queue does not.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::NetMetrics;

/// Between two lines in the log: whoever comes too often must not fill it as well.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Counts a door's connections.
#[derive(Debug)]
pub(crate) struct Gate {
    door: &'static str,
    limit: usize,
    room: Arc<Semaphore>,
    metrics: NetMetrics,
    told: Mutex<Option<Instant>>,
}

/// The right to be open, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    door: &'static str,
    metrics: NetMetrics,
    _room: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(door: &'static str, limit: usize, metrics: NetMetrics) -> Self {
        let room = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Self { door, limit, room, metrics, told: Mutex::default() }
    }

    /// Lets one more connection in; `None` when there is no room, which is counted.
    pub(crate) fn admit(&self) -> Option<Pass> {
        if let Ok(room) = Arc::clone(&self.room).try_acquire_owned() {
            self.metrics.opened(self.door);
            return Some(Pass { door: self.door, metrics: self.metrics.clone(), _room: room });
        }
        self.metrics.refused(self.door);
        let mut told = self.told.lock();
        if told.is_none_or(|at| at.elapsed() >= TOLD_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(door = self.door, limit = self.limit, "no room for another connection");
        }
        None
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.metrics.closed(self.door);
    }
}
