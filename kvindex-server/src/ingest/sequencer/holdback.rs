//! Live batches that wait, in order of arrival, for a replay to end; bounded by count and bytes. Those that
//! arrived before the replay was asked for are told apart, because its answers are newer than they are.

use std::collections::VecDeque;

use super::Arrival;

/// A bounded queue of batches.
#[derive(Debug)]
pub(super) struct Holdback<B> {
    queue: VecDeque<Arrival<B>>,
    bytes: usize,
    /// How many, from the front, arrived before the last replay was asked for.
    older: usize,
}

impl<B> Default for Holdback<B> {
    fn default() -> Self {
        Self { queue: VecDeque::new(), bytes: 0, older: 0 }
    }
}

impl<B> Holdback<B> {
    /// Appends a batch unless that would exceed a bound; an empty queue takes any.
    pub(super) fn push(&mut self, arrival: Arrival<B>, max_batches: usize, max_bytes: usize) {
        let full = self.queue.len() >= max_batches || self.bytes.saturating_add(arrival.bytes) > max_bytes;
        if self.queue.is_empty() || !full {
            self.bytes += arrival.bytes;
            self.queue.push_back(arrival);
        }
    }

    /// Puts one batch before all others; it was popped just now or is the only one, so no bound is checked.
    pub(super) fn push_front(&mut self, arrival: Arrival<B>) {
        self.bytes += arrival.bytes;
        self.queue.push_front(arrival);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Arrival<B>> {
        self.queue.front()
    }

    /// Whether a batch follows the last one here, or is that one again.
    pub(super) fn is_followed_by(&self, next: &Arrival<B>) -> bool {
        let follows = |last: &Arrival<B>| {
            last.seq.checked_add(1) == Some(next.seq) || (last.seq, last.digest) == (next.seq, next.digest)
        };
        self.queue.back().is_some_and(follows)
    }

    /// Marks all batches here as older than the replay that is asked for now.
    pub(super) fn mark_older(&mut self) {
        self.older = self.queue.len();
    }

    /// Whether the first batch is older than the last replay.
    pub(super) fn front_is_older(&self) -> bool {
        self.older > 0
    }

    pub(super) fn pop(&mut self) -> Option<Arrival<B>> {
        let arrival = self.queue.pop_front()?;
        self.older = self.older.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(arrival.bytes);
        Some(arrival)
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> VecDeque<Arrival<B>> {
        let all = std::mem::take(&mut self.queue);
        self.clear();
        all
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.older = 0;
        self.bytes = 0;
    }
}
