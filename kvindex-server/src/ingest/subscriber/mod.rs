//! A thread that follows streams: waits for all their sockets at once, reads what is ready, hands the commands
//! over. It sleeps in `zmq::poll` until something comes or a deadline passes.

mod effects;
mod link;
mod peers;
mod stream;
mod testimony;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kvindex_core::{BlockHasher, StreamId};
use parking_lot::Mutex;

use super::batcher::Batcher;
use super::counters::IngestCounters;
use super::guide::Ask;
use super::limits::MAX_BLOCKS_PER_COMMAND;
use super::sequencer::Resume;
use super::service::Wiring;
use super::status::Clock;
pub(super) use link::Link;
pub(super) use stream::Stream;
use stream::{Ready, Turn};

/// What a handle asks of a thread.
pub(super) enum Order {
    /// Follow this stream.
    Follow(Box<Stream>),
    /// Stop following; the answer comes when no more commands of it will.
    Leave(StreamId, SyncSender<()>),
    /// Let this stream's batches go to the index, which holds what is told here.
    Lead(StreamId, Option<Resume>),
    /// Only keep what comes on this stream; the answer comes when no more commands of it will.
    StandBy(StreamId, SyncSender<()>),
    /// This is where a stream's named engine was found, if it was.
    Found(StreamId, Option<SocketAddr>),
    /// End the thread.
    Stop,
}

/// Blocks that may gather within one turn before the index gets them.
const FLUSH_BLOCKS: usize = 4 * MAX_BLOCKS_PER_COMMAND;

/// The longest and shortest sleep between two looks at the streams' idle timers.
const TICK_MS: (u64, u64) = (50, 1_000);

/// The thread's state.
pub(super) struct Subscriber {
    pub(super) orders: Receiver<Order>,
    pub(super) wake: zmq::Socket,
    pub(super) wiring: Wiring,
    pub(super) counters: Arc<IngestCounters>,
    pub(super) clock: Clock,
    pub(super) idle_poll: Duration,
    pub(super) searches: Searches,
}

/// How a thread has named engines searched for, and is told.
pub(super) struct Searches {
    pub(super) asks: tokio::sync::mpsc::Sender<Ask>,
    pub(super) orders: SyncSender<Order>,
    pub(super) waker: Arc<Mutex<zmq::Socket>>,
}

impl Subscriber {
    /// Runs until told to stop.
    pub(super) fn run(self) {
        let mut streams: HashMap<StreamId, Stream> = HashMap::new();
        let (mut batcher, mut hasher) = (Batcher::default(), BlockHasher::new());
        let tick_ms = u64::try_from(self.idle_poll.as_millis() / 4).unwrap_or(TICK_MS.1);
        let tick_ms = tick_ms.clamp(TICK_MS.0, TICK_MS.1);
        let mut next_tick_ms = 0;
        loop {
            let ready = self.wait(&streams, next_tick_ms);
            if !self.obey(&mut streams) {
                return;
            }
            let now_ms = self.clock.now_ms();
            let tick = now_ms >= next_tick_ms;
            let mut touched = Vec::new();
            for (id, ready) in &ready {
                let Some(stream) = streams.get_mut(id) else {
                    continue; // left just now
                };
                self.serve(stream, *ready, (now_ms, tick.then_some(tick_ms)), &mut batcher, &mut hasher);
                self.search_for(stream, now_ms);
                touched.push(id);
                if batcher.blocks() >= FLUSH_BLOCKS {
                    self.flush(&mut batcher, now_ms, &mut streams, &mut touched);
                }
            }
            self.flush(&mut batcher, now_ms, &mut streams, &mut touched);
            if tick {
                next_tick_ms = now_ms + tick_ms;
            }
        }
    }

    /// Has a named engine searched for that is not connected, if it is time.
    fn search_for(&self, stream: &mut Stream, now_ms: u64) {
        let Some(host) = stream.question(now_ms) else { return };
        let id = stream.source.stream.clone();
        let (orders, waker) = (self.searches.orders.clone(), Arc::clone(&self.searches.waker));
        let answer = Box::new(move |address| {
            // Where there is no room, the stream asks again.
            if orders.try_send(Order::Found(id, address)).is_ok() {
                let _ = waker.lock().send(&b""[..], zmq::DONTWAIT);
            }
        });
        let _ = self.searches.asks.try_send(Ask { host, answer });
    }

    fn serve(
        &self,
        stream: &mut Stream,
        ready: Ready,
        (now_ms, tick_ms): (u64, Option<u64>),
        batcher: &mut Batcher,
        hasher: &mut BlockHasher,
    ) {
        let (counters, unix_ms) = (&*self.counters, unix_ms());
        let (applied, fresh) = (&self.wiring.applied, &self.wiring.fresh);
        let mut turn = Turn { now_ms, unix_ms, counters, batcher, hasher, applied, fresh };
        stream.turn(ready, &mut turn);
        if let Some(tick_ms) = tick_ms {
            stream.tick(tick_ms, &mut turn);
        }
    }

    /// Sleeps until a socket is ready or a timer is due; returns the streams whose turn it is.
    fn wait(&self, streams: &HashMap<StreamId, Stream>, next_tick_ms: u64) -> Vec<(StreamId, Ready)> {
        let mut items = vec![self.wake.as_poll_item(zmq::POLLIN)];
        streams.values().for_each(|stream| stream.poll_items(&mut items));
        let deadlines = streams.values().filter_map(Stream::deadline_ms);
        let due_ms = deadlines.fold(next_tick_ms, u64::min);
        let sleep_ms = due_ms.saturating_sub(self.clock.now_ms());
        let sleep_ms = if streams.is_empty() { TICK_MS.1 } else { sleep_ms };
        let sleep_ms = if streams.values().any(Stream::is_busy) { 0 } else { sleep_ms };
        if let Err(error) = zmq::poll(&mut items, i64::try_from(sleep_ms).unwrap_or(i64::MAX))
            && error != zmq::Error::EINTR
        {
            tracing::error!(%error, "cannot wait for sockets");
            // Without this a lasting failure would spin.
            std::thread::sleep(Duration::from_millis(TICK_MS.0));
        }
        let now_ms = self.clock.now_ms();
        let mut readable = items.iter().skip(1).map(zmq::PollItem::is_readable);
        let mut next = || readable.next().unwrap_or(false);
        let ready = streams.iter().filter_map(|(id, stream)| {
            let (monitor, subscription) = (next(), next());
            let replay = stream.has_replay_socket() && next();
            let due = now_ms >= next_tick_ms || stream.deadline_ms().is_some_and(|at| now_ms >= at);
            let turn = monitor || subscription || replay || due || stream.is_busy();
            turn.then(|| (id.clone(), Ready { monitor, subscription, replay }))
        });
        ready.collect()
    }

    /// Carries out what handles ask for; false when the thread shall end.
    fn obey(&self, streams: &mut HashMap<StreamId, Stream>) -> bool {
        while self.wake.recv_msg(zmq::DONTWAIT).is_ok() {}
        loop {
            match self.orders.try_recv() {
                Ok(Order::Follow(mut stream)) => {
                    self.search_for(&mut stream, self.clock.now_ms());
                    streams.insert(stream.source.stream.clone(), *stream);
                }
                Ok(Order::Found(id, address)) => {
                    if let Some(stream) = streams.get_mut(&id) {
                        stream.found(address, &self.counters);
                    }
                }
                Ok(Order::Leave(id, done)) => {
                    streams.remove(&id);
                    let _ = done.send(()); // the asker may have given up
                }
                Ok(Order::Lead(id, resume)) => {
                    streams.get_mut(&id).into_iter().for_each(|stream| stream.lead(resume));
                }
                Ok(Order::StandBy(id, done)) => {
                    if let Some(stream) = streams.get_mut(&id) {
                        stream.stand_by();
                        stream.publish_status();
                    }
                    let _ = done.send(()); // the asker may have given up
                }
                Ok(Order::Stop) | Err(std::sync::mpsc::TryRecvError::Disconnected) => return false,
                Err(std::sync::mpsc::TryRecvError::Empty) => return true,
            }
        }
    }

    /// Hands the turn's commands over, and only then lets the streams' status say that they are applied.
    fn flush(
        &self,
        batcher: &mut Batcher,
        now_ms: u64,
        streams: &mut HashMap<StreamId, Stream>,
        touched: &mut Vec<&StreamId>,
    ) {
        let commands = batcher.take();
        let mut refused = None;
        if !commands.is_empty() {
            let touched = touched.iter().filter_map(|id| streams.get(*id));
            touched.for_each(|stream| stream.status.mark_behind(now_ms));
            let started = Instant::now();
            refused = (self.wiring.sink)(commands).err();
            self.counters.taken.note(started.elapsed());
        }
        let mut fell_back = Vec::new();
        for id in touched.drain(..) {
            if let Some(stream) = streams.get_mut(id) {
                if stream.settle(refused.as_ref()) {
                    fell_back.push(id.clone());
                }
                stream.publish_status();
            }
        }
        if !fell_back.is_empty() {
            tracing::warn!(streams = fell_back.len(), "commands were not taken, their streams stand by");
            self.counters.fallen_back.add(fell_back.len() as u64);
            (self.wiring.fell_back)(&fell_back);
        }
    }
}

/// The wall clock, for what is only shown.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
