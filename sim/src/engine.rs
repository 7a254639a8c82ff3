//! A simulated engine: a cache that works and announces what it does in numbered batches, over a socket that loses
//! without a word, with a buffer to replay from; and that restarts, numbers and cache beginning anew.

use kvindex_core::{EventBatch, StreamId};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use xxhash_rust::xxh3::xxh3_64;

use crate::cache::{Cache, Truth};
use crate::dice::Dice;
use crate::question::clears_all;
use crate::world::World;

/// Messages on the way to one subscriber; more are lost, as on a PUB socket at its high-water mark.
const HIGH_WATER: usize = 4096;

/// One batch as an engine sends it.
#[derive(Debug, Clone)]
pub(crate) struct Publication {
    /// The engine's life.
    pub life: u64,
    /// The batch's number in it.
    pub seq: u64,
    /// Digest of what is sent.
    pub digest: u64,
    /// Its content.
    pub batch: Arc<EventBatch>,
}

/// What a subscriber hears.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// The connection is there.
    Connected,
    /// It is lost.
    Disconnected,
    /// A batch.
    Live(Publication),
    /// A batch of the replay with this number.
    Replayed(u64, Publication),
    /// The end of it.
    ReplayEnd(u64),
    /// It died.
    ReplayFailed(u64),
}

/// A message and when it arrives.
type Message = (Instant, Heard);

#[derive(Debug)]
struct Link {
    sender: mpsc::Sender<Message>,
    last_due: Instant,
    /// Before, nothing that is published reaches it.
    connected: Instant,
    /// Batches in a thousand that are lost on the way.
    lost: u32,
}

impl Link {
    /// Sends in order: nothing overtakes anything on one connection.
    fn send(&mut self, delay_ms: u64, heard: Heard) {
        self.last_due = self.last_due.max(Instant::now() + Duration::from_millis(delay_ms));
        // A full queue loses.
        let _ = self.sender.try_send((self.last_due, heard));
    }
}

#[derive(Debug)]
struct State {
    cache: Cache,
    life: u64,
    next: u64,
    buffer: VecDeque<Publication>,
    links: BTreeMap<u64, Link>,
    lost: u32,
    dice: Dice,
}

/// How an engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnginePlan {
    /// Its stream.
    pub stream: StreamId,
    /// Blocks that it can hold.
    pub capacity: usize,
    /// Batches that it can send again; none: it has no replay socket.
    pub buffer: usize,
    /// Milliseconds between two steps, from and below.
    pub step_ms: (u64, u64),
    /// Whether each life names blocks in its own way.
    pub salted: bool,
}

/// One rank of an engine.
#[derive(Debug)]
pub(crate) struct Engine {
    /// How it is.
    pub plan: EnginePlan,
    state: Mutex<State>,
}

/// A subscription of one node.
#[derive(Debug)]
pub(crate) struct Subscription {
    engine: Arc<Engine>,
    node: u64,
    receiver: mpsc::Receiver<Message>,
    next: Option<Message>,
}

impl Engine {
    /// An engine in its first life.
    #[must_use]
    pub(crate) fn new(plan: EnginePlan, dice: Dice) -> Arc<Self> {
        let cache = plan.cache(1);
        let (buffer, links) = (VecDeque::new(), BTreeMap::new());
        let state = State { cache, life: 1, next: 0, buffer, links, lost: 0, dice };
        Arc::new(Self { plan, state: Mutex::new(state) })
    }

    /// Works until the world's engines rest.
    pub(crate) async fn work(self: Arc<Self>, world: Arc<World>) {
        while !world.engines_rest() {
            let pause = {
                let (from, below) = self.plan.step_ms;
                self.state.lock().dice.within(from..below)
            };
            sleep(Duration::from_millis(pause)).await;
            self.step(&world);
        }
    }

    fn step(&self, world: &World) {
        let state = &mut *self.state.lock();
        let events = state.cache.step(&world.plan.prompts, &mut state.dice);
        if events.is_empty() {
            return;
        }
        let batch = Arc::new(EventBatch { engine_time_ms: 0, dp_rank: None, events });
        let text = format!("{} {} {} {batch:?}", self.plan.stream, state.life, state.next);
        let publication =
            Publication { life: state.life, seq: state.next, digest: xxh3_64(text.as_bytes()), batch };
        state.next += 1;
        world.judge.published(&self.plan.stream, &publication, state.cache.truth());
        if self.plan.buffer > 0 {
            if state.buffer.len() >= self.plan.buffer {
                state.buffer.pop_front();
            }
            state.buffer.push_back(publication.clone());
        }
        let now = Instant::now();
        for link in state.links.values_mut().filter(|link| link.connected <= now) {
            let delay = state.dice.within(0..4);
            if !state.dice.permille(link.lost.max(state.lost)) {
                link.send(delay, Heard::Live(publication.clone()));
            }
        }
    }

    /// The engine's process starts again: an empty cache, numbers from 0, and every connection breaks.
    pub(crate) fn restart(&self) -> u64 {
        let state = &mut *self.state.lock();
        state.life += 1;
        state.next = 0;
        state.buffer.clear();
        state.cache = self.plan.cache(state.life);
        for link in state.links.values_mut() {
            link.send(0, Heard::Disconnected);
            let again = state.dice.within(20..200);
            link.connected = Instant::now() + Duration::from_millis(again);
            link.send(again, Heard::Connected);
        }
        state.life
    }

    /// So many batches in a thousand are lost from now on, on the way to one node or to all.
    pub(crate) fn lose(&self, node: Option<u64>, lost: u32) {
        let state = &mut *self.state.lock();
        match node.map(|node| state.links.get_mut(&node)) {
            Some(link) => link.into_iter().for_each(|link| link.lost = lost),
            None => state.lost = lost,
        }
    }

    /// Nothing more is lost.
    pub(crate) fn lose_nothing(&self) {
        let state = &mut *self.state.lock();
        state.lost = 0;
        state.links.values_mut().for_each(|link| link.lost = 0);
    }

    /// Its life and the number of its next batch, and what it holds.
    pub(crate) fn now(&self) -> (u64, u64, Truth) {
        let state = self.state.lock();
        (state.life, state.next, state.cache.truth())
    }

    /// Connects a node; only one subscription a node lives at a time.
    pub(crate) fn subscribe(self: &Arc<Self>, node: u64) -> Subscription {
        let (sender, receiver) = mpsc::channel(HIGH_WATER);
        let state = &mut *self.state.lock();
        let again = state.dice.within(1..30);
        let now = Instant::now();
        let connected = now + Duration::from_millis(again);
        let mut link = Link { sender, last_due: now, connected, lost: 0 };
        link.send(again, Heard::Connected);
        state.links.insert(node, link);
        Subscription { engine: Arc::clone(self), node, receiver, next: None }
    }
}

impl EnginePlan {
    fn cache(&self, life: u64) -> Cache {
        let salt = if self.salted { life } else { 0 };
        Cache::new(salt, self.capacity, clears_all(&self.stream.worker))
    }
}

impl Subscription {
    /// Asks for everything from this number on; the answer is heard like all else, and after what was sent before.
    pub(crate) fn ask_again(&self, request: u64, from: u64) {
        let engine = Arc::clone(&self.engine);
        let node = self.node;
        let (life, delay) = {
            let state = &mut *engine.state.lock();
            (state.life, state.dice.within(1..8))
        };
        tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            engine.replay(node, life, request, from);
        });
    }

    /// The next message, if it is there already.
    pub(crate) fn hear_now(&mut self) -> Option<Heard> {
        if self.next.is_none() {
            self.next = self.receiver.try_recv().ok();
        }
        let due = self.next.as_ref()?.0;
        if due > Instant::now() { None } else { self.next.take().map(|(_, heard)| heard) }
    }
}

impl Engine {
    fn replay(&self, node: u64, life: u64, request: u64, from: u64) {
        let state = &mut *self.state.lock();
        let Some(link) = state.links.get_mut(&node) else { return };
        if state.life != life || self.plan.buffer == 0 || state.dice.percent(3) {
            link.send(1, Heard::ReplayFailed(request));
            return;
        }
        for publication in state.buffer.iter().filter(|publication| publication.seq >= from) {
            link.send(0, Heard::Replayed(request, publication.clone()));
        }
        link.send(1, Heard::ReplayEnd(request));
    }
}
