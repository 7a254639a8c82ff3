//! Keeping the index below a cap on its bytes. Blocks go by command, on the way that every change takes; how many
//! follows from what the index occupies, which takes a walk over it and so is asked seldom.

use parking_lot::{Mutex, RwLockWriteGuard};
use std::time::{Duration, Instant};

use kvindex_core::Command;

use super::{Node, unix_ms};

/// How often the index is measured at least, because not only entries take room.
const EVERY: Duration = Duration::from_secs(10);
/// A measurement takes no more than one in so many of the time.
const REST: u32 = 20;
/// Tries to get below the cap before the next commands are taken in; what is left waits for the next measurement.
const ROUNDS: usize = 4;
/// Least entries of one command: every command looks at all runs.
const AT_ONCE: usize = 65_536;

#[derive(Debug)]
pub(super) struct Cap {
    /// 0 for none.
    bytes: usize,
    next: Mutex<Next>,
}

/// When the index is measured again.
#[derive(Debug)]
struct Next {
    /// When it has so many entries.
    entries: usize,
    /// Or at this time.
    at: Instant,
}

impl Cap {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, next: Mutex::new(Next { entries: 0, at: Instant::now() }) }
    }
}

impl Node {
    /// Evicts what is above the cap, and a twentieth more, so that it is not needed all the time.
    pub(super) fn keep_below_cap(&self) {
        if self.cap.bytes == 0 {
            return;
        }
        // Another thread is at it.
        let Some(mut next) = self.cap.next.try_lock() else { return };
        let started = Instant::now();
        if self.index.read().reader().entry_count() < next.entries && started < next.at {
            return;
        }
        let enough = self.cap.bytes / 20 * 19;
        let mut most = self.cap.bytes;
        let (mut entries, mut pause) = (0, EVERY);
        for _ in 0..ROUNDS {
            let measured = Instant::now();
            let stats = self.stats();
            pause = pause.max(measured.elapsed() * REST);
            entries = stats.entries;
            if stats.bytes <= most || entries == 0 {
                break;
            }
            most = enough;
            let above = stats.bytes.saturating_sub(enough) as u128;
            let share = (entries as u128 * above).div_ceil(stats.bytes as u128);
            self.evict(usize::try_from(share).unwrap_or(entries), entries);
        }
        *next = Next { entries: entries + entries / 16 + 256, at: Instant::now() + pause };
    }

    /// Evicts so many of `entries`, in pieces, so that queries do not wait for all of it.
    fn evict(&self, mut share: usize, entries: usize) {
        let piece = AT_ONCE.max(entries / 64);
        while share > 0 {
            let now = share.min(piece);
            share -= now;
            let command = Command::Evict { entries: now as u64, at_ms: unix_ms() };
            let mut index = self.index.write();
            self.apply_locked(&mut index, &command);
            RwLockWriteGuard::unlock_fair(index);
        }
    }
}
