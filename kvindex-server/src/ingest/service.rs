//! The ingest service: starts the threads and hands out what steers them.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use kvindex_core::mirror::HashProfile;
use kvindex_core::{Command, EngineProfile, GapPolicy, Registration, StreamId};
use parking_lot::Mutex;

use super::batcher::Followed;
use super::contexts::Contexts;
use super::counters::IngestCounters;
use super::guide;
use super::opening::{IngestError, check_endpoint, check_text, open};
use super::sequencer::{Resume, SequencerConfig};
use super::standby::Follower;
use super::status::{Clock, SharedStatus, StreamStatus};
use super::subscriber::{Link, Order, Searches, Stream, Subscriber};
use crate::endpoints::Endpoint;

/// Takes the commands of one turn, in order; called from the ingest threads, one at a time for each stream. It
/// must not call back into the [`Handle`]. When it answers, what it took is applied or will be, whatever happens.
pub type Sink = Arc<dyn Fn(Vec<Command>) -> Result<(), NotTaken> + Send + Sync>;

/// Tells what the index holds of a stream; `None` when that is nothing. It must not call back into the [`Handle`].
pub type Applied = Arc<dyn Fn(&StreamId) -> Option<Resume> + Send + Sync>;

/// Tells whether the index has all that is agreed on of a stream. It must not call back into the [`Handle`].
pub type Fresh = Arc<dyn Fn(&StreamId) -> bool + Send + Sync>;

/// Is told of streams that fell back to standby because the sink did not take their commands: they want to be
/// led again. It must not call back into the [`Handle`].
pub type FellBack = Arc<dyn Fn(&[StreamId]) + Send + Sync>;

/// Whose commands a sink did not take. Some of them may be applied all the same: applying is exactly once by
/// generation and number, so they may come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// None was taken.
    All,
    /// Those of these streams were not.
    Streams(BTreeSet<StreamId>),
}

impl NotTaken {
    pub(super) fn concerns(&self, stream: &StreamId) -> bool {
        match self {
            Self::All => true,
            Self::Streams(streams) => streams.contains(stream),
        }
    }
}

/// What the service is connected to.
#[derive(Clone)]
pub struct Wiring {
    /// Where commands go.
    pub sink: Sink,
    /// What the index holds.
    pub applied: Applied,
    /// Whether that is all there is.
    pub fresh: Fresh,
    /// Who hears of streams that fell back.
    pub fell_back: FellBack,
}

impl Wiring {
    /// Of an index that takes everything, so that no stream ever stands by.
    pub fn to(take: impl Fn(Vec<Command>) + Send + Sync + 'static) -> Self {
        Self {
            sink: Arc::new(move |commands| {
                take(commands);
                Ok(())
            }),
            applied: Arc::new(|_| None),
            fresh: Arc::new(|_| true),
            fell_back: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Wiring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wiring").finish_non_exhaustive()
    }
}

/// How a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// What is heard goes to the index, which holds this already.
    Led(Option<Resume>),
    /// What is heard is only kept, for [`Handle::lead`].
    OnStandby,
}

/// Settings of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestConfig {
    /// Threads that follow streams; each stream belongs to one.
    pub threads: usize,
    /// Silence after which an engine's last batch is asked for again.
    pub idle_poll: Duration,
    /// How long a replay may take to answer, and to go on.
    pub replay_timeout: Duration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self { threads: 1, idle_poll: Duration::from_secs(5), replay_timeout: Duration::from_secs(2) }
    }
}

/// A stream to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Whose it is.
    pub stream: StreamId,
    /// For which registration of the worker; what is decided of the stream is for no other.
    pub registration: Registration,
    /// What decoding and hashing need to know of the engine.
    pub profile: EngineProfile,
    /// The engine's PUB socket, `tcp://host:port` or `ipc://path`; or where it connects to us, `tcp://*:port` or
    /// `bind+tcp://address:port`.
    pub endpoint: String,
    /// The engine's ROUTER socket for replays, where it has one.
    pub replay_endpoint: Option<String>,
    /// Topic prefix to subscribe to; empty for all.
    pub topic: String,
    /// What an unfillable gap does to the stream's blocks.
    pub gap_policy: GapPolicy,
    /// How the engine is said to hash blocks; what it announces is checked against it.
    pub hash_profile: Option<HashProfile>,
}

impl Subscription {
    pub(super) fn followed(&self) -> Followed<'_> {
        (&self.stream, self.registration)
    }
}

/// Steers a running service. Dropping it shuts the service down.
pub struct Handle {
    config: IngestConfig,
    clock: Clock,
    counters: Arc<IngestCounters>,
    table: parking_lot::RwLock<HashMap<StreamId, Seat>>,
    threads: Vec<Thread>,
    guide: Mutex<Option<JoinHandle<()>>>,
    contexts: Mutex<Contexts>,
}

struct Seat {
    status: Arc<SharedStatus>,
    thread: usize,
    context: usize,
}

struct Thread {
    orders: SyncSender<Order>,
    wake: Arc<Mutex<zmq::Socket>>,
    join: Mutex<Option<JoinHandle<()>>>,
}

/// Orders that may wait for a thread before a caller does.
const ORDER_QUEUE: usize = 256;

/// Starts the service.
///
/// # Errors
/// When a thread or its wake-up socket cannot be made.
pub fn start(config: IngestConfig, wiring: &Wiring) -> Result<Handle, IngestError> {
    if config.threads == 0 {
        return Err(IngestError::NoThreads);
    }
    let (clock, counters) = (Clock::start(), Arc::new(IngestCounters::default()));
    let context = zmq::Context::new();
    let (asks, guide) = guide::start()?;
    let mut threads = Vec::with_capacity(config.threads);
    for number in 0..config.threads {
        let address = format!("inproc://wake-{number}");
        let wake = context.socket(zmq::PAIR)?;
        wake.bind(&address)?;
        let waker = context.socket(zmq::PAIR)?;
        waker.set_linger(0)?;
        waker.connect(&address)?;
        let (orders, receiver) = sync_channel(ORDER_QUEUE);
        let waker = Arc::new(Mutex::new(waker));
        let subscriber = Subscriber {
            orders: receiver,
            wake,
            wiring: wiring.clone(),
            counters: Arc::clone(&counters),
            clock,
            idle_poll: config.idle_poll,
            searches: Searches { asks: asks.clone(), orders: orders.clone(), waker: Arc::clone(&waker) },
        };
        let name = format!("ingest-{number}");
        let join = std::thread::Builder::new().name(name).spawn(move || subscriber.run())?;
        threads.push(Thread { orders, wake: waker, join: Mutex::new(Some(join)) });
    }
    Ok(Handle {
        config,
        clock,
        counters,
        table: parking_lot::RwLock::default(),
        threads,
        guide: Mutex::new(Some(guide)),
        contexts: Mutex::default(),
    })
}

impl Handle {
    /// Follows a stream from now on. An engine that cannot be reached stays pending and is tried again and again.
    ///
    /// # Errors
    /// When the stream is followed already, or an endpoint cannot be read; the error names the field.
    pub fn subscribe(&self, source: Subscription, begin: Begin) -> Result<(), IngestError> {
        check_text("topic", &source.topic)?;
        let endpoint = check_endpoint("endpoint", &source.endpoint, Endpoint::parse)?;
        if let Some(replay) = &source.replay_endpoint {
            check_endpoint("replay_endpoint", replay, Endpoint::parse_replay)?;
        }
        let id = source.stream.clone();
        if self.table.read().contains_key(&id) {
            return Err(IngestError::AlreadyFollowed(id));
        }
        let (number, context, name) = self.contexts.lock().take();
        let followed = open(&context, &source, &endpoint, name)
            .and_then(|link| self.follow(source, begin, &context, number, link));
        if followed.is_err() {
            self.contexts.lock().release(number);
        }
        followed
    }

    fn follow(
        &self,
        source: Subscription,
        begin: Begin,
        context: &zmq::Context,
        number: usize,
        link: Link,
    ) -> Result<(), IngestError> {
        let id = source.stream.clone();
        let status = Arc::new(SharedStatus::new(link.binds()));
        let mut follower = Follower::new(self.sequencer_config(&source));
        if let Begin::Led(resume) = begin {
            follower.lead(resume);
        }
        status.publish(&follower.standing());
        let shared = Arc::clone(&status);
        let timeout = self.config.replay_timeout;
        let stream = Stream::new(source, shared, context.clone(), link, follower, timeout);
        let thread = {
            let mut table = self.table.write();
            if table.contains_key(&id) {
                return Err(IngestError::AlreadyFollowed(id));
            }
            let thread = self.least_busy(&table);
            table.insert(id.clone(), Seat { status, thread, context: number });
            thread
        };
        // Not under the table's lock: whoever waits for that must not wait for a busy thread.
        let ordered = self.order(thread, Order::Follow(Box::new(stream)));
        if ordered.is_err() {
            self.table.write().remove(&id);
        }
        ordered
    }

    fn sequencer_config(&self, source: &Subscription) -> SequencerConfig {
        SequencerConfig {
            has_replay: source.replay_endpoint.is_some(),
            idle_poll_ms: u64::try_from(self.config.idle_poll.as_millis()).unwrap_or(u64::MAX),
            ..SequencerConfig::default()
        }
    }

    fn least_busy(&self, table: &HashMap<StreamId, Seat>) -> usize {
        let load = |thread: &usize| table.values().filter(|followed| followed.thread == *thread).count();
        (0..self.threads.len()).min_by_key(load).unwrap_or(0)
    }

    fn order(&self, thread: usize, order: Order) -> Result<(), IngestError> {
        let thread = self.threads.get(thread).ok_or(IngestError::ShutDown)?;
        thread.orders.send(order).map_err(|_| IngestError::ShutDown)?;
        // A full wake-up queue means that the thread is to wake up anyway.
        let _ = thread.wake.lock().send(&b""[..], zmq::DONTWAIT);
        Ok(())
    }

    /// Lets a stream's batches go to the index from now on, beginning with those that were kept; false when it is
    /// not followed. `resume` is what the index holds, as it stands when nothing that another leader or an earlier
    /// call of the sink began can still be applied to the stream.
    pub fn lead(&self, stream: &StreamId, resume: Option<Resume>) -> bool {
        let thread = self.table.read().get(stream).map(|followed| followed.thread);
        thread.is_some_and(|thread| self.order(thread, Order::Lead(stream.clone(), resume)).is_ok())
    }

    /// Only keeps what comes on a stream from now on; false when it is not followed. When this returns, no more
    /// commands of the stream will come until it is led again. It may wait for a call of the sink that is under
    /// way, so the caller must not hold a lock that the sink takes.
    pub fn stand_by(&self, stream: &StreamId) -> bool {
        let thread = self.table.read().get(stream).map(|followed| followed.thread);
        let (done, stands_by) = sync_channel(1);
        if thread.is_some_and(|thread| self.order(thread, Order::StandBy(stream.clone(), done)).is_ok()) {
            let _ = stands_by.recv(); // an error means that the thread ended, which is as good
        }
        thread.is_some()
    }

    /// Stops following a stream; false when it was not followed. When this returns, no more commands of the
    /// stream will come. It may wait for a call of the sink that is under way, so the caller must not hold a
    /// lock that the sink takes.
    pub fn unsubscribe(&self, stream: &StreamId) -> bool {
        let Some(followed) = self.table.write().remove(stream) else {
            return false;
        };
        let (done, gone) = sync_channel(1);
        if self.order(followed.thread, Order::Leave(stream.clone(), done)).is_ok() {
            let _ = gone.recv(); // an error means that the thread ended, which is as good
        }
        self.contexts.lock().release(followed.context);
        true
    }

    /// A stream's state; `None` when it is not followed.
    #[must_use]
    pub fn status(&self, stream: &StreamId) -> Option<StreamStatus> {
        let now_ms = self.clock.now_ms();
        self.table.read().get(stream).map(|followed| followed.status.read(now_ms))
    }

    /// Every followed stream with its state.
    #[must_use]
    pub fn statuses(&self) -> Vec<(StreamId, StreamStatus)> {
        let now_ms = self.clock.now_ms();
        let table = self.table.read();
        table.iter().map(|(id, followed)| (id.clone(), followed.status.read(now_ms))).collect()
    }

    /// Totals since the start.
    #[must_use]
    pub fn counters(&self) -> &IngestCounters {
        &self.counters
    }

    /// Ends all threads and waits for them; commands already decided on are handed over first. Later calls do
    /// nothing.
    pub fn shutdown(&self) {
        for number in 0..self.threads.len() {
            let _ = self.order(number, Order::Stop); // an error means that it has ended
        }
        for thread in &self.threads {
            if let Some(join) = thread.join.lock().take()
                && join.join().is_err()
            {
                tracing::error!("an ingest thread panicked");
            }
        }
        if let Some(guide) = self.guide.lock().take() {
            // It has nobody left to answer; a panic in there was told.
            let _ = guide.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}
