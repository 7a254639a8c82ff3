//! What a stream heard and the index is not known to have, in the order it was heard, with the places where the
//! connection changed: those are where another life of the engine may begin.

use std::cmp::Ordering;
use std::collections::VecDeque;

use crate::ingest::sequencer::{Arrival, Footing, Resume};

/// A change of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It came about again, and messages of the earlier one may still follow.
    Connecting,
    /// It came about, and whatever follows came on it.
    Connected,
    /// It was lost.
    Disconnected,
    /// It stands: said to a sequencer that was not there when it came about. No other connection begins here.
    Standing,
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<B> {
    /// A batch.
    Heard(Arrival<B>),
    /// A change of the connection.
    Link(Mark),
}

/// A bounded queue, read by the sequencer from the front on.
#[derive(Debug)]
pub(super) struct Backlog<B> {
    items: VecDeque<(Item<B>, u64)>,
    /// How many, from the front, the sequencer has got.
    read: usize,
    batches: usize,
    bytes: usize,
    max_batches: usize,
    max_bytes: usize,
    /// The batch before the first item, if that came on the same connection and is in the index.
    footing: Option<Footing>,
    /// The first item may be of either of two connections.
    unclear: bool,
    last_ms: u64,
}

impl<B: Clone> Backlog<B> {
    pub(super) fn new(max_batches: usize, max_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            read: 0,
            batches: 0,
            bytes: 0,
            max_batches,
            max_bytes,
            footing: None,
            unclear: false,
            last_ms: 0,
        }
    }

    /// Appends a batch. Beyond the bounds the oldest go; how many of those were unread.
    pub(super) fn push(&mut self, arrival: Arrival<B>, now_ms: u64) -> u64 {
        let mut lost = 0;
        self.batches += 1;
        self.bytes = self.bytes.saturating_add(arrival.bytes);
        while self.batches > 1 && (self.batches > self.max_batches || self.bytes > self.max_bytes) {
            let unread = self.read == 0;
            if let Some(Item::Heard(_)) = self.pop() {
                lost += u64::from(unread);
            }
        }
        self.last_ms = now_ms;
        self.items.push_back((Item::Heard(arrival), now_ms));
        lost
    }

    /// Notes a change of the connection before the last `newer` batches.
    pub(super) fn mark(&mut self, mark: Mark, newer: usize) {
        let mut at = self.items.len().saturating_sub(newer).max(self.read);
        // Of a connection that comes and goes unheard is told only that it came about, and how it stands.
        while let Some(before) = at.checked_sub(1).filter(|before| *before >= self.read)
            && let Some((Item::Link(last), _)) = self.items.get(before)
        {
            if *last == mark {
                return;
            }
            if !mark.replaces(*last) {
                break;
            }
            self.items.remove(before);
            at = before;
        }
        self.items.insert(at, (Item::Link(mark), self.last_ms));
    }

    /// The next item that was not read yet, and when it was heard.
    pub(super) fn next(&mut self) -> Option<(Item<B>, u64)> {
        let item = self.items.get(self.read)?.clone();
        self.read += 1;
        Some(item)
    }

    pub(super) fn has_next(&self) -> bool {
        self.read < self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Lets everything be read again, by another sequencer.
    pub(super) fn rewind(&mut self) {
        self.read = 0;
        self.items.retain(|(item, _)| item.mark() != Some(Mark::Standing));
    }

    /// Drops what was read; `footing` is where that led to, if that is certain.
    pub(super) fn forget_read(&mut self, footing: Option<Footing>) {
        for _ in 0..self.read {
            if let Some(Item::Heard(_)) = self.pop() {
                self.footing = None;
            }
        }
        if footing.is_some() {
            (self.footing, self.unclear) = (footing, false);
        }
    }

    /// Keeps only what came on the newest connection; whether batches are left.
    pub(super) fn keep_newest_connection(&mut self) -> bool {
        let last = self.items.iter().rposition(|(item, _)| item.mark().is_some_and(Mark::is_new));
        for _ in 0..last.map_or(0, |last| last + 1) {
            self.pop();
        }
        self.batches > 0
    }

    /// Drops what the index has by its own word. What it may still need stays: batches after its last one, and
    /// all of them where that one was not heard.
    pub(super) fn trim(&mut self, applied: &Resume) {
        let Some(last) = applied.applied.map(|seq| seq.0) else {
            return;
        };
        let footing = self.footing_in(applied);
        if let Some(footing) = footing.filter(|footing| footing.seq >= last) {
            // Known already: if it is here once more, it came again.
            return self.trim_to(footing, last, applied.payload_digest);
        }
        let place = applied.last().and_then(|last| self.items.iter().position(|(item, _)| item.is(last)));
        if let (Some(place), Some(digest)) = (place, applied.payload_digest) {
            for _ in 0..=place {
                self.pop();
            }
            self.footing = Some(Footing { generation: applied.generation, seq: last, digest });
        } else if let Some(footing) = footing {
            self.trim_to(footing, last, applied.payload_digest);
        }
    }

    /// The index's last batch was not heard here, but an earlier one was, on a connection that has stood since:
    /// numbers that rise from there up to the index's are batches that the index has.
    fn trim_to(&mut self, mut footing: Footing, last: u64, digest: Option<u64>) {
        while let Some((Item::Heard(arrival), _)) = self.items.front() {
            let again = (arrival.seq, arrival.digest) == (footing.seq, footing.digest);
            let known =
                arrival.seq > footing.seq && (arrival.seq < last || arrival.seq == last && digest.is_none());
            if !again && !known {
                break;
            }
            (footing.seq, footing.digest) = (arrival.seq, arrival.digest);
            self.pop();
        }
        self.footing = Some(footing);
    }

    /// The footing, where that is sure and of the present generation.
    fn footing_in(&self, applied: &Resume) -> Option<Footing> {
        self.footing.filter(|footing| !self.unclear && footing.generation == applied.generation)
    }

    /// The footing on which the first item can be read as the life that `resume` speaks of.
    pub(super) fn footing_for(&self, resume: &Resume) -> Option<Footing> {
        let last = resume.applied?.0;
        self.footing_in(resume).filter(|footing| match footing.seq.cmp(&last) {
            Ordering::Less => resume.payload_digest.is_some(),
            Ordering::Equal => resume.payload_digest.is_none_or(|digest| digest == footing.digest),
            Ordering::Greater => false,
        })
    }

    /// Whether what comes on this connection is known to be a life that the index has left behind.
    pub(super) fn is_of_another_generation(&self, resume: &Resume) -> bool {
        self.footing.is_some_and(|footing| footing.generation != resume.generation)
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.batches > self.max_batches / 2 || self.bytes > self.max_bytes / 2
    }

    /// When the oldest batch was heard.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let mut batches = self.items.iter().filter(|(item, _)| item.mark().is_none());
        batches.next().map(|(_, at_ms)| *at_ms)
    }

    /// Drops the first item. Behind a new connection there is no footing any more.
    fn pop(&mut self) -> Option<Item<B>> {
        let (item, _) = self.items.pop_front()?;
        self.read = self.read.saturating_sub(1);
        match &item {
            Item::Heard(arrival) => {
                self.batches -= 1;
                self.bytes = self.bytes.saturating_sub(arrival.bytes);
            }
            Item::Link(mark) if mark.is_new() => {
                (self.footing, self.unclear) = (None, *mark == Mark::Connecting);
            }
            Item::Link(_) => {}
        }
        Some(item)
    }
}

impl Mark {
    /// Whether another connection begins, or may begin, here.
    fn is_new(self) -> bool {
        matches!(self, Self::Connecting | Self::Connected)
    }

    /// Whether it tells all that is worth knowing of the one right before it.
    fn replaces(self, before: Self) -> bool {
        self.is_new() && (before.is_new() || before == Self::Disconnected)
    }
}

impl<B> Item<B> {
    fn mark(&self) -> Option<Mark> {
        match self {
            Self::Heard(_) => None,
            Self::Link(mark) => Some(*mark),
        }
    }

    fn is(&self, (seq, digest): (u64, u64)) -> bool {
        matches!(self, Self::Heard(arrival) if arrival.seq == seq && arrival.digest == digest)
    }
}
