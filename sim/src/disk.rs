//! A node's disk: what was written survives the process, what was flushed survives a loss of power. Of what was
//! written and not flushed, a loss of power leaves a beginning of any length.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kvindex_core::replication::log_store::{Change, LogBackend, LogError, Mark, StoredShard};
use kvindex_core::replication::{ShardId, SnapshotStore};
use kvindex_server::cluster::NodeRecord;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::dice::Dice;
use crate::life::Life;
use crate::mutation::Mutation;

/// What is on a disk.
#[derive(Debug, Clone, Default)]
struct Content {
    entries: BTreeMap<(ShardId, u64), Bytes>,
    marks: BTreeMap<(ShardId, Mark), Bytes>,
    snapshots: BTreeMap<ShardId, Bytes>,
    /// Who the node is: written whole, and flushed at once.
    record: Option<NodeRecord>,
    /// Whether a log was ever opened.
    has_log: bool,
}

#[derive(Debug, Clone)]
enum Write {
    Log(Vec<Change>),
    Snapshot(ShardId, Bytes),
}

/// Which queue of [`State::unflushed`] is whose.
const LOG: usize = 0;
const SNAPSHOTS: usize = 1;

impl Content {
    fn write(&mut self, write: Write) {
        match write {
            Write::Log(changes) => changes.into_iter().for_each(|change| self.change(change)),
            Write::Snapshot(shard, bytes) => {
                self.snapshots.insert(shard, bytes);
            }
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Append { shard, index, record } => {
                self.entries.insert((shard, index), record);
            }
            Change::Remove { shard, first, last } => {
                let range = (shard, first)..=(shard, last.max(first));
                let gone: Vec<_> = self.entries.range(range).map(|(key, _)| *key).collect();
                gone.iter().for_each(|key| drop(self.entries.remove(key)));
            }
            Change::Mark { shard, mark, record } => {
                self.marks.insert((shard, mark), record);
            }
        }
    }
}

#[derive(Debug)]
struct State {
    /// What the operating system shows.
    written: Content,
    /// What a loss of power leaves at least.
    flushed: Content,
    /// What lies between the two, in order, with the number of the write: log and snapshots are files of their own,
    /// so a flush of one says nothing of the other.
    unflushed: [VecDeque<(u64, Write)>; 2],
    writes: u64,
    dice: Dice,
    /// Milliseconds that a write takes, from and below.
    takes_ms: (u64, u64),
    full: bool,
    was_full: bool,
    /// How often all of it was lost or put aside: ids belong to one of these.
    incarnation: u64,
}

/// The disk of one node; it outlives the node's processes.
#[derive(Debug)]
pub(crate) struct Disk {
    place: String,
    usual_ms: (u64, u64),
    mutation: Mutation,
    state: Mutex<State>,
}

impl Disk {
    /// An empty one, whose writes take so long.
    #[must_use]
    pub(crate) fn new(place: String, usual_ms: (u64, u64), dice: Dice, mutation: Mutation) -> Self {
        let state = State {
            written: Content::default(),
            flushed: Content::default(),
            unflushed: Default::default(),
            writes: 0,
            dice,
            takes_ms: usual_ms,
            full: false,
            was_full: false,
            incarnation: 1,
        };
        Self { place, usual_ms, mutation, state: Mutex::new(state) }
    }

    /// Takes what was not flushed away, but for a beginning of it; answers how many writes went.
    pub(crate) fn lose_power(&self) -> usize {
        let state = &mut *self.state.lock();
        let mut lost = 0;
        for queue in &mut state.unflushed {
            // Mostly nothing is left, which is the hardest.
            let keep = if state.dice.percent(40) { state.dice.below(queue.len() + 1) } else { 0 };
            lost += queue.len() - keep;
            let kept: Vec<_> = queue.drain(..).take(keep).collect();
            kept.into_iter().for_each(|(_, write)| state.flushed.write(write));
        }
        state.written = state.flushed.clone();
        lost
    }

    /// Takes everything away.
    pub(crate) fn wipe(&self) {
        let state = &mut *self.state.lock();
        (state.written, state.flushed) = Default::default();
        state.unflushed.iter_mut().for_each(VecDeque::clear);
        state.incarnation += 1;
    }

    /// Makes every write take so long from now on; `None`: as usual.
    pub(crate) fn slow_down(&self, takes_ms: Option<(u64, u64)>) {
        self.state.lock().takes_ms = takes_ms.unwrap_or(self.usual_ms);
    }

    /// Whether every write fails from now on.
    pub(crate) fn fill(&self, full: bool) {
        let mut state = self.state.lock();
        state.full = full;
        state.was_full |= full;
    }

    /// Whether it ever was full: that excuses a process that stopped.
    pub(crate) fn was_full(&self) -> bool {
        self.state.lock().was_full
    }

    fn takes(&self) -> Duration {
        let mut state = self.state.lock();
        let (from, below) = state.takes_ms;
        Duration::from_millis(state.dice.within(from..below))
    }

    /// Writes at once; the number of the write.
    fn write(&self, write: Write) -> Option<u64> {
        let mut state = self.state.lock();
        if state.full {
            return None;
        }
        state.writes += 1;
        let number = state.writes;
        state.written.write(write.clone());
        let queue = if matches!(write, Write::Log(_)) { LOG } else { SNAPSHOTS };
        state.unflushed[queue].push_back((number, write));
        Some(number)
    }

    /// Flushes every write of a queue up to this one.
    fn flush(&self, queue: usize, upto: u64) -> bool {
        let state = &mut *self.state.lock();
        if state.full {
            return false;
        }
        let unflushed = &mut state.unflushed[queue];
        while unflushed.front().is_some_and(|(number, _)| *number <= upto) {
            if let Some((_, write)) = unflushed.pop_front() {
                state.flushed.write(write);
            }
        }
        true
    }

    fn last_write(&self) -> u64 {
        self.state.lock().writes
    }
}

/// A disk as one process has it open: once that has died, nothing more gets through.
#[derive(Debug, Clone)]
pub(crate) struct OpenDisk {
    /// Which.
    pub disk: Arc<Disk>,
    /// Whose.
    pub life: Arc<Life>,
}

impl OpenDisk {
    /// Who the node is.
    pub(crate) fn record(&self) -> Option<NodeRecord> {
        self.disk.state.lock().written.record.clone()
    }

    /// Whether a log was ever opened.
    pub(crate) fn has_log(&self) -> bool {
        self.disk.state.lock().written.has_log
    }

    /// Which disk this is, for messages.
    pub(crate) fn place(&self) -> &str {
        &self.disk.place
    }

    /// Changes what is written whole and flushed at once.
    fn change<T>(&self, mut change: impl FnMut(&mut Content) -> T) -> Result<T, &'static str> {
        let state = &mut *self.disk.state.lock();
        if self.life.is_over() {
            return Err("the process was killed");
        }
        if state.full {
            return Err("no space left on device");
        }
        change(&mut state.flushed);
        Ok(change(&mut state.written))
    }

    /// Keeps who the node is; answers in which incarnation of the disk.
    pub(crate) fn keep(&self, record: &NodeRecord) -> Result<u64, &'static str> {
        self.change(|content| content.record = Some(record.clone()))?;
        Ok(self.disk.state.lock().incarnation)
    }

    /// Makes a log, if there is none.
    pub(crate) fn open_log(&self) -> Result<(), &'static str> {
        self.change(|content| content.has_log = true)
    }

    /// Moves everything out of the way.
    pub(crate) fn put_aside(&self) -> Result<(), &'static str> {
        self.change(|content| *content = Content::default())?;
        self.disk.wipe();
        Ok(())
    }

    fn failed(&self, why: &str) -> LogError {
        LogError::Engine { doing: "writing", place: self.disk.place.clone(), why: why.into() }
    }

    /// Lets time pass, if the process lives on.
    async fn work(&self) -> Result<(), LogError> {
        tokio::time::sleep(self.disk.takes()).await;
        self.life.gate.pass().await;
        self.alive()
    }

    fn alive(&self) -> Result<(), LogError> {
        if self.life.is_over() { Err(self.failed("the process was killed")) } else { Ok(()) }
    }

    async fn put(&self, write: Write, durable: bool) -> Result<(), LogError> {
        self.life.gate.pass().await;
        self.alive()?;
        let full = || self.failed("no space left on device");
        let queue = if matches!(write, Write::Log(_)) { LOG } else { SNAPSHOTS };
        let number = self.disk.write(write).ok_or_else(full)?;
        self.work().await?;
        if durable && self.disk.mutation != Mutation::SkipFlush && !self.disk.flush(queue, number) {
            return Err(full());
        }
        Ok(())
    }
}

impl LogBackend for OpenDisk {
    fn commit(&self, mut changes: Vec<Change>, durable: bool) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            if self.disk.mutation == Mutation::SkipVote {
                changes.retain(|change| !matches!(change, Change::Mark { mark: Mark::Vote, .. }));
            }
            if changes.is_empty() {
                self.alive()?;
                self.work().await?;
                let flushed = !durable || self.disk.flush(LOG, self.disk.last_write());
                return if flushed { Ok(()) } else { Err(self.failed("no space left on device")) };
            }
            self.put(Write::Log(changes), durable).await
        }
        .boxed()
    }

    fn read(
        &self,
        shard: ShardId,
        first: u64,
        last: u64,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Vec<(u64, Bytes)>, LogError>> {
        async move {
            self.alive()?;
            let state = self.disk.state.lock();
            let mut found = Vec::new();
            let mut bytes = 0;
            if first <= last {
                for ((_, index), record) in state.written.entries.range((shard, first)..=(shard, last)) {
                    bytes += record.len();
                    if bytes > max_bytes && !found.is_empty() {
                        break;
                    }
                    found.push((*index, record.clone()));
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn shard(&self, shard: ShardId) -> BoxFuture<'_, Result<StoredShard, LogError>> {
        async move {
            let state = self.disk.state.lock();
            let content = &state.written;
            let mut indexes = content.entries.range((shard, 0)..=(shard, u64::MAX)).map(|((_, at), _)| *at);
            let first = indexes.next();
            let last = indexes.next_back().or(first);
            let mark = |mark| content.marks.get(&(shard, mark)).cloned();
            let (vote, committed, purged) = (mark(Mark::Vote), mark(Mark::Committed), mark(Mark::Purged));
            Ok(StoredShard { vote, committed, purged, first, last })
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            self.alive()?;
            self.disk.flush(LOG, self.disk.last_write());
            Ok(())
        }
        .boxed()
    }

    fn tail_may_be_gone(&self) -> bool {
        false
    }

    fn accept_tail(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn place(&self) -> String {
        self.disk.place.clone()
    }
}

impl SnapshotStore for OpenDisk {
    fn save(&self, shard: ShardId, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        async move {
            let saved = self.put(Write::Snapshot(shard, bytes), true).await;
            saved.map_err(|error| io::Error::other(error.to_string()))
        }
        .boxed()
    }

    fn load(&self, shard: ShardId) -> BoxFuture<'_, io::Result<Option<Bytes>>> {
        async move {
            self.life.gate.pass().await;
            Ok(self.disk.state.lock().written.snapshots.get(&shard).cloned())
        }
        .boxed()
    }
}
