//! Group commit: one task gathers what all shards of a node want written, commits it at once, and tells each.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::backend::{Change, Durability, LogBackend};
use super::error::LogError;
use crate::replication::counters::LogCounters;

/// Requests that may wait; more wait at the sender. openraft has few in flight for each shard.
const QUEUE: usize = 1024;
/// A commit takes no more than about so many bytes, so that a burst does not make the first wait for the last.
const BATCH_BYTES: usize = 8 << 20;
/// How long a lazy change waits for a commit to ride with.
const LAZY: Duration = Duration::from_millis(100);

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing: it goes along with the next commit, or soon without one.
    Lazy,
    /// What the log's [`Durability`] says.
    Ordinary,
    /// The flush, whatever the durability: votes and membership.
    Flushed,
}

pub(super) type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

pub(super) struct Request {
    pub(super) changes: Vec<Change>,
    pub(super) urgency: Urgency,
    pub(super) done: Done,
}

enum Message {
    Write(Request),
    Close(oneshot::Sender<Result<(), LogError>>),
}

/// The logs of all shards of a node. Clones are handles of one and the same.
#[derive(Clone)]
pub struct LogStore {
    backend: Arc<dyn LogBackend>,
    messages: mpsc::Sender<Message>,
    /// The first failure: it stays.
    failure: Arc<OnceLock<LogError>>,
    counters: Arc<LogCounters>,
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore")
            .field("backend", &self.backend)
            .field("failure", &self.failure.get())
            .finish()
    }
}

/// A place in the queue, so that what must happen together with queueing can happen without waiting in between.
pub(super) struct Place<'a>(mpsc::Permit<'a, Message>);

impl Place<'_> {
    pub(super) fn send(self, request: Request) {
        self.0.send(Message::Write(request));
    }
}

impl LogStore {
    /// Starts the task that writes; call it inside a runtime. It ends with [`Self::close`], or when the last handle
    /// is gone.
    #[must_use]
    pub fn start(backend: Arc<dyn LogBackend>, durability: Durability) -> Self {
        let (messages, queue) = mpsc::channel(QUEUE);
        let (failure, counters) = (Arc::new(OnceLock::new()), Arc::new(LogCounters::default()));
        let committer = Committer {
            backend: backend.clone(),
            durability,
            failure: failure.clone(),
            counters: Arc::clone(&counters),
            queue,
            lazy: Vec::new(),
            lazy_until: None,
            flush_at: None,
        };
        tokio::spawn(committer.run());
        Self { backend, messages, failure, counters }
    }

    /// Writes changes, and is through when they are as safe as `urgency` asks. Entries of a shard are best left to
    /// its raft group; this is for tests of the store as a whole.
    ///
    /// # Errors
    /// The first error of any write or flush, from then on for ever.
    pub async fn write(&self, changes: Vec<Change>, urgency: Urgency) -> Result<(), LogError> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        self.place().await?.send(Request { changes, urgency, done });
        receiver.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Writes and flushes all that was asked for before, and notes that the log was left in good order. Later writes
    /// fail. The directory is free once all handles are gone, those of shards' logs too.
    ///
    /// # Errors
    /// When that could not be written, or an earlier write could not.
    pub async fn close(&self) -> Result<(), LogError> {
        let (sender, receiver) = oneshot::channel();
        if self.messages.send(Message::Close(sender)).await.is_err() {
            return Err(self.stopped());
        }
        receiver.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// See [`LogBackend::tail_may_be_gone`].
    #[must_use]
    pub fn tail_may_be_gone(&self) -> bool {
        self.backend.tail_may_be_gone()
    }

    /// See [`LogBackend::accept_tail`].
    ///
    /// # Errors
    /// When the decision cannot be written down.
    pub fn accept_tail(&self) -> Result<(), LogError> {
        self.backend.accept_tail()
    }

    /// What was written since the start.
    #[must_use]
    pub fn counters(&self) -> &LogCounters {
        &self.counters
    }

    /// The failure that stopped the log, if any.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.failure.get().cloned()
    }

    /// Ends all writing and reading: what the log holds is not what was written.
    pub(super) fn fail(&self, error: &LogError) {
        tracing::error!(%error, "the log cannot be relied on any more, this node must stop");
        let _ = self.failure.set(error.clone());
    }

    pub(super) fn backend(&self) -> &dyn LogBackend {
        &*self.backend
    }

    pub(super) async fn place(&self) -> Result<Place<'_>, LogError> {
        self.check()?;
        self.messages.reserve().await.map(Place).map_err(|_| self.stopped())
    }

    /// Fails once a write has failed: what a read would find is not known.
    pub(super) fn check(&self) -> Result<(), LogError> {
        self.failure().map_or(Ok(()), Err)
    }

    fn stopped(&self) -> LogError {
        self.failure().unwrap_or(LogError::Closed)
    }
}

struct Committer {
    backend: Arc<dyn LogBackend>,
    durability: Durability,
    failure: Arc<OnceLock<LogError>>,
    counters: Arc<LogCounters>,
    queue: mpsc::Receiver<Message>,
    /// Lazy changes, in order; a later mark replaces an earlier one.
    lazy: Vec<Change>,
    lazy_until: Option<Instant>,
    /// When to flush what was only written.
    flush_at: Option<Instant>,
}

/// What one commit gathers.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    done: Vec<Done>,
    flushed: bool,
    bytes: usize,
    close: Option<oneshot::Sender<Result<(), LogError>>>,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.close.is_some()
    }
}

impl Committer {
    async fn run(mut self) {
        loop {
            let mut batch = Batch::default();
            match self.next().await {
                Some(Some(message)) => self.take(message, &mut batch),
                // It is time to flush, or to write what is lazy.
                Some(None) => {}
                // All handles are gone.
                None => {
                    let _ = self.finish().await;
                    return;
                }
            }
            while !batch.is_full()
                && let Ok(message) = self.queue.try_recv()
            {
                self.take(message, &mut batch);
            }
            let close = batch.close.take();
            self.commit(batch).await;
            if let Some(close) = close {
                // Nothing more is taken; what is queued already is refused.
                self.queue.close();
                let result = self.finish().await;
                while let Some(message) = self.queue.recv().await {
                    refuse(message, &result.clone().err().unwrap_or(LogError::Closed));
                }
                let _ = close.send(result);
                return;
            }
        }
    }

    /// The next message; `Some(None)` when a time has come; `None` when there will be no more.
    async fn next(&mut self) -> Option<Option<Message>> {
        let Some(at) = self.lazy_until.into_iter().chain(self.flush_at).min() else {
            return self.queue.recv().await.map(Some);
        };
        // In this order: when both are ready, the message comes first, always.
        tokio::select! {
            biased;
            message = self.queue.recv() => message.map(Some),
            () = tokio::time::sleep_until(at) => Some(None),
        }
    }

    fn take(&mut self, message: Message, batch: &mut Batch) {
        match message {
            Message::Close(sender) => batch.close = Some(sender),
            Message::Write(request) if self.failure.get().is_some() => self.refuse_one(request),
            Message::Write(Request { changes, urgency: Urgency::Lazy, done }) => {
                changes.into_iter().for_each(|change| self.put_lazy(change));
                self.lazy_until.get_or_insert_with(|| Instant::now() + LAZY);
                done(Ok(()));
            }
            Message::Write(Request { changes, urgency, done }) => {
                batch.bytes += changes.iter().map(Change::weight).sum::<usize>();
                batch.changes.extend(changes);
                batch.flushed |= urgency == Urgency::Flushed;
                batch.done.push(done);
            }
        }
    }

    fn refuse_one(&self, request: Request) {
        (request.done)(Err(self.failure.get().cloned().unwrap_or(LogError::Closed)));
    }

    fn put_lazy(&mut self, change: Change) {
        let same = |old: &Change| match (old, &change) {
            (Change::Mark { shard, mark, .. }, Change::Mark { shard: of, mark: new, .. }) => {
                (shard, mark) == (of, new)
            }
            _ => false,
        };
        match self.lazy.iter_mut().find(|old| same(old)) {
            Some(old) => *old = change,
            None => self.lazy.push(change),
        }
    }

    /// Commits a batch with everything lazy, flushes if it is time, and tells who waits.
    async fn commit(&mut self, batch: Batch) {
        if let Some(failure) = self.failure.get() {
            batch.done.into_iter().for_each(|done| done(Err(failure.clone())));
            // Nothing is written or flushed any more. A time that has come and stays would be due again at once.
            (self.lazy_until, self.flush_at) = (None, None);
            return;
        }
        let now = Instant::now();
        let lazy_due = self.lazy_until.is_some_and(|at| at <= now);
        let flush_due = self.flush_at.is_some_and(|at| at <= now);
        let mut changes = batch.changes;
        if !changes.is_empty() || lazy_due {
            changes.append(&mut self.lazy);
            self.lazy_until = None;
        }
        // A flush that is due by time is not waited for by what is only to be written.
        let durable = batch.flushed || self.durability == Durability::Fsync && !changes.is_empty();
        let wrote = !changes.is_empty();
        let mut result = Ok(());
        if wrote || durable {
            result = self.backend.commit(changes, durable).await;
            self.counters.committed(batch.bytes, now.elapsed());
        }
        self.note(&result);
        batch.done.into_iter().for_each(|done| done(result.clone()));
        if durable {
            self.flush_at = None;
        } else if wrote && let Durability::Async { interval } = self.durability {
            self.flush_at.get_or_insert(now + interval);
        }
        if result.is_ok() && flush_due && !durable {
            let flushed = self.backend.commit(Vec::new(), true).await;
            self.note(&flushed);
            self.flush_at = None;
        }
    }

    async fn finish(&mut self) -> Result<(), LogError> {
        if let Some(failure) = self.failure.get() {
            return Err(failure.clone());
        }
        let lazy = std::mem::take(&mut self.lazy);
        let mut result = self.backend.commit(lazy, true).await;
        if result.is_ok() {
            result = self.backend.close().await;
        }
        self.note(&result);
        result
    }

    fn note(&self, result: &Result<(), LogError>) {
        if let Err(error) = result {
            tracing::error!(%error, "the log cannot be written any more, this node must stop");
            let _ = self.failure.set(error.clone());
        }
    }
}

fn refuse(message: Message, error: &LogError) {
    match message {
        Message::Write(request) => (request.done)(Err(error.clone())),
        Message::Close(sender) => drop(sender.send(Err(error.clone()))),
    }
}
