//! The newest entries of a shard's log, in memory: replication and applying hardly ever read the disk.

use std::collections::VecDeque;

use super::super::raft::Entry;

/// Bytes of entries that stay after they were written.
const TAIL_BYTES: usize = 4 << 20;

#[derive(Debug)]
struct Held {
    entry: Entry,
    /// Bytes of entries in the shard's log before this one.
    position: u64,
    bytes: usize,
    /// The write that stores it.
    write: u64,
}

/// Consecutive entries up to the last one.
#[derive(Debug, Default)]
pub(super) struct Tail {
    held: VecDeque<Held>,
    bytes: usize,
}

impl Tail {
    /// The index of the first entry here.
    pub(super) fn first(&self) -> Option<u64> {
        self.held.front().map(|held| held.entry.log_id.index)
    }

    /// Adds the next entry, which `write` will store.
    pub(super) fn push(&mut self, entry: Entry, position: u64, bytes: usize, write: u64) {
        self.bytes += bytes;
        self.held.push_back(Held { entry, position, bytes, write });
    }

    /// Forgets old entries beyond the bound, but none that is not stored yet: `written` is the last write done.
    pub(super) fn trim(&mut self, written: u64) {
        while self.bytes > TAIL_BYTES && self.held.front().is_some_and(|held| held.write <= written) {
            self.pop_front();
        }
    }

    /// Forgets the entries after `index`.
    pub(super) fn truncate_after(&mut self, index: u64) {
        while self.held.back().is_some_and(|held| held.entry.log_id.index > index) {
            self.bytes -= self.held.pop_back().map_or(0, |held| held.bytes);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the entries up to `index`.
    pub(super) fn purge(&mut self, index: u64) {
        while self.held.front().is_some_and(|held| held.entry.log_id.index <= index) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        self.bytes -= self.held.pop_front().map_or(0, |held| held.bytes);
    }

    /// The bytes of entries before the one at `index`, if it is here.
    pub(super) fn position(&self, index: u64) -> Option<u64> {
        let at = usize::try_from(index.checked_sub(self.first()?)?).ok()?;
        self.held.get(at).map(|held| held.position)
    }

    /// The entries from `first` up to and including `last` that are here, with their sizes.
    pub(super) fn range(&self, first: u64, last: u64) -> impl Iterator<Item = (&Entry, usize)> {
        let from = self.first().map_or(0, |start| first.saturating_sub(start));
        let skipped = usize::try_from(from).unwrap_or(usize::MAX);
        let held = self.held.iter().skip(skipped).take_while(move |held| held.entry.log_id.index <= last);
        held.map(|held| (&held.entry, held.bytes))
    }
}
