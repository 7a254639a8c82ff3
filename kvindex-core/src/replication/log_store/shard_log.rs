//! One shard's log: where it begins and ends and its newest entries in memory, all entries in the node's store.

use openraft::EntryPayload;
use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::ids::{NodeId, ShardId};
use super::super::raft::{Entry, LogId, Raft, Vote};
use super::backend::{Change, Mark};
use super::committer::{LogStore, Request, Urgency};
use super::error::LogError;
use super::record::{self, Stored};
use super::tail::Tail;

/// Removals in one commit: a long purge must not hold the writes of other shards up.
const PURGE_STEP: u64 = 4096;

/// The log of one shard. Clones are one and the same, so it is its own reader.
#[derive(Debug, Clone)]
pub(crate) struct ShardLog {
    shard: ShardId,
    store: LogStore,
    pub(super) state: Arc<Mutex<State>>,
    /// The last write of this shard that is done.
    written: Arc<AtomicU64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// The last entry's, or `purged`.
    pub(super) last: Option<LogId>,
    /// Index of the first entry, if there is one, and of the next otherwise.
    first: u64,
    /// Bytes of entries before the first one, and after the last one.
    begin: u64,
    end: u64,
    pub(super) tail: Tail,
    /// Number of the last write that was queued.
    queued: u64,
    /// Counts truncations: what was read from the store meanwhile may be of the old log.
    truncations: u64,
}

impl State {
    /// The part of a range that the log has, if any.
    fn clip(&self, first: u64, last: u64) -> Option<(u64, u64)> {
        let first = first.max(self.first);
        let last = last.min(self.last?.index);
        (first <= last).then_some((first, last))
    }
}

impl LogStore {
    /// The log of a shard, as it was left. At most one at a time.
    pub(crate) async fn shard_log(&self, shard: ShardId) -> Result<ShardLog, LogError> {
        ShardLog::open(self.clone(), shard).await
    }
}

impl ShardLog {
    async fn open(store: LogStore, shard: ShardId) -> Result<Self, LogError> {
        let place = store.backend().place();
        let stored = store.backend().shard(shard).await?;
        let read = |bytes, mark| record::decode_log_id(shard, mark, bytes, &place);
        let vote = stored.vote.as_ref().map(|bytes| record::decode_vote(shard, bytes, &place)).transpose()?;
        let committed = stored.committed.as_ref().map(|bytes| read(bytes, Mark::Committed)).transpose()?;
        let purged = stored.purged.as_ref().map(|bytes| read(bytes, Mark::Purged)).transpose()?;
        let mut state = State {
            vote,
            committed: committed.map(|(id, _)| id),
            purged: purged.map(|(id, _)| id),
            last: purged.map(|(id, _)| id),
            first: purged.map_or(0, |(id, _)| id.index + 1),
            begin: purged.map_or(0, |(_, position)| position),
            end: purged.map_or(0, |(_, position)| position),
            tail: Tail::default(),
            queued: 0,
            truncations: 0,
        };
        let log = |state| Self { shard, store, state: Arc::new(Mutex::new(state)), written: Arc::default() };
        let Some((first, last)) = stored.first.zip(stored.last) else {
            return Ok(log(state));
        };
        // A purge that was cut short left entries that count as gone.
        let leftover = (first < state.first).then(|| (first, last.min(state.first - 1)));
        if last < state.first {
            let log = log(state);
            log.remove_in_steps(first, last).await?;
            return Ok(log);
        }
        if state.purged.is_some() && first > state.first {
            return Err(LogError::Hole { shard, missing: state.first, place });
        }
        state.first = state.first.max(first);
        let log = log(state);
        log.measure(last).await?;
        if let Some((first, last)) = leftover {
            log.remove_in_steps(first, last).await?;
        }
        Ok(log)
    }

    /// Learns from the first and the last entry where the log begins and ends.
    async fn measure(&self, last: u64) -> Result<(), LogError> {
        let first = self.state.lock().first;
        let (first, _) = self.read_one(first).await?;
        let (last, bytes) = self.read_one(last).await?;
        let mut state = self.state.lock();
        state.begin = first.position;
        state.end = last.position + bytes;
        state.last = Some(last.entry.log_id);
        Ok(())
    }

    /// Bytes of the entries since the last purge.
    pub(crate) fn log_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.end.saturating_sub(state.begin)
    }

    /// Ends the whole node's log if a leader has this node's word for entries that are not here.
    pub(crate) fn went_back(&self, leader: NodeId, had: LogId) {
        if self.state.lock().last >= Some(had) {
            return;
        }
        let place = self.store.backend().place();
        self.store.fail(&LogError::WentBack { shard: self.shard, leader, had: had.index, place });
    }

    /// An entry from the store, and its size there.
    async fn read_one(&self, index: u64) -> Result<(Stored, u64), LogError> {
        let found = self.store.backend().read(self.shard, index, index, 0).await?;
        let place = self.store.backend().place();
        let Some((_, bytes)) = found.first() else {
            return Err(LogError::Hole { shard: self.shard, missing: index, place });
        };
        Ok((record::decode_entry(self.shard, index, bytes, &place)?, bytes.len() as u64))
    }

    /// Entries from the store; there may be fewer than asked for, because of `max_bytes`.
    async fn read_stored(
        &self,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> Result<(Vec<Entry>, usize), LogError> {
        let place = self.store.backend().place();
        let mut entries = Vec::new();
        let mut size = 0;
        let found = self.store.backend().read(self.shard, first, last, max_bytes).await?;
        for (expected, (index, bytes)) in (first..).zip(&found) {
            if expected != *index {
                return Err(LogError::Hole { shard: self.shard, missing: expected, place });
            }
            size += bytes.len();
            entries.push(record::decode_entry(self.shard, *index, bytes, &place)?.entry);
        }
        Ok((entries, size))
    }

    /// The entries of a range that the log has; with `max_bytes`, its beginning, but at least one entry. Damage found
    /// on the way is the end of the whole node's log.
    pub(super) async fn entries(
        &self,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let found = self.try_entries(first, last, max_bytes).await;
        if let Err(error) = &found
            && error.is_damage()
        {
            self.store.fail(error);
        }
        found
    }

    async fn try_entries(&self, first: u64, last: u64, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        self.store.check()?;
        loop {
            let (stored, tail, truncations) = {
                let state = self.state.lock();
                let Some((first, last)) = state.clip(first, last) else {
                    return Ok(Vec::new());
                };
                let tail: Vec<_> =
                    state.tail.range(first, last).map(|(entry, bytes)| (entry.clone(), bytes)).collect();
                let until = tail.first().map_or(last + 1, |(entry, _)| entry.log_id.index);
                ((first < until).then(|| (first, until - 1)), tail, state.truncations)
            };
            let (mut entries, mut size) = (Vec::new(), 0);
            if let Some((first, last)) = stored {
                (entries, size) = self.read_stored(first, last, max_bytes).await?;
                if self.state.lock().truncations != truncations {
                    continue;
                }
                let next = entries.last().map_or(first, |entry| entry.log_id.index + 1);
                if next <= last {
                    return self.cut_short(entries, first, next, max_bytes);
                }
            }
            for (entry, bytes) in tail {
                size += bytes;
                if size > max_bytes && !entries.is_empty() {
                    break;
                }
                entries.push(entry);
            }
            return Ok(entries);
        }
    }

    /// What to say when the store gave only the beginning of a range: right if it is full, or if the entry was
    /// purged meanwhile, which takes away from the beginning.
    fn cut_short(
        &self,
        entries: Vec<Entry>,
        first: u64,
        missing: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, LogError> {
        let purged = self.state.lock().first > first;
        if purged || max_bytes != usize::MAX && !entries.is_empty() {
            return Ok(entries);
        }
        Err(LogError::Hole { shard: self.shard, missing, place: self.store.backend().place() })
    }

    /// Queues a write that nobody waits for; a failure shows in the next call.
    async fn queue(&self, changes: Vec<Change>, urgency: Urgency) -> Result<(), LogError> {
        let done = Box::new(|_| ());
        self.store.place().await?.send(Request { changes, urgency, done });
        Ok(())
    }

    /// Removes entries from the beginning on.
    async fn remove_in_steps(&self, first: u64, last: u64) -> Result<(), LogError> {
        let shard = self.shard;
        let mut from = first;
        while from <= last {
            let to = last.min(from.saturating_add(PURGE_STEP - 1));
            self.queue(vec![Change::Remove { shard, first: from, last: to }], Urgency::Ordinary).await?;
            from = to + 1;
        }
        Ok(())
    }

    /// Bytes of entries before the one at `index`, which the log has or ends before.
    async fn position(&self, index: u64) -> Result<u64, LogError> {
        let known = {
            let state = self.state.lock();
            let end = state.last.is_none_or(|last| index > last.index).then_some(state.end);
            let begin = (index <= state.first).then_some(state.begin);
            end.or(begin).or_else(|| state.tail.position(index))
        };
        match known {
            Some(position) => Ok(position),
            None => Ok(self.read_one(index).await?.0.position),
        }
    }

    /// Takes the next entries: they can be read at once, and `callback` is told when they are kept.
    pub(super) async fn append_entries(
        &self,
        entries: Vec<Entry>,
        callback: IOFlushed<Raft>,
    ) -> Result<(), LogError> {
        let place = self.store.place().await?;
        let mut state = self.state.lock();
        state.tail.trim(self.written.load(Ordering::Relaxed));
        let write = state.queued + 1;
        let mut changes = Vec::with_capacity(entries.len());
        let mut urgency = Urgency::Ordinary;
        // All or nothing: what is refused leaves no trace.
        let (mut end, mut last, mut held) = (state.end, state.last, Vec::with_capacity(entries.len()));
        for entry in entries {
            let index = entry.log_id.index;
            if let Some(last) = last.filter(|last| last.index.checked_add(1) != Some(index)) {
                return Err(LogError::NotNext { shard: self.shard, found: index, last: last.index });
            }
            if matches!(entry.payload, EntryPayload::Membership(_)) {
                urgency = Urgency::Flushed;
            }
            let record = record::encode_entry(self.shard, &entry, end)?;
            let (position, bytes) = (end, record.len());
            end += bytes as u64;
            last = Some(entry.log_id);
            changes.push(Change::Append { shard: self.shard, index, record });
            held.push((entry, position, bytes));
        }
        if let Some((first, ..)) = held.first().filter(|_| state.last.is_none()) {
            state.first = first.log_id.index;
        }
        for (entry, position, bytes) in held {
            state.tail.push(entry, position, bytes, write);
        }
        (state.end, state.last, state.queued) = (end, last, write);
        let written = self.written.clone();
        let done = Box::new(move |result: Result<(), LogError>| {
            if result.is_ok() {
                written.fetch_max(write, Ordering::Relaxed);
            }
            callback.io_completed(result.map_err(Into::into));
        });
        // Under the lock, so that writes are queued in the order they are numbered.
        place.send(Request { changes, urgency, done });
        Ok(())
    }

    /// Removes the entries after `keep`.
    pub(super) async fn truncate(&self, keep: Option<LogId>) -> Result<(), LogError> {
        let (shard, keep_until) = (self.shard, keep.map(|id| id.index));
        let from = keep_until.map_or(0, |index| index + 1).max(self.state.lock().first);
        let position = self.position(from).await?;
        let place = self.store.place().await?;
        let mut state = self.state.lock();
        let Some(last) = state.last.filter(|last| last.index >= from) else {
            return Ok(());
        };
        match keep_until {
            Some(index) => state.tail.truncate_after(index),
            None => state.tail.clear(),
        }
        state.last = keep.or(state.purged);
        state.end = position;
        state.truncations += 1;
        let changes = vec![Change::Remove { shard, first: from, last: last.index }];
        place.send(Request { changes, urgency: Urgency::Ordinary, done: Box::new(|_| ()) });
        Ok(())
    }

    /// Removes the entries up to `upto`, which a snapshot holds.
    pub(super) async fn purge_until(&self, upto: LogId) -> Result<(), LogError> {
        let shard = self.shard;
        if self.state.lock().purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        let position = self.position(upto.index + 1).await?;
        let (first, last) = {
            let mut state = self.state.lock();
            let (first, last) = (state.first, state.last);
            state.purged = Some(upto);
            state.first = state.first.max(upto.index + 1);
            state.begin = position;
            state.tail.purge(upto.index);
            if last.is_none_or(|last| last.index <= upto.index) {
                state.last = Some(upto);
            }
            (first, last.map(|last| last.index.min(upto.index)))
        };
        // The mark goes first: from then on, the entries count as gone.
        let record = record::encode_log_id(shard, Mark::Purged, &upto, position);
        self.queue(vec![Change::Mark { shard, mark: Mark::Purged, record }], Urgency::Ordinary).await?;
        match last {
            Some(last) if first <= last => self.remove_in_steps(first, last).await,
            _ => Ok(()),
        }
    }

    /// Keeps a vote, flushed.
    pub(super) async fn vote(&self, vote: &Vote) -> Result<(), LogError> {
        let shard = self.shard;
        let record = record::encode_vote(shard, vote);
        let change = Change::Mark { shard, mark: Mark::Vote, record };
        self.store.write(vec![change], Urgency::Flushed).await?;
        self.state.lock().vote = Some(*vote);
        Ok(())
    }

    /// Notes up to where the log is committed; not waited for, for it is only a shortcut at start.
    pub(super) async fn commit(&self, committed: Option<LogId>) -> Result<(), LogError> {
        let shard = self.shard;
        let Some(id) = committed else {
            return Ok(());
        };
        self.state.lock().committed = committed;
        let record = record::encode_log_id(shard, Mark::Committed, &id, 0);
        self.queue(vec![Change::Mark { shard, mark: Mark::Committed, record }], Urgency::Lazy).await
    }
}
